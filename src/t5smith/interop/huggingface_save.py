"""Save a model as a Hugging Face folder: configuration, weights, tokenizer.

The folder loads with `AutoTokenizer` and `AutoModelForSeq2SeqLM`, without t5smith. Writing it needs neither
PyTorch nor transformers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from t5smith.interop.huggingface_names import (
    WEIGHTS,
    ArrayAt,
    arrays_of,
    huggingface_shapes,
    huggingface_tensors,
)
from t5smith.interop.model import Model
from t5smith.interop.safetensors_file import write_safetensors
from t5smith.interop.spiece.model_file import write_spiece
from t5smith.interop.stored_tensor import DTYPES
from t5smith.interop.weights import INDEX
from t5smith.model.config import ModelConfig
from t5smith.model.t5 import PAD_ID
from t5smith.recipe.export import SHARD_BYTES
from t5smith.vocabulary.vocabulary import Vocabulary


@dataclass(frozen=True)
class Form:
    """How weights are written.

    Attributes:
      dtype: float32, bfloat16 or float16.
      shard_bytes: the most bytes of numbers in one file; more are written into several.
      encoder_only: whether only the encoder is written, as transformers' `T5EncoderModel`.
    """

    dtype: str = "float32"
    shard_bytes: int = SHARD_BYTES
    encoder_only: bool = False


def write_model(folder: Path, model: Model, *, model_max_length: int) -> None:
    """Write configuration, weights (float32) and tokenizer into a folder."""
    write_weights(folder, arrays_of(model.parameters), model.config, Form())
    write_settings(folder, model.config, model.vocabulary, Form(), model_max_length=model_max_length)


def write_settings(
    folder: Path, config: ModelConfig, vocabulary: Vocabulary, form: Form, *, model_max_length: int
) -> None:
    """Write all but the weights into a folder: configuration and tokenizer."""
    # n_positions is for programs that ask for a length; position biases have none.
    values = config_json(config, vocabulary) | {"dtype": form.dtype, "n_positions": model_max_length}
    if form.encoder_only:
        values |= {"architectures": ["T5EncoderModel"], "is_encoder_decoder": False, "use_cache": False}
    else:
        _write_json(folder / "generation_config.json", generation_json(vocabulary))
    _write_json(folder / "config.json", values)
    vocabulary.save(folder, model_max_length=model_max_length)
    write_spiece(folder, vocabulary)


def write_weights(folder: Path, array_at: ArrayAt, config: ModelConfig, form: Form) -> None:
    """Write the weights into a folder; see :func:`write_tensors`. Spare rows of the head get the mean row.

    Args:
      folder: where the files go.
      array_at: gives one array of the parameters, float32; one is in memory at a time.
      config: the sizes.
      form: precision and limit.
    """
    head = "shared.weight" if config.tie_word_embeddings else "lm_head.weight"
    written = (
        (name, with_losing_spare_rows(tensor, config) if name == head else tensor)
        for name, tensor in huggingface_tensors(array_at, config, encoder_only=form.encoder_only)
    )
    write_tensors(folder, written, config, form)


def write_tensors(
    folder: Path, tensors: Iterable[tuple[str, np.ndarray]], config: ModelConfig, form: Form
) -> None:
    """Write all tensors of a model into one file or, above the limit, into shards with an index."""
    shapes, dtype = huggingface_shapes(config, encoder_only=form.encoder_only), DTYPES[form.dtype]
    files = shards_of(shapes, dtype.itemsize, form.shard_bytes)
    if len(files) > 1:
        size = sum(map(math.prod, shapes.values()))
        metadata = {"total_parameters": size, "total_size": size * dtype.itemsize}
        places = {name: file for file, names in files.items() for name in names}
        _write_json(
            folder / (WEIGHTS + INDEX), {"metadata": metadata, "weight_map": dict(sorted(places.items()))}
        )
    write_safetensors({folder / file: named for file, named in files.items()}, dtype, tensors)


def shards_of(
    shapes: Mapping[str, tuple[int, ...]], itemsize: int, limit: int
) -> dict[str, dict[str, tuple[int, ...]]]:
    """The shapes of the tensors of each file, under the names that transformers gives to files.

    A tensor larger than the limit, which is in bytes, has a file of its own.
    """
    parts, size = [dict[str, tuple[int, ...]]()], 0
    for name, shape in shapes.items():
        own = math.prod(shape) * itemsize
        if parts[-1] and size + own > limit:
            parts.append({})
            size = 0
        parts[-1][name] = shape
        size += own
    if len(parts) == 1:
        return {WEIGHTS: parts[0]}
    stem, _, ending = WEIGHTS.rpartition(".")
    return {f"{stem}-{n:05d}-of-{len(parts):05d}.{ending}": part for n, part in enumerate(parts, 1)}


def config_json(config: ModelConfig, vocabulary: Vocabulary) -> dict[str, Any]:
    """The `config.json` of a T5, with the names of transformers' `T5Config`.

    A model with a position bias in each layer is a UMT5 there, whose other parts are those of T5.
    """
    family = "UMT5" if config.bias_per_layer else "T5"
    return {
        "architectures": [f"{family}ForConditionalGeneration"],
        "model_type": family.lower(),
        "is_encoder_decoder": True,
        "vocab_size": config.vocab_size,
        "d_model": config.d_model,
        "d_kv": config.d_kv,
        "d_ff": config.d_ff,
        "num_layers": config.num_layers,
        "num_decoder_layers": config.num_decoder_layers,
        "num_heads": config.num_heads,
        "relative_attention_num_buckets": config.relative_attention_num_buckets,
        "relative_attention_max_distance": config.relative_attention_max_distance,
        "feed_forward_proj": "gated-gelu" if config.gated else "relu",
        "layer_norm_epsilon": config.layer_norm_epsilon,
        "tie_word_embeddings": config.tie_word_embeddings,
        "dropout_rate": 0.0,
        "initializer_factor": 1.0,
        "pad_token_id": vocabulary.pad_id,
        "eos_token_id": vocabulary.eos_id,
        "decoder_start_token_id": PAD_ID,
        "use_cache": True,
        "dtype": "float32",
    }


def generation_json(vocabulary: Vocabulary) -> dict[str, Any]:
    """The `generation_config.json`. It suppresses nothing: a user may give a spare row a token."""
    return {
        "decoder_start_token_id": PAD_ID,
        "eos_token_id": vocabulary.eos_id,
        "pad_token_id": vocabulary.pad_id,
    }


def with_losing_spare_rows(rows: np.ndarray, config: ModelConfig) -> np.ndarray:
    """The rows of the head with each spare one set to the mean of the rows of the vocabulary.

    The head has no bias, so the logit of such a row is the mean of the others: never the highest, and by
    Jensen's inequality no more probable than 1 / `real_vocab_size`. A list of suppressed ids would do that
    too, but would also suppress a token that a user adds later. As the first value of an added token's row,
    the mean disturbs the other probabilities least (Hewitt, "Initializing New Word Embeddings for Pretrained
    Language Models", 2021).
    """
    rows = rows.copy()
    rows[config.real_vocab_size :] = rows[: config.real_vocab_size].mean(axis=0, dtype=np.float64)
    return rows


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
