"""A corpus that grows: the vocabulary is kept, and only new text is prepared."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import pytest

from t5smith.base.artifact import read_manifest
from t5smith.base.errors import TrainingAtStake
from t5smith.base.run_folder import archives
from t5smith.pipeline import run
from t5smith.recipe.recipe import Recipe
from t5smith.store import plan, worker
from t5smith.store import prepare as module
from t5smith.store.prepare import prepare
from t5smith.vocabulary.train import vocab
from tiny import tiny_recipe


def write(file: Path, word: str, documents: int = 40) -> str:
    file.write_text("\n\n".join(f"{word} {word}er {i}" for i in range(documents)), encoding="utf-8")
    return str(file)


def recipe_of(folder: Path, *train: str, **changes: object) -> Recipe:
    corpus = {"train": train, "held_out_fraction": 0.2}
    recipe = {"run_dir": folder / "run", "corpus": corpus, "vocab": {"size": 60}}
    return Recipe.model_validate(recipe).replace(**changes)


def learned_from(recipe: Recipe) -> list[str]:
    inputs = read_manifest(recipe.folder / "vocab", "vocab").inputs
    return [file["name"] for file in inputs["corpus"]["train"]]


def test_files_that_come_go_or_change_keep_the_vocabulary(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    one, two = write(tmp_path / "one.txt", "dag"), write(tmp_path / "two.txt", "natt")
    first = recipe_of(tmp_path, one)
    vocab(first)
    before = read_manifest(first.folder / "vocab", "vocab")
    held_out = {"corpus.valid": (two,)}
    for recipe, told in (
        (recipe_of(tmp_path, one, two), "two.txt added"),
        (recipe_of(tmp_path, two), "one.txt"),
        (recipe_of(tmp_path, f"nb={one}", f"nn={two}"), "two.txt added"),
        (first.replace(**held_out), "corpus.held_out_fraction 0.2 → none"),
    ):
        capfd.readouterr()
        vocab(recipe)
        (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("vocab ")]
        assert "kept (" in line
        assert told in line
        assert "--retrain-vocab trains it again" in line
        assert read_manifest(recipe.folder / "vocab", "vocab") == before
    write(tmp_path / "one.txt", "uke")
    vocab(first)
    assert "one.txt changed" in capfd.readouterr().err
    assert read_manifest(first.folder / "vocab", "vocab") == before


def test_retrain_vocab_learns_from_the_files_of_today_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    one, two = write(tmp_path / "one.txt", "dag"), write(tmp_path / "two.txt", "natt")
    vocab(recipe_of(tmp_path, one))
    grown = recipe_of(tmp_path, one, two)
    vocab(grown, retrain_vocab=True)
    assert learned_from(grown) == ["one.txt", "two.txt"]
    fresh = grown.replace(run_dir=tmp_path / "fresh")
    vocab(fresh)
    files = [read_manifest(made.folder / "vocab", "vocab").files for made in (grown, fresh)]
    assert files[0] == files[1]
    assert [one.folder.name for one in archives(grown.folder)] == ["vocab-1"]
    capfd.readouterr()
    vocab(grown, retrain_vocab=True)
    assert "vocab     unchanged" in capfd.readouterr().err


@pytest.mark.parametrize(
    "change", [{"vocab.size": 50}, {"cleaning.steps": ("unicode",)}, {"corpus.held_out_fraction": 0.3}]
)
def test_changed_settings_train_it_again_from_the_files_of_today(
    tmp_path: Path, change: dict[str, object]
) -> None:
    one, two = write(tmp_path / "one.txt", "dag"), write(tmp_path / "two.txt", "natt")
    vocab(recipe_of(tmp_path, one))
    changed = recipe_of(tmp_path, one, two, **change)
    vocab(changed)
    assert learned_from(changed) == ["one.txt", "two.txt"]


def test_prepare_alone_tells_that_the_vocabulary_was_kept(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    one, two = write(tmp_path / "one.txt", "dag"), write(tmp_path / "two.txt", "natt")
    vocab(recipe_of(tmp_path, one))
    prepare(recipe_of(tmp_path, one, two))
    assert "prepare   vocabulary kept (corpus.train (two.txt added); `t5smith vocab" in capfd.readouterr().err


@pytest.mark.slow
def test_trained_steps_are_the_users_decision_when_text_is_added(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path / "run", **{"train.steps": 3})
    run(recipe)
    extra = write(tmp_path / "extra.txt", "dag", 300)
    grown = recipe.replace(**{"corpus.train": (*recipe.corpus.train, extra)})
    before = {kind: read_manifest(recipe.folder / kind, kind) for kind in ("vocab", "store")}
    with pytest.raises(TrainingAtStake, match=r"corpus.train \(extra.txt added\)"):
        run(grown)
    with pytest.raises(TrainingAtStake, match=r"corpus.train \(extra.txt added\)"):
        run(grown, retrain_vocab=True)
    with pytest.raises(TrainingAtStake):
        vocab(grown, retrain_vocab=True)
    vocab(grown)
    assert before == {kind: read_manifest(recipe.folder / kind, kind) for kind in ("vocab", "store")}
    run(grown, restart=True)
    assert read_manifest(recipe.folder / "vocab", "vocab") == before["vocab"]
    assert read_manifest(recipe.folder / "store", "store").inputs["vocab"] == before["store"].inputs["vocab"]
    assert [one.folder.name for one in archives(recipe.folder)] == [
        "evaluation-1",
        "model-1",
        "store-1",
        "train-1",
    ]


@pytest.mark.slow
def test_a_store_that_is_lost_is_made_again_only_from_its_own_text(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path / "run", **{"train.steps": 3})
    run(recipe)
    made = (recipe.folder / "store").rename(tmp_path / "lost")
    extra = write(tmp_path / "extra.txt", "dag", 300)
    with pytest.raises(TrainingAtStake, match="since the store was lost"):
        run(recipe.replace(**{"corpus.train": (*recipe.corpus.train, extra)}))
    run(recipe)
    assert read_manifest(recipe.folder / "store", "store") == read_manifest(made, "store")


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of two thousand bytes."""
    monkeypatch.setattr(plan, "MIN_BLOCK_BYTES", 2_000)
    monkeypatch.setattr(plan, "MAX_BLOCK_BYTES", 2_000)


def texts(folder: Path) -> list[Path]:
    """Large files, one of them compressed, and small ones."""
    (folder / "text").mkdir()
    for name, documents in (("b", 200), ("d", 20), ("e", 20), ("f", 300)):
        write(folder / "text" / f"{name}.txt", f"dag{name}", documents)
    large = "\n\n".join(f"natt {i}" for i in range(500)).encode()
    (folder / "text" / "c.txt.gz").write_bytes(gzip.compress(large, 0, mtime=0))
    return sorted((folder / "text").iterdir())


def read_files(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that `prepare` reads documents of."""
    seen: list[str] = []
    read = worker.positioned_documents

    def noted(corpus: object, name: str, *rest: object) -> object:
        seen.append(Path(name).name)
        return read(corpus, name, *rest)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(worker, "positioned_documents", noted)
        prepare(recipe)
    return sorted(set(seen))


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("tasks", [1, 8])
def test_only_new_text_is_prepared_and_the_store_is_a_fresh_one(
    tmp_path: Path, tasks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts(tmp_path)
    recipe = recipe_of(tmp_path, str(tmp_path / "text"), **{"prepare.tasks": tasks})
    vocab(recipe)
    prepare(recipe)
    # In front of the others, so that every shard has another number.
    write(tmp_path / "text" / "a.txt", "uke", 200)
    assert read_files(recipe, monkeypatch) == ["a.txt"]
    write(tmp_path / "text" / "f.txt", "år", 200)
    (tmp_path / "text" / "b.txt").unlink()
    assert read_files(recipe, monkeypatch) == ["f.txt"]
    fresh = shutil.copytree(recipe.folder / "vocab", tmp_path / "fresh" / "vocab").parent
    assert contents(recipe.folder / "store") == contents(prepare(recipe.replace(run_dir=fresh)))


@pytest.mark.usefixtures("small_blocks")
def test_other_settings_and_damaged_shards_are_prepared_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [file.name for file in texts(tmp_path)]
    recipe = recipe_of(tmp_path, str(tmp_path / "text"))
    vocab(recipe)
    prepare(recipe)
    assert read_files(recipe.replace(**{"prepare.document_separator": "none"}), monkeypatch) == names
    assert read_files(recipe, monkeypatch) == names
    monkeypatch.setattr(module, "NOTES_FORMAT", module.NOTES_FORMAT + 1)
    write(tmp_path / "text" / "a.txt", "uke", 199)
    assert read_files(recipe, monkeypatch) == ["a.txt", *names]
    (tmp_path / "text" / "a.txt").unlink()
    assert read_files(recipe, monkeypatch) == []
    damaged = recipe.folder / "store" / "train" / "00000-00000.bin"
    damaged.write_bytes(bytes(damaged.stat().st_size))
    write(tmp_path / "text" / "a.txt", "uke", 200)
    assert read_files(recipe, monkeypatch) == ["a.txt", "b.txt"]
    write(tmp_path / "text" / "a.txt", "uke", 201)
    unlike = recipe.replace(**{"cleaning.steps": ("exact_duplicates",)})
    assert read_files(unlike, monkeypatch) == ["a.txt", *names]
    assert not (recipe.folder / "store.shards").exists()


@pytest.mark.usefixtures("small_blocks")
def test_a_stopped_run_keeps_what_it_took_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts(tmp_path)
    recipe = recipe_of(tmp_path, str(tmp_path / "text"))
    vocab(recipe)
    prepare(recipe)
    write(tmp_path / "text" / "a.txt", "uke", 200)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "finish_store", stop)
        with pytest.raises(KeyboardInterrupt):
            prepare(recipe)
    assert read_files(recipe, monkeypatch) == []
    fresh = shutil.copytree(recipe.folder / "vocab", tmp_path / "fresh" / "vocab").parent
    assert contents(recipe.folder / "store") == contents(prepare(recipe.replace(run_dir=fresh)))
