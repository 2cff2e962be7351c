"""Fifty kills of the input pipeline of a UL2 run over three mixed corpora change none of its batches."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import killed
import pytest

from t5smith.store.prepare import prepare
from t5smith.store.token_store import TokenStore
from t5smith.vocabulary.train import vocab
from tiny import tiny_recipe

STEPS = 150


@pytest.fixture(scope="module")
def three_corpora(tmp_path_factory):
    folder = tmp_path_factory.mktemp("three") / "run"
    texts = {"nob": "udhr-nob", "nno": "udhr-nno", "book": "debian-handbook-nb.valid"}
    recipe = tiny_recipe(folder).replace(
        **{
            "corpus.train": [f"{name}=bundled:norwegian/{file}.txt.xz" for name, file in texts.items()],
            "corpus.document": "block",
            "corpus.held_out_fraction": 0.05,
            "vocab.control_symbols": ["[R]", "[S]", "[X]"],
        }
    )
    vocab(recipe)
    prepare(recipe)
    return folder


@pytest.mark.slow
def test_fifty_kills_change_no_batch(three_corpora, tmp_path):
    log = tmp_path / "log"
    script = Path(killed.__file__)
    subprocess.run(
        [sys.executable, str(script), str(three_corpora), str(log), "50", str(STEPS)], check=True, timeout=300
    )
    lines = log.read_text().splitlines()
    batches = killed.batches_of(three_corpora)
    assert [corpus.name for corpus in batches.split.corpora] == ["nob", "nno", "book"]
    assert lines == [f"{b} {killed.digest_of(batches[b])}" for b in range(STEPS)]
    assert len({line.split()[1] for line in lines}) == STEPS


def test_corpora_lie_one_after_the_other_in_the_store(three_corpora):
    train = TokenStore.open(three_corpora / "store").train
    edges = [(corpus.start, corpus.stop) for corpus in train.corpora]
    assert edges[0][0] == 0
    assert edges[-1][1] == len(train.tokens)
    assert [stop for _, stop in edges[:-1]] == [start for start, _ in edges[1:]]
    assert {stop for _, stop in edges} <= set(train.ends.tolist())
