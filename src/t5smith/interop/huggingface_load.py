"""Load a model from a Hugging Face folder: ours, or another T5, mT5 or UMT5."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from t5smith.base.errors import T5smithError
from t5smith.interop.huggingface_names import COPIES, from_huggingface
from t5smith.interop.model import Model
from t5smith.interop.stored_tensor import StoredTensor
from t5smith.interop.weights import read_json, read_weights
from t5smith.model.config import ModelConfig
from t5smith.vocabulary.vocabulary import Vocabulary

_SIZES = (
    *("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_decoder_layers", "num_heads"),
    *("relative_attention_num_buckets", "relative_attention_max_distance"),
)
FAMILIES = ("t5", "mt5", "umt5")
FEED_FORWARD = {"gated-gelu": True, "relu": False}


def load_model(folder: str | Path) -> Model:
    """Load a T5 from a Hugging Face folder: ours, or another T5, mT5 or UMT5 with its tokenizer.

    Parameters are float32, whatever the precision of the file.

    Raises:
      T5smithError: a file is missing or damaged, the model is of another type, or sizes do not match.
    """
    folder = Path(folder)
    values = read_json(folder / "config.json")
    vocabulary = Vocabulary.load(folder)
    config = config_of(values, vocabulary.size, folder / "config.json")
    if vocabulary.size > config.vocab_size:
        raise T5smithError(
            f"the tokenizer has {vocabulary.size} ids but the model only {config.vocab_size} rows",
            where=folder,
            expected="the tokenizer that the model was trained with",
        )
    return Model(from_huggingface(read_tensors(folder, values), config), config, vocabulary)


def is_tied(values: Mapping[str, Any]) -> bool:
    """Whether the head is the embedding with scaled logits, as in T5 1.0.

    transformers 5 writes `tie_word_embeddings` for every T5 and mT5. Of a T5 `scale_decoder_outputs` shows
    which it is; mT5's logits are never scaled there.
    """
    is_mt5 = values["model_type"] == "mt5"
    if is_mt5 and str(values.get("transformers_version", "")).split(".")[0] not in ("", "3", "4"):
        return False
    tied = values.get("tie_word_embeddings", not is_mt5)
    return bool(tied and values.get("scale_decoder_outputs", True))


def read_tensors(folder: Path, values: Mapping[str, Any]) -> dict[str, StoredTensor]:
    """The weights of a folder, with a head exactly if the sizes by `values`, its `config.json`, have one.

    Raises:
      T5smithError: as :func:`read_weights`; a head is stored that the configuration has no use for.
    """
    tensors = read_weights(folder)
    shared, head = tensors.get("shared.weight"), tensors.get("lm_head.weight")
    if shared is None:
        return tensors
    for name in COPIES:
        if name in tensors and not np.array_equal(tensors[name].read(), shared.read()):
            what = "an embedding of its own, which a T5 with one for encoder and decoder cannot have"
            raise T5smithError(what, where=f"{folder}: {name}", expected="the numbers of shared.weight")
    if not is_tied(values):
        # Only transformers 5 means a head with the embedding's numbers, but without their scale.
        on_paper = head is None and values.get("tie_word_embeddings") is True
        return tensors | {"lm_head.weight": shared} if on_paper else tensors
    if head and not np.array_equal(head.read(), shared.read()):
        raise T5smithError(
            "the head is tied to the embedding, but the weights have another one",
            where=folder / "config.json",
            fix="set tie_word_embeddings to false there, if the model was trained with a head of its own",
        )
    return tensors


def config_of(values: Mapping[str, Any], ids: int, config_path: Path) -> ModelConfig:
    """The sizes in a `config.json`, for a vocabulary of so many ids.

    Raises:
      T5smithError: the model is not a T5 that can be computed here, or a size is missing or not a number.
    """
    if values.get("model_type") not in FAMILIES:
        what = f"the model is of type {values.get('model_type')!r}"
        raise T5smithError(what, where=config_path, expected=" or ".join(map(repr, FAMILIES)))
    feed_forward = values.get("feed_forward_proj", "relu" if values["model_type"] == "t5" else "gated-gelu")
    if not isinstance(feed_forward, str) or feed_forward not in FEED_FORWARD:
        raise T5smithError(
            f"feed_forward_proj {feed_forward!r} is not supported",
            where=config_path,
            expected="gated-gelu or relu",
        )
    sizes = {name: values[name] for name in _SIZES if values.get(name) is not None}
    for name, value in sizes.items():
        if type(value) is not int or value < 1:
            raise T5smithError(f"{name} is {value!r}", where=config_path, expected="a number, 1 or more")
    epsilon, tied = values.get("layer_norm_epsilon", 1e-6), values.get("tie_word_embeddings", False)
    if type(epsilon) not in (int, float) or not 0 <= epsilon < 1:
        what, expected = f"layer_norm_epsilon is {epsilon!r}", "a number from 0 to 1"
        raise T5smithError(what, where=config_path, expected=expected)
    if type(tied) is not bool:
        what = f"tie_word_embeddings is {tied!r}"
        raise T5smithError(what, where=config_path, expected="true or false")
    try:
        return ModelConfig(
            vocab_size=sizes["vocab_size"],
            real_vocab_size=min(ids, sizes["vocab_size"]),
            d_model=sizes["d_model"],
            d_kv=sizes["d_kv"],
            d_ff=sizes["d_ff"],
            num_layers=sizes["num_layers"],
            num_decoder_layers=sizes.get("num_decoder_layers", sizes["num_layers"]),
            num_heads=sizes["num_heads"],
            relative_attention_num_buckets=sizes.get("relative_attention_num_buckets", 32),
            relative_attention_max_distance=sizes.get("relative_attention_max_distance", 128),
            tie_word_embeddings=is_tied(values),
            gated=FEED_FORWARD[feed_forward],
            layer_norm_epsilon=float(epsilon),
            bias_per_layer=values["model_type"] == "umt5",
        )
    except KeyError as error:
        raise T5smithError(f"{error} is missing", where=config_path) from None
