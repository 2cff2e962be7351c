"""An artifact is a folder with a manifest: what made it, from what, and a hash of every file in it.

The folder is built under a temporary name and renamed into place after its manifest was written, so a
folder that has a manifest is whole. One without is unfinished work: it is redone, never trusted. An
artifact that is replaced moves to `previous/` beside it; nothing a run made is deleted.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from t5smith import __version__
from t5smith.base.errors import T5smithError
from t5smith.base.progress import warn

MANIFEST = "manifest.json"
UNFINISHED = ".unfinished"
FACTS_0_1 = {
    "asked": "requested",
    "left_out": "skipped_records",
    "passed_over": "skipped_batches",
    "left_out_in_a_row": "skipped_in_a_row",
}
"""Names of facts in manifests of t5smith 0.1, and what they are called now."""
_CHUNK = 1 << 20


def fingerprint(value: object) -> str:
    """SHA-256 of a value's canonical JSON: equal settings, equal fingerprint."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, as hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


@dataclass(frozen=True)
class Manifest:
    """What a folder holds and what made it.

    Attributes:
      kind: `vocab`, `store`, `checkpoint`, `evaluation`, `model`.
      key: fingerprint of all the folder depends on; equal keys mean the work need not be done again.
      inputs: the settings and input fingerprints behind the key, readable.
      facts: what was found on the way: counts, sizes, warnings.
      files: relative path -> {bytes, sha256}.
    """

    kind: str
    key: str
    inputs: dict[str, Any]
    facts: dict[str, Any]
    files: dict[str, dict[str, Any]]
    version: str = __version__


def read_manifest(folder: Path, kind: str, *, check_hashes: bool = True) -> Manifest:
    """Read and verify a folder's manifest.

    Raises:
      T5smithError: no manifest (unfinished), another kind, or a file missing, truncated or altered.
    """
    path = folder / MANIFEST
    try:
        manifest = _parsed(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise T5smithError(
            f"there is no finished {kind} here",
            where=folder,
            fix=f"make it with `t5smith {verb_for(kind)} RECIPE`",
        ) from None
    except ValueError as error:
        raise T5smithError(
            f"damaged manifest ({error})", where=path, fix=f"delete {folder} and make it again"
        ) from None
    except OSError as error:
        raise T5smithError(f"cannot be read ({error.strerror})", where=path) from None
    if manifest.kind != kind:
        raise T5smithError(f"this is a {manifest.kind}", where=folder, expected=f"a {kind}")
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        # Hashing lets go of the interpreter: a store of many shards is read on all cores.
        found = threads.map(
            lambda name: _differs(folder / name, manifest.files[name], check_hashes), manifest.files
        )
        for name, what in zip(manifest.files, found, strict=True):
            if what:
                threads.shutdown(cancel_futures=True)
                raise T5smithError(what, where=folder / name, fix=f"delete {folder} and make it again")
    return manifest


def _parsed(text: str) -> Manifest:
    """A manifest from its JSON; ValueError says what is wrong with it."""
    tree = cast("object", json.loads(text))
    if isinstance(tree, dict) and "made_from" in tree:
        tree = _from_0_1(cast("dict[str, Any]", tree))
    fields = {"kind": str, "key": str, "inputs": dict, "facts": dict, "files": dict, "version": str}
    if not isinstance(tree, dict) or tree.keys() != fields.keys():
        raise ValueError(f"its keys are not {', '.join(fields)}")
    tree = cast("dict[str, Any]", tree)
    for name, expected in fields.items():
        if not isinstance(tree[name], expected):
            raise ValueError(f"{name} is not a {expected.__name__}")
    for name, entry in tree["files"].items():
        if not isinstance(entry, dict) or not {"bytes", "sha256"} <= entry.keys():
            raise ValueError(f"no size and hash for {name}")
    return Manifest(**tree)


def _from_0_1(tree: dict[str, Any]) -> dict[str, Any]:
    """A manifest that t5smith 0.1 wrote, in today's names; what it says is the same."""
    tree = {"inputs" if name == "made_from" else name: value for name, value in tree.items()}
    if isinstance(tree.get("facts"), dict):
        tree["facts"] = {FACTS_0_1.get(name, name): value for name, value in tree["facts"].items()}
    return tree


def _differs(file: Path, entry: Mapping[str, Any], check_hash: bool) -> str | None:
    """How a file differs from what was written, or None."""
    try:
        size = file.stat().st_size if file.is_file() else None
        same = size == entry["bytes"] and (not check_hash or file_hash(file) == entry["sha256"])
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if size is None:
        return "missing"
    return None if same else "not the file that was written (its hash or size differs)"


def verb_for(kind: str) -> str:
    """The command that makes an artifact of this kind."""
    return {"store": "prepare", "checkpoint": "train", "evaluation": "evaluate", "model": "export"}.get(
        kind, kind
    )


def find_up_to_date(folder: Path, kind: str, key: str) -> Manifest | None:
    """The manifest of a finished, undamaged artifact made from exactly this key, else None.

    Damage is said, for it means that the work is done again.
    """
    work = folder.with_name(folder.name + UNFINISHED)
    try:
        if not folder.exists() and (work / MANIFEST).is_file():
            # The process died between setting aside the old and renaming the new, which is whole.
            work.rename(folder)
        if not (folder / MANIFEST).is_file():
            return None
        manifest = read_manifest(folder, kind)
    except T5smithError as error:
        warn(f"{error.where}: {error.what}; the {kind} is made again")
        return None
    return manifest if manifest.key == key else None


@contextlib.contextmanager
def building(folder: Path, kind: str, inputs: Mapping[str, Any], facts: dict[str, Any]) -> Generator[Path]:
    """Build an artifact: yields an empty folder to fill; on leaving it is sealed and moved into place.

    `facts` may be filled while building. Whatever stood at `folder` moves to `previous/`. If the body
    raises, the half-built folder is removed and what stood there is left as it was.

    Raises:
      T5smithError: the folder cannot be written to, or the disk is full.
    """
    work = folder.with_name(folder.name + UNFINISHED)
    with disk_errors(folder):
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        try:
            yield work
            seal(work, kind, inputs, facts)
            replace_atomically(work, folder)
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise


def replace_atomically(work: Path, folder: Path) -> None:
    """Set aside what stands at `folder` and put `work` there; if that fails, all is as before."""
    before = set_aside(folder)
    try:
        work.rename(folder)
    except BaseException:
        if before is not None:
            before.rename(folder)
        raise
    fsync(folder.parent)


def seal(
    folder: Path,
    kind: str,
    inputs: Mapping[str, Any],
    facts: Mapping[str, Any],
    known: Mapping[str, dict[str, Any]] | None = None,
) -> Manifest:
    """Hash every file whose entry is not known, flush all to disk, and write the manifest last."""
    files: dict[str, dict[str, Any]] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        files[name] = (known or {}).get(name) or {"bytes": path.stat().st_size, "sha256": file_hash(path)}
        fsync(path)
    manifest = Manifest(kind, fingerprint(inputs), dict(inputs), dict(facts), files)
    write_atomically(folder / MANIFEST, json.dumps(vars(manifest), indent=1, ensure_ascii=False) + "\n")
    for path in (*(p for p in folder.rglob("*") if p.is_dir()), folder):
        fsync(path)
    return manifest


def set_aside(folder: Path) -> Path | None:
    """Move what stands at `folder` to `previous/NAME-N` beside it; where it went, or None."""
    if not folder.exists():
        return None
    shelf = folder.parent / "previous"
    shelf.mkdir(exist_ok=True)
    number = 1
    while (shelf / f"{folder.name}-{number}").exists():
        number += 1
    return folder.rename(shelf / f"{folder.name}-{number}")


def write_atomically(path: Path, text: str) -> None:
    """Write a small file so that a reader sees the old or the new one, never a part."""
    temporary = path.with_name(path.name + UNFINISHED)
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def fsync(path: Path) -> None:
    """Make a file or a folder's entries survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_ELSEWHERE = "choose a run_dir you may write to"
_MORE_SPACE = "free some space and start again; finished work is kept"
_REFUSALS = {
    errno.EACCES: ("no permission to write", _ELSEWHERE),
    errno.EPERM: ("no permission to write", _ELSEWHERE),
    errno.EROFS: ("the file system is read-only", _ELSEWHERE),
    errno.ENOSPC: ("the disk is full", _MORE_SPACE),
    errno.EDQUOT: ("your disk quota is used up", _MORE_SPACE),
    errno.EFBIG: ("the file grew past the allowed size", "raise the limit (ulimit -f) and start again"),
    errno.ENOTDIR: ("a file stands where a folder is needed", _ELSEWHERE),
    errno.EEXIST: ("a file stands where a folder is needed", _ELSEWHERE),
}


@contextlib.contextmanager
def disk_errors(place: Path) -> Generator[None]:
    """Turn what the disk refuses into one line that names the place.

    Raises:
      T5smithError: no permission, read-only, full disk or quota, file too large.
    """
    try:
        yield
    except T5smithError:
        raise
    except Exception as error:
        code = _refusal(error)
        if code is None:
            raise
        what, fix = _REFUSALS[code]
        where = error.filename if isinstance(error, OSError) and error.filename else place
        raise T5smithError(what, where=where, fix=fix) from error


def _refusal(error: Exception) -> int | None:
    """The errno behind an exception, if it is one that a user can mend.

    tokenizers, safetensors and tensorstore raise exceptions of their own whose text ends in the system's
    words and its number; numpy's say neither, only how much of what it wanted to write was written.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno if error.errno in _REFUSALS else None
    text = str(error)
    if re.search(r"\d+ requested and \d+ written|Not enough free space to write", text):
        return errno.ENOSPC
    found = re.search(r"os[ _]error(?:[ _]code)?[ =]'?(\d+)", text)
    code = int(found[1]) if found else 0
    return code if code in _REFUSALS else None
