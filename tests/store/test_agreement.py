"""All tasks and resumed runs agree on a file: its text field, its skipped records, whether it is usable."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from t5smith.base.artifact import read_manifest
from t5smith.base.errors import T5smithError
from t5smith.recipe.corpus import CorpusSettings
from t5smith.recipe.recipe import Recipe
from t5smith.store import plan as plan_module
from t5smith.store import prepare as module
from t5smith.store.prepare import prepare
from t5smith.text.documents import read_documents
from t5smith.vocabulary.train import vocab

Make = Callable[..., Recipe]


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a thousand bytes."""
    monkeypatch.setattr(plan_module, "MIN_BLOCK_BYTES", 1_000)
    monkeypatch.setattr(plan_module, "MAX_BLOCK_BYTES", 1_000)
    monkeypatch.setattr(module, "IN_PROCESS_BYTES", 1)


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes recipes with a vocabulary, each in its own run folder."""

    def made(*train: object, name: str = "run", **more: object) -> Recipe:
        recipe = Recipe.model_validate(
            {
                "run_dir": tmp_path / name,
                "corpus": {"train": tuple(map(str, train)), "held_out_fraction": 0.2},
                "vocab": {"size": 60},
            }
        ).replace(**more)
        vocab(recipe)
        return recipe

    return made


def lines(rows: list[dict[str, object]], compressed: bool = False) -> bytes:
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    # Stored without compression, so that it has several blocks on disk too.
    return gzip.compress(data, 0, mtime=0) if compressed else data


def stop_after_first_block(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave an unfinished store of which only the first block is done."""
    with monkeypatch.context() as patch:
        patch.setattr(module, "finish_store", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            prepare(recipe)
    (notes,) = (recipe.folder / "store.notes").iterdir()
    for note in (notes / "shards").glob("*.json"):
        if note.stem != "00000-00000":
            note.unlink()
    (notes / "ends" / "00000").unlink(missing_ok=True)
    for done in (notes / "completed").iterdir():
        done.unlink()


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("compressed", [False, True])
def test_all_tasks_use_the_text_field_of_the_first_records(
    tmp_path: Path, make: Make, compressed: bool
) -> None:
    rows: list[dict[str, object]] = [{"content": f"ny dag {i}"} for i in range(60)]
    rows += [{"text": f"gammel natt {i}", "content": f"ny dag {i}"} for i in range(60, 120)]
    file = tmp_path / ("a.jsonl.gz" if compressed else "a.jsonl")
    file.write_bytes(lines(rows, compressed))
    assert [one.text for one in read_documents(CorpusSettings(), [file])] == [
        f"ny dag {i}" for i in range(120)
    ]
    stores = [files(prepare(make(file, name=f"r{n}", **{"prepare.tasks": n}))) for n in (1, 3)]
    assert stores[0] == stores[1]


def test_an_ambiguous_text_field_is_rejected_before_anything_is_read(tmp_path: Path) -> None:
    both = {"title": "t", "story": "en dag"}
    file = tmp_path / "a.jsonl"
    for rows in ([both] * 5 + [{"title": "t"}] * 5 + [both] * 50, [{"title": "t"}] * 5 + [both] * 50):
        file.write_bytes(lines(rows))
        with pytest.raises(T5smithError, match=r"a\.jsonl:1: 2 fields hold text, and none is called"):
            list(read_documents(CorpusSettings(), [file]))
        chosen = read_documents(CorpusSettings(text_field="story"), [file])
        assert {one.text for one in chosen} == {"en dag"}


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("then_good", [False, True])
def test_a_usable_file_stays_usable_in_a_resumed_run(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch, then_good: bool
) -> None:
    """Its second block begins with many unusable records; the first block is not read again."""
    good: list[dict[str, object]] = [{"text": f"en dag {i}"} for i in range(200)]
    file = tmp_path / "a.jsonl.gz"
    file.write_bytes(lines([*good[:41], *[{"text": 5}] * 80, *good[41:] * then_good], compressed=True))
    whole = files(prepare(make(file, name="whole", **{"prepare.tasks": 1})))
    recipe = make(file, **{"prepare.tasks": 1})
    stop_after_first_block(recipe, monkeypatch)
    assert files(prepare(recipe)) == whole


@pytest.mark.usefixtures("blocks")
def test_whether_a_file_is_rejected_does_not_depend_on_the_number_of_tasks(
    tmp_path: Path, make: Make
) -> None:
    """Its first block has only a few bad records, more follow, and the rest is usable."""
    bad = {"text": 5, "pad": "x" * 90}
    file = tmp_path / "a.jsonl.gz"
    file.write_bytes(lines([*[bad] * 30, *({"text": f"en dag {i}"} for i in range(300))], compressed=True))
    (tmp_path / "b.txt").write_text("\n\n".join(f"en dag {i}" for i in range(300)))
    stores: list[dict[str, bytes]] = []
    for tasks in (1, 3):
        recipe = make(tmp_path / "b.txt", name=f"run{tasks}", **{"prepare.tasks": tasks})
        changed = recipe.replace(**{"corpus.train": (str(file),), "corpus.text_field": "text"})
        stores.append(files(prepare(changed)))
    assert stores[0] == stores[1]


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
@pytest.mark.parametrize("tasks", [1, 2, 3])
def test_an_unusable_file_is_rejected_with_any_number_of_tasks(
    tmp_path: Path, make: Make, name: str, tasks: int
) -> None:
    file = tmp_path / name
    # Fewer than the number at which a file is rejected at once.
    file.write_bytes(lines([{"text": 5, "pad": "x" * 400}] * 15, name.endswith(".gz")))
    (tmp_path / "b.txt").write_text("\n\n".join(f"en dag {i}" for i in range(90)))
    recipe = make(tmp_path / "b.txt")
    recipe = recipe.replace(
        **{"corpus.train": (str(tmp_path / "b.txt"), str(file)), "corpus.text_field": "text"}
    )
    with pytest.raises(T5smithError, match=rf"{name}.*the field 'text' is a number, not text"):
        prepare(recipe.replace(**{"prepare.tasks": tasks}))


@pytest.mark.usefixtures("blocks")
def test_a_resumed_run_reads_files_that_were_moved(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "a.jsonl").write_bytes(lines([{"text": f"en dag {i}"} for i in range(200)]))
    recipe = make(tmp_path / "one")
    stop_after_first_block(recipe, monkeypatch)
    (tmp_path / "one").rename(tmp_path / "two")
    moved = recipe.replace(**{"corpus.train": (str(tmp_path / "two"),)})
    assert files(prepare(moved)) == files(prepare(make(tmp_path / "two", name="whole")))


def test_renamed_corpora_are_read_again(tmp_path: Path, make: Make) -> None:
    for name in ("x", "y", "v"):
        (tmp_path / f"{name}.txt").write_text(
            "\n\n".join(f"en dag {name} {i}" * (1 + (name == "y")) for i in range(60))
        )
    x, y, v = (tmp_path / f"{name}.txt" for name in "xyv")

    def sizes(split: str, *train: str, valid: tuple[str, ...] = ()) -> dict[str, int]:
        facts = read_manifest(prepare(make(*train, **{"corpus.valid": valid})), "store").facts
        return {name: own["text_bytes"] for name, own in facts[split].get("corpora", {}).items()}

    before = sizes("train", f"nb={x}", f"nn={y}")
    after = sizes("train", f"nn={x}", f"nb={y}")
    assert after["nb"] > after["nn"]
    assert before["nn"] > before["nb"]
    assert not sizes("valid", f"nn={x}", f"nb={y}", valid=(str(v),))
    assert set(sizes("valid", f"nn={x}", f"nb={y}", valid=(f"nb={v}",))) == {"nb"}


def test_weights_of_unknown_corpora_are_rejected_before_anything_is_read(tmp_path: Path, make: Make) -> None:
    (tmp_path / "x.txt").write_text("en dag\n\nto dager\n\n" * 20)
    recipe = make(f"nb={tmp_path}/x.txt").replace(**{"corpus.weights": ("nx=1",)})
    with pytest.raises(T5smithError, match="weights for nx, but the corpora are nb"):
        prepare(recipe)


def test_a_vocabulary_with_different_settings_gives_a_warning(
    tmp_path: Path, make: Make, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.txt").write_text("\n\n".join(f"en dag {i}" for i in range(60)))
    recipe = make(tmp_path / "x.txt")
    prepare(recipe)
    assert "the vocabulary" not in capfd.readouterr().err
    prepare(recipe.replace(**{"corpus.held_out_fraction": 0.4}))
    error = capfd.readouterr().err
    assert "the vocabulary was trained with other settings (corpus.held_out_fraction 0.2 → 0.4)" in error
    prepare(recipe.replace(**{"vocab.size": 70, "corpus.held_out_fraction": 0.3}))
    error = capfd.readouterr().err
    assert "other settings (vocab.size 60 → 70; corpus.held_out_fraction 0.2 → 0.3)" in error


def test_a_corpus_without_held_out_documents_gives_a_warning(
    tmp_path: Path, make: Make, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.txt").write_text("\n\n".join(f"en dag {i}" for i in range(60)))
    (tmp_path / "y.txt").write_text("tre dager")
    text = f"nb={tmp_path}/x.txt", f"nn={tmp_path}/y.txt"
    prepare(make(*text))
    assert "no document of the corpus 'nn' is held out" in capfd.readouterr().err
