"""The pieces of a text added to T5's vocabulary: old ids and rows stay, new pieces are used and composed."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file
from tokenizers import Tokenizer
from transformers import AutoTokenizer

import t5smith
from programs import init
from t5smith.interop.extension import new_pieces
from t5smith.interop.huggingface_save import write_model
from t5smith.interop.model import Model
from t5smith.model.config import ModelConfig
from t5smith.training.setup import Run
from t5smith.vocabulary.vocabulary import Vocabulary
from tiny import tiny_recipe


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A random model with T5's vocabulary, which has no Norwegian, and the same extended; and the recipe."""
    base = tmp_path_factory.mktemp("extension")
    vocabulary = Vocabulary.bundled()
    config = ModelConfig(32_128, vocabulary.size, 16, 8, 32, 2, 2, 2)
    (base / "original").mkdir()
    parameters = init(config, jax.random.key(0))
    write_model(base / "original", Model(parameters, config, vocabulary), model_max_length=64)
    recipe = tiny_recipe(base / "run")
    return base / "original", t5smith.extend_vocabulary(recipe, str(base / "original")), recipe


def test_old_ids_and_rows_are_unchanged_and_new_rows_are_means(folders):
    original, extended, _ = folders
    old, new = (AutoTokenizer.from_pretrained(folder) for folder in (original, extended))
    size, added = len(old), len(new) - len(old)
    assert added > 50
    names = old.convert_ids_to_tokens(list(range(size)))
    assert new.convert_ids_to_tokens(list(range(size))) == names
    assert new.convert_tokens_to_ids("<extra_id_0>") == size - 1
    before, after = (load_file(folder / "model.safetensors") for folder in (original, extended))
    library = Tokenizer.from_file(str(original / "tokenizer.json"))
    pieces = new.convert_ids_to_tokens(list(range(size, len(new))))
    unknown = old.unk_token_id
    for name in ("shared.weight", "lm_head.weight"):
        np.testing.assert_array_equal(after[name][:size], before[name][:size])
        for number, piece in enumerate(pieces, size):
            spelled = [token.id for token in library.model.tokenize(piece) if token.id != unknown]
            if spelled:
                mean = before[name][spelled].mean(0)
                np.testing.assert_allclose(after[name][number], mean, rtol=1e-5, atol=1e-6)
    others = set(before) - {"shared.weight", "lm_head.weight"}
    assert all((before[name] == after[name]).all() for name in others)


def test_new_pieces_are_used_and_other_text_is_cut_as_before(folders):
    original, extended, _ = folders
    old, new = (AutoTokenizer.from_pretrained(folder) for folder in (original, extended))
    text = "Enhver har rett til frihet, uten hensyn til språk og nasjonal opprinnelse."
    ids = new(text).input_ids
    assert max(ids) >= len(old)
    assert len(ids) < len(old(text).input_ids)
    assert old.unk_token_id in old(text).input_ids
    assert new.unk_token_id not in ids
    assert new.decode(ids, skip_special_tokens=True) == text
    other = "Photosynthesis <extra_id_0> chlorophyll"
    assert new(other).input_ids == old(other).input_ids


def test_scores_are_on_the_old_scale():
    old = Vocabulary.bundled()
    scores = dict(old.tree()["model"]["vocab"])
    lowest = min(scores.values())
    # Both have these two, 3 and 5 apart: the offset is 4.
    shared = [("▁the", scores["▁the"] - 3.0), ("▁court", scores["▁court"] - 5.0)]
    spelled = sum(scores[old.all_pieces[one]] for one in old.spell("▁thes"))
    found = dict(new_pieces(old, [*shared, ("▁thes", spelled - 3.5), ("▁æ", -500.0)]))
    assert found == {"▁thes": pytest.approx(spelled + 0.5), "▁æ": lowest}
    # At the score of its spelling it would not be used.
    assert not new_pieces(old, [*shared, ("▁thes", spelled - 4.5)])


@pytest.mark.slow
def test_training_continues_from_it(folders, tmp_path):
    _, extended, recipe = folders
    recipe = recipe.replace(**{"vocab": {}, "train.init_from": str(extended), "run_dir": tmp_path / "run"})
    t5smith.vocab(recipe)
    t5smith.prepare(recipe)
    first = Run(recipe).setup.first_state().parameters
    ours = t5smith.load_model(extended).parameters
    jax.tree.map(np.testing.assert_array_equal, first, ours)
