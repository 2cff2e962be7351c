"""Models of random family and sizes in transformers: run here in version 5, in .venv4 in version 4.57.

As a program: `write FOLDER SEED IDS` or `logits FOLDER SEED IDS`, where IDS is the size of the vocabulary.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

FAMILIES = {"t5": "T5", "mt5": "MT5", "umt5": "UMT5"}
VERSION = int(transformers.__version__.split(".")[0])


def family(seed: int) -> str:
    """The family of a seed."""
    return ("t5", "mt5", "umt5")[seed % 3]


def config_of(seed: int, ids: int) -> Any:
    """A configuration of random sizes."""
    draw, name = random.Random(seed), family(seed)
    sizes = {
        "vocab_size": ids + draw.choice([0, 1, 28, 127]),
        "d_model": draw.choice([16, 24, 40]),
        "d_kv": draw.choice([4, 8, 12]),
        "d_ff": draw.choice([20, 32]),
        "num_layers": draw.choice([1, 2, 3]),
        "num_decoder_layers": draw.choice([1, 2, 3]),
        "num_heads": draw.choice([1, 2, 3]),
        "relative_attention_num_buckets": draw.choice([8, 32]),
        "relative_attention_max_distance": draw.choice([20, 128]),
        "feed_forward_proj": "gated-gelu" if name == "mt5" or draw.random() < 0.5 else "relu",
        "decoder_start_token_id": 0,
        "dropout_rate": 0.0,
        # mT5 with a tied head is another thing in each version.
        "tie_word_embeddings": name != "mt5" and draw.random() < 0.4,
    }
    return getattr(transformers, FAMILIES[name] + "Config")(**sizes)


def write(folder: str, seed: str, ids: str) -> None:
    """A folder as a user finds it: random weights, saved by this version of transformers."""
    config = config_of(int(seed), int(ids))
    torch.manual_seed(int(seed))
    model = getattr(transformers, FAMILIES[family(int(seed))] + "ForConditionalGeneration")(config)
    for parameter in model.parameters():
        parameter.data.normal_(0.0, 0.3)
    if VERSION >= 5 and not getattr(config, "scale_decoder_outputs", False):
        # Version 5 ties what is built from a config, whatever it says.
        model.lm_head.weight = torch.nn.Parameter(torch.randn(config.vocab_size, config.d_model))
        config.tie_word_embeddings = False
    model.save_pretrained(folder)


def batch(seed: int, ids: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs (3, 40), two rows of them padded, and decoder inputs (3, 12)."""
    rng = np.random.default_rng(seed)
    inputs = rng.integers(3, ids, (3, 40))
    inputs[1, 25:] = inputs[2, 1:] = 0
    return inputs, rng.integers(3, ids, (3, 12))


def logits(folder: str, seed: str, ids: str) -> None:
    """Write the logits of the batch of a seed into the folder."""
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    assert type(model).__name__.startswith(FAMILIES[model.config.model_type])
    inputs, targets = (torch.tensor(one) for one in batch(int(seed), int(ids)))
    with torch.no_grad():
        found = model(input_ids=inputs, attention_mask=inputs != 0, decoder_input_ids=targets).logits
    np.save(Path(folder) / "logits.npy", found.numpy())


def each(function: str, root: str, name: str, count: str, ids: str) -> None:
    """Call a function for the folder of this name of each seed."""
    for seed in range(int(count)):
        globals()[function](f"{root}/{seed}/{name}", str(seed), ids)


if __name__ == "__main__":
    assert transformers.__version__.startswith("4.57"), transformers.__version__
    globals()[sys.argv[1]](*sys.argv[2:])
