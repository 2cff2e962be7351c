from __future__ import annotations

import contextlib
import itertools
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from t5smith.base.artifact import read_manifest, seal
from t5smith.base.errors import T5smithError
from t5smith.pipeline import prepare as with_page
from t5smith.recipe.recipe import Recipe
from t5smith.recipe.toml import load_recipe
from t5smith.store import token_store
from t5smith.store.prepare import prepare
from t5smith.store.token_store import TokenStore
from t5smith.text.corpus import CorpusFiles
from t5smith.text.documents import split_documents
from t5smith.vocabulary.vocabulary import Vocabulary

MakeRecipe = Callable[..., Recipe]


@pytest.fixture(params=["eos", "none"])
def separator(request: pytest.FixtureRequest) -> str:
    return request.param


def test_the_store_has_the_ids_of_all_documents(recipe: MakeRecipe, separator: str) -> None:
    settings = recipe().replace(**{"prepare.document_separator": separator})
    folder = prepare(settings)
    assert folder == settings.folder / "store"
    vocabulary = Vocabulary.load(settings.folder / "vocab")
    store = TokenStore.open(folder)
    facts = read_manifest(folder, "store").facts
    assert facts["vocab_size"] == vocabulary.size
    end = [vocabulary.eos_id] if separator == "eos" else []
    for split in (store.train, store.valid):
        documents = list(split_documents(CorpusFiles.find(settings.corpus), split.name))
        expected = [vocabulary.encode(document.text) + end for document in documents]
        assert split.tokens.dtype == np.uint16
        assert split.tokens.tolist() == list(itertools.chain(*expected))
        assert split.ends.dtype == np.int64
        assert split.ends.tolist() == np.cumsum([len(ids) for ids in expected]).tolist()
        told = facts[split.name]
        assert told["documents"] == len(documents)
        assert told["tokens"] == len(split.tokens)
        assert told["separators"] == len(documents) * len(end)
        assert told["text_bytes"] == split.text_bytes == sum(document.bytes for document in documents)
        assert told["bytes_per_token"] == told["text_bytes"] / (told["tokens"] - told["separators"])
        assert told["unknown"] == split.tokens.tolist().count(vocabulary.unk_id)
        assert told["unknown_rate"] == told["unknown"] / (told["tokens"] - told["separators"])
    assert facts["train"]["documents"] + facts["valid"]["documents"] == 20


def copy_vocab(settings: Recipe, name: str) -> Path:
    folder = settings.folder.with_name(name)
    folder.mkdir()
    (folder / "vocab").symlink_to(settings.folder.absolute() / "vocab")
    return folder


def test_prepare_is_skipped_if_unchanged_and_redone_if_inputs_change(
    recipe: MakeRecipe, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    settings = recipe()
    made = (prepare(settings) / "manifest.json").stat().st_mtime_ns
    capfd.readouterr()
    same = settings.replace(seed=7, **{"train.steps": 5, "vocab.size": 39})
    assert (prepare(same) / "manifest.json").stat().st_mtime_ns == made
    assert "unchanged" in capfd.readouterr().err
    keys = {read_manifest(settings.folder / "store", "store").key}
    for change in ({"prepare.document_separator": "none"}, {"corpus.held_out_fraction": 0.4}):
        keys.add(read_manifest(prepare(settings.replace(**change)), "store").key)
    held = tmp_path / "held.txt"
    for text in ("en dag", "en natt"):
        held.write_text(text)
        keys.add(read_manifest(prepare(settings.replace(**{"corpus.valid": (str(held),)})), "store").key)
    recipe(document="line")  # another vocabulary
    keys.add(read_manifest(prepare(settings), "store").key)
    assert len(keys) == 6


def test_a_missing_vocabulary_is_reported_with_the_fix(tmp_path: Path) -> None:
    with pytest.raises(T5smithError, match=r"vocab: no finished vocab\. Make it with `t5smith vocab RECIPE`"):
        prepare(Recipe(run_dir=tmp_path))


def test_empty_documents_are_counted_and_reported(
    recipe: MakeRecipe, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path / "held.jsonl"
    rows.write_text('{"text": ""}\n{"text": "en dag"}\n{"text": " \\n\\u00a0"}\n')
    folder = prepare(recipe(valid=(str(rows),)))
    facts = read_manifest(folder, "store").facts
    assert (facts["valid"]["documents"], facts["valid"]["empty_documents"]) == (1, 2)
    assert facts["train"]["empty_documents"] == 0
    assert len(TokenStore.open(folder).valid.ends) == 1
    assert "2 empty documents dropped" in capfd.readouterr().err


def test_many_unknown_tokens_give_a_warning(
    recipe: MakeRecipe, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    held = tmp_path / "held.txt"
    held.write_text("dag ☃ og ☂", encoding="utf-8")
    folder = prepare(recipe(valid=(str(held),)))
    facts = read_manifest(folder, "store").facts["valid"]
    assert facts["unknown"] == 2
    warnings = [line for line in capfd.readouterr().err.splitlines() if "of the tokens" in line]
    assert len(warnings) == 1
    assert f"{facts['unknown_rate']:.2%} of the tokens of the valid split are <unk>" in warnings[0]


def test_a_split_without_text_is_rejected(recipe: MakeRecipe, tmp_path: Path) -> None:
    with pytest.raises(
        T5smithError,
        match=r"corpus.held_out_fraction: none of \d+ documents fell into .*, whose share is 1e-09",
    ):
        prepare(recipe(held_out_fraction=1e-9))
    empty = tmp_path / "empty.jsonl"
    empty.write_text('{"text": ""}\n')
    settings = recipe(valid=(str(empty),))
    with pytest.raises(T5smithError, match=r"corpus.valid: the valid split has no text \(1 empty document\)"):
        prepare(settings)
    assert not (settings.folder / "store").exists()


def test_a_failed_run_does_not_change_the_existing_store(recipe: MakeRecipe, tmp_path: Path) -> None:
    settings = recipe()
    prepare(settings)
    bad = tmp_path / "bad.txt"
    bad.write_bytes(b"dag\n\nbl\xe5")
    with pytest.raises(T5smithError, match=r"bad.txt:3: invalid UTF-8"):
        prepare(settings.replace(**{"corpus.valid": (str(bad),), "corpus.strict": True}))
    assert load_recipe(settings.folder) == settings
    assert [path.name for path in sorted(settings.folder.iterdir())] == [
        ".lock",
        "recipe.toml",
        "store",
        "store.notes",
        "store.shards",
        "store.unfinished",
        "vocab",
    ]
    TokenStore.open(settings.folder / "store")


@contextlib.contextmanager
def little_room(size: int) -> Iterator[None]:
    """Limit the size of files; writing fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("size", [64, 2_000])
def test_disk_errors_are_one_line(recipe: MakeRecipe, tmp_path: Path, size: int) -> None:
    """Either the ids do not fit, or only the ends of documents do not."""
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("a\n" * 300)
    settings = recipe(train=(str(tmp_path / "a.txt"),), valid=(str(tmp_path / "b.txt"),), document="line")
    settings = settings.replace(**{"prepare.document_separator": "none"})
    message = "the file grew past the allowed size"
    with little_room(size), pytest.raises(T5smithError, match=message):
        prepare(settings)
    assert not (settings.folder / "store").exists()


def test_verify_reports_damage(recipe: MakeRecipe, capfd: pytest.CaptureFixture[str]) -> None:
    settings = recipe()
    with pytest.raises(T5smithError, match="no finished store"):
        prepare(settings, verify=True)
    folder = prepare(settings)
    made = (folder / "manifest.json").stat().st_mtime_ns
    assert prepare(settings.replace(**{"prepare.document_separator": "none"}), verify=True) == folder
    assert (folder / "manifest.json").stat().st_mtime_ns == made
    assert "2 shards, 178 tokens: no error found" in capfd.readouterr().err
    shard = folder / "train" / "00000-00000.bin"
    data = bytearray(shard.read_bytes())
    data[7] ^= 1
    shard.write_bytes(data)
    with pytest.raises(T5smithError, match=r"00000-00000\.bin: changed since it was written"):
        prepare(settings, verify=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ends: ends[::-1], "the ends of documents do not increase"),
        (lambda ends: ends[:-1], "the length of the train split differs from the manifest"),
    ],
)
def test_verify_finds_wrong_ends_of_documents(
    recipe: MakeRecipe, change: Callable[[np.ndarray], np.ndarray], message: str
) -> None:
    """Wrong files with a manifest that has their hashes, as a bug might write them."""
    folder = prepare(recipe())
    old = read_manifest(folder, "store")
    np.save(folder / "train.ends.npy", change(np.load(folder / "train.ends.npy")))
    (folder / "manifest.json").unlink()
    seal(folder, "store", old.inputs, old.facts)
    with pytest.raises(T5smithError, match=message):
        prepare(recipe(), verify=True)


def test_verify_compares_ends_of_documents_across_its_parts(
    recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = prepare(recipe())
    old = read_manifest(folder, "store")
    ends = np.load(folder / "train.ends.npy")
    ends[[1, 2]] = ends[[2, 1]]
    np.save(folder / "train.ends.npy", ends)
    (folder / "manifest.json").unlink()
    seal(folder, "store", old.inputs, old.facts)
    monkeypatch.setattr(token_store, "_IDS_AT_ONCE", 2)
    with pytest.raises(T5smithError, match="the ends of documents do not increase"):
        prepare(recipe(), verify=True)


def test_verify_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(T5smithError):
        with_page(Recipe(run_dir=tmp_path / "run"), verify=True)
    assert not (tmp_path / "run").exists()
