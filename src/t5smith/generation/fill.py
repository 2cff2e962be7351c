"""Filling in masked spans: decode greedily, and put the decoded spans in place of the sentinels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Array, Int

from t5smith.base.errors import T5smithError
from t5smith.base.phase import phase
from t5smith.base.signals import interruptible
from t5smith.base.wrapping import pluralize
from t5smith.generation.greedy import greedy
from t5smith.interop.huggingface_load import load_model
from t5smith.interop.model import Model
from t5smith.model.config import ModelConfig
from t5smith.model.params import Parameters
from t5smith.objective.denoisers import mode_token_ids
from t5smith.training.compile import fitting_program
from t5smith.vocabulary.vocabulary import Vocabulary

BATCH_SIZE = 16
LENGTH_MULTIPLE = 32
"""Inputs are padded to a multiple of this length, so that few shapes are compiled."""


@dataclass(frozen=True)
class Completion:
    """What a model wrote for one input.

    Attributes:
      ids: decoded ids without padding, with `</s>` if the model wrote it.
      text: those ids as text, with sentinels.
      fills: for each sentinel of the input, in order, the text decoded after the same sentinel; "" if the
        model did not write that sentinel.
      filled: the input with the sentinels replaced by their fills.
    """

    ids: tuple[int, ...]
    text: str
    fills: tuple[str, ...]
    filled: str


def model_folder(folder: Path) -> Path:
    """The exported model of a run folder, or the folder itself.

    Raises:
      T5smithError: there is no such folder, or it is a run folder without an exported model.
    """
    if not folder.is_dir():
        what = "this is a file" if folder.exists() else "there is no such folder"
        raise T5smithError(what, where=folder, expected="a run folder or an exported model folder")
    if (folder / "config.json").is_file():
        return folder
    if (folder / "model").is_dir():
        return folder / "model"
    if any((folder / part).is_dir() for part in ("vocab", "store", "train")):
        raise T5smithError(
            "this run has no exported model yet",
            where=folder,
            fix="finish it with `t5smith run RECIPE`, or run `t5smith export RECIPE`",
        )
    return folder


def generate(
    model: str | Path, texts: Sequence[str], max_new_tokens: int = 64, mode: str = ""
) -> list[Completion]:
    """Fill in the sentinels of texts such as `The <extra_id_0> ruined my sleep`, greedily.

    Args:
      model: a Hugging Face T5 folder, or a run folder with an exported `model`.
      texts: one or more; each is completed on its own.
      max_new_tokens: most tokens to decode per text.
      mode: mode token put before each text, such as `[R]`, for a model that was trained with mode tokens.

    Raises:
      T5smithError: there is no model, or a text is empty or has a sentinel that does not exist.
    """
    with phase("generate", "loading the model", at_once=False):
        loaded = load_model(model_folder(Path(model)))
    inputs = [loaded.vocabulary.encode_with_sentinels(text) for text in texts]
    return complete(loaded, inputs, max_new_tokens, mode_token_ids(mode, loaded.vocabulary))


def complete(
    model: Model,
    inputs: Sequence[Sequence[int]],
    max_new_tokens: int = 64,
    prefix: Sequence[int] = (),
) -> list[Completion]:
    """Complete tokenised inputs (without `</s>`) in batches; the results are in the order of the inputs.

    Args:
      model: the model.
      inputs: the ids of each input.
      max_new_tokens: most tokens to decode per input.
      prefix: ids put before each input: a mode token that the model was trained with.

    Raises:
      T5smithError: an input is empty, or the work does not fit into memory.
    """
    vocabulary = model.vocabulary
    for number, ids in enumerate(inputs):
        if not ids:
            raise T5smithError(f"input {number + 1} is empty", expected="text with sentinels to fill in")
    results: list[Completion] = []
    for begin in range(0, len(inputs), BATCH_SIZE):
        part = inputs[begin : begin + BATCH_SIZE]
        longest = len(prefix) + max(map(len, part)) + 1
        padded = np.full(
            (len(part), -(-longest // LENGTH_MULTIPLE) * LENGTH_MULTIPLE), vocabulary.pad_id, np.int32
        )
        for row, ids in enumerate(part):
            padded[row, : len(prefix) + len(ids) + 1] = [*prefix, *ids, vocabulary.eos_id]
        decoded = _decode(model, padded, max_new_tokens)
        for ids, row in zip(part, decoded, strict=True):
            results.append(_completion(vocabulary, ids, row[row != vocabulary.pad_id].tolist()))
    return results


def _decode(model: Model, input_ids: Int[np.ndarray, "B S"], max_new_tokens: int) -> Int[np.ndarray, "B T"]:
    """The ids that the model writes for a batch.

    Raises:
      T5smithError: it does not fit into memory.
    """
    rows, length = input_ids.shape
    args = model.parameters, input_ids
    with phase("generate", f"completing {pluralize(rows, 'text')}", at_once=False):
        program = fitting_program(
            _greedy,
            *args,
            what=f"generating {max_new_tokens:,} tokens for {pluralize(rows, 'text')} of up to {length:,}",
            where="--max-new-tokens",
            fix="ask for fewer, or give shorter or fewer texts",
            config=model.config,
            length=max_new_tokens,
            eos_id=model.vocabulary.eos_id,
        )
        return interruptible(lambda: np.asarray(program(*args)))


@partial(jax.jit, static_argnames=("config", "length", "eos_id"))
def _greedy(
    parameters: Parameters, input_ids: Int[Array, "B S"], *, config: ModelConfig, length: int, eos_id: int
) -> Int[Array, "B T"]:
    return greedy(parameters, config, input_ids, length=length, eos_id=eos_id)


def _completion(vocabulary: Vocabulary, inputs: Sequence[int], decoded: list[int]) -> Completion:
    spans = dict(reversed(list(spans_of(vocabulary, decoded))))
    fills: list[str] = []
    filled: list[int] = []
    for token in inputs:
        number = vocabulary.sentinel_number(token)
        if number is None:
            filled.append(token)
        else:
            fill = spans.get(number, [])
            fills.append(vocabulary.decode(fill))
            filled += fill
    return Completion(tuple(decoded), vocabulary.decode(decoded), tuple(fills), vocabulary.decode(filled))


def spans_of(vocabulary: Vocabulary, targets: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
    """The spans in targets: the number of each sentinel and the text ids after it."""
    number: int | None = None
    span: list[int] = []
    for token in (*targets, vocabulary.eos_id):
        sentinel = vocabulary.sentinel_number(token)
        if sentinel is not None or token == vocabulary.eos_id:
            if number is not None:
                yield number, span
            number, span = sentinel, []
            if token == vocabulary.eos_id:
                return
        else:
            span.append(token)
