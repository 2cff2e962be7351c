"""The manifest says of each file how many of its records are documents, and what became of the others."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

from t5smith.base.artifact import read_manifest
from t5smith.recipe.recipe import Recipe
from t5smith.store import file_notes
from t5smith.store.file_notes import FileNotes
from t5smith.store.prepare import prepare
from t5smith.vocabulary.train import vocab


def test_the_counts_add_up_file_by_file(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    oscar = [json.dumps({"content": f"dag {i}", "metadata": {"quality_warnings": None}}) for i in range(20)]
    hplt = [json.dumps({"f": "x.warc", "text": f"natt {i}", "lang": ["nob"], "id": str(i)}) for i in range(9)]
    (folder / "oscar.jsonl").write_text("\n".join([*oscar, "{", '{"content": null}']))
    (folder / "hplt.jsonl.gz").write_bytes(gzip.compress("\n".join([*hplt, '{"id": 3}']).encode()))
    (folder / "rows.csv").write_text('id,text\n1,"to\nlinjer"\n2,"a ""b"""\n3,x,y\n4,\nid,text\n')
    (folder / "plain.txt").write_bytes(b"en\n\nbl\xe5\n\nto\n")
    (folder / "empty.txt").write_bytes(b"")
    recipe = Recipe.model_validate(
        {
            "run_dir": tmp_path / "run",
            "corpus": {"train": (str(folder),), "held_out_fraction": 0.3},
            "vocab": {"size": 40},
        }
    )
    vocab(recipe)
    facts = read_manifest(prepare(recipe), "store").facts
    found = {Path(file).name: own for file, own in facts["input_files"]["records"].items()}
    assert found == {
        "empty.txt": {"documents": 0, "skipped": {}},
        "hplt.jsonl.gz": {"documents": 9, "skipped": {"no text": 1}},
        "oscar.jsonl": {"documents": 20, "skipped": {"no text": 1, "not JSON": 1}},
        "plain.txt": {"documents": 2, "skipped": {"not UTF-8": 1}},
        "rows.csv": {"documents": 3, "skipped": {"repeated headers": 1, "wrong number of fields": 1}},
    }
    splits = [facts["train"], facts["valid"]]
    in_store = sum(split["documents"] + split["empty_documents"] for split in splits)
    assert in_store == sum(own["documents"] for own in found.values())
    skipped = sum(sum(own["skipped"].values()) for own in found.values())
    assert skipped == sum(facts["skipped_records"]["counts"].values())


def test_very_many_files_are_counted_together() -> None:
    notes = FileNotes()
    for number in range(file_notes.MAX_LISTED + 5):
        notes.count(str(number), 2, {"no text": 1})
    assert len(notes.records) == file_notes.MAX_LISTED
    assert notes.unlisted == 15
