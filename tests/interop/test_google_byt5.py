"""A folder as google/byt5-small: bytes without a tokenizer's file, and sentinels from 258 downward."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, ByT5Tokenizer, T5Config, T5ForConditionalGeneration

import t5smith
from t5smith.interop.huggingface_load import load_model
from t5smith.interop.huggingface_save import write_model
from t5smith.interop.source import Source
from t5smith.vocabulary.carry_over import carried_rows
from t5smith.vocabulary.import_tokenizer import import_tokenizer

TEXTS = ("Blåbær  og\nfløte ", "\U0010ffff\x00 </s> <0xFF>", "<extra_id_3>")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny model and ByT5's tokenizer, saved by transformers."""
    folder = tmp_path_factory.mktemp("byt5")
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=384,
        d_model=16,
        d_kv=4,
        d_ff=20,
        num_layers=2,
        num_decoder_layers=1,
        num_heads=2,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
    )
    T5ForConditionalGeneration(config).save_pretrained(folder)
    ByT5Tokenizer().save_pretrained(folder)
    for name in folder.glob("*token*"):
        if name.name != "tokenizer_config.json":
            name.unlink()
    return folder


def test_ids_of_text_are_byt5s_and_sentinels_googles(folder, tmp_path):
    model = load_model(folder)
    vocabulary = model.vocabulary
    assert vocabulary.is_byte_level
    assert vocabulary.size == model.config.real_vocab_size == 259
    assert model.config.vocab_size == 384
    # As in transformers' page on ByT5: 258 is the first mask, 257 the second.
    assert vocabulary.sentinel_ids.tolist() == list(range(258, 247, -1))
    ids = vocabulary.encode_with_sentinels("The <extra_id_0>chases<extra_id_1> park.")
    theirs = ByT5Tokenizer()("The chases park.", add_special_tokens=False).input_ids
    assert ids == [*theirs[:4], 258, *theirs[4:10], 257, *theirs[10:]]
    for text in TEXTS:
        assert vocabulary.encode(text) == [byte + 3 for byte in text.encode()]
        assert max(vocabulary.encode(text)) < 248
        assert vocabulary.decode(vocabulary.encode(text)) == text


def test_the_exported_tokenizer_has_the_same_ids(folder, tmp_path):
    model = load_model(folder)
    write_model(tmp_path, model, model_max_length=64)
    again, auto, theirs = load_model(tmp_path), AutoTokenizer.from_pretrained(tmp_path), ByT5Tokenizer()
    assert again.vocabulary.sentinel_ids.tolist() == model.vocabulary.sentinel_ids.tolist()
    text = "Blåbær  og\nfløte "
    assert auto(text).input_ids == theirs(text).input_ids == [*again.vocabulary.encode(text), 1]
    assert auto("a<extra_id_0>b<extra_id_1>").input_ids == [100, 258, 101, 257, 1]


def test_bytes_with_the_names_of_transformers_take_over_the_rows_of_googles_sentinels(folder):
    old, new = load_model(folder).vocabulary, import_tokenizer("bytes").vocabulary
    rows = carried_rows(old, new).rows(np.arange(259, dtype=np.float32)[:, None], 0)[:, 0]
    assert rows[:248].tolist() == list(range(248))
    assert rows[259 : 259 + 11].tolist() == list(range(258, 247, -1))
    # Bytes that occur in no text had no row of their own.
    assert carried_rows(old, new).random == 11


def test_it_is_found_as_a_source_and_as_a_tokenizer(folder):
    assert Source.find(str(folder)).vocabulary.sentinel_ids[0] == 258
    imported = import_tokenizer(str(folder))
    assert (imported.file, imported.appended) == ("tokenizer_config.json", ())
    assert imported.vocabulary.sentinel_ids[0] == 258
    assert len(t5smith.generate(folder, ["a<extra_id_0>b"], max_new_tokens=3)) == 1


def test_another_class_without_its_file_is_not_taken_for_bytes(folder, tmp_path):
    other = shutil.copytree(folder, tmp_path / "other")
    (other / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "T5Tokenizer"}))
    assert Source.find(str(other)).vocabulary is None
    with pytest.raises(t5smith.T5smithError, match="there is no tokenizer here"):
        load_model(other)
