"""Artifacts: folders with a manifest that records their settings, their inputs, and a hash of every file.

An artifact is built under a temporary name and renamed after its manifest was written, so a folder with a
manifest is complete. A folder without one is unfinished: it is built again, never trusted. A replaced
artifact moves to `previous/` beside it; nothing that a run made is deleted.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from t5smith import __version__
from t5smith.base.disk import UNFINISHED, disk_errors, fsync, write_atomically
from t5smith.base.errors import T5smithError
from t5smith.base.phase import phase
from t5smith.base.progress import warn

MANIFEST = "manifest.json"
FLUSHED_AT_ONCE = 8
PREVIOUS = "previous"
"""The folder beside an artifact that replaced ones move to."""
FACTS_0_1 = {
    "asked": "requested",
    "left_out": "skipped_records",
    "passed_over": "skipped_batches",
    "left_out_in_a_row": "skipped_in_a_row",
}
"""Names of facts in manifests of t5smith 0.1 -> their names now."""


def fingerprint(value: object) -> str:
    """SHA-256 of a value's canonical JSON: equal settings have equal fingerprints."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Manifest:
    """The contents of an artifact, and what it was made from.

    Attributes:
      kind: `vocab`, `store`, `checkpoint`, `evaluation`, `model`.
      key: fingerprint of `inputs`; if it is unchanged, the artifact is up to date.
      inputs: all settings and input fingerprints that the artifact depends on.
      facts: results of the work: counts, sizes, warnings.
      files: relative path -> {bytes, sha256}.
    """

    kind: str
    key: str
    inputs: dict[str, Any]
    facts: dict[str, Any]
    files: dict[str, dict[str, Any]]
    version: str = __version__


def read_manifest(folder: Path, kind: str, *, check_hashes: bool = True) -> Manifest:
    """Read an artifact's manifest and check its files.

    Raises:
      T5smithError: no manifest, another kind of artifact, or a file that is missing or was changed.
    """
    path, again = folder / MANIFEST, _way_out(folder, kind)
    try:
        manifest = _parse_manifest(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise T5smithError(
            f"no finished {kind}",
            where=folder,
            fix=f"make it with `t5smith {verb_for(kind)} RECIPE`",
        ) from None
    except ValueError as error:
        raise T5smithError(f"damaged manifest ({error})", where=path, fix=again) from None
    except OSError as error:
        raise T5smithError(f"cannot be read ({error.strerror})", where=path) from None
    if manifest.kind != kind:
        raise T5smithError(f"this is a {manifest.kind}", where=folder, expected=f"a {kind}")
    with (
        phase(verb_for(kind), f"checking {folder}", at_once=False),
        ThreadPoolExecutor(os.cpu_count()) as threads,
    ):
        # Hashing releases the GIL, so the shards of a store are hashed on all cores.
        found = threads.map(
            lambda name: _differs(folder / name, manifest.files[name], check_hashes), manifest.files
        )
        for name, what in zip(manifest.files, found, strict=True):
            if what:
                threads.shutdown(cancel_futures=True)
                raise T5smithError(what, where=folder / name, fix=again)
    return manifest


def _way_out(folder: Path, kind: str) -> str:
    """What helps against a damaged artifact."""
    if kind == "checkpoint":
        return "restore it from a copy; without it, training continues from the checkpoint before"
    return f"make it again with `t5smith {verb_for(kind)} RECIPE`, which moves {folder.name} to {PREVIOUS}/"


def _parse_manifest(text: str) -> Manifest:
    """A manifest from its JSON; the message of a ValueError says what is wrong."""
    tree = cast("object", json.loads(text))
    if isinstance(tree, dict) and "made_from" in tree:
        tree = _from_0_1(cast("dict[str, Any]", tree))
    fields = {"kind": str, "key": str, "inputs": dict, "facts": dict, "files": dict, "version": str}
    if not isinstance(tree, dict) or tree.keys() != fields.keys():
        raise ValueError(f"its keys are not {', '.join(fields)}")
    tree = cast("dict[str, Any]", tree)
    if wrong := [name for name, expected in fields.items() if not isinstance(tree[name], expected)]:
        raise ValueError(f"{wrong[0]} is not a {fields[wrong[0]].__name__}")
    for name, entry in tree["files"].items():
        if not isinstance(entry, dict) or not {"bytes", "sha256"} <= entry.keys():
            raise ValueError(f"no size and hash for {name}")
    return Manifest(**tree)


def _from_0_1(tree: dict[str, Any]) -> dict[str, Any]:
    """A manifest of t5smith 0.1 with today's names."""
    tree = {"inputs" if name == "made_from" else name: value for name, value in tree.items()}
    if isinstance(tree.get("facts"), dict):
        tree["facts"] = {FACTS_0_1.get(name, name): value for name, value in tree["facts"].items()}
    return tree


def _differs(file: Path, entry: Mapping[str, Any], check_hash: bool) -> str | None:
    """How a file differs from its entry in the manifest; None if it does not."""
    try:
        if not file.is_file():
            return "missing"
        same = file.stat().st_size == entry["bytes"]
        same = same and (not check_hash or file_hash(file) == entry["sha256"])
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return None if same else "changed since it was written (its hash or size differs)"


def verb_for(kind: str) -> str:
    """The command that makes an artifact of this kind."""
    verbs = {"store": "prepare", "checkpoint": "train", "evaluation": "evaluate", "model": "export"}
    return (verbs | {"imported": "import"}).get(kind, kind)


def find_up_to_date(folder: Path, kind: str, key: str) -> Manifest | None:
    """The manifest of a finished, undamaged artifact with this key; None if there is none.

    Damage causes a warning, because the artifact is built again.
    """
    work = folder.with_name(folder.name + UNFINISHED)
    try:
        if not folder.exists() and (work / MANIFEST).is_file():
            # The process died after the old artifact was set aside; the new one is complete.
            work.rename(folder)
        if not (folder / MANIFEST).is_file():
            return None
        manifest = read_manifest(folder, kind)
    except T5smithError as error:
        warn(f"{error.where}: {error.what}; the {kind} is built again")
        return None
    return manifest if manifest.key == key else None


@contextlib.contextmanager
def building(folder: Path, kind: str, inputs: Mapping[str, Any], facts: dict[str, Any]) -> Generator[Path]:
    """Build an artifact: yields an empty folder; when the body ends, it is sealed and moved to `folder`.

    `facts` can be filled in the body. An existing artifact moves to `previous/`. If the body raises, the
    unfinished folder is removed and the existing artifact stays.

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
    """Set aside the existing `folder` and move `work` there; if that fails, nothing is changed."""
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
    """Hash every file without an entry in `known`, flush all files to disk, and write the manifest last."""

    def entry(path: Path) -> tuple[str, dict[str, Any]]:
        name = path.relative_to(folder).as_posix()
        found = (known or {}).get(name) or {"bytes": path.stat().st_size, "sha256": file_hash(path)}
        fsync(path)
        return name, found

    # A disk flushes many files at once in a tenth of the time that it takes one after the other.
    with (
        phase(verb_for(kind), "writing to disk", at_once=False),
        ThreadPoolExecutor(FLUSHED_AT_ONCE) as threads,
    ):
        files = dict(threads.map(entry, sorted(p for p in folder.rglob("*") if p.is_file())))
    manifest = Manifest(kind, fingerprint(inputs), dict(inputs), dict(facts), files)
    write_atomically(folder / MANIFEST, json.dumps(vars(manifest), indent=1, ensure_ascii=False) + "\n")
    for path in [folder, *(p for p in folder.rglob("*") if p.is_dir())]:
        fsync(path)
    return manifest


def set_aside(folder: Path) -> Path | None:
    """Move `folder`, if it exists, to `previous/NAME-N` beside it; returns the new path or None."""
    if not folder.exists():
        return None
    shelf = folder.parent / PREVIOUS
    shelf.mkdir(exist_ok=True)
    return folder.rename(free_place(folder))


def free_place(folder: Path) -> Path:
    """The first of `previous/NAME-1`, `NAME-2`, ... beside a folder that does not exist yet."""
    names = (folder.parent / PREVIOUS / f"{folder.name}-{number}" for number in itertools.count(1))
    return next(name for name in names if not name.exists())
