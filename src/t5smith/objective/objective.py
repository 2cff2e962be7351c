"""An objective with everything settled, and how it makes rows of inputs and targets from windows.

Shapes: n windows, W tokens a window, B rows, S input and T target positions a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Int

from t5smith.objective.boundaries import keep_within_documents
from t5smith.objective.denoisers import (
    DenoiserSpec,
    denoisers_of,
    fixed_input_length,
    resolve_lengths,
    resolve_mode_tokens,
)
from t5smith.objective.packing import RowPlan, plan_rows
from t5smith.objective.spans import Spans, corrupt, draw_spans, roll_spans
from t5smith.recipe.objective import ObjectiveSettings
from t5smith.recipe.symbols import SENTINELS
from t5smith.vocabulary.vocabulary import Vocabulary

Batch = Mapping[str, Int[np.ndarray, "_ _"]]
"""`input_ids` (B, S) and `targets` (B, T), int32, padded with the pad id; where rows hold several windows
also `input_segments` and `target_segments`, the number of each position's window in its row from 1, 0 for
padding."""


@dataclass(frozen=True)
class Placement:
    """Where the piece of each window goes: (n,) each."""

    task: Int[np.ndarray, " n"]
    row: Int[np.ndarray, " n"]
    input_at: Int[np.ndarray, " n"]
    target_at: Int[np.ndarray, " n"]
    segment: Int[np.ndarray, " n"]
    place: Int[np.ndarray, " n"]


@dataclass(frozen=True)
class Objective:
    """Denoisers with one vocabulary's control ids, and the cycle of rows they fill.

    Attributes:
      denoisers: the denoisers.
      plan: which of their pieces share a row.
      sentinel_ids: of the vocabulary, without those that are mode tokens.
      roll, cross_documents: see the recipe.
    """

    denoisers: tuple[DenoiserSpec, ...]
    plan: RowPlan
    sentinel_ids: Int[np.ndarray, " sentinels"] = field(repr=False)
    eos_id: int
    pad_id: int
    roll: bool = False
    cross_documents: bool = True

    @classmethod
    def create(cls, settings: ObjectiveSettings, vocabulary: Vocabulary) -> Objective:
        """Settle all lengths and check them against the sentinels there are.

        Raises:
          T5smithError: no window fits, more spans than sentinels, or a mode token that cannot be written.
        """
        prefixes, sentinels = resolve_mode_tokens(settings, vocabulary)
        tasks = resolve_lengths(settings, sentinels, prefixes)
        return cls(
            tasks,
            plan_rows([task.item for task in tasks], fixed_input_length(settings)),
            vocabulary.sentinel_ids[:sentinels],
            vocabulary.eos_id,
            vocabulary.pad_id,
            settings.roll,
            settings.cross_documents,
        )

    @property
    def window(self) -> int:
        """Tokens of a window, the same for all denoisers."""
        return self.denoisers[0].window

    @property
    def draws(self) -> int:
        """Random numbers a window needs."""
        return max(task.draws for task in self.denoisers)

    @property
    def input_length(self) -> int:
        """Encoder positions of a row."""
        return self.plan.input_length

    @property
    def target_length(self) -> int:
        """Decoder positions of a row."""
        return self.plan.target_length

    def describe_shape(self) -> str:
        """What a row is, for people: its lengths, its windows, how full it is."""
        plan = self.plan
        shape = f"a row: {plan.input_length} inputs, {plan.target_length} targets"
        if not plan.packed:
            return f"{shape}, of a window of {self.window} tokens"
        windows = plan.windows / len(plan.rows)
        return f"{shape}, of {windows:.3g} windows of {self.window} tokens, {plan.fill:.1%} full"

    def rows(
        self,
        windows: Int[np.ndarray, "n W"],
        uniforms: Float[np.ndarray, "n d"],
        opens: Bool[np.ndarray, "n W"] | None,
        cycle: Int[np.ndarray, " n"],
        row: Int[np.ndarray, " n"],
        rows: int,
    ) -> Batch:
        """Whole rows of a run.

        Args:
          windows: all windows of these rows, in order.
          uniforms: their random numbers, :attr:`draws` each.
          opens: which tokens begin a document; needed unless spans may cross documents.
          cycle: the place of each window in the cycle.
          row: the row each is in, from 0.
          rows: how many there are.
        """
        p = self.plan
        places = Placement(
            p.denoiser[cycle],
            row,
            p.input_at[cycle],
            p.target_at[cycle],
            p.segment[cycle],
            p.window_in_item[cycle],
        )
        return self._fill(windows, uniforms, opens, places, (rows, p.input_length, p.target_length), p.packed)

    def one_window_per_row(
        self,
        windows: Int[np.ndarray, "n W"],
        uniforms: Float[np.ndarray, "n d"],
        opens: Bool[np.ndarray, "n W"] | None,
        task: Int[np.ndarray, " n"],
    ) -> Batch:
        """Each window in a row of its own, corrupted by the denoiser of that number; (n, S) and (n, T)."""
        n = len(windows)
        zero = np.zeros(n, np.int64)
        places = Placement(task, np.arange(n), zero, zero, zero + 1, zero)
        sizes = [t.max_lengths for t in self.denoisers]
        shape = n, max(size[0] for size in sizes), max(size[1] for size in sizes)
        return self._fill(windows, uniforms, opens, places, shape, packed=False)

    def spans(
        self,
        task: DenoiserSpec,
        uniforms: Float[np.ndarray, "n d"],
        opens: Bool[np.ndarray, "n W"] | None,
    ) -> Spans:
        """The masked spans that a denoiser draws."""
        assert task.lengths is not None
        spans = draw_spans(uniforms[:, 1:], task.lengths)
        if self.roll:
            spans = roll_spans(spans, (uniforms[:, 0] * task.window).astype(np.int64), task.window)
        if not self.cross_documents:
            assert opens is not None
            spans = keep_within_documents(spans, opens)
        return spans

    def _fill(
        self,
        windows: Int[np.ndarray, "n W"],
        uniforms: Float[np.ndarray, "n d"],
        opens: Bool[np.ndarray, "n W"] | None,
        at: Placement,
        shape: tuple[int, int, int],
        packed: bool,
    ) -> Batch:
        """Rows with the piece of each window in its place."""
        rows, S, T = shape
        out = _Rows(rows, S, T, self.pad_id, packed)
        for number, task in enumerate(self.denoisers):
            mine = np.flatnonzero(at.task == number) if len(self.denoisers) > 1 else np.arange(len(windows))
            if not len(mine):
                continue
            own_opens = opens[mine] if opens is not None else None
            if task.lengths is None:
                self._prefix_lm(task, windows[mine], uniforms[mine, 0], at, mine, out)
                continue
            inputs, targets = corrupt(
                windows[mine],
                self.spans(task, uniforms[mine], own_opens),
                sentinel_ids=self.sentinel_ids,
                eos_id=self.eos_id if task.eos else None,
                pad_id=self.pad_id,
                input_length=task.lengths.inputs,
                target_length=task.lengths.targets,
                prefix=task.prefix,
            )
            if len(self.denoisers) == 1 and inputs.shape == (rows, S) and targets.shape == (rows, T):
                return {"input_ids": inputs, "targets": targets}
            out.put(inputs, targets, at.row[mine], at.input_at[mine], at.target_at[mine], at.segment[mine])
        return out.batch()

    def _prefix_lm(
        self,
        task: DenoiserSpec,
        windows: Int[np.ndarray, "n W"],
        uniform: Float[np.ndarray, " n"],
        at: Placement,
        mine: Int[np.ndarray, " n"],
        out: _Rows,
    ) -> None:
        """Put windows cut in two: the beginning is given, the rest is to be told."""
        n, W = windows.shape
        low, high = task.noise_range
        second = at.place[mine] == 1
        noise = low + (uniform * (high - low + 1)).astype(np.int64)
        noise = np.where(second, low + high - np.roll(noise, 1), noise)
        prefix, eos = len(task.prefix), int(task.eos)
        inputs = np.full((n, prefix + W + eos), self.pad_id, np.int32)
        inputs[:, :prefix] = task.prefix
        inputs[:, prefix : prefix + W] = windows
        kept = prefix + W - noise
        targets = np.full((n, W + eos), self.pad_id, np.int32)
        told = windows.take(np.arange(n)[:, None] * W + (W - noise)[:, None] + np.arange(W), mode="clip")
        targets[:, :W] = told
        for ids, end in ((inputs, kept), (targets, noise)):
            if eos:
                ids[np.arange(n), end] = self.eos_id
            ids[np.arange(ids.shape[1]) >= (end + eos)[:, None]] = self.pad_id
        input_at = at.input_at[mine] + np.where(second, np.roll(kept, 1) + eos, 0)
        target_at = at.target_at[mine] + np.where(second, np.roll(noise, 1) + eos, 0)
        out.put_ragged(
            inputs, targets, at.row[mine], input_at, target_at, at.segment[mine], kept + eos, noise + eos
        )


class _Rows:
    """Rows as they are filled."""

    def __init__(self, rows: int, S: int, T: int, pad_id: int, packed: bool) -> None:
        self.ids = [np.full((rows, size), pad_id, np.int32) for size in (S, T)]
        self.segments = [np.zeros((rows, size), np.int32) for size in (S, T)] if packed else []
        self.pad_id = pad_id

    def put(
        self,
        inputs: Int[np.ndarray, "n s"],
        targets: Int[np.ndarray, "n t"],
        row: Int[np.ndarray, " n"],
        input_at: Int[np.ndarray, " n"],
        target_at: Int[np.ndarray, " n"],
        segment: Int[np.ndarray, " n"],
    ) -> None:
        """Put pieces of one size, which may be padded."""
        for side, (ids, begin) in enumerate(((inputs, input_at), (targets, target_at))):
            at = row[:, None], begin[:, None] + np.arange(ids.shape[1])
            self.ids[side][at] = ids
            if self.segments:
                self.segments[side][at] = np.where(ids != self.pad_id, segment[:, None], 0)

    def put_ragged(
        self,
        inputs: Int[np.ndarray, "n s"],
        targets: Int[np.ndarray, "n t"],
        row: Int[np.ndarray, " n"],
        input_at: Int[np.ndarray, " n"],
        target_at: Int[np.ndarray, " n"],
        segment: Int[np.ndarray, " n"],
        inputs_used: Int[np.ndarray, " n"],
        targets_used: Int[np.ndarray, " n"],
    ) -> None:
        """Put pieces of different sizes, of each only the part that is used."""
        sides = ((inputs, input_at, inputs_used), (targets, target_at, targets_used))
        for side, (ids, begin, used) in enumerate(sides):
            of, column = np.nonzero(np.arange(ids.shape[1]) < used[:, None])
            at = row[of], begin[of] + column
            self.ids[side][at] = ids[of, column]
            if self.segments:
                self.segments[side][at] = segment[of]

    def batch(self) -> Batch:
        """What was put."""
        names = ["input_ids", "targets", "input_segments", "target_segments"]
        return dict(zip(names, self.ids + self.segments, strict=False))


def check_objective(settings: ObjectiveSettings) -> None:
    """Find before there is a vocabulary what an objective would be refused for: it will have 100 sentinels.

    Raises:
      T5smithError: no window fits, more spans than sentinels, or a table that cannot be used.
    """
    prefixes = [(0,) * bool(denoiser.prefix) for denoiser in denoisers_of(settings)]
    tasks = resolve_lengths(settings, SENTINELS, prefixes)
    plan_rows([task.item for task in tasks], fixed_input_length(settings))
