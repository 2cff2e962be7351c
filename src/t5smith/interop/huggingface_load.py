"""Load a model from a Hugging Face folder: ours, or another T5 or mT5."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
from safetensors.flax import load_file

from t5smith.base.errors import T5smithError
from t5smith.base.hub import download_first
from t5smith.interop.huggingface_names import WEIGHTS, from_huggingface
from t5smith.interop.model import Model
from t5smith.model.config import ModelConfig
from t5smith.vocabulary.vocabulary import Vocabulary

INDEX = "model.safetensors.index.json"
AGAIN = "export or download the model again"
FEED_FORWARD = {"gated-gelu": True, "relu": False}


def load_model(folder: str | Path) -> Model:
    """Load a T5 from a Hugging Face folder: ours, or another T5 or mT5 with a `tokenizer.json`.

    Parameters are float32, whatever the precision of the file.

    Raises:
      T5smithError: a file is missing or damaged, the model is of another type, or sizes do not match.
    """
    folder = Path(folder)
    config_path = folder / "config.json"
    values = _read_json(config_path)
    if values.get("model_type") not in ("t5", "mt5"):
        raise T5smithError(
            f"the model is of type {values.get('model_type')!r}", where=config_path, expected="'t5' or 'mt5'"
        )
    feed_forward = values.get("feed_forward_proj", "relu")
    if feed_forward not in FEED_FORWARD:
        raise T5smithError(
            f"feed_forward_proj {feed_forward!r} is not supported",
            where=config_path,
            expected="gated-gelu or relu",
        )
    vocabulary = Vocabulary.load(folder)
    try:
        config = ModelConfig(
            vocab_size=values["vocab_size"],
            real_vocab_size=min(vocabulary.size, values["vocab_size"]),
            d_model=values["d_model"],
            d_kv=values["d_kv"],
            d_ff=values["d_ff"],
            num_layers=values["num_layers"],
            num_decoder_layers=values.get("num_decoder_layers", values["num_layers"]),
            num_heads=values["num_heads"],
            relative_attention_num_buckets=values.get("relative_attention_num_buckets", 32),
            relative_attention_max_distance=values.get("relative_attention_max_distance", 128),
            tie_word_embeddings=values.get("tie_word_embeddings", True),
            gated=FEED_FORWARD[feed_forward],
            layer_norm_epsilon=values.get("layer_norm_epsilon", 1e-6),
        )
    except KeyError as error:
        raise T5smithError(f"{error} is missing", where=config_path) from None
    if vocabulary.size > config.vocab_size:
        raise T5smithError(
            f"the tokenizer has {vocabulary.size} ids but the model only {config.vocab_size} rows",
            where=folder,
            expected="the tokenizer that the model was trained with",
        )
    return Model(from_huggingface(_read_tensors(folder), config), config, vocabulary)


def _read_tensors(folder: Path) -> dict[str, np.ndarray]:
    names = [WEIGHTS]
    if not (folder / WEIGHTS).is_file() and (folder / INDEX).is_file():
        names = sorted(set(_read_json(folder / INDEX)["weight_map"].values()))
    tensors: dict[str, np.ndarray] = {}
    for name in names:
        path = folder / name
        if not path.is_file():
            raise T5smithError("not found", where=path, expected="the weights as safetensors")
        try:
            tensors |= {key: np.asarray(value, np.float32) for key, value in load_file(path).items()}
        except Exception as error:  # safetensors' own exception type has no stable import path
            raise T5smithError(f"not a complete safetensors file ({error})", where=path, fix=AGAIN) from None
    return tensors


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise T5smithError(
            "not found",
            where=path,
            expected="a run folder or a Hugging Face model folder",
            fix=None if path.parent.is_dir() else download_first(str(path.parent)),
        ) from None
    except OSError as error:
        raise T5smithError(f"cannot be read ({error.strerror})", where=path) from None
    except ValueError as error:
        raise T5smithError(f"not JSON ({error})", where=path, fix=AGAIN) from None
    if not isinstance(value, dict):
        raise T5smithError("not a JSON object", where=path)
    return cast("dict[str, Any]", value)
