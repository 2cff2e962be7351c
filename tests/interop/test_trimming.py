"""A model trimmed to the pieces of a text: the same pieces and logits there, and training goes on."""

from __future__ import annotations

import json
from dataclasses import replace

import jax
import numpy as np
import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

import t5smith
from programs import init
from t5smith.base.errors import T5smithError
from t5smith.cli.main import main
from t5smith.interop.huggingface_load import load_model
from t5smith.interop.huggingface_save import write_model
from t5smith.interop.model import Model
from t5smith.interop.trimming import kept_ids
from t5smith.model.config import ModelConfig
from t5smith.training.setup import Run
from t5smith.vocabulary.import_tokenizer import import_tokenizer
from t5smith.vocabulary.vocabulary import Vocabulary
from tiny import tiny_recipe

LINES = [
    "The court of appeal found that all human beings are born free and equal in dignity and rights.",
    "Everyone has the right to rest: leisure, limited working hours, holidays with pay, and 1,000 € æ </s>.",
    "Nobody shall be held in slavery or servitude, and the slave trade shall be prohibited.",
    "Parents have a prior right to choose the kind of education that shall be given to their children.",
] * 10


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A random model with T5's vocabulary of 32,000 pieces, and a text."""
    folder = tmp_path_factory.mktemp("original")
    vocabulary = Vocabulary.bundled()
    config = ModelConfig(32_128, vocabulary.size, 16, 8, 32, 2, 2, 2)
    parameters = init(config, jax.random.key(0))
    write_model(folder, Model(parameters, config, vocabulary), model_max_length=64)
    (folder / "text.txt").write_text("\n".join(LINES) + "\n", encoding="utf-8")
    return folder


def recipe_of(original, folder, **changes):
    return tiny_recipe(folder, **{"corpus.train": (str(original / "text.txt"),), **changes})


@pytest.fixture(scope="module")
def trimmed(original, tmp_path_factory):
    recipe = recipe_of(original, tmp_path_factory.mktemp("trimmed") / "run")
    return t5smith.trim_vocabulary(recipe, str(original))


def test_the_text_has_the_same_pieces_and_logits_in_transformers(original, trimmed):
    old, new = (AutoTokenizer.from_pretrained(folder) for folder in (original, trimmed))
    models = [AutoModelForSeq2SeqLM.from_pretrained(folder).eval() for folder in (original, trimmed)]
    kept = old.convert_tokens_to_ids(new.convert_ids_to_tokens(list(range(len(new)))))
    assert len(new) < 300 < len(old)
    texts = [*LINES, "Everyone has <extra_id_0> rest<extra_id_1> with <extra_id_99> pay."]
    pairs = [(old(text).input_ids, new(text).input_ids) for text in texts]
    for before, after in pairs:
        assert [kept[one] for one in after] == before
    for before, after in pairs[-4:]:
        with torch.no_grad():
            a, b = (
                model(input_ids=torch.tensor([ids]), decoder_input_ids=torch.tensor([[0, *ids[:9]]])).logits
                for model, ids in zip(models, (before, after), strict=True)
            )
        np.testing.assert_allclose(b[..., : len(new)], a[..., kept], atol=1e-6)


def test_control_pieces_sentinels_and_what_training_needs_are_kept(original, trimmed):
    old, new = load_model(original).vocabulary, load_model(trimmed)
    vocabulary = new.vocabulary
    assert [vocabulary.pad_id, vocabulary.eos_id, vocabulary.unk_id] == [0, 1, 2]
    assert len(vocabulary.sentinel_ids) == 100
    assert vocabulary.sentinel_ids[0] == vocabulary.size - 1
    assert new.config.vocab_size == -(-vocabulary.size // 128) * 128
    assert (trimmed / "model.safetensors").stat().st_size < (
        original / "model.safetensors"
    ).stat().st_size / 10
    # All words of the text's characters can be spelt, others have an unknown where the old one had none.
    assert vocabulary.unk_id not in vocabulary.encode("dreieskive")
    assert vocabulary.unk_id in vocabulary.encode("Zürich")
    assert old.unk_id not in old.encode("Zürich")
    scores = dict(old.tree()["model"]["vocab"])
    lowest = min(scores.values())
    assert lowest == min(score for _, score in vocabulary.tree()["model"]["vocab"])
    facts = json.loads((trimmed / "manifest.json").read_text())["facts"]
    assert facts["documents"] == 40
    assert (facts["pieces"], facts["pieces_before"]) == (vocabulary.size, old.size)


def test_a_run_continues_from_the_trimmed_model(trimmed, original, tmp_path):
    recipe = recipe_of(
        original,
        tmp_path / "run",
        **{"vocab.size": 32_000, "train.init_from": str(trimmed), "train.steps": 3},
    )
    t5smith.vocab(recipe)
    t5smith.prepare(recipe)
    first = Run(recipe).setup.first_state().parameters
    jax.tree.map(np.testing.assert_array_equal, first, load_model(trimmed).parameters)
    t5smith.train(recipe)


def test_counts_and_a_number_of_pieces_limit_what_is_kept(original):
    vocabulary = load_model(original).vocabulary
    counts = np.zeros(vocabulary.size, np.int64)
    the, rare, control = vocabulary.id_of("▁the"), vocabulary.id_of("▁court"), vocabulary.id_of("</s>")
    counts[[the, rare, control]] = 9, 2, 5

    def kept(**limits):
        found = set(kept_ids(vocabulary, counts, **limits).tolist())
        assert {control, 0, 2, *vocabulary.sentinel_ids.tolist()} <= found
        return the in found, rare in found, vocabulary.id_of("c") in found

    assert kept(min_count=1, max_pieces=None) == (True, True, True)
    assert kept(min_count=3, max_pieces=None) == (True, False, False)
    assert kept(min_count=1, max_pieces=1) == (True, False, False)


def test_bytes_are_kept(finished, tmp_path):
    model = load_model(finished.folder / "model")
    tree = model.vocabulary.tree()
    names = [f"<0x{byte:02X}>" for byte in range(256)]
    tree["model"]["vocab"] += [[name, 0.0] for name in names]
    tree["model"]["byte_fallback"] = True
    vocabulary = Vocabulary(json.dumps(tree))
    config = replace(model.config, real_vocab_size=vocabulary.size, vocab_size=1_000, bias_per_layer=True)
    folder = tmp_path / "model"
    folder.mkdir()
    write_model(folder, Model(init(config, jax.random.key(1)), config, vocabulary), model_max_length=64)
    (tmp_path / "text.txt").write_text("Alle mennesker\n" * 20, encoding="utf-8")
    recipe = tiny_recipe(tmp_path / "run", **{"corpus.train": (str(tmp_path / "text.txt"),)})
    made = load_model(t5smith.trim_vocabulary(recipe, str(folder)))
    assert made.config.bias_per_layer
    assert made.vocabulary.size < vocabulary.size
    assert len(made.vocabulary.byte_ids) == 256
    text = "Ж Alle"
    assert made.vocabulary.decode(made.vocabulary.encode(text)) == text


def test_the_command_prints_the_folder_and_does_it_once(original, tmp_path, capsys):
    args = ["vocab", "norwegian-tiny", "--run-dir", str(tmp_path / "run"), "--trim", str(original)]
    args += ["--corpus.train", str(original / "text.txt"), "--min-count", "2"]
    assert main(args) == 0
    shown = capsys.readouterr()
    assert "ids are kept, " in shown.err
    assert main(args) == 0
    assert "already done" in capsys.readouterr().err
    assert (tmp_path / "run" / "trimmed" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--trim", "nowhere/here/it/is"], "--trim: "),
        (["--min-count", "2"], "--min-count: needs `--trim`. Add --trim MODEL"),
        (["--trim", "a", "--compare", "b"], "cannot be used together"),
    ],
)
def test_what_cannot_be_trimmed_is_an_error_of_one_line(tmp_path, capsys, args, message):
    assert main(["vocab", "norwegian-tiny", "--run-dir", str(tmp_path / "run"), *args]) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert "Traceback" not in shown


def test_bytes_have_nothing_to_trim(tmp_path):
    vocabulary = import_tokenizer("bytes").vocabulary
    config = ModelConfig(384, 384, 16, 8, 32, 1, 1, 2)
    write_model(tmp_path, Model(init(config, jax.random.key(0)), config, vocabulary), model_max_length=64)
    with pytest.raises(T5smithError, match="bytes has no pieces"):
        t5smith.trim_vocabulary(tiny_recipe(tmp_path / "run"), str(tmp_path))
