"""Shards of the store in place whose text has not changed: a grown text takes them over.

A shard depends on its files and on the settings, not on other files. So the notes of the shards of a finished
store are kept beside it, and `prepare` starts with the shards of all units that the new plan has as well.
With steps that compare documents no shard is taken over: another file may change any of them.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from t5smith.base.artifact import MANIFEST, file_hash, fingerprint, write_atomically
from t5smith.base.progress import info
from t5smith.store.plan import Plan, Unit
from t5smith.store.workspace import SPLITS, Workspace, write
from t5smith.text.corpus import CorpusFiles

UNITS = "units.json"
"""The file of kept notes that is written last: what each unit was made from, and of which store."""
_TEXT = ("train", "valid", "corpora", "valid_corpora")


def kept_notes(store: Path) -> Path:
    """The folder of notes beside a finished store."""
    return store.with_name(f"{store.name}.shards")


def keep_notes(
    store: Path, workspace: Workspace, plan: Plan, files: CorpusFiles, inputs: Mapping[str, Any]
) -> None:
    """Keep the notes of the shards of a store that was finished a moment ago.

    Args:
      store: its folder.
      workspace: with the notes, which are moved.
      plan: of its shards.
      files: of its text.
      inputs: of its manifest.
    """
    kept = kept_notes(store)
    workspace.notes.rename(kept)
    names = _identities(plan, files, inputs)
    made = [[unit.number, name, unit.blocks] for unit, name in zip(plan.units, names, strict=True)]
    write_atomically(kept / UNITS, json.dumps({"store": _seal(store), "units": made}))


def take_over(
    store: Path, workspace: Workspace, plan: Plan, files: CorpusFiles, inputs: Mapping[str, Any]
) -> None:
    """Link the shards of the store in place that the plan has too into an unfinished store.

    Args:
      store: the folder of the store in place.
      workspace: of the unfinished store.
      plan: of its shards.
      files: of its text.
      inputs: for its manifest.
    """
    kept = kept_notes(store)
    if not (kept / UNITS).is_file():
        return
    found = json.loads((kept / UNITS).read_text(encoding="utf-8"))
    if found["store"] != _seal(store) or _notes_format(kept) != _notes_format(workspace.notes):
        return  # another store was put in its place, or another version made it
    source = Workspace(store, kept)
    known = {name: (number, blocks) for number, name, blocks in found["units"]}
    taken = 0
    for unit, name in zip(plan.units, _identities(plan, files, inputs), strict=True):
        if name in known:
            taken += _take_unit(source, Unit(known[name][0], "", "", (), 0, known[name][1]), workspace, unit)
    if taken:
        info(f"prepare   {taken:,} shards of the store in place are taken over: their text has not changed")


def _take_unit(source: Workspace, old: Unit, target: Workspace, unit: Unit) -> int:
    """Link the shards of a unit; returns their number. Damaged ones are made again."""
    blocks = unit.blocks if unit.blocks is not None else int(source.end(old.number).read_text())
    taken = [_take_shard(source, old.shard(block), target, unit.shard(block)) for block in range(blocks)]
    if unit.blocks is None and all(taken):
        write(target.end(unit.number), str(blocks).encode())
    return sum(taken)


def _take_shard(source: Workspace, old: str, target: Workspace, new: str) -> bool:
    """Link a shard, its note last; whether it is there and undamaged."""
    if target.note(new).is_file():
        return True
    try:
        data = source.note(old).read_bytes()
        note = json.loads(data)
        for split in SPLITS:
            if not note[split]["tokens"]:
                continue
            if file_hash(source.ids(split, old)) != note[split]["sha256"]:
                return False
            for place in (Workspace.lengths, Workspace.pieces, Workspace.ids):
                _link(place(source, split, old), place(target, split, new))
    except (OSError, ValueError, KeyError):
        return False
    write(target.note(new), data)
    return True


def _link(source: Path, target: Path) -> None:
    """A hard link where the file system has them; nothing writes into a finished shard."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _identities(plan: Plan, files: CorpusFiles, inputs: Mapping[str, Any]) -> list[str]:
    """A hash for each unit of all that its shards depend on."""
    corpus = inputs["corpus"]
    prints: dict[str, Any] = {}
    for split in ("train", "valid"):
        if split in corpus:
            prints |= {str(file): one for file, one in zip(files.files(split), corpus[split], strict=True)}
    settings = {**inputs, "corpus": {name: value for name, value in corpus.items() if name not in _TEXT}}
    base = fingerprint(settings)
    return [
        fingerprint(
            [
                base,
                unit.split,
                unit.blocks,
                unit.block_bytes,
                [[file, prints[file]] for file in unit.files],
            ]
        )
        for unit in plan.units
    ]


def _notes_format(notes: Path) -> int | None:
    """The version of the notes in a folder."""
    return json.loads((notes / "job.json").read_text(encoding="utf-8")).get("notes_format")


def _seal(store: Path) -> str | None:
    """A hash of the manifest of a store; None without one."""
    with suppress(OSError):
        return file_hash(store / MANIFEST)
    return None
