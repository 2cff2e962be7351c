"""Where windows were masked, read off the arrays that the model is given.

Nothing is drawn again: spans are found by the sentinels in inputs and targets, and the text that these hold
between them is compared with the window. So what is shown is what is in the arrays.

Shapes: n windows, W tokens a window, B rows, S input and T target positions a row, p positions in use.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from t5smith.inspection.batch import Given
from t5smith.objective.objective import Objective
from t5smith.objective.spans import Spans


@dataclass(frozen=True)
class Side:
    """The positions of inputs or of targets that are in use, row by row.

    Attributes:
      at: (p,) their places in the flattened array.
      ids: (p,) what stands there.
      window: (p,) the window each belongs to.
      place: (p,) its place within what that window has, from 0.
      used: (n,) positions that each window has.
      sentinel: (p,) the number of the sentinel, -1 for all else.
      is_text: (p,) neither a sentinel, nor the mode token, nor the `</s>` at the end.
    """

    at: Int[np.ndarray, " p"]
    ids: Int[np.ndarray, " p"]
    window: Int[np.ndarray, " p"]
    place: Int[np.ndarray, " p"]
    used: Int[np.ndarray, " n"]
    sentinel: Int[np.ndarray, " p"]
    is_text: Bool[np.ndarray, " p"]


@dataclass(frozen=True)
class Reading:
    """What the arrays of a batch say of its windows.

    Attributes:
      inputs, targets: the positions in use.
      spans: what is masked; of prefix LM the part to be told.
      closing: (n,) whether the targets have a sentinel that closes the last span.
      masked: (n, W) which tokens of the text are masked.
    """

    inputs: Side
    targets: Side
    spans: Spans
    closing: Bool[np.ndarray, " n"]
    masked: Bool[np.ndarray, "n W"]


def read(given: Given, objective: Objective) -> Reading:
    """Find the spans of a batch; the arrays must hold the whole text of each window between them."""
    prefix = np.array([len(task.prefix) for task in objective.denoisers])[given.task]
    eos = np.array([task.eos for task in objective.denoisers])[given.task].astype(np.int64)
    n, W = given.windows.shape
    inputs = _side(given, objective, "input", prefix, eos)
    targets = _side(given, objective, "target", np.zeros(n, np.int64), eos)

    asked, answered = np.flatnonzero(inputs.sentinel >= 0), np.flatnonzero(targets.sentinel >= 0)
    row, number = inputs.window[asked], inputs.sentinel[asked]
    count = np.bincount(row, minlength=n)
    text_before = inputs.place[asked] - prefix[row] - number
    # What a sentinel of the targets is followed by, up to the next one or to the end.
    of = targets.window[answered]
    end = np.where(
        np.append(of[1:], -1) == of, np.append(targets.place[answered][1:], 0), (targets.used - eos)[of]
    )
    length = end - targets.place[answered] - 1
    paired = targets.sentinel[answered] < count[of]
    assert np.array_equal(row, of[paired])
    assert np.array_equal(number, targets.sentinel[answered][paired]), "sentinels do not pair"
    start = text_before + (targets.place[answered] - targets.sentinel[answered])[paired]
    stop = start + length[paired]

    told = np.array([task.lengths is None for task in objective.denoisers])[given.task]
    ends = np.flatnonzero(told)
    kept = (inputs.used - prefix - eos)[ends]
    row, start, stop = (
        np.concatenate(pair) for pair in ((row, ends), (start, kept), (stop, np.full(len(ends), W)))
    )
    order = np.argsort(row, kind="stable")
    spans = Spans(n, row[order], start[order], stop[order])
    masked = spans.masks(W)
    assert np.array_equal(given.windows[~masked], inputs.ids[inputs.is_text]), "inputs are not of their text"
    assert np.array_equal(given.windows[masked], targets.ids[targets.is_text]), (
        "targets are not of their text"
    )
    closing = np.zeros(n, np.bool_)
    closing[of[~paired]] = True
    return Reading(inputs, targets, spans, closing, masked)


def _side(
    given: Given, objective: Objective, name: str, prefix: Int[np.ndarray, " n"], eos: Int[np.ndarray, " n"]
) -> Side:
    ids = given.arrays["input_ids" if name == "input" else "targets"]
    n = len(given.row)
    segments = given.arrays.get(f"{name}_segments", (ids != objective.pad_id).astype(np.int32))
    number = np.full((len(ids), int(given.segment.max(initial=0)) + 1), -1)
    number[given.row, given.segment] = np.arange(n)
    window = number[np.arange(len(ids))[:, None], segments].reshape(-1)
    at = np.flatnonzero(window >= 0)
    window, flat = window[at], ids.reshape(-1)[at]
    used = np.bincount(window, minlength=n)
    place = np.arange(len(at)) - (np.cumsum(used) - used)[window]
    inner = (place >= prefix[window]) & (place < (used - eos)[window])
    numbers = np.full(int(max(ids.max(initial=0), objective.sentinel_ids.max())) + 1, -1)
    numbers[objective.sentinel_ids] = np.arange(len(objective.sentinel_ids))
    sentinel = np.where(inner, numbers[flat], -1)
    return Side(at, flat, window, place, used, sentinel, inner & (sentinel < 0))
