import shutil
from collections.abc import Iterator
from functools import cache

import pytest

from t5smith.recipe.toml import dump
from t5smith.vocabulary.vocabulary import Vocabulary


@pytest.fixture(scope="package", autouse=True)
def _read_the_vocabulary_once() -> Iterator[None]:
    """The bundled vocabulary is the real one, but is read from disk only once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Vocabulary, "bundled", cache(Vocabulary.bundled))
        yield


@pytest.fixture(scope="package")
def run(finished, tmp_path_factory):
    """The finished run with its recipe beside it, as `t5smith run` leaves it. Read only."""
    folder = shutil.copytree(finished.folder, tmp_path_factory.mktemp("inspected") / "run")
    (folder / "recipe.toml").write_text(dump(finished))
    return finished.replace(run_dir=folder)
