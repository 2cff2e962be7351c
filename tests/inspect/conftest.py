from collections.abc import Iterator
from functools import cache

import pytest

from t5smith.vocab.vocabulary import Vocabulary


@pytest.fixture(scope="package", autouse=True)
def _read_the_vocabulary_once() -> Iterator[None]:
    """The bundled vocabulary is the real one, only not read from disk anew for every example."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Vocabulary, "bundled", cache(Vocabulary.bundled))
        yield
