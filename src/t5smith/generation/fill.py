"""Filling in masked spans: decode greedily, and put the decoded spans in place of the sentinels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from t5smith.base.errors import T5smithError
from t5smith.base.hub import download_first
from t5smith.base.phase import phase
from t5smith.base.progress import progress, warn
from t5smith.generation.decoding import decode
from t5smith.generation.modes import Mode, mode_of
from t5smith.interop.huggingface_load import load_model
from t5smith.interop.model import Model
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
      filled: the input with the sentinels replaced by their fills, or continued if the mode continues texts.
        A sentinel that the model did not write stays.
      unanswered: the sentinels of the input that the model did not write.
      cut: whether the output did not end within the largest number of tokens.
      mode: the mode token before the input, or "".
      continued: whether the output continues the input (prefix LM).
    """

    ids: tuple[int, ...]
    text: str
    fills: tuple[str, ...]
    filled: str
    unanswered: tuple[str, ...] = ()
    cut: bool = False
    mode: str = ""
    continued: bool = False


def model_folder(folder: Path) -> Path:
    """The exported model of a run folder, or the folder itself.

    Raises:
      T5smithError: there is no such folder, or it is a run folder without an exported model.
    """
    if not folder.is_dir():
        what = "this is a file" if folder.exists() else "there is no such folder"
        expected, fix = "a run folder or an exported model folder", download_first(str(folder))
        raise T5smithError(what, where=folder, expected=expected, fix=fix)
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
    model: str | Path, texts: Sequence[str], max_new_tokens: int = 64, mode: str | None = None
) -> list[Completion]:
    """Fill in the sentinels of texts such as `The <extra_id_0> ruined my sleep`, greedily.

    Args:
      model: a Hugging Face T5 folder, or a run folder with an exported `model`.
      texts: one or more; each is completed on its own.
      max_new_tokens: most tokens to decode per text.
      mode: mode token put before each text, such as `[R]`, for a model that was trained with mode tokens.
        "": none. Default: that of its first denoiser that masks spans.

    Raises:
      T5smithError: there is no model, a text is empty or has a sentinel that does not exist, the model was
        not trained with this mode token, or the work does not fit into memory.
    """
    folder = model_folder(Path(model))
    with phase("generate", "loading the model", at_once=False):
        loaded = load_model(folder)
    meant = mode_of(folder, loaded.vocabulary, mode)
    inputs = [loaded.vocabulary.encode_with_sentinels(text) for text in texts]
    for number, (ids, text) in enumerate(zip(inputs, texts, strict=True), 1):
        if not ids:
            what = f"text {number} is empty ({text!r})"
            raise T5smithError(what, expected="text with sentinels to fill in")
    if meant.continues and any("<extra_id_" in text for text in texts):
        warn(f"{meant.token or 'this model'} continues texts (prefix LM): sentinels mean nothing to it")
    if len(texts) > BATCH_SIZE:
        with progress("generate", len(texts), "texts") as bar:
            done = complete(loaded, inputs, max_new_tokens, meant.ids, bar.advance)
    else:
        with phase("generate", "decoding", at_once=False):
            done = complete(loaded, inputs, max_new_tokens, meant.ids)
    return [_in_mode(one, meant, loaded.vocabulary.keeps_whitespace) for one in done]


def _in_mode(one: Completion, mode: Mode, keeps_whitespace: bool) -> Completion:
    """A completion as the mode has it; `keeps_whitespace`: its text has all of its spaces."""
    if mode.continues:
        joined = f"{one.filled}{one.text}" if keeps_whitespace else f"{one.filled} {one.text}".strip()
        filled = one.filled if one.fills else joined
        return replace(one, mode=mode.token, filled=filled, continued=True)
    # A model that never learned to end its output has done its work when it has filled in all spans.
    return replace(one, mode=mode.token, cut=one.cut and (mode.ends or bool(one.unanswered)))


def complete(
    model: Model,
    inputs: Sequence[Sequence[int]],
    max_new_tokens: int = 64,
    prefix: Sequence[int] = (),
    on_done: Callable[[int], Any] | None = None,
) -> list[Completion]:
    """Complete tokenised inputs (without `</s>`) in batches; the results are in the order of the inputs.

    Args:
      model: the model.
      inputs: the ids of each input.
      max_new_tokens: most tokens to decode per input.
      prefix: ids put before each input: a mode token that the model was trained with.
      on_done: called with the number of inputs that were completed since the last call.
    """
    assert all(inputs)
    vocabulary = model.vocabulary
    results: list[Completion] = []
    for begin in range(0, len(inputs), BATCH_SIZE):
        part = inputs[begin : begin + BATCH_SIZE]
        longest = len(prefix) + max(map(len, part)) + 1
        padded = np.full(
            (len(part), -(-longest // LENGTH_MULTIPLE) * LENGTH_MULTIPLE), vocabulary.pad_id, np.int32
        )
        for row, ids in enumerate(part):
            padded[row, : len(prefix) + len(ids) + 1] = [*prefix, *ids, vocabulary.eos_id]
        decoded = decode(model, padded, max_new_tokens)
        for ids, row in zip(part, decoded, strict=True):
            results.append(_completion(vocabulary, ids, row[row != vocabulary.pad_id].tolist()))
        if on_done:
            on_done(len(part))
    return results


def _completion(vocabulary: Vocabulary, inputs: Sequence[int], decoded: list[int]) -> Completion:
    spans = dict(reversed(list(spans_of(vocabulary, decoded))))
    fills: list[str] = []
    filled: list[int] = []
    unanswered: list[int] = []
    for token in inputs:
        number = vocabulary.sentinel_number(token)
        if number is None:
            filled.append(token)
        else:
            if number not in spans:
                unanswered.append(token)
            fills.append(vocabulary.decode(spans.get(number, [])))
            filled += spans.get(number, [token])
    return Completion(
        tuple(decoded),
        vocabulary.decode(decoded),
        tuple(fills),
        vocabulary.decode(filled),
        unanswered=tuple(vocabulary.pieces(unanswered)),
        cut=vocabulary.eos_id not in decoded,
    )


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
