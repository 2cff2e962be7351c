from __future__ import annotations

import json
import os
import pickle
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from t5smith.base.artifact import building, file_hash
from t5smith.base.errors import T5smithError
from t5smith.recipe.recipe import Recipe
from t5smith.store.prepare import prepare
from t5smith.store.shards import Shards
from t5smith.store.token_store import Split, TokenStore, id_dtype
from t5smith.vocabulary.train import build
from t5smith.vocabulary.vocabulary import Vocabulary

MakeRecipe = Callable[..., Recipe]


def split(tokens: list[int]) -> Split:
    return Split("train", np.array(tokens, np.uint16), np.array([len(tokens)], np.int64), 0)


@given(tokens=st.lists(st.integers(0, 99), min_size=1, max_size=60), length=st.integers(1, 60))
def test_windows_are_consecutive_tokens(tokens: list[int], length: int) -> None:
    if length > len(tokens):
        with pytest.raises(T5smithError):
            split(tokens).window_count(length)
        return
    count = split(tokens).window_count(length)
    assert count == len(tokens) // length
    windows = split(tokens).windows(length, np.arange(count))
    assert windows.dtype == np.int32
    assert windows.reshape(-1).tolist() == tokens[: count * length]
    backwards = split(tokens).windows(length, np.arange(count)[::-1])
    assert backwards.tolist() == windows[::-1].tolist()


def test_windows_past_the_end_raise() -> None:
    for index in (-1, 2):
        with pytest.raises(IndexError, match="exceed the 5 tokens of the split"):
            split([1, 2, 3, 4, 5]).windows(2, np.array([0, index]))
    assert split([1, 2]).windows(2, np.array([], np.int64)).shape == (0, 2)


def test_a_split_shorter_than_a_window_is_reported_with_the_fix() -> None:
    message = (
        r"corpus.train: the train split has 1,200 tokens, fewer than one window of 5,000\. Use more text"
    )
    with pytest.raises(T5smithError, match=message):
        split([1] * 1_200).window_count(5_000)


@given(tokens=st.lists(st.integers(0, 9), min_size=1))
def test_counts_equal_a_plain_count(tokens: list[int]) -> None:
    counts = split(tokens).counts(12)
    assert counts.dtype == np.int64
    assert counts.tolist() == [tokens.count(i) for i in range(12)]


def test_counts_of_a_long_split_are_summed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("t5smith.store.token_store._IDS_AT_ONCE", 3)
    assert split([0, 1, 1, 2, 1, 0, 2]).counts(3).tolist() == [2, 3, 2]


def test_ids_outside_the_vocabulary_are_rejected() -> None:
    with pytest.raises(T5smithError, match=r"has id 12; the vocabulary has 12 ids\. Make the store again"):
        split([1, 12]).counts(12)


def test_ids_are_stored_in_the_smallest_type() -> None:
    assert [id_dtype(size).str for size in (100, 65_536, 65_537)] == ["<u2", "<u2", "<u4"]
    assert np.array([65_535], id_dtype(65_536)) == 65_535


def test_a_large_vocabulary_is_stored_in_four_bytes(recipe: MakeRecipe) -> None:
    """The trained vocabulary is replaced by one of 70,000 pieces, most of which do not occur."""
    settings = recipe()
    folder = settings.folder / "vocab"
    pieces = [(f"▁x{i}", -20.0) for i in range(70_000)] + [
        (c, -5.0) for c in "▁abcdefghijklmnopqrstuvwxyz0123456789"
    ]
    with building(folder, "vocab", {"by": "hand"}, {}) as work:
        Vocabulary(build(pieces).to_str()).save(work)
    tokens = TokenStore.open(prepare(settings)).train.tokens
    assert tokens.dtype == np.uint32
    assert max(tokens.tolist()) > 70_000


def test_tokens_are_mapped_and_read_only(recipe: MakeRecipe) -> None:
    store = TokenStore.open(prepare(recipe()))
    assert isinstance(store.valid.ends, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        store.valid.ends[0] = 1
    with pytest.raises(TypeError):
        store.train.tokens[0] = 1


@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=6), length=st.integers(1, 20), data=st.data())
def test_shards_read_as_one_array(
    sizes: list[int], length: int, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    flat = np.arange(100, 100 + sum(sizes), dtype="<u2")
    files = []
    for number, (size, end) in enumerate(zip(sizes, np.cumsum(sizes), strict=True)):
        flat[end - size : end].tofile(folder / str(number))
        files.append((str(folder / str(number)), size))
    shards = pickle.loads(pickle.dumps(Shards(files, np.dtype("<u2"))))
    assert (len(shards), shards.tolist(), np.asarray(shards).tolist()) == (len(flat), *[flat.tolist()] * 2)
    start, stop = (data.draw(st.integers(-3, len(flat) + 3)) for _ in range(2))
    assert shards[start:stop].tolist() == flat[start:stop].tolist()
    whole = Split("train", flat, np.array([len(flat)]), 0)
    sharded = Split("train", shards, np.array([len(flat)]), 0)
    if length <= len(flat):
        starts = np.array(data.draw(st.lists(st.integers(0, len(flat) - length))), np.int64)
        assert sharded.windows_at(starts, length).tolist() == whole.windows_at(starts, length).tolist()
    assert sharded.counts(200).tolist() == whole.counts(200).tolist()


def test_a_damaged_store_is_rejected(recipe: MakeRecipe) -> None:
    folder = prepare(recipe())
    ids = folder / "train" / "00000-00000.bin"
    data = bytearray(ids.read_bytes())
    data[3] ^= 1
    ids.write_bytes(data)
    with pytest.raises(T5smithError, match=r"00000-00000.bin: changed since it was written"):
        TokenStore.open(folder)
    TokenStore.open(folder, check_hashes=False)
    ids.write_bytes(data[:-2])
    with pytest.raises(T5smithError, match=r"00000-00000.bin: changed since it was written"):
        TokenStore.open(folder, check_hashes=False)


def test_a_folder_that_is_not_a_store_is_rejected(recipe: MakeRecipe, tmp_path: Path) -> None:
    with pytest.raises(T5smithError, match=r"no finished store\. Make it with `t5smith prepare RECIPE`"):
        TokenStore.open(tmp_path)
    with pytest.raises(T5smithError, match="this is a vocab; expected a store"):
        TokenStore.open(recipe().folder / "vocab")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda facts: facts.clear(), "'vocab_size' is missing"),
        (lambda facts: facts.pop("valid"), "'valid' is missing"),
        (lambda facts: facts["train"].pop("text_bytes"), "'text_bytes' is missing"),
        (lambda facts: facts["train"].pop("tokens"), "'tokens' is missing"),
        (lambda facts: facts.update(vocab_size="many"), ""),
        (lambda facts: facts.update(train=[]), ""),
        (lambda facts: facts["train"].update(corpora=["a"]), ""),
    ],
)
def test_an_incomplete_manifest_is_rejected_in_one_line(
    recipe: MakeRecipe, change: Callable[[dict[str, Any]], Any], problem: str
) -> None:
    made = recipe()
    manifest = prepare(made) / "manifest.json"
    tree = json.loads(manifest.read_text())
    change(tree["facts"])
    manifest.write_text(json.dumps(tree))
    with pytest.raises(T5smithError) as caught:
        prepare(made, verify=True)
    assert f"damaged manifest or shards.json ({problem}" in str(caught.value)
    assert str(caught.value).endswith("Make it again with `t5smith prepare`")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"train": []}',
        '{"train": 5, "valid": []}',
        '{"train": [["00000-00000.bin", 1000000]], "valid": []}',
        '{"train": [["00000-00000.bin", -1]], "valid": []}',
        '{"train": [["00000-00000.bin", 1.5]], "valid": []}',
        '{"train": [["00000-00000.bin", 100000000000000000000]], "valid": []}',
        '{"train": [["elsewhere.bin", 1]], "valid": []}',
        '{"train": [["00000-00000.bin"]], "valid": []}',
    ],
)
def test_a_table_of_shards_damaged_before_hashing_is_rejected(recipe: MakeRecipe, text: str) -> None:
    folder = prepare(recipe())
    (folder / "shards.json").write_text(text)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["shards.json"] = {"bytes": len(text), "sha256": file_hash(folder / "shards.json")}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(T5smithError, match=r"damaged manifest or shards.json \(.* Make it"):
        TokenStore.open(folder)


@pytest.mark.parametrize(
    ("files", "space", "mapped"), [(12, -1, 3), (1 << 20, 8 * 2 * 2 * 10, 2), (3, -1, 0)]
)
def test_shards_beyond_the_limits_are_read_without_a_map(
    files: int, space: int, mapped: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many files stay mapped as limits allow; the others hold no descriptor, also after a move."""
    monkeypatch.setattr("t5smith.store.shards._descriptors", lambda: 0)
    soft = {resource.RLIMIT_NOFILE: files, resource.RLIMIT_AS: space}
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (soft[kind], -1))
    flat = np.arange(200, dtype="<u2")
    (tmp_path / "train").mkdir()
    names = [(str(tmp_path / "train" / str(number)), 10) for number in range(20)]
    for number, (name, size) in enumerate(names):
        flat[number * size : (number + 1) * size].tofile(name)
    before = len(os.listdir("/dev/fd"))
    shards = pickle.loads(pickle.dumps(Shards(names, np.dtype("<u2"))))
    assert shards.mapped == mapped
    assert len(os.listdir("/dev/fd")) - before <= mapped + 1
    (tmp_path / "train").rename(tmp_path / "moved")
    assert shards.tolist() == flat.tolist()
    starts = np.random.default_rng(0).integers(0, 200 - 7, 500)
    assert shards.windows_at(starts, 7).tolist() == flat[starts[:, None] + np.arange(7)].tolist()
    del shards
    assert len(os.listdir("/dev/fd")) == before


def test_a_shard_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (0, 0))
    (tmp_path / "a.bin").write_bytes(bytes(20))
    shards = Shards([(str(tmp_path / "a.bin"), 10)], np.dtype("<u2"))
    (tmp_path / "a.bin").write_bytes(bytes(10))
    with pytest.raises(ValueError, match=r"a\.bin is shorter than its 10 ids"):
        shards[:]
    (tmp_path / "a.bin").unlink()
    with pytest.raises(T5smithError, match=r"a\.bin: cannot be read \(No such file"):
        shards[:]
