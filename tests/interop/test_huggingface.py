"""The exported folder in transformers: the same ids, logits and generated text."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import t5smith
from programs import forward, init
from t5smith.base.errors import T5smithError
from t5smith.interop.huggingface_load import is_tied, load_model
from t5smith.interop.huggingface_names import from_huggingface, to_huggingface
from t5smith.interop.huggingface_save import config_json, write_model
from t5smith.interop.model import Model
from t5smith.model.config import ModelConfig
from t5smith.recipe.corpus import CorpusSettings
from t5smith.text.corpus import find_files
from t5smith.text.documents import read_documents

DATA = Path(__file__).parents[1] / "data" / "t5x_tiny"


@pytest.mark.parametrize(
    ("values", "tied"),
    [
        ({"model_type": "t5"}, True),
        ({"model_type": "t5", "tie_word_embeddings": False}, False),
        # As transformers 5 saves an untied T5.
        ({"model_type": "t5", "tie_word_embeddings": True, "scale_decoder_outputs": False}, False),
        ({"model_type": "t5", "tie_word_embeddings": True, "scale_decoder_outputs": True}, True),
        ({"model_type": "mt5"}, False),
        ({"model_type": "mt5", "tie_word_embeddings": True, "transformers_version": "4.57.6"}, True),
        ({"model_type": "mt5", "tie_word_embeddings": True, "transformers_version": "5.1.0"}, False),
    ],
)
def test_whether_a_configuration_ties_the_head(values, tied):
    assert is_tied(values) == tied


def lines(count):
    corpus = CorpusSettings(train=("bundled:norwegian/debian-handbook-nb.valid.txt.xz",), document="line")
    texts = [d.text for d in read_documents(corpus, find_files(corpus.train, "corpus.train"))]
    corpus = CorpusSettings(train=("bundled:norwegian/ordbok-nb-examples.txt.xz",), document="line")
    for document in read_documents(corpus, find_files(corpus.train, "corpus.train")):
        if len(texts) >= count:
            break
        texts.append(document.text)
    return texts[:count]


def test_the_tokenizer_encodes_a_thousand_lines_to_the_same_ids(finished):
    from transformers import AutoTokenizer

    folder = finished.folder / "model"
    theirs, ours = AutoTokenizer.from_pretrained(folder), load_model(folder).vocabulary
    texts = lines(1000)
    assert len(texts) == 1000
    expected = [[*ids, ours.eos_id] for ids in ours.encode_batch(texts)]
    assert theirs(texts).input_ids == expected
    assert theirs.convert_tokens_to_ids("<extra_id_0>") == ours.size - 1 == len(theirs) - 1
    assert (theirs.pad_token_id, theirs.eos_token_id, theirs.unk_token_id) == (0, 1, 2)


def test_the_tokenizer_encodes_text_to_fill_in_as_we_do(finished):
    from transformers import AutoTokenizer

    folder = finished.folder / "model"
    theirs, ours = AutoTokenizer.from_pretrained(folder), load_model(folder).vocabulary
    for text in ("Alle <extra_id_0> er født", "<extra_id_0> frie", "rød<extra_id_0>grønn <extra_id_1>."):
        assert theirs(text).input_ids == [*ours.encode_with_sentinels(text), ours.eos_id]


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("gated", [False, True])
def test_logits_equal_those_of_transformers(finished, tmp_path, tied, gated):
    import torch
    from transformers import AutoModelForSeq2SeqLM

    vocabulary = load_model(finished.folder / "model").vocabulary
    config = ModelConfig(
        512,
        vocabulary.size,
        d_model=48,
        d_kv=16,
        d_ff=96,
        num_layers=2,
        num_decoder_layers=3,
        num_heads=4,
        tie_word_embeddings=tied,
        gated=gated,
    )
    p = init(config, jax.random.key(0))
    write_model(tmp_path, Model(p, config, vocabulary), model_max_length=128)
    theirs = AutoModelForSeq2SeqLM.from_pretrained(tmp_path).eval()
    inputs = np.asarray(jax.random.randint(jax.random.key(1), (4, 150), 2, vocabulary.size))
    targets = np.asarray(jax.random.randint(jax.random.key(2), (4, 40), 2, vocabulary.size))
    with torch.no_grad():
        expected = theirs(
            input_ids=torch.tensor(inputs), decoder_input_ids=torch.tensor(targets)
        ).logits.numpy()
    logits = forward(p, config, jnp.asarray(inputs), jnp.asarray(targets))
    # Rows without a piece are masked here, and have the mean of the others there.
    real = slice(vocabulary.size)
    np.testing.assert_allclose(logits[..., real], expected[..., real], atol=1e-4, rtol=0)
    assert expected[..., vocabulary.size :].max() < expected[..., real].max(-1).min()


def test_the_trained_model_loads_and_generates_the_same(finished):
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    folder = finished.folder / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model, info = AutoModelForSeq2SeqLM.from_pretrained(folder, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    text = "Alle mennesker <extra_id_0> frie"
    ids = model.generate(**tokenizer(text, return_tensors="pt"), max_new_tokens=8, do_sample=False)[0]
    ours = t5smith.generate(folder, [text], max_new_tokens=8, constrain=False, min_new_tokens=0)[0].ids
    assert ids[1:].tolist()[: len(ours)] == list(ours)


def test_our_own_export_reads_back_exactly(finished, tmp_path):
    model = load_model(finished.folder / "model")
    write_model(tmp_path, model, model_max_length=32)
    before, after = (
        load_file(folder / "model.safetensors") for folder in (finished.folder / "model", tmp_path)
    )
    assert set(before) == set(after)
    assert all((before[name] == after[name]).all() for name in before)


def test_the_t5x_checkpoint_maps_both_ways():
    tensors = load_file(DATA / "model.safetensors")
    config = ModelConfig(32128, 32128, 8, 3, 16, 2, 2, 4)
    back = to_huggingface(from_huggingface(tensors, config), config)
    assert set(back) == set(tensors)
    assert all((back[name] == tensors[name]).all() for name in tensors)
    ours, theirs = config_json(config, load_vocabulary()), json.loads((DATA / "config.json").read_text())
    shared = set(ours) & set(theirs) - {"dropout_rate"}
    assert {name: ours[name] for name in shared} == {name: theirs[name] for name in shared}


def load_vocabulary():
    from t5smith.vocabulary.vocabulary import Vocabulary

    return Vocabulary.bundled()


def test_the_model_card_says_what_the_model_is(finished):
    card = (finished.folder / "model" / "README.md").read_text(encoding="utf-8")
    assert card.startswith('---\nlanguage: "nb"\n')
    assert "Unigram baseline" in card
    assert str(finished.folder) not in card


def broken(folder, tmp_path, change):
    copy = shutil.copytree(folder / "model", tmp_path / "model")
    change(copy)
    return copy


def edit_config(**changes):
    def change(folder):
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def drop_tensor(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors.pop("lm_head.weight")
    save_file(tensors, folder / "model.safetensors")


def truncate(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def without_tokenizer(folder):
    (folder / "tokenizer.json").unlink()
    (folder / "spiece.model").unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (edit_config(model_type="bart"), "'bart'"),
        (edit_config(feed_forward_proj="gated-silu"), "gated-silu"),
        (edit_config(d_model=17), "by the sizes in config.json"),
        (edit_config(num_layers=9), "missing from the checkpoint"),
        (edit_config(num_layers=1), "unexpected tensors"),
        (drop_tensor, "lm_head.weight: missing"),
        (truncate, "not a complete safetensors file"),
        (lambda folder: (folder / "config.json").write_text("{"), "not JSON"),
        (lambda folder: (folder / "model.safetensors").unlink(), "no weights; expected one of model"),
        (without_tokenizer, "no tokenizer"),
    ],
)
def test_a_broken_folder_is_rejected_with_its_path(finished, tmp_path, change, named):
    with pytest.raises(T5smithError, match=named) as caught:
        load_model(broken(finished.folder, tmp_path, change))
    assert caught.value.where


def test_the_model_card_rejects_figures_of_another_model(finished, tmp_path):
    recipe = finished.replace(
        run_dir=shutil.copytree(finished.folder, tmp_path / "run"), **{"train.batch_size": 5}
    )
    t5smith.train(recipe, restart=True)
    with pytest.raises(T5smithError, match="scores are of another model"):
        t5smith.export(recipe)
    t5smith.evaluate(recipe)
    t5smith.export(recipe)
