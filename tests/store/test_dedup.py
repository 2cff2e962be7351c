"""Exact and near duplicates: which are dropped, which are kept, also in resumed runs."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from t5smith.base.artifact import read_manifest
from t5smith.base.progress import Bar, progress
from t5smith.recipe.recipe import Recipe
from t5smith.store import dedup as duplicates
from t5smith.store import dedup_records as records
from t5smith.store import plan
from t5smith.store.prepare import prepare
from t5smith.store.token_store import TokenStore, verify_store
from t5smith.store.workspace import Workspace
from t5smith.text.cleaning import minhash
from t5smith.text.cleaning.word_tokenizer import UnicodeWords
from t5smith.text.documents import is_held_out
from t5smith.vocabulary.train import vocab
from t5smith.vocabulary.vocabulary import Vocabulary

MakeRecipe = Callable[..., Recipe]
# Without digits: n-grams are compared with all numbers as equal.
WORDS = ["".join(letters) for letters in itertools.product("bdfgk", "aeiou", "lmnrst", "ae")]


def story(seed: int, length: int = 80) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=length))


def near_duplicate(text: str, seed: int) -> str:
    """The text with one word changed."""
    words = text.split()
    words[random.Random(seed).randrange(len(words))] = "annet"
    return " ".join(words)


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeRecipe:
    """Makes a recipe on texts in JSON lines, in many blocks."""
    monkeypatch.setattr(plan, "MIN_BLOCK_BYTES", 5_000)
    monkeypatch.setattr(plan, "MAX_BLOCK_BYTES", 5_000)

    def made(texts: list[str], *steps: str, **corpus: Any) -> Recipe:
        lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        (tmp_path / "text.jsonl").write_text(lines)
        tree = {
            "run_dir": tmp_path / "run",
            "corpus": {"train": (str(tmp_path / "text.jsonl"),), "held_out_fraction": 0.2, **corpus},
            "vocab": {"size": 420},
            "cleaning": {"steps": steps},
        }
        recipe = Recipe.model_validate(tree)
        vocab(recipe.replace(**{"cleaning.steps": ()}))
        return recipe

    return made


def kept(recipe: Recipe) -> dict[str, list[str]]:
    """The texts of the store, by split."""
    store = TokenStore.open(prepare(recipe))
    vocabulary = Vocabulary.load(recipe.folder / "vocab")
    found: dict[str, list[str]] = {}
    for split in (store.train, store.valid):
        ids = split.tokens.tolist()
        starts = [0, *split.ends.tolist()]
        found[split.name] = [vocabulary.decode(ids[a:b]) for a, b in itertools.pairwise(starts)]
    verify_store(recipe.folder / "store")
    return found


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_the_first_of_equal_texts_is_kept(make: MakeRecipe, tmp_path: Path) -> None:
    draw = random.Random(0)
    texts = [f"{story(draw.randrange(60))} \u5b57" for _ in range(200)]
    recipe = make(texts, "exact_duplicates")
    found = kept(recipe)
    first = list(dict.fromkeys(texts))
    held_out = {text: is_held_out(text, 0.2) for text in first}
    assert found["train"] == [text for text in first if not held_out[text]]
    assert found["valid"] == [text for text in first if held_out[text]]
    (step,) = read_manifest(recipe.folder / "store", "store").facts["cleaning"]
    assert (step["in"], step["dropped"]) == (200, {"a duplicate": 200 - len(first)})
    # The store equals one of the kept texts.
    facts = read_manifest(recipe.folder / "store", "store").facts
    (tmp_path / "text.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in first))
    other = recipe.replace(run_dir=tmp_path / "other", **{"cleaning.steps": ()})
    other.folder.mkdir()
    (other.folder / "vocab").symlink_to(recipe.folder / "vocab")
    plain = read_manifest(prepare(other), "store").facts
    assert (facts["train"], facts["valid"]) == (plain["train"], plain["valid"])
    assert len({one["text"] for one in step["examples"]}) == 10
    for one in step["examples"]:
        line = int(one["place"].rpartition(":")[2]) - 1
        shown = one["text"].removesuffix("…")
        assert texts[line].startswith(shown)
        assert (one["text"] == shown) == (texts[line] == shown)
        assert texts[line] in texts[:line]


def test_one_of_nearly_equal_texts_is_kept(make: MakeRecipe) -> None:
    texts = [story(i) for i in range(60)]
    copies = [near_duplicate(texts[i], i) for i in range(0, 60, 3)]
    again = [near_duplicate(copies[i], -1) for i in range(0, 20, 2)]
    # Shorter than an n-gram, so not compared.
    recipe = make([*texts, *copies, *again, "for kort", "og enda en"], "near_duplicates")
    found = kept(recipe)
    everything = [*found["train"], *found["valid"]]
    assert len(everything) == 62
    assert {"for kort", "og enda en"} <= set(everything)
    for i, text in enumerate(texts):
        group = {
            text,
            *(copy for copy in copies + again if set(copy.split()) - {"annet"} <= set(text.split())),
        }
        (one,) = group & set(everything)
        held_out = [
            member for member in [text, *copies, *again] if member in group and is_held_out(member, 0.2)
        ]
        # The first held-out one, or else the first.
        assert one == (held_out[0] if held_out else text), i


def test_held_out_files_are_not_trained_on(make: MakeRecipe, tmp_path: Path) -> None:
    valid = tmp_path / "valid.jsonl"
    valid.write_text("".join(json.dumps({"text": story(i)}) + "\n" for i in range(5)))
    texts = [story(i) for i in range(3, 30)] + [near_duplicate(story(0), 1)]
    found = kept(make(texts, "exact_duplicates", "near_duplicates", valid=(str(valid),)))
    assert found["valid"] == [story(i) for i in range(5)]
    assert found["train"] == [story(i) for i in range(5, 30)]


@pytest.mark.parametrize("ends", ["\n", " ", "\r\n\r\n", "\u00a0"])
def test_texts_that_differ_only_in_white_space_are_equal(make: MakeRecipe, tmp_path: Path, ends: str) -> None:
    """They have the same ids, so a held-out document would be trained on."""
    valid = tmp_path / "valid.jsonl"
    valid.write_text(json.dumps({"text": story(0)}) + "\n")
    texts = [story(0) + ends, "\t" + story(0).replace(" ", "\n", 1), story(1), story(2), story(2) + ends]
    found = kept(make(texts, "exact_duplicates", valid=(str(valid),)))
    assert found == {"valid": [story(0)], "train": [story(1), story(2)]}


def test_held_out_documents_are_not_trained_on_with_other_trailing_space(make: MakeRecipe) -> None:
    texts = [story(i) for i in range(60)]
    texts += [text + "\n" for text in texts]
    apart = [i for i in range(60) if is_held_out(texts[i], 0.2) != is_held_out(texts[i + 60], 0.2)]
    assert len(apart) > 5
    found = kept(make(texts, "exact_duplicates"))
    assert not set(found["train"]) & set(found["valid"])
    assert sorted(found["train"] + found["valid"]) == sorted(texts[:60])
    assert {texts[i] for i in apart} <= set(found["valid"])


def test_duplicates_among_some_rows_of_a_data_set_are_dropped(make: MakeRecipe, tmp_path: Path) -> None:
    recipe = make([story(i) for i in range(30)], "exact_duplicates")
    (tmp_path / "set").mkdir()
    rows = [story(i % 10) for i in range(30)]
    (tmp_path / "set" / "train.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    found = kept(recipe.replace(**{"corpus.train": (f"hf:{tmp_path / 'set'}:train[:25]",)}))
    assert sorted([*found["train"], *found["valid"]]) == sorted(rows[:10])


def test_each_step_counts_its_own_duplicates(make: MakeRecipe) -> None:
    texts = [story(1), story(1), near_duplicate(story(1), 3), *(story(i) for i in range(2, 20))]
    recipe = make(texts, "exact_duplicates", "near_duplicates")
    prepare(recipe)
    exact, near = read_manifest(recipe.folder / "store", "store").facts["cleaning"]
    assert (exact["in"], exact["dropped"]) == (len(texts), {"a duplicate": 1})
    assert (near["in"], near["dropped"]) == (len(texts) - 1, {"nearly a duplicate": 1})


def test_the_store_does_not_depend_on_tasks_or_memory(
    make: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [story(i % 40) if i % 3 else near_duplicate(story(i % 40), i) for i in range(150)]
    recipe = make(texts, "exact_duplicates", "near_duplicates")
    one = prepare(recipe.replace(**{"prepare.tasks": 1}))
    found = files(one)
    one.rename(one.with_name("one"))
    monkeypatch.setattr(duplicates, "SORTED_AT_ONCE", 7)
    monkeypatch.setattr(records, "CHUNK_DOCUMENTS", 3)
    assert files(prepare(recipe.replace(**{"prepare.tasks": 5}))) == found


@pytest.mark.parametrize("moment", [0, 1, 5, 11])
@pytest.mark.parametrize("where", ["write", "_rewrite_shard"])
def test_a_run_stopped_at_any_shard_resumes(
    make: MakeRecipe, monkeypatch: pytest.MonkeyPatch, moment: int, where: str
) -> None:
    texts = [story(i % 40) if i % 3 else near_duplicate(story(i % 40), i) for i in range(150)]
    recipe = make(texts, "exact_duplicates", "near_duplicates")
    whole = prepare(recipe)
    found = files(whole)
    whole.rename(whole.with_name("whole"))
    done = getattr(duplicates, where)
    calls: list[int] = []

    def ended(*args: Any) -> None:
        calls.append(1)
        if len(calls) > moment:
            raise KeyboardInterrupt
        done(*args)

    monkeypatch.setattr(duplicates, where, ended)
    with pytest.raises(KeyboardInterrupt):
        prepare(recipe)
    assert Workspace.beside(recipe.folder / "store").notes.exists()
    monkeypatch.setattr(duplicates, where, done)
    assert files(prepare(recipe)) == found
    assert not Workspace.beside(recipe.folder / "store").notes.exists()


def test_near_duplicates_are_those_of_datatrove(
    make: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """datatrove's pipeline drops the same number of documents of the same texts."""
    from datatrove.data import Document
    from datatrove.pipeline.dedup.minhash import (
        MinhashConfig,
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupSignature,
    )
    from datatrove.utils.hashes import xxhash

    # This version of datatrove passes str, which xxhash 4 does not accept.
    hash_of_bytes = xxhash.xxhash64
    monkeypatch.setattr(xxhash, "xxhash64", lambda text: hash_of_bytes(text.encode()))
    draw = random.Random(5)
    texts: list[str] = []
    for i in range(120):
        text = story(i, 40)
        texts.append(text)
        for _ in range(draw.choice([0, 0, 1, 3])):
            for _ in range(draw.randrange(8)):
                text = near_duplicate(text, draw.randrange(1 << 30))
            texts.append(text)
    config = MinhashConfig(n_grams=3, num_buckets=9, hashes_per_bucket=3, seed=7)
    words: Any = UnicodeWords("")
    MinhashDedupSignature(str(tmp_path / "sig"), config, words).run(
        (Document(text, str(i)) for i, text in enumerate(texts))
    )
    for bucket in range(9):
        MinhashDedupBuckets(str(tmp_path / "sig"), str(tmp_path / "dups"), config=config).run(None, bucket, 9)
    MinhashDedupCluster(str(tmp_path / "dups"), str(tmp_path / "gone"), config).run()
    theirs = sum(path.stat().st_size // 4 for path in (tmp_path / "gone").glob("*.remove"))
    monkeypatch.undo()
    monkeypatch.setattr(plan, "MIN_BLOCK_BYTES", 5_000)
    monkeypatch.setattr(plan, "MAX_BLOCK_BYTES", 5_000)
    own = {"n_grams": 3, "num_buckets": 9, "hashes_per_bucket": 3, "seed": 7}
    settings = {f"cleaning.near_duplicates.{name}": value for name, value in own.items()}
    recipe = make(texts, "near_duplicates").replace(**settings)
    prepare(recipe)
    (step,) = read_manifest(recipe.folder / "store", "store").facts["cleaning"]
    assert step["dropped"] == {"nearly a duplicate": theirs}
    assert 30 < theirs < len(texts) - 121


@given(st.integers(0, 40), st.integers(1, 9))
def test_signatures_of_long_documents_are_computed_in_parts(words: int, at_once: int) -> None:
    settings = Recipe().cleaning.near_duplicates
    hasher = minhash.MinHasher(settings, UnicodeWords(""), Path())
    text = story(words, words) if words else ""
    with pytest.MonkeyPatch.context() as patch:
        whole = hasher._signature(text)
        patch.setattr(minhash, "NGRAMS_AT_ONCE", at_once)
        assert (hasher._signature(text) == whole).all()
    assert whole.shape == (14, 2)
    assert whole.any() == (words >= 5)


def test_the_bar_counts_hashes_and_ids_and_ends_with_its_total(
    make: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duplicates, "SORTED_AT_ONCE", 7)
    recipe = make([*(story(i) for i in range(40)), story(1)], "exact_duplicates", "near_duplicates")
    bars: list[Bar] = []

    @contextlib.contextmanager
    def noted(title: str, total: int, unit: str) -> Generator[Bar]:
        with progress(title, total, unit) as bar:
            bars.append(bar)
            yield bar

    monkeypatch.setattr(duplicates, "progress", noted)
    rewrite = duplicates._rewrite_shard
    calls: list[int] = []

    def fail_later(*args: Any) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise ZeroDivisionError
        rewrite(*args)

    with monkeypatch.context() as patched:
        patched.setattr(duplicates, "_rewrite_shard", fail_later)
        with pytest.raises(ZeroDivisionError):
            prepare(recipe)
    prepare(recipe)
    stopped, resumed = bars
    hashes = 41 * 16 * (1 + recipe.cleaning.near_duplicates.num_buckets)
    assert stopped.total is not None
    assert resumed.total is not None
    assert hashes < stopped.done < stopped.total
    assert hashes < resumed.total == resumed.done
    assert resumed.total - hashes == stopped.total - stopped.done
