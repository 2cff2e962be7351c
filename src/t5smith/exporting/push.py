"""`t5smith export --push`: an exported folder as a repository on the Hugging Face Hub.

A folder becomes one commit, so a revision has a whole model or none. Its large files are uploaded before,
one after the other. The Hub keeps what is uploaded by its hash: a second start uploads only what is missing.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Generator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

from t5smith.base.errors import T5smithError
from t5smith.base.hub import LOG_IN, TIMEOUT_S, first_line
from t5smith.base.progress import info, progress, warn
from t5smith.base.wrapping import pluralize

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import ModelInfo

FLAG = "--push"
MAIN = "main"
SETTINGS = "t5smith.json"
"""The file that shows that t5smith wrote a folder."""
SOMETIMES = (
    *("model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json"),
    *("generation_config.json", "spiece.model", "added_tokens.json"),
)
"""Files of an export that another export of the same model may not have. They must not stay in its place."""
_AGAIN = "run the same command again: what is uploaded already is not uploaded again"


@dataclass(frozen=True)
class Repository:
    """A repository on the Hub that folders are pushed to.

    Attributes:
      name: with the user or organisation before it.
      public: whether everybody may read it.
    """

    name: str
    public: bool

    @classmethod
    def find(cls, name: str, *, public: bool) -> Repository:
        """Find a repository of the Hub, or a free name. Nothing is changed there.

        Args:
          name: `USER/NAME`, or `NAME` for the user's own.
          public: whether everybody may read it.

        Raises:
          T5smithError: it is no name of a repository, there is no token or one that may not write, the Hub
            cannot be reached, or a repository exists that has another visibility or a model of another kind.
        """
        from huggingface_hub.utils import validate_repo_id

        with _push_errors(name):
            validate_repo_id(name)
            who = _api().whoami()
            if who.get("auth", {}).get("accessToken", {}).get("role") == "read":
                raise _not_allowed(name)
            name = name if "/" in name else f"{who['name']}/{name}"
            found = _look_up(name)
        if found is None:
            return cls(name, public)
        if bool(found.private) == public:
            raise _other_visibility(name, public)
        there = {entry.rfilename for entry in found.siblings or ()}
        if SETTINGS not in there and any(_is_of_a_model(file) for file in there):
            what = f"{name} on the Hub has a model that t5smith did not write"
            raise T5smithError(what, where=FLAG, fix="choose another name, or delete the files there first")
        return cls(name, public)

    def push(self, folder: Path, branch: str = MAIN) -> None:
        """Upload the files of a folder and commit them to a branch. The repository is made if it is new.

        A new branch begins with the first commit of the repository, which has no model: until its own is
        complete, it has none.

        Raises:
          T5smithError: it was interrupted, or the Hub rejects it.
        """
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        api, files = _api(), {path.name: path for path in sorted(folder.iterdir()) if path.is_file()}
        total = sum(path.stat().st_size for path in files.values())
        with _push_errors(self.name), _quiet(), progress("export", total, "bytes") as bar:
            if _look_up(self.name) is None:
                api.create_repo(self.name, private=not self.public)
            if branch != MAIN:
                first = api.list_repo_commits(self.name)[-1].commit_id
                api.create_branch(self.name, branch=branch, revision=first, exist_ok=True)
            before = api.model_info(self.name, revision=branch, timeout=TIMEOUT_S)
            additions = [CommitOperationAdd(name, path) for name, path in files.items()]
            for one in additions:
                with bar.during(f"pushing {one.path_in_repo}"):
                    api.preupload_lfs_files(self.name, [one], revision=branch, free_memory=False)
                bar.advance(one.upload_info.size)
            gone = {entry.rfilename for entry in before.siblings or ()} - files.keys()
            stale = [name for name in sorted(gone) if any(fnmatch(name, one) for one in SOMETIMES)]
            commit = api.create_commit(
                self.name,
                [*additions, *map(CommitOperationDelete, stale)],
                commit_message=f"{folder.name}, exported by t5smith",
                revision=branch,
            )
        self._report(branch, len(files), unchanged=commit.oid == before.sha)

    def _report(self, branch: str, files: int, *, unchanged: bool) -> None:
        place = f"{_api().endpoint}/{self.name}" + ("" if branch == MAIN else f"/tree/{branch}")
        what = "unchanged" if unchanged else pluralize(files, "file")
        info(f"export    pushed to {place} ({'public' if self.public else 'private'}): {what}")


def _api() -> HfApi:
    import huggingface_hub

    return huggingface_hub.HfApi(library_name="t5smith")


def _look_up(name: str) -> ModelInfo | None:
    """What the Hub says of a repository; None if there is none that this token may see."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        return _api().model_info(name, timeout=TIMEOUT_S)
    except RepositoryNotFoundError:
        return None


def _is_of_a_model(file: str) -> bool:
    endings = (".safetensors", ".bin", ".msgpack", ".h5", ".gguf", ".onnx", ".pt")
    return file == "config.json" or file.endswith(endings)


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """Keep the bars and messages of the Hub's library off the screen, but for warnings to a user."""
    from huggingface_hub.utils import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
        logging,
    )

    level, bars = logging.get_verbosity(), not are_progress_bars_disabled()
    logging.set_verbosity_error()
    if bars:
        disable_progress_bars()
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            enable_progress_bars()
    for one in caught:
        if one.category is UserWarning:  # not those for programmers
            warn(" ".join(str(one.message).split()))


def _other_visibility(name: str, public: bool) -> T5smithError:
    state, settings = ("private" if public else "public"), f"{_api().endpoint}/{name}/settings"
    fix = "leave out --public" if public else "add --public to push to it all the same"
    return T5smithError(
        f"{name} on the Hub exists and is {state}",
        where="--public" if public else FLAG,
        fix=f"{fix}, change it at {settings}, or choose another name",
    )


def _not_allowed(name: str) -> T5smithError:
    fix = f"make a token that may write at {_api().endpoint}/settings/tokens, and {LOG_IN}"
    return T5smithError(f"the token of the Hub may not write to {name}", where=FLAG, fix=fix)


@contextlib.contextmanager
def _push_errors(name: str) -> Generator[None]:
    """Turn what the Hub's library raises into errors that help.

    Raises:
      T5smithError: whatever went wrong on the Hub or on the way to it.
    """
    from huggingface_hub import errors

    try:
        yield
        return
    except (T5smithError, AttributeError, TypeError):
        raise
    except errors.LocalTokenNotFoundError:
        what, fix = "there is no token of the Hugging Face Hub", f"{LOG_IN}, or set HF_TOKEN"
    except errors.HFValidationError:
        expected = "USER/NAME, such as ola/t5-nn, or NAME alone for your own user"
        raise T5smithError(
            f"{name!r} is not the name of a repository", where=FLAG, expected=expected
        ) from None
    except errors.OfflineModeIsEnabled:
        what, fix = "the Hugging Face Hub is switched off by HF_HUB_OFFLINE", "unset it"
    except Exception as error:  # whatever its HTTP library raises
        found = _cause(error)
        status = found.response.status_code if isinstance(found, errors.HfHubHTTPError) else None
        said = (getattr(found, "server_message", None) or "").strip() or first_line(found)
        if status == 403:
            raise _not_allowed(name) from None
        if status == 401:
            what, fix = "the token of the Hugging Face Hub is not valid", f"{LOG_IN} again, or set HF_TOKEN"
        elif status is not None or isinstance(found, ValueError):
            what, fix = f"the Hugging Face Hub rejects this ({said.splitlines()[0]})", _AGAIN
        else:
            what, fix = f"the Hugging Face Hub cannot be reached ({said})", _AGAIN
    raise T5smithError(what, where=FLAG, fix=fix)


def _cause(error: BaseException) -> BaseException:
    """What an error of the library was raised for: the answer of the Hub if there is one."""
    from huggingface_hub.errors import HfHubHTTPError

    found: BaseException | None = error
    while found is not None and not isinstance(found, HfHubHTTPError):
        found = found.__cause__
    if found is not None:
        return found
    return error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
