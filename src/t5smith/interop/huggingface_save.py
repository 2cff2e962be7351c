"""Save a model as a Hugging Face folder: configuration, weights, tokenizer.

The folder loads with `AutoTokenizer` and `AutoModelForSeq2SeqLM`, without t5smith. Writing it needs neither
PyTorch nor transformers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from t5smith.interop.huggingface_names import WEIGHTS, to_huggingface
from t5smith.interop.model import Model
from t5smith.interop.spiece.model_file import write_spiece
from t5smith.model.config import ModelConfig
from t5smith.model.t5 import PAD_ID
from t5smith.vocabulary.vocabulary import Vocabulary


def write_model(folder: Path, model: Model, *, model_max_length: int) -> None:
    """Write configuration, weights (float32) and tokenizer into a folder."""
    tensors = with_losing_spare_rows(to_huggingface(model.parameters, model.config), model.config)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    config = config_json(model.config, model.vocabulary) | {"n_positions": model_max_length}
    _write_json(folder / "config.json", config)
    _write_json(folder / "generation_config.json", generation_json(model.vocabulary))
    model.vocabulary.save(folder, model_max_length=model_max_length)
    write_spiece(folder, model.vocabulary)


def config_json(config: ModelConfig, vocabulary: Vocabulary) -> dict[str, Any]:
    """The `config.json` of a T5, with the names of transformers' `T5Config`."""
    return {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
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


def with_losing_spare_rows(tensors: dict[str, np.ndarray], config: ModelConfig) -> dict[str, np.ndarray]:
    """The tensors with each spare row of the head set to the mean of the rows of the vocabulary.

    The head has no bias, so the logit of such a row is the mean of the others: never the highest, and by
    Jensen's inequality no more probable than 1 / `real_vocab_size`. A list of suppressed ids would do that
    too, but would also suppress a token that a user adds later. As the first value of an added token's row,
    the mean disturbs the other probabilities least (Hewitt, "Initializing New Word Embeddings for Pretrained
    Language Models", 2021).
    """
    head = "shared.weight" if config.tie_word_embeddings else "lm_head.weight"
    rows = tensors[head].copy()
    rows[config.real_vocab_size :] = rows[: config.real_vocab_size].mean(axis=0, dtype=np.float64)
    return tensors | {head: rows}


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
