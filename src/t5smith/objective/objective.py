"""An objective with all lengths resolved, and how it turns windows into rows of inputs and targets.

Shapes: n windows, W tokens per window, d random numbers per window, B rows, S input and T target positions
per row; s and t are those of one window.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from t5smith.objective.boundaries import keep_within_documents
from t5smith.objective.corruption import corrupt
from t5smith.objective.denoisers import (
    DenoiserSpec,
    denoisers_of,
    fixed_input_length,
    resolve_lengths,
    resolve_mode_tokens,
)
from t5smith.objective.packing import plan_rows
from t5smith.objective.row_plan import Placement, RowPlan
from t5smith.objective.spans import Spans, draw_spans, roll_spans
from t5smith.recipe.objective import ObjectiveSettings
from t5smith.recipe.symbols import SENTINELS
from t5smith.vocabulary.vocabulary import Vocabulary

Batch = Mapping[str, Int[np.ndarray, "_ _"]]
"""`input_ids` (B, S) and `targets` (B, T), int32, padded with the pad id. If rows hold several windows also
`input_segments` and `target_segments`: the number of each position's window from 1, 0 for padding. Those
of training also have `items` (B, P): the denoisers of the items of each row, in order; -1 behind the last."""


@dataclass(frozen=True)
class Objective:
    """Denoisers with the control ids of one vocabulary, and the cycle of rows that they fill.

    Attributes:
      denoisers: the denoisers with their lengths.
      plan: which of their windows share a row.
      sentinel_ids: those of the vocabulary that are not mode tokens.
      eos_id, pad_id: ids of `</s>` and of padding.
      roll, cross_documents: as in the recipe.
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
        """Resolve all lengths and check that the vocabulary has enough sentinels.

        Raises:
          T5smithError: no window fits, a window has more spans than there are sentinels, or a mode token
            cannot be encoded.
        """
        prefixes, sentinels = resolve_mode_tokens(settings, vocabulary)
        denoisers = resolve_lengths(settings, sentinels, prefixes)
        return cls(
            denoisers,
            plan_rows(tuple(spec.item for spec in denoisers), fixed_input_length(settings)),
            vocabulary.sentinel_ids[:sentinels],
            vocabulary.eos_id,
            vocabulary.pad_id,
            settings.roll,
            settings.cross_documents,
        )

    @property
    def window(self) -> int:
        """Tokens per window, the same for all denoisers."""
        return self.denoisers[0].window

    @property
    def draws(self) -> int:
        """Random numbers per window."""
        return max(spec.draws for spec in self.denoisers)

    @property
    def input_length(self) -> int:
        """Encoder positions per row."""
        return self.plan.input_length

    @property
    def target_length(self) -> int:
        """Decoder positions per row."""
        return self.plan.target_length

    def batch_shapes(self, rows: int) -> dict[str, tuple[int, int]]:
        """The shapes of the arrays of a batch of training."""
        shapes = {"input_ids": (rows, self.input_length), "targets": (rows, self.target_length)}
        if self.plan.packed:
            shapes |= {"input_segments": shapes["input_ids"], "target_segments": shapes["targets"]}
            shapes["items"] = rows, self.plan.row_items.shape[1]
        return shapes

    def describe_shape(self) -> str:
        """The shape of an example, for people: its lengths, its windows, the share that is not padding."""
        plan = self.plan
        shape = f"each example: {plan.input_length} input + {plan.target_length} target tokens"
        if not plan.packed:
            return f"{shape} ({self.window} tokens of text)"
        windows = plan.windows / len(plan.rows)
        return f"{shape} ({windows:.3g} windows of {self.window} tokens, {plan.fill:.1%} full)"

    def packed_rows(
        self,
        windows: Int[np.ndarray, "n W"],
        uniforms: Float[np.ndarray, "n d"],
        document_starts: Bool[np.ndarray, "n W"] | None,
        at: Placement,
        rows: int,
    ) -> Batch:
        """Rows as in training, each full of windows.

        Args:
          windows: all windows of these rows, in order.
          uniforms: their random numbers, :attr:`draws` for each.
          document_starts: True where a token is the first of a document; None if spans may cross documents.
          at: the place of each window, by the plan.
          rows: the number of rows, B.
        """
        out = _Rows(rows, self.input_length, self.target_length, self.pad_id, self.plan.packed)
        return self._assemble_rows(windows, uniforms, document_starts, at, out)

    def one_window_per_row(
        self,
        windows: Int[np.ndarray, "n W"],
        uniforms: Float[np.ndarray, "n d"],
        document_starts: Bool[np.ndarray, "n W"] | None,
        denoiser: Int[np.ndarray, " n"],
    ) -> Batch:
        """Rows with one window each, corrupted by the denoiser of that index."""
        n = len(windows)
        zero = np.zeros(n, np.int64)
        at = Placement(denoiser, np.arange(n), zero, zero, zero + 1, zero)
        inputs, targets = zip(*(spec.max_lengths for spec in self.denoisers), strict=True)
        out = _Rows(n, max(inputs), max(targets), self.pad_id, packed=False)
        return self._assemble_rows(windows, uniforms, document_starts, at, out)

    def draw_spans(
        self,
        spec: DenoiserSpec,
        uniforms: Float[np.ndarray, "n d"],
        document_starts: Bool[np.ndarray, "n W"] | None,
    ) -> Spans:
        """The masked spans of windows by one denoiser, not prefix LM."""
        assert spec.lengths is not None
        spans = draw_spans(uniforms[:, 1:], spec.lengths)
        if self.roll:
            spans = roll_spans(spans, (uniforms[:, 0] * spec.window).astype(np.int64), spec.window)
        if not self.cross_documents:
            assert document_starts is not None
            spans = keep_within_documents(spans, document_starts)
        return spans

    def _assemble_rows(
        self,
        windows: Int[np.ndarray, "n W"],
        uniforms: Float[np.ndarray, "n d"],
        document_starts: Bool[np.ndarray, "n W"] | None,
        at: Placement,
        out: _Rows,
    ) -> Batch:
        """Corrupt each window by its denoiser and write it into its row."""
        for index, spec in enumerate(self.denoisers):
            if len(self.denoisers) == 1:
                chosen = np.arange(len(windows))
            else:
                chosen = np.flatnonzero(at.denoiser == index)
            if not len(chosen):
                continue
            if spec.lengths is None:
                self._write_prefix_lm(spec, windows[chosen], uniforms[chosen, 0], at[chosen], out)
                continue
            starts = document_starts[chosen] if document_starts is not None else None
            inputs, targets = corrupt(
                windows[chosen],
                self.draw_spans(spec, uniforms[chosen], starts),
                sentinel_ids=self.sentinel_ids,
                eos_id=self.eos_id if spec.eos else None,
                pad_id=self.pad_id,
                input_length=spec.lengths.inputs,
                target_length=spec.lengths.targets,
                prefix=spec.prefix,
            )
            if len(self.denoisers) == 1 and (inputs.shape, targets.shape) == out.shapes:
                return {"input_ids": inputs, "targets": targets}
            out.write(inputs, targets, at[chosen])
        return out.batch()

    def _write_prefix_lm(
        self,
        spec: DenoiserSpec,
        windows: Int[np.ndarray, "n W"],
        uniform: Float[np.ndarray, " n"],
        at: Placement,
        out: _Rows,
    ) -> None:
        """Split each window in two: the inputs are its beginning, the targets its rest."""
        n, W = windows.shape
        low, high = spec.noise_range
        second = at.window_in_item == 1
        noise = low + (uniform * (high - low + 1)).astype(np.int64)
        noise = np.where(second, low + high - np.roll(noise, 1), noise)
        prefix, eos = len(spec.prefix), int(spec.eos)
        inputs = np.full((n, prefix + W + eos), self.pad_id, np.int32)
        inputs[:, :prefix] = spec.prefix
        inputs[:, prefix : prefix + W] = windows
        kept = prefix + W - noise
        targets = np.full((n, W + eos), self.pad_id, np.int32)
        rest = np.arange(n)[:, None] * W + (W - noise)[:, None] + np.arange(W)
        targets[:, :W] = windows.take(rest, mode="clip")
        for ids, end in ((inputs, kept), (targets, noise)):
            if eos:
                ids[np.arange(n), end] = self.eos_id
            ids[np.arange(ids.shape[1]) >= (end + eos)[:, None]] = self.pad_id
        # The second window of a pair follows the first, whose lengths vary.
        at = replace(
            at,
            input_at=at.input_at + np.where(second, np.roll(kept, 1) + eos, 0),
            target_at=at.target_at + np.where(second, np.roll(noise, 1) + eos, 0),
        )
        out.write_ragged(inputs, targets, at, kept + eos, noise + eos)


class _Rows:
    """The arrays of a batch while they are filled."""

    def __init__(self, rows: int, S: int, T: int, pad_id: int, packed: bool) -> None:
        self.shapes = (rows, S), (rows, T)
        self.ids = [np.full(shape, pad_id, np.int32) for shape in self.shapes]
        self.segments = [np.zeros(shape, np.int32) for shape in self.shapes] if packed else []
        self.pad_id = pad_id

    def write(self, inputs: Int[np.ndarray, "n s"], targets: Int[np.ndarray, "n t"], at: Placement) -> None:
        """Write windows of one size, which may be padded."""
        for side, (ids, begin) in enumerate(((inputs, at.input_at), (targets, at.target_at))):
            to = at.row[:, None], begin[:, None] + np.arange(ids.shape[1])
            self.ids[side][to] = ids
            if self.segments:
                self.segments[side][to] = np.where(ids != self.pad_id, at.segment[:, None], 0)

    def write_ragged(
        self,
        inputs: Int[np.ndarray, "n s"],
        targets: Int[np.ndarray, "n t"],
        at: Placement,
        inputs_used: Int[np.ndarray, " n"],
        targets_used: Int[np.ndarray, " n"],
    ) -> None:
        """Write windows of different sizes: of each only the part that is used."""
        sides = ((inputs, at.input_at, inputs_used), (targets, at.target_at, targets_used))
        for side, (ids, begin, used) in enumerate(sides):
            window, column = np.nonzero(np.arange(ids.shape[1]) < used[:, None])
            to = at.row[window], begin[window] + column
            self.ids[side][to] = ids[window, column]
            if self.segments:
                self.segments[side][to] = at.segment[window]

    def batch(self) -> Batch:
        """The arrays by name."""
        names = ["input_ids", "targets", "input_segments", "target_segments"]
        return dict(zip(names, self.ids + self.segments, strict=False))


def check_objective(settings: ObjectiveSettings) -> None:
    """Check an objective before there is a vocabulary, which will have 100 sentinels.

    Raises:
      T5smithError: no window fits, a window has more spans than there are sentinels, or a malformed table.
    """
    prefixes = [(0,) if denoiser.prefix else () for denoiser in denoisers_of(settings)]
    denoisers = resolve_lengths(settings, SENTINELS, prefixes)
    plan_rows(tuple(spec.item for spec in denoisers), fixed_input_length(settings))
