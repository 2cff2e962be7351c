"""Some rows of a data set: they are counted as the file has them, whatever may be wrong with some."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from t5smith.base.errors import T5smithError
from t5smith.recipe.corpus import CorpusSettings
from t5smith.store.plan import Plan
from t5smith.text.corpus import CorpusFiles, find_corpora, find_files
from t5smith.text.documents import read_documents
from t5smith.text.skipped_records import SkippedRecords

Write = Callable[[Path, Sequence[str | None]], object]


def as_parquet(folder: Path, texts: Sequence[str | None]) -> None:
    table = pa.table({"text": pa.array(texts, pa.string())})
    parquet.write_table(table, folder / "train.parquet", row_group_size=8)


def as_arrow(folder: Path, texts: Sequence[str | None]) -> None:
    import datasets

    folder.rmdir()
    features = datasets.Features({"text": datasets.Value("string")})
    datasets.Dataset.from_dict({"text": list(texts)}, features).save_to_disk(str(folder))


def as_json_lines(folder: Path, texts: Sequence[str | None]) -> None:
    lines = [json.dumps({"text": text}) if text else "{" for text in texts]
    # Blank lines are no rows.
    (folder / "train.jsonl").write_text("\n\n".join(lines))


def as_csv(folder: Path, texts: Sequence[str | None]) -> None:
    lines = [f'1,"{text}\nog mer"\n' if text else "1\n" for text in texts]
    (folder / "train.csv").write_text("id,text\n" + "\n".join(lines))


FORMATS = (as_parquet, as_arrow, as_json_lines, as_csv)


@pytest.fixture
def ds(tmp_path: Path) -> Path:
    folder = tmp_path / "ds"
    folder.mkdir()
    return folder


def texts(count: int, without: range = range(0)) -> list[str | None]:
    return [None if i in without else f"tekst {i}" for i in range(count)]


def read(pattern: str, **settings: object) -> tuple[list[int], SkippedRecords]:
    """The numbers of the texts of a data set, and what is wrong with it."""
    corpus = CorpusSettings.model_validate(settings)
    skipped = SkippedRecords(corpus.strict)
    found = read_documents(corpus, find_files([pattern], "corpus.train"), skipped=skipped)
    return [int(document.text.split()[1]) for document in found], skipped


@pytest.mark.parametrize("write", FORMATS)
@pytest.mark.parametrize(
    ("rows", "requested"),
    [
        ("[90:]", range(90, 100)),
        ("[:50%]", range(50)),
        ("[30:50]", range(30, 50)),
        ("[5:15]", range(5, 15)),
        ("[19:21]", range(19, 21)),
        ("[:20]", range(20)),
    ],
)
def test_rows_that_cannot_be_used_are_rows(ds: Path, write: Write, rows: str, requested: range) -> None:
    bad = range(10, 20)
    write(ds, texts(100, bad))
    found, skipped = read(f"hf:{ds}:train{rows}")
    assert found == [i for i in requested if i not in bad]
    # Only what is wrong with the rows that are asked for is told.
    assert skipped.counts.total() == sum(i in bad for i in requested)
    if skipped.counts:
        with pytest.raises(T5smithError):
            read(f"hf:{ds}:train{rows}", strict=True)
    else:
        assert read(f"hf:{ds}:train{rows}", strict=True)[0] == found


@pytest.mark.parametrize("write", FORMATS)
def test_a_bad_beginning_is_none_of_the_rows_that_come_later(ds: Path, write: Write) -> None:
    write(ds, texts(100, range(40)))
    assert read(f"hf:{ds}:train[60:]") == (list(range(60, 100)), SkippedRecords())
    assert read(f"hf:{ds}:train[35:45]")[0] == list(range(40, 45))
    # All of what is asked for is of no use.
    for rows in ("[:10]", "[:60]", "[10:20]"):
        with pytest.raises(T5smithError, match=r"ds/(train|data)"):
            read(f"hf:{ds}:train{rows}")


def test_no_text_among_rows_that_are_asked_for_of_a_good_file(ds: Path) -> None:
    as_parquet(ds, texts(100, range(50, 90)))
    found, skipped = read(f"hf:{ds}:train[55:85]")
    assert (found, skipped.counts) == ([], {"no text": 30})


def test_a_row_that_is_too_long_is_a_row(ds: Path) -> None:
    as_parquet(ds, [*texts(10), "tekst 10 " + "x" * 5_000, *texts(20)[11:]])
    assert read(f"hf:{ds}:train[12:]", longest_document=100) == (list(range(12, 20)), SkippedRecords())
    found, skipped = read(f"hf:{ds}:train[9:12]", longest_document=100)
    assert (found, skipped.counts) == ([9, 11], {"too long": 1})


def test_no_row_is_read_twice(ds: Path) -> None:
    as_parquet(ds, texts(100))
    for first, second in (("[:60]", "[40:80]"), ("", "[:20]"), ("[5:6]", "[:10]"), ("[:50]", "")):
        patterns = (f"hf:{ds}:train{first}", f"hf:{ds}:train{second}")
        with pytest.raises(T5smithError, match=r"^corpus\.train: .*ds/train.* have rows in common"):
            find_corpora(patterns, "corpus.train")
        with pytest.raises(T5smithError, match="have rows in common"):
            find_corpora((f"x={patterns[0]}", f"y={patterns[1]}"), "corpus.train")
    apart = tuple(f"hf:{ds}:train{rows}" for rows in ("[:40]", "[40:80]", "[:40]"))
    assert len(find_files(apart, "corpus.train")) == 2


def test_no_row_is_trained_on_and_held_out(ds: Path) -> None:
    as_parquet(ds, texts(100))
    for train, valid in (("", "[:20]"), ("[:50]", "[49:]"), ("[:20]", "")):
        corpus = CorpusSettings(train=(f"hf:{ds}:train{train}",), valid=(f"hf:{ds}:train{valid}",))
        with pytest.raises(T5smithError, match=r"^corpus\.valid: .*ds/train\.parquet.* is in corpus\.train"):
            CorpusFiles.find(corpus)
    corpus = CorpusSettings(train=(f"hf:{ds}:train[:90]",), valid=(f"hf:{ds}:train[90:]",))
    files = CorpusFiles.find(corpus)
    assert (len(files.files("train")), len(files.files("valid"))) == (1, 1)
    assert [unit.split for unit in Plan.create(files).units] == ["train", "valid"]
