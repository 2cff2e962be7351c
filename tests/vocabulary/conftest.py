from __future__ import annotations

import pytest

from t5smith.recipe.corpus import CorpusSettings
from t5smith.recipe.vocab import VocabSettings
from t5smith.text.corpus import find_files
from t5smith.text.documents import read_documents
from t5smith.vocabulary.sample import chunks
from t5smith.vocabulary.train import build
from t5smith.vocabulary.unigram import train_pieces
from t5smith.vocabulary.vocabulary import Vocabulary


@pytest.fixture(scope="session")
def declaration() -> list[str]:
    """The lines of the Universal Declaration of Human Rights in Bokmål and Nynorsk."""
    corpus = CorpusSettings(document="line")
    return [d.text for d in read_documents(corpus, find_files(["bundled:norwegian/udhr-*"], "corpus.train"))]


@pytest.fixture(scope="session")
def vocabulary(declaration: list[str]) -> Vocabulary:
    """400 pieces of that text, all sentinels."""
    text = [chunk for line in declaration for chunk in chunks(line)]
    return Vocabulary(build(train_pieces(text, VocabSettings(size=400))).to_str())


@pytest.fixture(scope="session")
def t5() -> Vocabulary:
    return Vocabulary.bundled()
