"""Data sets in the Hub's layout, saved ones, and files behind URLs, all of them local."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import ClassVar

import fsspec
import pyarrow as pa
import pytest
from pyarrow import parquet

from t5smith.base.errors import T5smithError
from t5smith.recipe.corpus import CorpusSettings
from t5smith.recipe.recipe import Recipe
from t5smith.store import plan
from t5smith.store.plan import Plan
from t5smith.store.prepare import prepare
from t5smith.store.token_store import TokenStore
from t5smith.text.corpus import CorpusFiles, find_corpora, find_files
from t5smith.text.documents import positioned_documents, read_documents
from t5smith.text.fingerprints import fingerprint_files
from t5smith.text.hub import DatasetName, parse_dataset_name
from t5smith.text.skipped_records import SkippedRecords
from t5smith.vocabulary.train import vocab


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_MODULES_CACHE", str(tmp_path / "modules"))


def rows(name: str, count: int) -> list[str]:
    return [f"{name} nummer {i} er en tekst" for i in range(count)]


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    """A data set with two configurations, as oscar has them, in folders as the Hub's."""
    folder = tmp_path / "oscar"
    for config in ("unshuffled_deduplicated_no", "unshuffled_deduplicated_nn"):
        (folder / config).mkdir(parents=True)
        for part in range(2):
            table = pa.table({"id": range(30), "text": rows(f"{config}{part}", 30)})
            parquet.write_table(
                table, folder / config / f"train-{part:05d}-of-00002.parquet", row_group_size=8
            )
    (folder / "README.md").write_text(
        "---\nconfigs:\n"
        + "".join(
            f"- config_name: {config}\n  data_files:\n  - split: train\n    path: {config}/train-*\n"
            for config in ("unshuffled_deduplicated_no", "unshuffled_deduplicated_nn")
        )
        + "---\n"
    )
    return folder


def read(*patterns: str) -> list[str]:
    return [
        document.text for document in read_documents(CorpusSettings(), find_files(patterns, "corpus.train"))
    ]


def test_names_of_data_sets() -> None:
    assert parse_dataset_name("hf:oscar-corpus/OSCAR-2301:no:train", "f") == DatasetName(
        "oscar-corpus/OSCAR-2301", "no", "train", "", ""
    )
    assert parse_dataset_name("hf:oscar:unshuffled_deduplicated_no:train[:100]", "f") == DatasetName(
        "oscar", "unshuffled_deduplicated_no", "train", "", "100"
    )
    assert parse_dataset_name("hf:a/b", "f") == DatasetName("a/b", "", "train", "", "")
    assert parse_dataset_name("hf:a/b:test[10%:20%]", "f") == DatasetName("a/b", "", "test", "10%", "20%")
    for wrong in ("hf:", "hf:a::b", "hf:a:b:c:d", "hf:a:b:train[1]", "hf:a:b[%:50]", "hf:a:b[:%]"):
        with pytest.raises(T5smithError, match=r"^f: "):
            parse_dataset_name(wrong, "f")


@pytest.mark.parametrize(
    ("slice_", "first", "last"),
    [("", 0, 60), ("[:35]", 0, 35), ("[10:]", 10, 60), ("[25:32]", 25, 32), ("[50%:75%]", 30, 45)],
)
def test_a_data_set_by_configuration_split_and_rows(hub: Path, slice_: str, first: int, last: int) -> None:
    whole = [text for part in range(2) for text in rows(f"unshuffled_deduplicated_no{part}", 30)]
    assert read(f"hf:{hub}:unshuffled_deduplicated_no:train{slice_}") == whole[first:last]


def test_what_a_data_set_has_not_is_named(hub: Path, tmp_path: Path) -> None:
    with pytest.raises(T5smithError, match="has no split 'test'; expected one of train"):
        read(f"hf:{hub}:unshuffled_deduplicated_no:test")
    with pytest.raises(T5smithError, match="unshuffled_deduplicated_no"):
        read(f"hf:{hub}:klingon:train")
    with pytest.raises(T5smithError, match="there is no data set"):
        read(f"hf:{tmp_path}/gone:x:train")
    with pytest.raises(T5smithError, match="'~nosuchuser/x' begins with an unknown home folder"):
        read("hf:~nosuchuser/x:train")


def test_json_lines_in_the_hubs_layout(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    for split, name in (("train", "a"), ("test", "b")):
        lines = "".join(json.dumps({"content": text}) + "\n" for text in rows(name, 5))
        (folder / f"{split}.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    assert read(f"hf:{folder}") == rows("a", 5)
    assert read(f"hf:{folder}:test") == rows("b", 5)
    assert read(f"hf:{folder}:train[:2]") == rows("a", 2)


def test_saved_data_sets(tmp_path: Path) -> None:
    import datasets

    one = datasets.Dataset.from_dict({"text": rows("a", 50)})
    one.save_to_disk(str(tmp_path / "one"), num_shards=3)
    both = datasets.DatasetDict({"train": one, "test": datasets.Dataset.from_dict({"text": rows("b", 4)})})
    both.save_to_disk(str(tmp_path / "both"))
    assert read(str(tmp_path / "one")) == read(f"hf:{tmp_path}/one") == rows("a", 50)
    assert read(f"hf:{tmp_path}/one:train[20:40]") == rows("a", 50)[20:40]
    assert read(f"hf:{tmp_path}/both:test") == rows("b", 4)
    with pytest.raises(T5smithError, match="has no split 'valid'; expected one of train, test"):
        read(f"hf:{tmp_path}/both:valid")
    for damage in ("{", "[]"):
        (tmp_path / "one" / "state.json").write_text(damage)
        with pytest.raises(T5smithError, match="the saved data set is damaged"):
            read(str(tmp_path / "one"))


def test_a_data_set_that_was_saved_without_splits_has_one(tmp_path: Path) -> None:
    import datasets

    for name, split in (("s1", None), ("s2", "test")):
        of = datasets.Split(split) if split else None
        datasets.Dataset.from_dict({"text": rows("a", 5)}, split=of).save_to_disk(str(tmp_path / name))
    for name in ("s1", "s1:train", "s2", "s2:train", "s2:test"):
        assert read(f"hf:{tmp_path}/{name}") == rows("a", 5)
    assert read(str(tmp_path / "s2")) == rows("a", 5)
    with pytest.raises(
        T5smithError, match=r"^corpus.train: .*s1 has no split 'test'; expected one of train$"
    ):
        read(f"hf:{tmp_path}/s1:test")
    with pytest.raises(T5smithError, match=r"s2 has no split 'valid'; expected one of train, test$"):
        read(f"hf:{tmp_path}/s2:valid[:2]")
    with pytest.raises(T5smithError, match=r"s1 is a saved data set, which has no configuration 'nb'"):
        read(f"hf:{tmp_path}/s1:nb:train")
    datasets.DatasetDict({"train": datasets.load_from_disk(str(tmp_path / "s1"))}).save_to_disk(
        str(tmp_path / "both")
    )
    with pytest.raises(T5smithError, match=r"both is a saved data set, which has no configuration 'nb'"):
        read(f"hf:{tmp_path}/both:nb:train")


def test_files_behind_urls() -> None:
    system = fsspec.filesystem("memory")
    for name, lines in (("a/x.jsonl", rows("x", 3)), ("a/b/y.jsonl", rows("y", 2)), ("a/.z", ["no"])):
        system.pipe(f"/texts/{name}", "".join(json.dumps({"text": line}) + "\n" for line in lines).encode())
    assert read("memory://texts/a/x.jsonl") == rows("x", 3)
    assert read("memory://texts/a") == [*rows("y", 2), *rows("x", 3)]
    assert read("memory://texts/a/*.jsonl") == rows("x", 3)
    (file,) = find_files(["memory://texts/a/x.jsonl"], "f")
    before = fingerprint_files([file])
    assert before == fingerprint_files(find_files(["memory://texts/a/x.jsonl"], "f"))
    system.pipe("/texts/a/x.jsonl", b'{"text": "ny"}\n')
    assert fingerprint_files(find_files(["memory://texts/a/x.jsonl"], "f")) != before
    with pytest.raises(T5smithError, match=r"there is no file or folder 'memory://texts/gone\.txt'"):
        read("memory://texts/gone.txt")
    with pytest.raises(T5smithError, match="'nope://a' cannot be opened"):
        read("nope://a")


def test_a_run_on_data_sets_with_names_and_weights(hub: Path, tmp_path: Path) -> None:
    recipe = Recipe.model_validate(
        {
            "run_dir": tmp_path / "run",
            "corpus": {
                "train": (
                    f"nb=hf:{hub}:unshuffled_deduplicated_no:train[:50]",
                    f"nn=hf:{hub}:unshuffled_deduplicated_nn:train",
                ),
                "held_out_fraction": 0.2,
            },
            "vocab": {"size": 60},
        }
    )
    assert [len(files) for files in find_corpora(recipe.corpus.train, "f").values()] == [2, 2]
    vocab(recipe)
    store = TokenStore.open(prepare(recipe))
    assert len(store.train.ends) + len(store.valid.ends) == 110
    assert [corpus.name for corpus in store.train.corpora] == ["nb", "nn"]
    more = recipe.replace(
        **{"corpus.train": (recipe.corpus.train[0].replace("[:50]", "[:49]"), recipe.corpus.train[1])}
    )
    assert CorpusFiles.find(more.corpus).inputs() != CorpusFiles.find(recipe.corpus).inputs()


class Blobs(fsspec.spec.AbstractFileSystem):
    """A place as object stores are: files are fetched by ranges of bytes, through fsspec's own buffer."""

    protocol = "blobs"
    blobs: ClassVar[dict[str, bytes]] = {}

    def info(self, path: str, **_: object) -> dict[str, object]:
        path = self._strip_protocol(path)
        if path not in self.blobs:
            raise FileNotFoundError(path)
        return {
            "name": path,
            "size": len(self.blobs[path]),
            "type": "file",
            "ETag": str(hash(self.blobs[path])),
        }

    def _open(self, path: str, mode: str = "rb", **more: object) -> object:
        more.pop("autocommit", None)
        return Blob(self, path, mode, **more)


class Blob(fsspec.spec.AbstractBufferedFile):
    def _fetch_range(self, start: int, end: int) -> bytes:
        return Blobs.blobs[self.path][start:end]


def test_files_that_are_fetched_by_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec.register_implementation("blobs", Blobs, clobber=True)
    lines = [json.dumps({"text": line}) for line in rows("x", 400)]
    lines[390] = "{"
    data = "\n".join(lines).encode()
    Blobs.blobs = {"a.jsonl": data, "b.jsonl.gz": gzip.compress(data)}
    expected = [text for i, text in enumerate(rows("x", 400)) if i != 390]
    for name in Blobs.blobs:
        assert read(f"blobs://{name}") == expected
    # From the middle, and with the line of what is wrong there.
    monkeypatch.setattr(plan, "MIN_BLOCK_BYTES", 1_000)
    monkeypatch.setattr(plan, "MAX_BLOCK_BYTES", 1_000)
    corpus = CorpusSettings(train=("blobs://a.jsonl",))
    skipped = SkippedRecords()
    found = [
        document.text
        for work in Plan.create(CorpusFiles.find(corpus)).assignments(1, 0)
        for _, document in positioned_documents(corpus, work.unit.files[0], work.part, skipped)
        if document is not None
    ]
    assert found == expected
    assert "blobs://a.jsonl:391: not JSON" in skipped.first[0]


def test_some_rows_of_a_large_file_are_one_block(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "MIN_BLOCK_BYTES", 200)
    monkeypatch.setattr(plan, "MAX_BLOCK_BYTES", 200)
    corpus = CorpusSettings(train=(f"hf:{hub}:unshuffled_deduplicated_no:train[:45]",))
    units = Plan.create(CorpusFiles.find(corpus)).units
    # The first file is read whole, in blocks; of the second some rows, by one task.
    assert [unit.blocks for unit in units if "#rows" in unit.files[0]] == [1]
    assert max(unit.blocks or 0 for unit in units) > 1
    skipped = SkippedRecords()
    found = [
        document.text
        for work in Plan.create(CorpusFiles.find(corpus)).assignments(3, 0)
        + Plan.create(CorpusFiles.find(corpus)).assignments(3, 1)
        + Plan.create(CorpusFiles.find(corpus)).assignments(3, 2)
        for file in work.unit.files
        for _, document in positioned_documents(corpus, file, work.part, skipped)
        if document is not None
    ]
    expected = [*rows("unshuffled_deduplicated_no0", 30), *rows("unshuffled_deduplicated_no1", 15)]
    assert sorted(found) == sorted(expected)


def test_rows_of_csv_and_none_of_plain_text(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    # Blank lines are no rows, and a row may go over several lines.
    (folder / "train.csv").write_text('id,text\n\n1,"en\n\nto"\n\n2,tre\n3,fire\n')
    assert read(f"hf:{folder}:train[34%:]") == ["tre", "fire"]
    (folder / "train.csv").write_text('id,text\n1,"en\nto"\n2,tre\n3,fire\n')
    assert read(f"hf:{folder}:train[1:3]") == ["tre", "fire"]
    (folder / "train.csv").unlink()
    (folder / "train.txt").write_text("en\nto\n")
    assert read(f"hf:{folder}:train") == ["en\nto"]
    with pytest.raises(T5smithError, match="plain text has no rows to count"):
        read(f"hf:{folder}:train[:1]")


def test_without_the_hub_one_line_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import datasets
    import huggingface_hub

    def fails(*_: object, **__: object) -> None:
        raise ConnectionError("no route\nto host")

    def retries(*_: object, **__: object) -> None:
        pytest.fail("the library that retries for half a minute was asked")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", fails)
    monkeypatch.setattr(datasets, "get_dataset_config_names", retries)
    for pattern in ("hf:some/set:nb:train", "hf://datasets/some/set"):
        with pytest.raises(T5smithError) as caught:
            find_files([pattern], "corpus.train")
        assert str(caught.value) == (
            "corpus.train: some/set is no folder here, and the Hugging Face Hub cannot be reached (no "
            "route). Offline? Download it first, with `hf download --repo-type dataset some/set --local-dir "
            "set`, and name that folder, or name local files"
        )


def test_a_url_that_cannot_be_reached_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class NetworkError(Exception):  # what packages for protocols raise need not be an OSError
        pass

    def fails(*_: object, **__: object) -> None:
        raise NetworkError("no route\nto host")

    monkeypatch.setattr(fsspec.filesystem("memory").__class__, "isdir", fails)
    with pytest.raises(T5smithError, match=r"cannot be reached \(no route\)\. Offline\? Download the text"):
        find_files(["memory://some/set"], "corpus.train")


def test_configurations_and_splits_are_listed(hub: Path) -> None:
    names = ", ".join(f"unshuffled_deduplicated_{name} (train)" for name in ("no", "nn"))
    with pytest.raises(T5smithError, match="has no configuration 'klingon'; expected one of ") as caught:
        read(f"hf:{hub}:klingon:train")
    assert names in str(caught.value)
    with pytest.raises(T5smithError, match="has no configuration 'klingon'; expected one of "):
        read(f"hf:{hub}:klingon")
    with pytest.raises(T5smithError, match="has several configurations; expected one of ") as caught:
        read(str(hub))
    assert names in str(caught.value)
