"""Files of formats that cannot be read: skipped beside others, by name and with the fix; an error alone."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from stores import MakeRecipe
from t5smith.base.artifact import read_manifest
from t5smith.base.errors import T5smithError
from t5smith.recipe.corpus import CorpusSettings
from t5smith.store import plan
from t5smith.store.plan import Plan
from t5smith.store.prepare import prepare
from t5smith.text.corpus import CorpusFiles
from t5smith.text.document import BlockSelection
from t5smith.text.documents import (
    check_first_documents,
    positioned_documents,
    read_documents,
    split_documents,
)
from t5smith.text.skipped_records import SkippedRecords
from t5smith.vocabulary.compare import compare_vocabularies

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:665232916d12\nsize 146946961\n"
PULL = "In its repository run `git lfs install` and `git lfs pull`"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(90)
ROWS = [f"en tekst om vinter og sommer, nummer {i}" for i in range(40)]
UNREADABLE = {
    "a.parquet": (POINTER, f"this is a pointer of Git LFS, not the file. {PULL}"),
    "b/c.jsonl.zst": (POINTER, f"this is a pointer of Git LFS, not the file. {PULL}"),
    "bilde": (PNG, "this is a PNG image"),
    "om.pdf": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "this is a PDF file"),
    "pdf.gz": (gzip.compress(b"%PDF-1.7\n"), "this is a PDF file"),
    "rar": (b"Rar!\x1a\x07\x00" + bytes(range(256)), "this is a RAR archive"),
    "tei.xml": (b"<?xml version='1.0'?>\n<TEI>\nen\n</TEI>", "this is XML with the root element <TEI>"),
    "x.bin": (bytes(range(256)) * 20, "this is a binary file of an unknown format"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of texts, an empty file, and files that cannot be read."""
    made = tmp_path / "tekster"
    for name, (data, _) in UNREADABLE.items():
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_bytes(data)
    (made / "m.txt").write_text("\n\n".join(ROWS))
    (made / "n.jsonl").write_text("".join(json.dumps({"text": f"n {row}"}) + "\n" for row in ROWS))
    (made / "tom.txt").write_bytes(b"")
    return made


def test_they_are_skipped_and_named_in_a_folder(
    folder: Path, recipe: MakeRecipe, capfd: pytest.CaptureFixture[str]
) -> None:
    made = recipe(train=(str(folder),))
    assert f"warning: {len(UNREADABLE)} files cannot be read and were skipped:" in capfd.readouterr().err
    check_first_documents(CorpusFiles.find(made.corpus))
    store = prepare(made)
    shown = capfd.readouterr().err.splitlines()
    facts = read_manifest(store, "store").facts
    skipped = facts["skipped_records"]
    assert skipped["counts"] == {"unreadable files": len(UNREADABLE)}
    assert not skipped["first"]
    assert sorted(skipped["files"]) == sorted(str(folder / name) for name in UNREADABLE)
    start = shown.index(f"warning: {len(UNREADABLE)} files cannot be read and were skipped:") + 1
    for line, (name, (_, message)) in zip(shown[start:], UNREADABLE.items(), strict=False):
        assert line.startswith(f"  {folder / name}: {message}")
        assert skipped["files"][str(folder / name)] == line.strip()
    assert f"warning: 1 file without any text: {folder}/tom.txt" in shown
    files = facts["input_files"]
    assert files["formats"] == {"jsonl": 1, "text": 2}
    assert {Path(name).name: own["documents"] for name, own in files["records"].items()} == dict.fromkeys(
        (Path(name).name for name in UNREADABLE), 0
    ) | {"m.txt": 40, "n.jsonl": 40, "tom.txt": 0}
    assert all(
        files["records"][str(folder / name)]["skipped"] == {"unreadable files": 1} for name in UNREADABLE
    )
    # A finished store without strictness is no success with it.
    with pytest.raises(
        T5smithError, match=f"{len(UNREADABLE)} files cannot be read .* the first of them: .*LFS"
    ):
        prepare(made.replace(**{"corpus.strict": True}))


@pytest.mark.parametrize("name", UNREADABLE)
def test_alone_or_strictly_they_are_errors(folder: Path, name: str) -> None:
    message = UNREADABLE[name][1]
    file = folder / name
    for train in ((file,), (f"{file}*",), (folder / "m.txt", file)):
        with pytest.raises(T5smithError) as caught:
            CorpusFiles.find(CorpusSettings(train=tuple(map(str, train))))
        assert str(caught.value).startswith(f"{file}: {message}")
    for other in UNREADABLE.keys() - {name}:
        (folder / other).unlink()
    settings = CorpusSettings(train=(str(folder),), strict=True)
    files = CorpusFiles.find(settings)
    for check in (
        lambda: check_first_documents(files),
        lambda: list(read_documents(settings, files.files("train"))),
    ):
        with pytest.raises(T5smithError) as caught:
            check()
        assert str(caught.value).startswith(f"{file}: {message}")


def test_a_folder_of_nothing_else_is_an_error(tmp_path: Path) -> None:
    for name in ("a.parquet", "b.jsonl", "c.txt"):
        (tmp_path / name).write_bytes(POINTER)
    with pytest.raises(T5smithError) as caught:
        CorpusFiles.find(CorpusSettings(train=(str(tmp_path),)))
    assert str(caught.value) == (
        f"{tmp_path}/a.parquet: none of 3 files can be read: this is a pointer of Git LFS, not the file. "
        f"{PULL}"
    )
    (tmp_path / "d.txt").write_text("en tekst")
    skipped = SkippedRecords()
    files = CorpusFiles.find(CorpusSettings(train=(str(tmp_path),))).files("train")
    assert [one.text for one in read_documents(CorpusSettings(), files, None, skipped)] == ["en tekst"]
    assert skipped.counts == {"unreadable files": 3}


def test_a_large_one_is_counted_once_for_any_number_of_tasks(
    folder: Path, recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "MIN_BLOCK_BYTES", 64)
    monkeypatch.setattr(plan, "MAX_BLOCK_BYTES", 64)
    made = recipe(train=(str(folder),))
    facts: list[dict[str, Any]] = []
    for tasks in (1, 5):
        store = prepare(made.replace(**{"prepare.tasks": tasks}))
        facts.append(read_manifest(store, "store").facts)
        store.rename(folder.parent / f"store{tasks}")
    assert facts[0]["skipped_records"] == facts[1]["skipped_records"]
    assert facts[0]["skipped_records"]["counts"] == {"unreadable files": len(UNREADABLE)}
    assert facts[0]["input_files"] == facts[1]["input_files"]
    for part in (BlockSelection(64, 64, 128), BlockSelection(64, reader=1, readers=3)):
        skipped = SkippedRecords()
        assert not list(positioned_documents(made.corpus, str(folder / "om.pdf"), part, skipped))
        assert not skipped.counts


def test_very_many_are_counted_and_the_first_ones_named(capfd: pytest.CaptureFixture[str]) -> None:
    skipped, whole = SkippedRecords(), SkippedRecords()
    for number in range(1_200):
        skipped.add_file(f"{number:04}", T5smithError("this is no text", where=f"{number:04}"))
    assert len(skipped.files) == 1_000
    whole.merge(skipped.facts())
    whole.merge(skipped.facts())
    assert whole.counts == {"unreadable files": 2_400}
    assert len(whole.files) == 1_000
    whole.report()
    shown = capfd.readouterr().err.splitlines()
    assert shown[0] == "warning: 2,400 files cannot be read and were skipped:"
    assert shown[1:3] == ["  0000: this is no text", "  0001: this is no text"]
    assert shown[-1] == "  … and 2,390 more"
    whole.add("no text", T5smithError("no field 'text'", where="a:1"))
    whole.report()
    assert "warning: 1 record was skipped: 1 no text; the first:" in capfd.readouterr().err
    whole.clear()
    assert whole == SkippedRecords()


def test_an_unreadable_file_behind_a_url(tmp_path: Path) -> None:
    """Its name is believed until it is opened."""
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe("/pekere/a.parquet", POINTER)
    memory.pipe("/pekere/b.jsonl", POINTER)
    memory.pipe("/pekere/c.txt", b"en tekst")
    skipped = SkippedRecords()
    settings = CorpusSettings(train=("memory://pekere",))
    files = CorpusFiles.find(settings).files("train")
    assert [one.text for one in read_documents(settings, files, None, skipped)] == ["en tekst"]
    assert skipped.counts == {"unreadable files": 2}
    with pytest.raises(T5smithError, match="a pointer of Git LFS"):
        list(read_documents(settings, files[:1]))


def test_the_format_of_held_out_text_alone(tmp_path: Path, recipe: MakeRecipe) -> None:
    """In every reader: the check before the start, the vocabulary, its comparison, the plan and the tasks."""
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in ROWS))
    (tmp_path / "b.jsonl").write_text("".join(json.dumps({"text": f"b {row}"}) + "\n" for row in ROWS))
    text = {"train": (str(tmp_path / "a.jsonl"),), "valid": (str(tmp_path / "b.jsonl"),)}
    made = recipe(**text, valid_format="text", document="line")
    files = CorpusFiles.find(made.corpus)
    check_first_documents(files)
    facts = read_manifest(prepare(made), "store").facts
    assert facts["input_files"]["formats"] == {"jsonl": 1, "text": 1}
    assert facts["train"]["documents"] == facts["valid"]["documents"] == 40
    assert facts["valid"]["text_bytes"] == (tmp_path / "b.jsonl").stat().st_size - 40
    valid = [document.text for document in split_documents(files, "valid")]
    assert valid == (tmp_path / "b.jsonl").read_text().splitlines()
    compared = compare_vocabularies(made, ["bytes"])
    assert compared.bytes == (tmp_path / "b.jsonl").stat().st_size - 40
    # The fingerprint of a store has the setting only if it is set.
    assert files.inputs()["valid_format"] == "text"
    assert "valid_format" not in CorpusFiles.find(CorpusSettings.model_validate(text)).inputs()
    with pytest.raises(T5smithError, match=r"^corpus.valid_format: there are no files in this format"):
        CorpusFiles.find(CorpusSettings(train=text["train"], valid_format="text"))
    (tmp_path / "tei.xml").write_text("<?xml version='1.0'?>\n<TEI>\nen dag\n</TEI>")
    (tmp_path / "stor.jsonl").write_text('{"text": "en dag"}\n' * 300_000)
    names = tuple(str(tmp_path / name) for name in ("stor.jsonl", "tei.xml"))
    whole = made.corpus.model_copy(update={"valid": names, "document": "file"})
    units = [unit for unit in Plan.create(CorpusFiles.find(whole)).units if unit.split == "valid"]
    assert [unit.blocks for unit in units] == [1, 1]  # no part of a file is a document
    # What cannot be read in one format is text in the other.
    (tmp_path / "b.jsonl").write_text("en dag\nto dager\n")
    check_first_documents(CorpusFiles.find(made.corpus))
    with pytest.raises(T5smithError, match="not JSON"):
        check_first_documents(CorpusFiles.find(made.corpus.model_copy(update={"valid_format": None})))
