"""The Hugging Face Hub: names on it, one quick question, and what to do without it."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Generator
from typing import Literal

from t5smith.base.errors import T5smithError

Kind = Literal["model", "dataset"]
TIMEOUT_S = 20.0
_NAMESPACED = re.compile(r"[A-Za-z0-9][\w-]*/[A-Za-z0-9][\w.-]*")
NAME = re.compile(r"(?:hf:)?(?P<name>[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?)(?:@(?P<revision>[^@\s]+))?")
"""`google/mt5-small`, `t5-small`, or one of them as `hf:NAME@REVISION`."""
LOG_IN = "log in with `hf auth login`"
_NOUN = {"model": "model", "dataset": "data set"}


class HubUnreachable(Exception):  # noqa: N818 - it is no fault of the program
    """The Hub cannot be reached. Its text is the reason, in one line."""


def hub_name(name: str, field: str, expected: str) -> tuple[str, str | None]:
    """The name of a model on the Hub and its revision, or None; see :data:`NAME`.

    Args:
      name: as it was written; nothing is there under it as a path.
      field: the setting or flag with it, for messages.
      expected: what may be written there.

    Raises:
      T5smithError: it has another form.
    """
    if (match := NAME.fullmatch(name)) is None:
        what = f"{name!r} is neither a path nor a name on the Hugging Face Hub"
        raise T5smithError(what, where=field, expected=expected)
    return match["name"], match["revision"]


def not_fetched(name: str, field: str, error: HubUnreachable) -> T5smithError:
    """The error for a model that is neither here nor in the cache, while the Hub cannot be reached."""
    return T5smithError(
        f"{name} was not found here, and the Hugging Face Hub cannot be reached ({error})",
        where=field,
        fix=f"offline? Download it first, with `{download('model', name)}`, and name that folder; what was "
        "fetched once is kept",
    )


def download(kind: Kind, name: str) -> str:
    """The command that copies a model or data set from the Hub into a folder."""
    what = "--repo-type dataset " if kind == "dataset" else ""
    return f"hf download {what}{name} --local-dir {name.rpartition('/')[2]}"


def download_first(name: str) -> str | None:
    """The fix for a folder that is not there, if its name is like that of a model on the Hub."""
    if not _NAMESPACED.fullmatch(name) or os.path.exists(name.partition("/")[0]):
        return None
    return (
        f"if it is a model on the Hugging Face Hub, download it with `{download('model', name)}` "
        "and name that folder"
    )


def files_on_hub(kind: Kind, name: str, field: str, revision: str | None = None) -> set[str]:
    """The names of all files of a model or data set. This is one request, without retries.

    The libraries ask again and again for half a minute, with a message each time.

    Args:
      kind: `model` or `dataset`.
      name: such as google/mt5-small.
      field: the setting or flag with the name, for messages.
      revision: a branch, tag or commit.

    Raises:
      T5smithError, HubUnreachable: as :func:`hub_errors`.
    """
    import huggingface_hub

    hub = huggingface_hub.HfApi()
    ask = hub.model_info if kind == "model" else hub.dataset_info
    with hub_errors(kind, name, field, revision):
        return {entry.rfilename for entry in ask(name, revision=revision, timeout=TIMEOUT_S).siblings or ()}


@contextlib.contextmanager
def hub_errors(kind: Kind, name: str, field: str, revision: str | None = None) -> Generator[None]:
    """Turn what the Hub's library raises into errors that help; the arguments are those of the request.

    Raises:
      T5smithError: there is no such model, data set or revision, or access to it must be requested.
      HubUnreachable: no connection, or HF_HUB_OFFLINE is set.
    """
    from huggingface_hub import errors

    noun, expected = _NOUN[kind], None
    try:
        yield
        return
    except (T5smithError, HubUnreachable):
        raise
    except errors.GatedRepoError:
        what = f"access to {name} on the Hub must be requested first"
        fix = f"accept its terms on its page there and {LOG_IN}"
    except errors.RepositoryNotFoundError:
        what = f"{name} was found neither here nor on the Hugging Face Hub"
        fix = f"name an existing folder or file; if the {noun} is private, {LOG_IN}"
    except errors.RevisionNotFoundError:
        what, fix = f"{name} on the Hub has no revision {revision!r}", None
        expected = "one of its branches, tags or commits"
    except errors.HFValidationError as error:
        what = f"{name} was not found here, and it is not a valid name on the Hugging Face Hub ({error})"
        example = "google/mt5-small" if kind == "model" else "oscar-corpus/OSCAR-2301"
        expected, fix = f"an existing folder or file, or a name such as {example}", None
    except Exception as error:  # whatever its HTTP library raises
        raise HubUnreachable(first_line(error)) from None
    raise T5smithError(what, where=field, expected=expected, fix=fix)


def first_line(error: BaseException) -> str:
    """The first line of an exception's text, or its type if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
