"""A tokenizer's file on the Hugging Face Hub, by name and revision."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NoReturn

from t5smith.errors import T5smithError

NAME = re.compile(r"(?:hf:)?(?P<name>[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?)(?:@(?P<revision>[^@\s]+))?")
"""`google/mt5-small`, `t5-small`, or either as `hf:NAME@REVISION`."""


def fetch(written: str, names: tuple[str, ...], field: str) -> Path:
    """Where the first of some files of a model lies, after it was fetched if need be.

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
    unreached: Exception | None = None
    for file in names:
        try:
            return Path(huggingface_hub.hf_hub_download(name, file, revision=revision))
        except errors.LocalEntryNotFoundError as error:
            unreached = error
        except errors.EntryNotFoundError:
            continue
        except errors.GatedRepoError:
            fix = f"accept its terms on https://huggingface.co/{name} and log in with `hf auth login`"
            raise T5smithError(f"{name} asks for consent before it is read", where=field, fix=fix) from None
        except errors.RepositoryNotFoundError:
            _refuse(f"there is no {name} here, nor on the Hugging Face Hub for you", field)
        except errors.RevisionNotFoundError:
            raise T5smithError(f"{name} has no revision {revision!r} on the Hub", where=field) from None
        except errors.HFValidationError as error:
            _refuse(f"there is no {name} here, and it is no name on the Hub ({error})", field)
        except OSError as error:
            unreached = error
            break
    if unreached is not None:
        raise T5smithError(
            f"there is no {name} here, and none could be fetched from the Hugging Face Hub",
            where=field,
            fix="go online once, for what was fetched is kept, or name a file; HF_HUB_OFFLINE=1 forbids it",
        ) from None
    raise T5smithError(f"{name} on the Hub has no tokenizer file", where=field, expected=", ".join(names))


def _refuse(what: str, field: str) -> NoReturn:
    fix = "name a folder or file that is there; for a private model log in with `hf auth login`"
    raise T5smithError(what, where=field, fix=fix) from None
