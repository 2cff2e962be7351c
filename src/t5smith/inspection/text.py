"""A text as the inputs and targets of each denoiser of an objective, or under a mask chosen by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int

from t5smith.base.errors import T5smithError
from t5smith.inspection.batch import InspectedBatch, text_batch
from t5smith.inspection.manual_masks import Surface, mask_texts
from t5smith.inspection.trace import Trace, trace_of
from t5smith.objective.corruption import corrupt
from t5smith.objective.denoisers import resolve_lengths, resolve_mode_tokens
from t5smith.objective.lengths import SpanLengths
from t5smith.objective.objective import Objective
from t5smith.objective.rng import TRAINING, uniforms
from t5smith.objective.row_plan import RowPlan
from t5smith.objective.spans import Spans
from t5smith.recipe.objective import ObjectiveSettings
from t5smith.vocabulary.vocabulary import Vocabulary

if TYPE_CHECKING:
    from t5smith.inspection.token_losses import LossFunction


def inspect(
    text: str,
    noise: str | Sequence[str] = (),
    tokenizer: str | Path | None = None,
    seed: int = 0,
    noise_density: float = 0.15,
    mean_noise_span_length: float = 3.0,
) -> Trace:
    """Show the inputs and targets of T5 when parts of a text are masked.

    With `noise`, the tokens that contain those parts are masked; a part that occurs more than once is
    masked at its first occurrence as a word that is not masked yet. Without it, the mask is drawn from the
    seed as the first one of a training run.

    Args:
      text: the text.
      noise: the parts to mask.
      tokenizer: a tokenizer's folder or tokenizer.json. Default: T5's own, which is bundled with t5smith.
      seed: of a drawn mask.
      noise_density: share of the tokens that are masked, for a drawn mask.
      mean_noise_span_length: mean length of a masked span in tokens, for a drawn mask.

    Raises:
      T5smithError: nothing to mask, a noise text that does not occur, or too many spans.
    """
    vocabulary = Vocabulary.bundled() if tokenizer is None else Vocabulary.load(Path(tokenizer))
    settings = ObjectiveSettings(noise_density=noise_density, mean_noise_span_length=mean_noise_span_length)
    return inspect_text(text, settings, vocabulary, noise, seed)[0]


def inspect_text(
    text: str,
    settings: ObjectiveSettings,
    vocabulary: Vocabulary,
    noise: str | Sequence[str] = (),
    seed: int = 0,
    loss: LossFunction | None = None,
) -> tuple[Trace, ...]:
    """A text under each denoiser of an objective, or under one mask chosen by hand.

    The text is the whole window, whatever length the objective's windows have.

    Args:
      text: the text.
      settings: the objective.
      vocabulary: of the text, and of the model.
      noise: parts of the text to mask.
      seed: of drawn masks.
      loss: computes the losses of a batch by a model, if they are to be shown.

    Raises:
      T5smithError: nothing to mask, a noise text that does not occur, or too many spans.
    """
    batch, notes = text_arrays(text, settings, vocabulary, noise, seed)
    losses = {} if loss is None else loss(batch).by_window()
    return tuple(
        trace_of(
            batch,
            window,
            vocabulary,
            seed=seed,
            drawn=not noise,
            notes=notes,
            losses=losses.get(window, ()),
        )
        for window in range(batch.rows)
    )


def text_arrays(
    text: str,
    settings: ObjectiveSettings,
    vocabulary: Vocabulary,
    noise: str | Sequence[str] = (),
    seed: int = 0,
) -> tuple[InspectedBatch, list[str]]:
    """The arrays of :func:`inspect_text`, a row per denoiser, and notes on the mask and the tokenizer.

    Denoiser d draws its mask as window d of a training run does.

    Raises:
      T5smithError: nothing to mask, a noise text that does not occur, or too many spans.
    """
    ids = np.asarray(vocabulary.encode(text), np.int32)
    if not len(ids):
        raise T5smithError("the text is empty", where="inspect", expected="at least one word")
    noise = (noise,) if isinstance(noise, str) else noise
    if noise:
        surface = Surface.of(vocabulary, ids)
        normalised = [Surface.of(vocabulary, vocabulary.encode(part)).text for part in noise]
        mask, notes = mask_texts(surface, normalised, noise)
        batch = _masked(ids, mask, settings, vocabulary)
    else:
        objective, notes = _objective_for(len(ids), settings, vocabulary), []
        n = len(objective.denoisers)
        windows, denoiser = np.repeat(ids[None], n, axis=0), np.arange(n)
        numbers = uniforms(seed, TRAINING, 0, n, objective.draws)
        no_starts = np.zeros(windows.shape, np.bool_)
        batch = text_batch(
            objective.one_window_per_row(windows, numbers, no_starts, denoiser), objective, windows, denoiser
        )
    if unknown := int((ids == vocabulary.unk_id).sum()):
        notes.append(f"the vocabulary lacks some characters of the text: {unknown} <unk>")
    return batch, notes


def _objective_for(window: int, settings: ObjectiveSettings, vocabulary: Vocabulary) -> Objective:
    """The objective for windows of this length, each in a row of its own."""
    if window < 2:
        raise T5smithError(f"a text of {window} tokens cannot be masked", expected="at least 2 tokens")
    settings = ObjectiveSettings.model_validate(
        settings.model_dump() | {"window_length": window, "input_length": None}
    )
    prefixes, sentinels = resolve_mode_tokens(settings, vocabulary)
    tasks = resolve_lengths(settings, sentinels, prefixes)
    longest = max(task.item.inputs for task in tasks), max(task.item.targets for task in tasks)
    return Objective(
        tasks,
        RowPlan(tuple(task.item for task in tasks), *longest, tuple((kind,) for kind in range(len(tasks)))),
        vocabulary.sentinel_ids[:sentinels],
        vocabulary.eos_id,
        vocabulary.pad_id,
        settings.roll,
        settings.cross_documents,
    )


def _masked(
    ids: Int[np.ndarray, " W"], mask: np.ndarray, settings: ObjectiveSettings, vocabulary: Vocabulary
) -> InspectedBatch:
    """A text under a mask chosen by hand, with the mode token of the first denoiser that masks spans."""
    # The denoiser is needed, its lengths are not: windows of 8 tokens are never rejected.
    objective = _objective_for(8, settings, vocabulary)
    first = next((task for task in objective.denoisers if task.lengths is not None), objective.denoisers[0])
    spans = Spans.of_masks(mask[None])
    window, noise, count, closing = len(ids), int(mask.sum()), len(spans.row), int(not mask[-1])
    lengths = SpanLengths(
        window,
        noise,
        count,
        inputs=len(first.prefix) + window - noise + count + first.eos,
        targets=noise + count + closing + first.eos,
        sentinels=count + closing,
    )
    task = replace(first, lengths=lengths, window=window)
    inputs, targets = corrupt(
        ids[None],
        spans,
        sentinel_ids=objective.sentinel_ids,
        eos_id=vocabulary.eos_id if task.eos else None,
        pad_id=vocabulary.pad_id,
        input_length=lengths.inputs,
        target_length=lengths.targets,
        prefix=task.prefix,
    )
    arrays = {"input_ids": inputs, "targets": targets}
    return text_batch(arrays, replace(objective, denoisers=(task,)), ids[None], np.zeros(1, np.int64))
