"""`export --check`: the folder as transformers loads it, compared with what t5smith reads in it."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import jax
import numpy as np

from t5smith.base.errors import T5smithError
from t5smith.base.phase import phase
from t5smith.exporting.half import held_out_inputs
from t5smith.interop.huggingface_load import load_model
from t5smith.model.t5 import PAD_ID, forward, shift_right
from t5smith.training.setup import Setup

MOST = 1e-4
"""The largest difference of a logit, as a share of the largest logit, or of 1 if that is less."""
ROWS = 10
"""Inputs that are computed at a time."""

_WITHOUT = (
    "export without --check, and load the folder with `AutoTokenizer` and `AutoModelForSeq2SeqLM` to compare"
)


def check_packages() -> None:
    """Raise T5smithError if torch or transformers is not installed."""
    for name in ("torch", "transformers"):
        if importlib.util.find_spec(name) is None:
            fix = "install it with `pip install torch transformers`, or export without --check"
            raise T5smithError(f"needs {name}, which is not installed", where="--check", fix=fix)


def check_folder(folder: Path, setup: Setup) -> dict[str, Any]:
    """Compare ids and logits of a folder, both computed in float32, on held-out inputs.

    Returns:
      The version of transformers, the number of inputs, and the largest difference; see MOST.

    Raises:
      T5smithError: an id differs, or a logit by more than MOST.
    """
    # Imported by name: t5smith does not need them.
    torch, transformers = (importlib.import_module(name) for name in ("torch", "transformers"))
    with phase("export", "comparing with transformers"):
        batch, ours = held_out_inputs(setup), load_model(folder)
        vocabulary, end = ours.vocabulary, ours.vocabulary.eos_id
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        # A word <unk> in a text is the text of no held-out document: it is what unknown characters decode to.
        dropped = (PAD_ID, end, vocabulary.unk_id)
        for row in batch["input_ids"]:
            text = vocabulary.decode([number for number in row.tolist() if number not in dropped])
            if tokenizer(text).input_ids != [*vocabulary.encode_with_sentinels(text), end]:
                what = f"the tokenizer in transformers gives other ids for {text!r}"
                raise T5smithError(what, where="--check", fix=_WITHOUT)
        model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder).float().eval()
        compute, apart, largest = jax.jit(forward, static_argnums=1), 0.0, 1.0
        for first in range(0, len(batch["input_ids"]), ROWS):
            inputs, targets = (batch[name][first : first + ROWS] for name in ("input_ids", "targets"))
            decoder_inputs = np.asarray(shift_right(jax.numpy.asarray(targets)))
            expected = np.asarray(compute(ours.parameters, ours.config, inputs, decoder_inputs))
            ids, mask, before = (
                torch.tensor(np.asarray(one, np.int64)) for one in (inputs, inputs != PAD_ID, decoder_inputs)
            )
            with torch.no_grad():
                found = model(input_ids=ids, attention_mask=mask, decoder_input_ids=before).logits.numpy()
            # Python's `max` would pass over what is no number.
            apart = float(np.maximum(apart, np.abs(found - expected)[targets != PAD_ID].max()))
            largest = max(largest, float(np.abs(expected).max()))
    if not apart <= MOST * largest:
        what = f"the logits in transformers differ by up to {apart:.2g}"
        raise T5smithError(what, where="--check", expected=f"at most {MOST * largest:.2g}", fix=_WITHOUT)
    return {
        "transformers": transformers.__version__,
        "inputs": len(batch["input_ids"]),
        "largest_difference": apart,
    }


def in_words(checked: dict[str, Any]) -> str:
    """The sentence for the model card."""
    return (
        f"Checked with transformers {checked['transformers']}: on {checked['inputs']} held-out inputs the "
        f"ids equal t5smith's, and the logits differ by at most {checked['largest_difference']:.1e}."
    )
