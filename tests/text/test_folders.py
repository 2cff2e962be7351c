"""A folder is its data: side files are listed and not read, and a data set from the Hub is read as one."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from t5smith.base.errors import T5smithError
from t5smith.recipe.corpus import CorpusSettings
from t5smith.store.prepare import prepare
from t5smith.text.corpus import CorpusFiles
from t5smith.text.documents import check_first_documents, no_training_text, read_documents
from t5smith.text.folders.contents import remote_text_files
from t5smith.text.folders.notes import FolderNotes
from t5smith.text.folders.side_files import side_file

CARD = "---\nlanguage: nb\nlicense: mit\n---\n# Hei\n"


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def write(folder: Path, files: dict[str, str]) -> Path:
    """Write files; a Parquet file gets a row of its text."""
    for name, text in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".parquet"):
            parquet.write_table(pa.table({"text": [text]}), file)
        else:
            file.write_text(text, encoding="utf-8")
    return folder


def find(*patterns: Path | str) -> tuple[list[str], FolderNotes]:
    """The names of the files found, and what is not read."""
    found = CorpusFiles.find(CorpusSettings(train=[str(pattern) for pattern in patterns]))
    return [Path(str(file)).name for file in found.files("train")], found.notes


@pytest.mark.parametrize(
    ("kind", "names"),
    {
        "readme": "README readme.html readme.md README_no.md Read-Me.txt README.md.gz",
        "licence": "LICENSE license.txt LICENCE-CC-BY-4.0 COPYING LICENSE.md",
        "notice": "NOTICE CITATION.cff AUTHORS.md CHANGELOG.md SECURITY.md",
        "check sums": "checksum.sha256 md5sums md5sum.txt SHA256SUMS checksums.txt a.jsonl.md5 p.crc a.asc",
        "script or setting": "oscar.py fetch.sh recipe.toml Makefile requirements.txt notes.ipynb",
        "description of a data set": "dataset_infos.json dataset_info.json croissant.json _metadata",
        "image, sound or video": "logo.png a.JPG a.mp3",
        "mark of a program": "_SUCCESS a.parquet.lock _committed_12 Thumbs.db",
        "unfinished or old copy": "a.jsonl.part a.txt~ b.crdownload",
        "hidden": ".DS_Store .gitattributes",
        "": "a.txt part-00000 wiki_00 a.jsonl license.jsonl readers.txt security.txt notice.txt changes.txt "
        "consumers.txt a.md index.html train.parquet a.csv.gz metadata.jsonl state.json",
    }.items(),
)
def test_side_files_are_known_by_their_names(kind: str, names: str) -> None:
    assert {name: side_file(name) for name in names.split()} == dict.fromkeys(names.split(), kind)


def test_side_files_of_a_folder_are_listed_and_not_read(tmp_path, capfd):
    listing = "<html><head><title>Index of /texts</title></head></html>"
    texts = {"a.txt": "en tekst", "b/c.txt": "en til", "b/side/index.html": "<p>en side</p>"}
    side = {"README.md": "# Om", "LICENSE": "MIT", "checksum.sha256": "0 a.txt", "b/.DS_Store": "x"}
    write(tmp_path, texts | side | {"b/index.html": listing, ".git/HEAD": "x", "b/__pycache__/x.txt": "x"})
    found, notes = find(tmp_path)
    assert sorted(found) == ["a.txt", "c.txt", "index.html"]
    skipped = {str(Path(name).relative_to(tmp_path)): kind for name, kind in notes.side_files.items()}
    assert skipped == {
        "README.md": "readme",
        "LICENSE": "licence",
        "checksum.sha256": "check sums",
        "b/.DS_Store": "hidden",
        "b/index.html": "listing of a server",
        ".git": "hidden",
        "b/__pycache__": "folder of a program",
    }
    line = (
        "text      7 side files are not read (LICENSE, README.md, __pycache__/, checksum.sha256 and 3 more)"
    )
    assert capfd.readouterr().err.splitlines() == [line]


def test_what_is_named_or_matched_by_a_glob_is_always_read(tmp_path):
    write(tmp_path, {"README.md": "# Om", "fetch.py": "x = 1", "a.txt": "en tekst", ".hidden": "x"})
    assert find(tmp_path / "README.md")[0] == ["README.md"]
    assert find(tmp_path / "*")[0] == ["README.md", "a.txt", "fetch.py"]
    assert find(tmp_path / "**/*.py")[0] == ["fetch.py"]
    found, notes = find(tmp_path, tmp_path / "README.md")
    assert sorted(found) == ["README.md", "a.txt"]
    assert sorted(map(Path, notes.side_files)) == [tmp_path / ".hidden", tmp_path / "fetch.py"]


def test_a_folder_of_side_files_alone_names_the_way_to_read_them(tmp_path):
    write(tmp_path, {"a.py": "x = 1", "b/c.py": "y = 2"})
    with pytest.raises(T5smithError, match=r"but 2 side files \(a.py, c.py\).* by a glob: .*/\*\*/\*$"):
        find(tmp_path)
    assert find(tmp_path / "**/*")[0] == ["a.py", "c.py"]


@pytest.mark.parametrize("described", ["README.md", "dataset_infos.json", "shards"])
def test_a_clone_of_a_data_set_is_read_as_its_training_split(tmp_path, capfd, described):
    files = {f"data/{split}-00000-of-00001.parquet": split for split in ("train", "test", "validation")}
    files |= {"README.md": CARD} if described == "README.md" else {}
    files |= {"dataset_infos.json": "{}"} if described == "dataset_infos.json" else {}
    write(tmp_path / "set", files | {".gitattributes": "x"})
    found, notes = find(tmp_path)  # also below another folder
    assert found == ["train-00000-of-00001.parquet"]
    assert sorted(notes.others.values()) == ["split test", "split validation"]
    folder = tmp_path / "set" / ("data" if described == "shards" else "")
    line = (
        f"text      {folder} is a data set: its split train is read (1 file); not read: split test (1 file), "
    )
    assert capfd.readouterr().err.splitlines()[0] == f"{line}split validation (1 file)"


def test_names_of_files_are_as_the_user_wrote_the_folder(tmp_path, monkeypatch):
    write(
        tmp_path / "set", {"README.md": CARD, "train.jsonl": '{"text": "a"}', "test.jsonl": '{"text": "b"}'}
    )
    monkeypatch.chdir(tmp_path)
    files = CorpusFiles.find(CorpusSettings(train=["set"])).files("train")
    assert files == CorpusFiles.find(CorpusSettings(train=["hf:set:train"])).files("train")
    assert files == [Path("set/train.jsonl")]


def test_saved_data_sets_below_a_folder_are_read_as_such(tmp_path):
    import datasets

    one = datasets.Dataset.from_dict({"text": ["a", "b"]})
    one.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict({"train": one, "test": one}).save_to_disk(str(tmp_path / "both"))
    write(tmp_path, {"a.txt": "en tekst"})
    found, notes = find(tmp_path)
    assert sorted(found) == ["a.txt", "data-00000-of-00001.arrow", "data-00000-of-00001.arrow"]
    assert set(map(Path, notes.data_sets)) == {tmp_path / "one", tmp_path / "both"}


@pytest.mark.parametrize(
    ("card", "files", "message"),
    [
        (
            "---\nconfigs:\n- config_name: nb\n  data_files: nb/*\n- config_name: nn\n"
            "  data_files: nn/*\n---\n",
            {"nb/a.jsonl": '{"text": "a"}', "nn/a.jsonl": '{"text": "b"}'},
            r"^corpus.train: .* has several configurations; expected one of nb \(train\), nn \(train\), "
            r"as hf:.*:nb:train$",
        ),
        (
            CARD,
            {"test.jsonl": '{"text": "a"}', "validation.jsonl": '{"text": "b"}'},
            r"^corpus.train: .* has no split 'train'; expected one of validation, test, as hf:.*:validation$",
        ),
        (
            "---\nlicense: [a: b\n---\n",
            {"train.jsonl": '{"text": "a"}'},
            r"README.md:2: the YAML of the card README.md is broken \(.*\); .*Name the files|name the files",
        ),
        (
            "---\nconfigs: 3\n---\n",
            {"train.jsonl": '{"text": "a"}'},
            r"it cannot be read as a data set \(ValueError: Expected configs to be a list.*name the files",
        ),
        (
            "---\ndataset_info: [1]\n---\n",
            {"train.jsonl": '{"text": "a"}'},
            r"it cannot be read as a data set \(AttributeError: .*name the files",
        ),
        (
            "---\nconfigs:\n- config_name: nb\n  data_files: gone-*\n---\n",
            {"train.jsonl": '{"text": "a"}'},
            r"README.md: the files that the configurations of the card name are not there",
        ),
        (
            CARD,
            {"train.jsonl": '{"text": "a"}', "dataset_infos.json": '["x"]'},
            r"dataset_infos.json: this is no description of a data set; expected a JSON object",
        ),
        (
            CARD,
            {"train.jsonl": '{"text": "a"}', "dataset_infos.json": '{"default": 3'},
            r"dataset_infos.json: this is no description of a data set; expected a JSON object",
        ),
    ],
)
def test_a_description_that_cannot_be_used_is_one_line(tmp_path, card, files, message):
    write(tmp_path / "set", {"README.md": card, **files})
    for pattern in (tmp_path / "set", f"hf:{tmp_path / 'set'}"):
        if "gone-" in card and str(pattern).startswith("hf:"):
            continue
        with pytest.raises(T5smithError, match=message) as caught:
            find(pattern)
        assert "\n" not in str(caught.value)


def test_what_is_no_data_set_is_read_as_a_folder(tmp_path):
    write(tmp_path / "rule", {"README.md": "---\nEn regel\n---\nlicense: x\n", "a.txt": "en", "b.txt": "to"})
    write(tmp_path / "wiki", {"README.md": CARD, "part-00000": "en tekst"})
    write(tmp_path / "no", {"README.md": CARD, "no.py": "x = 1", "nb/a.jsonl": '{"text": "a"}'})
    for name, expected in (("rule", ["a.txt", "b.txt"]), ("wiki", ["part-00000"]), ("no", ["a.jsonl"])):
        assert find(tmp_path / name)[0] == expected
    with pytest.raises(T5smithError, match="only the script in this folder can read its data set"):
        find(f"hf:{tmp_path / 'no'}:nb:train")


def test_files_of_several_splits_without_a_description_give_a_warning(tmp_path, capfd):
    write(tmp_path, {"wiki.train.txt": "en", "wiki.test.txt": "to", "a.txt": "tre"})
    assert len(find(tmp_path)[0]) == 3
    warning = capfd.readouterr().err
    assert "files of several splits (wiki.test.txt, wiki.train.txt), and all of them are read" in warning
    write(tmp_path / "one", {"a.test.txt": "en", "b.test.txt": "to"})
    find(tmp_path / "one")
    assert not capfd.readouterr().err


def test_folders_behind_urls_are_known_by_the_names_in_them():
    notes = FolderNotes()
    names = ["b/x/README.md", "b/x/__pycache__/a.txt", "b/x/a.jsonl", "b/x/train-00000-of-00001.parquet"]
    names = sorted([*names, "b/x/test-00000-of-00001.parquet", "b/y/test-00000-of-00001.parquet"])
    assert remote_text_files(names, notes) == [
        "b/x/a.jsonl",
        "b/x/train-00000-of-00001.parquet",
        "b/y/test-00000-of-00001.parquet",
    ]
    assert list(notes.others) == ["b/x/test-00000-of-00001.parquet"]
    assert sorted(notes.side_files) == ["b/x/README.md", "b/x/__pycache__/a.txt"]


def test_side_files_behind_a_url_are_not_read(tmp_path):
    import fsspec

    memory = fsspec.filesystem("memory")
    for name in ("README.md", "a.txt", ".hidden"):
        memory.pipe(f"/folders/{name}", b"en tekst")
    assert find("memory://folders")[0] == ["a.txt"]
    assert find("memory://folders/*.md")[0] == ["README.md"]


def test_formats_and_files_without_text_are_in_the_manifest(tmp_path, recipe, capfd):
    rows = [f"en tekst om vinter og sommer, nummer {i}" for i in range(40)]
    write(
        tmp_path / "in",
        {
            "a.txt": "\n\n".join(rows),
            "wiki_00": "".join(json.dumps({"text": f"w {row}"}) + "\n" for row in rows),
            "c.csv": "text,id\n" + "".join(f'"c {row}",1\n' for row in rows),
            "bad.jsonl": '{"text": "en"}\nnot json\n',
            "empty.txt": "",
            "blank.txt": " \n\n",
            "mark.txt": "\ufeff",
            "empty.jsonl": "",
            "head.csv": "text,id\n",
            "README.md": "# Om",
        },
    )
    made = recipe(train=(str(tmp_path / "in"),), held_out_fraction=0.1)
    capfd.readouterr()
    store = prepare(made)
    facts = json.loads((store / "manifest.json").read_text())["facts"]
    files = facts["input_files"]
    assert files["formats"] == {"csv": 2, "jsonl": 3, "text": 4}
    assert [Path(name).name for name in files["without_records"]] == [
        "blank.txt", "empty.jsonl", "empty.txt", "head.csv", "mark.txt"
    ]  # fmt: skip
    assert files["empty"] == 5
    assert files["not_read"]["counts"] == {"readme": 1}
    assert sum(facts[split]["documents"] for split in ("train", "valid")) == 121
    assert facts["skipped_records"]["counts"] == {"not JSON": 1}
    shown = capfd.readouterr().err
    assert "prepare   files of 3 formats: 4 text, 3 jsonl, 2 csv" in shown
    assert "warning: 5 files without any text: " in shown


@pytest.mark.parametrize(
    "name",
    [
        "a.txt",
        "a.jsonl",
        "a.csv",
        "a.parquet",
        "a.arrow",
        "a.warc",
        "a.txt.gz",
        "a.parquet.zst",
        "part-00000",
    ],
)
def test_an_empty_file_of_every_format_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    files = CorpusFiles.find(CorpusSettings(train=[str(tmp_path / name)]))
    message = (
        rf"^corpus.train: the text is empty: {tmp_path / name} is empty \(0 bytes\)\. Name files with text$"
    )
    with pytest.raises(T5smithError, match=message):
        check_first_documents(files)
    assert str(no_training_text(files)) == message.replace("\\", "")[1:-1]
    (tmp_path / "b.txt").write_text("en tekst")  # beside others it is counted, and the rest is read
    texts = read_documents(CorpusSettings(), [tmp_path / name, tmp_path / "b.txt"])
    assert [document.text for document in texts] == ["en tekst"]
    (tmp_path / name).unlink()
    (tmp_path / "b.txt").write_text(" \n")
    with pytest.raises(T5smithError, match=r"b.txt has no text\. Name files with text$"):
        check_first_documents(CorpusFiles.find(CorpusSettings(train=[str(tmp_path)])))


@pytest.mark.parametrize(
    ("document", "name", "advice"),
    [
        ("block", "a.txt", 'corpus.valid, or make documents smaller: corpus.document = "line"'),
        ("file", "a.txt", 'corpus.valid, or make documents smaller: corpus.document = "block" or "line"'),
        ("line", "a.txt", "corpus.valid"),
        ("block", "a.jsonl", "corpus.valid"),
    ],
)
def test_one_single_document_gets_advice_that_helps(tmp_path, recipe, document, name, advice):
    text = "en eneste tekst om vinter og sommer"
    (tmp_path / name).write_text(json.dumps({"text": text}) if name == "a.jsonl" else text)
    settings = {"train": (str(tmp_path / name),), "document": document}
    message = "corpus.train: the text is a single document, so no other is left to be held out; expected two "
    with pytest.raises(T5smithError) as caught:
        prepare(recipe(**settings, held_out_fraction=1e-9))
    assert str(caught.value) == f"{message}documents or more. Name held-out text in {advice}"
    # All of it held out: the vocabulary has nothing to learn from.
    message = "corpus.train: the text is a single document, and it is held out"
    with pytest.raises(T5smithError) as caught:
        recipe(**settings, held_out_fraction=1 - 1e-9)
    assert str(caught.value) == f"{message}. Name held-out text in {advice}"


def test_several_documents_that_are_all_held_out_get_other_advice(recipe):
    with pytest.raises(T5smithError, match=r"all documents are held out\. Lower corpus\.held_out"):
        recipe(held_out_fraction=1 - 1e-9)
