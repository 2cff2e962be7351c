"""T5s of all shapes, written by transformers: read here with the same logits, and exported bit for bit.

With transformers 5, and with 4.57, which is in an environment of its own that `make test-all` makes (.venv4).
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from functools import partial
from pathlib import Path

import families
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from programs import forward
from t5smith.base.errors import T5smithError
from t5smith.exporting.import_model import import_model
from t5smith.interop.huggingface_load import load_model
from t5smith.interop.huggingface_save import write_model

ALL = os.environ.get("EXAMPLES") == "all"
CONFIGURATIONS = 60 if ALL else 7
OTHER = Path(__file__).parents[2] / ".venv4" / "bin" / "python"


@pytest.fixture(scope="module")
def vocabulary(finished):
    return load_model(finished.folder / "model").vocabulary


def in_4(*arguments: object) -> None:
    """Run a function of `families` in transformers 4.57."""
    command = [OTHER, families.__file__, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def in_5(function: str, *arguments: object) -> None:
    getattr(families, function)(*map(str, arguments))


VERSIONS = [
    pytest.param(in_5, id="5"),
    pytest.param(
        in_4,
        id="4.57",
        marks=[
            pytest.mark.slow,
            pytest.mark.skipif(
                not OTHER.exists(), reason="make test-all makes the environment with transformers 4.57"
            ),
        ],
    ),
]


@pytest.fixture(scope="module", params=VERSIONS)
def folders(request, vocabulary, tmp_path_factory):
    """For each seed a folder `theirs`, written by a version of transformers, and `again`, our export of it.

    Both with the logits that this version computes. It starts three times, and not for each of them.
    """
    call, ids, root = request.param, vocabulary.size, tmp_path_factory.mktemp("families")
    call("each", "write", root, "theirs", CONFIGURATIONS, ids)
    for seed in range(CONFIGURATIONS):
        vocabulary.save(root / str(seed) / "theirs", model_max_length=64)
        write_model_to(root / str(seed) / "again", load_model(root / str(seed) / "theirs"))
    for name in ("theirs", "again"):
        call("each", "logits", root, name, CONFIGURATIONS, ids)
    return root


@pytest.mark.parametrize("seed", range(CONFIGURATIONS))
def test_a_model_of_transformers_has_the_same_logits_here_and_in_our_export(folders, vocabulary, seed):
    ids, folder = vocabulary.size, folders / str(seed)
    ours, again = load_model(folder / "theirs"), load_model(folder / "again")
    assert ours.config.bias_per_layer == (families.family(seed) == "umt5")
    assert again.config == ours.config
    imported = load_model(import_model(str(folder / "theirs"), folder / "imported"))
    assert imported.config == ours.config
    jax.tree.map(np.testing.assert_array_equal, imported.parameters, ours.parameters)
    # In an export, rows of the head above the vocabulary get the mean of the others.
    parameters = [without_spare_rows(one.parameters, ids) for one in (again, ours)]
    jax.tree.map(np.testing.assert_array_equal, *parameters)
    inputs, targets = families.batch(seed, ids)
    found = forward(ours.parameters, ours.config, jnp.asarray(inputs), jnp.asarray(targets))
    expected, exported = (np.load(folder / name / "logits.npy")[..., :ids] for name in ("theirs", "again"))
    close = partial(np.testing.assert_allclose, atol=1e-4 * np.abs(expected).max(), rtol=0)
    close(found[..., :ids], expected)
    close(exported, expected)


def without_spare_rows(parameters, ids):
    if parameters.head is None:
        return replace(parameters, embedding=parameters.embedding[:ids])
    return replace(parameters, head=parameters.head[:, :ids])


def write_model_to(folder, model):
    folder.mkdir()
    write_model(folder, model, model_max_length=64)


def test_a_head_that_the_configuration_has_no_use_for_is_refused(tmp_path, vocabulary):
    write_model_to(tmp_path / "a", load_model_untied(tmp_path, vocabulary))
    config = tmp_path / "a" / "config.json"
    config.write_text(
        config.read_text().replace('"tie_word_embeddings": false', '"tie_word_embeddings": true')
    )
    with pytest.raises(T5smithError, match=r"have another one\. Set tie_word_embeddings to false"):
        load_model(tmp_path / "a")


def load_model_untied(folder, vocabulary):
    for seed in range(100):
        families.write(str(folder / str(seed)), str(seed), str(vocabulary.size))
        vocabulary.save(folder / str(seed), model_max_length=64)
        model = load_model(folder / str(seed))
        if not model.config.tie_word_embeddings:
            return model
    raise AssertionError("none of them is untied")
