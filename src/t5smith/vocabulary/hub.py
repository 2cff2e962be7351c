"""A tokenizer's file on the Hugging Face Hub, by name and revision."""

from __future__ import annotations

import re
from pathlib import Path

from t5smith.base.errors import T5smithError

NAME = re.compile(r"(?:hf:)?(?P<name>[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?)(?:@(?P<revision>[^@\s]+))?")
"""`google/mt5-small`, `t5-small`, or either as `hf:NAME@REVISION`."""

SECONDS = 20.0
"""How long the Hub is waited for."""


def fetch(written: str, names: tuple[str, ...], field: str) -> Path:
    """Where the first of some files of a model lies, after it was fetched if need be.

    Where the Hub cannot be reached, or HF_HUB_OFFLINE is set, it is what was fetched before.

    Args:
      written: the model as it was asked for, see :data:`NAME`.
      names: files that will do, best first.
      field: what named it, for messages.

    Raises:
      T5smithError: no such model, revision or file there, no access, or the Hub cannot be reached.
    """
    import huggingface_hub
    from huggingface_hub import errors

    match = NAME.fullmatch(written)
    if match is None:
        raise T5smithError(
            f"{written!r} is neither a path nor a name on the Hugging Face Hub",
            where=field,
            expected="a folder, a tokenizer.json, a .model file, a name as google/mt5-small, or bytes",
        )
    name, revision = match["name"], match["revision"]
    log_in = "log in with `hf auth login`"
    try:
        # Asked once: the call that fetches a file would ask again for half a minute, and tell each time.
        info = huggingface_hub.HfApi().model_info(name, revision=revision, timeout=SECONDS)
        there = {entry.rfilename for entry in info.siblings or ()}
        for file in names:
            if file in there:
                return Path(huggingface_hub.hf_hub_download(name, file, revision=revision))
    except errors.GatedRepoError:
        fix = f"accept its terms on its page there and {log_in}"
        raise T5smithError(f"{name} on the Hub asks for consent first", where=field, fix=fix) from None
    except errors.RepositoryNotFoundError:
        raise T5smithError(
            f"there is no {name} here, nor on the Hugging Face Hub",
            where=field,
            fix=f"name a folder or file that is there; if the model is private, {log_in}",
        ) from None
    except errors.RevisionNotFoundError:
        raise T5smithError(
            f"{name} on the Hub has no revision {revision!r}",
            where=field,
            expected="a branch, a tag or a commit of it",
        ) from None
    except errors.HFValidationError as error:
        raise T5smithError(
            f"there is no {name} here, and it is no name on the Hugging Face Hub ({error})",
            where=field,
            expected="a folder or file that is there, or a name as google/mt5-small",
        ) from None
    except Exception as error:  # whatever its HTTP library raises
        return _fetched(name, names, revision, field, error)
    raise T5smithError(
        f"{name} on the Hub has no tokenizer", where=field, expected=f"one of {', '.join(names)}"
    )


def _fetched(name: str, names: tuple[str, ...], revision: str | None, field: str, error: Exception) -> Path:
    """What was fetched before."""
    import huggingface_hub

    for file in names:
        found = huggingface_hub.try_to_load_from_cache(name, file, revision=revision)
        if isinstance(found, str):
            return Path(found)
    why = (str(error).strip().splitlines() or [type(error).__name__])[0]
    raise T5smithError(
        f"there is no {name} here, and the Hugging Face Hub cannot be asked for it ({why})",
        where=field,
        fix="name a folder or file that is there, or go online once: what was fetched is kept",
    ) from None
