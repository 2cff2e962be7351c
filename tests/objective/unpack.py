"""The windows of a batch, for tests: rows taken apart again."""

from __future__ import annotations

import numpy as np


def segments_of(batch, pad_id):
    """Each window's inputs and targets as lists, row after row; padding may only stand at the end of one."""
    found = []
    rows = len(batch["targets"])
    for row in range(rows):
        sides = []
        for ids, segments in (("input_ids", "input_segments"), ("targets", "target_segments")):
            own = batch[ids][row]
            number = batch[segments][row] if segments in batch else (own != pad_id).astype(np.int32)
            assert ((own != pad_id) == (number > 0)).all(), "segments are where there is no padding"
            parts = [own[number == n].tolist() for n in range(1, number.max() + 1)]
            for n in range(1, number.max() + 1):
                at = np.flatnonzero(number == n)
                assert (np.diff(at) == 1).all(), "a window's positions follow each other"
            assert (np.diff(number[number > 0]) >= 0).all()
            sides.append(parts)
        assert len(sides[0]) == len(sides[1])
        found += list(zip(*sides, strict=True))
    return found


def window_of(inputs, targets, spec, objective):
    """The window that inputs and targets were made of, and which of its tokens were masked."""
    if spec.eos:
        assert inputs[-1] == targets[-1] == objective.eos_id
        inputs, targets = inputs[:-1], targets[:-1]
    assert tuple(inputs[: len(spec.prefix)]) == spec.prefix
    inputs = inputs[len(spec.prefix) :]
    if spec.lengths is None:
        return inputs + targets, [False] * len(inputs) + [True] * len(targets)
    sentinels = objective.sentinel_ids.tolist()
    spans, order = {}, []
    for token in targets:
        if token in sentinels:
            order.append(token)
            spans[token] = []
        else:
            spans[order[-1]].append(token)
    assert order == sentinels[: len(order)], "span j has sentinel j"
    window, mask = [], []
    for token in inputs:
        part = spans.get(token, [token])
        window += part
        mask += [token in spans] * len(part)
    given = [token for token in inputs if token in spans]
    assert given in (order, order[:-1]), "the same sentinels, but for a closing one"
    assert (len(given) < len(order)) == (not mask[-1]), "closed exactly where text follows the last span"
    return window, mask
