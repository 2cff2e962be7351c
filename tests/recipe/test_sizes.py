"""Published sizes: their parameters, what overrides them, and that fingerprints do not see the name."""

from __future__ import annotations

import jax
import pytest

from t5smith.base.errors import T5smithError
from t5smith.model.config import ModelConfig
from t5smith.model.params import init, parameter_count
from t5smith.recipe.model import ModelSettings
from t5smith.recipe.recipe import Recipe
from t5smith.recipe.sizes import SIZES
from t5smith.recipe.toml import dump, load_recipe
from t5smith.training.resume.fingerprint import training_fingerprint
from t5smith.training.settle import _measured_for

PUBLISHED = {
    ("t5-small", 32_128): 60_506_624,
    ("t5-base", 32_128): 222_903_552,
    ("t5-large", 32_128): 737_668_096,
    ("t5-v1.1-small", 32_128): 76_961_152,
    ("t5-v1.1-base", 32_128): 247_577_856,
    ("t5-v1.1-large", 32_128): 783_150_080,
    ("t5-v1.1-xl", 32_128): 2_849_757_184,
    ("t5-v1.1-xxl", 32_128): 11_135_332_352,
    ("mt5-small", 250_112): 300_176_768,
    ("mt5-base", 250_112): 582_401_280,
    ("umt5-small", 256_384): 306_601_984,
    ("umt5-base", 256_384): 592_043_520,
    ("umt5-xl", 256_384): 3_768_356_864,
    ("umt5-xxl", 256_384): 12_972_531_712,
    ("byt5-small", 384): 299_637_760,
    ("byt5-base", 384): 581_653_248,
}
"""Parameters of the published checkpoints (num_parameters() in transformers), by size and embedding rows."""
ABOUT = {
    ("t5-3b", 32_128): 2.85e9,
    ("t5-11b", 32_128): 11.3e9,
    ("mt5-large", 250_112): 1.23e9,
    ("mt5-xl", 250_112): 3.74e9,
    ("mt5-xxl", 250_112): 12.9e9,
    ("byt5-large", 384): 1.23e9,
    ("byt5-xl", 384): 3.74e9,
    ("byt5-xxl", 384): 12.9e9,
}
"""As the papers round them (Raffel et al. 2020; Xue et al. 2021, 2022)."""


def parameters(size: str, rows: int) -> int:
    config = ModelConfig.create(ModelSettings.model_validate({"size": size}), rows)
    return parameter_count(jax.eval_shape(lambda: init(config, jax.random.key(0))))


@pytest.mark.parametrize(("size", "rows"), PUBLISHED)
def test_a_size_has_the_parameters_of_the_published_model(size, rows):
    assert parameters(size, rows) == PUBLISHED[size, rows]


@pytest.mark.parametrize(("size", "rows"), ABOUT)
def test_a_size_has_about_the_parameters_of_the_paper(size, rows):
    assert parameters(size, rows) == pytest.approx(ABOUT[size, rows], rel=0.01)


def test_every_size_is_compared():
    assert {size for size, _ in (*PUBLISHED, *ABOUT)} == SIZES.keys()


def test_single_numbers_override_a_size(tmp_path):
    file = tmp_path / "a.toml"
    file.write_text('[model]\nsize = "t5-base"\nd_ff = 100\ntie_word_embeddings = false\n', encoding="utf-8")
    model = load_recipe(file).model
    assert (model.d_model, model.d_ff, model.num_layers) == (768, 100, 12)
    assert (model.feed_forward, model.tie_word_embeddings) == ("relu", False)


def test_a_new_size_replaces_the_numbers_and_flags_override_it():
    recipe = Recipe().replace(**{"model.d_ff": 100, "model.vocab_multiple": 8})
    larger = recipe.replace(**{"model.num_heads": 3, "model.size": "byt5-small"}).model
    assert (larger.d_model, larger.d_ff, larger.num_heads, larger.vocab_multiple) == (1472, 3584, 3, 8)
    # Another change keeps what overrode the size.
    assert Recipe(model=larger).replace(**{"train.steps": 1}).model == larger


def test_a_recipe_with_a_size_is_written_and_read(tmp_path):
    recipe = Recipe(name="a").replace(**{"model.size": "t5-small", "model.d_ff": 99})
    (tmp_path / "a.toml").write_text(dump(recipe), encoding="utf-8")
    assert load_recipe(tmp_path / "a.toml") == recipe


def test_an_unknown_size_is_named_with_the_nearest():
    with pytest.raises(T5smithError, match=r"did you mean 't5-v1\.1-base'"):
        Recipe().replace(**{"model.size": "t5-v1_1-base"})


def test_the_name_of_a_size_is_in_no_fingerprint():
    """A run whose sizes were numbers continues under the name; older fingerprints are unchanged."""
    named, numbers = Recipe().replace(**{"model.size": "t5-v1.1-small"}), Recipe()
    assert named != numbers
    assert training_fingerprint(named) == training_fingerprint(numbers)
    assert _measured_for(named) == _measured_for(numbers)
    assert training_fingerprint(numbers)["model"] == {
        "d_model": 512,
        "d_kv": 64,
        "d_ff": 1024,
        "num_layers": 8,
        "num_decoder_layers": 8,
        "num_heads": 6,
        "relative_attention_num_buckets": 32,
        "relative_attention_max_distance": 128,
        "tie_word_embeddings": False,
        "vocab_multiple": 128,
    }
    relu = numbers.replace(**{"model.feed_forward": "relu"})
    assert training_fingerprint(relu)["model"]["feed_forward"] == "relu"
    own = numbers.replace(**{"model.relative_attention_bias": "per-layer"})
    assert training_fingerprint(own)["model"]["relative_attention_bias"] == "per-layer"
    assert _measured_for(relu) != _measured_for(numbers)
