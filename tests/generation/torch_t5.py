"""Tiny models of transformers with random weights, and ours with the same, to compare what they generate."""

from __future__ import annotations

import random
from functools import cache

import numpy as np
import torch
from transformers import T5Config, T5ForConditionalGeneration, UMT5Config, UMT5ForConditionalGeneration

from t5smith.interop.huggingface_load import load_model
from t5smith.vocabulary.train import build
from t5smith.vocabulary.vocabulary import Vocabulary

PIECES = 70


def tiny_vocabulary() -> Vocabulary:
    """A few pieces, and a hundred sentinels."""
    pieces = [(f"▁{a}{b}", -3.0) for a in "abcdefg" for b in "xyzuvw"] + [
        (one, -4.0) for one in "▁abcdefgxyzuvw"
    ]
    return Vocabulary(build(pieces, []).to_str())


@cache
def pair(tmp: object, seed: int = 0, tied: bool = False, umt5: bool = False):
    """A model of transformers and the same model, loaded by us."""
    torch.manual_seed(seed)
    vocabulary = tiny_vocabulary()
    kinds = (UMT5Config, UMT5ForConditionalGeneration) if umt5 else (T5Config, T5ForConditionalGeneration)
    config = kinds[0](
        vocab_size=vocabulary.size,
        d_model=16,
        d_kv=4,
        d_ff=24,
        num_layers=2,
        num_decoder_layers=2,
        num_heads=3,
        feed_forward_proj="relu" if tied else "gated-gelu",
        tie_word_embeddings=tied,
        decoder_start_token_id=0,
        dropout_rate=0.0,
    )
    theirs = kinds[1](config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            # Larger than the usual initial values: outputs vary and end.
            parameter.mul_(2.0 if parameter.ndim == 2 else 1.0)
        # </s> stands out, so that outputs end.
        theirs.get_output_embeddings().weight[1] *= 2.0
    folder = tmp / f"model-{seed}-{tied}" / ("umt5" if umt5 else "")  # type: ignore[operator]
    theirs.save_pretrained(folder)
    vocabulary.save(folder)
    return theirs, load_model(folder)


def inputs(count: int, seed: int, size: int) -> list[list[int]]:
    """Random inputs of several lengths, with `</s>`."""
    draw = random.Random(seed)
    return [[*(draw.randrange(3, size) for _ in range(draw.randint(2, 20))), 1] for _ in range(count)]


def padded(rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs as transformers takes them: ids and mask."""
    ids = np.zeros((len(rows), max(map(len, rows))), np.int64)
    for row, own in zip(ids, rows, strict=True):
        row[: len(own)] = own
    return torch.tensor(ids), torch.tensor(ids != 0).long()
