"""Inspections as trees of JSON, for other programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from t5smith.inspection.results import Inspection
from t5smith.inspection.trace import Trace

if TYPE_CHECKING:
    from t5smith.inspection.statistics import DenoiserCounts, Statistics


def inspection_json(inspection: Inspection) -> dict[str, Any]:
    """An inspection as a tree: of a text with one mask its trace, else rows of traces, or statistics."""
    model: dict[str, Any] = {"model": inspection.model} if inspection.model else {}
    if inspection.statistics is not None:
        return {"title": inspection.title, **model, **statistics_json(inspection.statistics)}
    if model:
        model["loss"] = _loss_json(inspection)
    if len(inspection.rows) == 1 and not inspection.rows[0].title:
        return trace_json(inspection.rows[0].windows[0]) | model
    rows = [
        {
            "title": row.title,
            "input_length": row.input_length,
            "target_length": row.target_length,
            "windows": [trace_json(trace) for trace in row.windows],
        }
        for row in inspection.rows
    ]
    return {"title": inspection.title, **model, "rows": rows}


def trace_json(trace: Trace) -> dict[str, Any]:
    """A trace as a tree of JSON."""
    return {
        "text": trace.text,
        "tokens": [
            asdict(token) | {"masked": masked} for token, masked in zip(trace.tokens, trace.mask, strict=True)
        ],
        "spans": [asdict(span) for span in trace.spans],
        "inputs": trace.inputs_text,
        "targets": trace.targets_text,
        "input_ids": [token.id for token in trace.inputs],
        "input_pieces": [token.piece for token in trace.inputs],
        "decoder_input_ids": [token.id for token in trace.decoder_inputs],
        "decoder_input_pieces": [token.piece for token in trace.decoder_inputs],
        "target_ids": [token.id for token in trace.targets],
        "target_pieces": [token.piece for token in trace.targets],
        "lengths": asdict(trace.lengths),
        "drawn": trace.drawn,
        "noise_density": trace.noise_density,
        "mean_noise_span_length": trace.mean_noise_span_length,
        "seed": trace.seed,
        "notes": list(trace.notes),
        "denoiser": trace.denoiser,
        "mode_token": [token.piece for token in trace.inputs[: trace.prefix]],
        "place": None if trace.place is None else asdict(trace.place),
        "losses": [asdict(loss) for loss in trace.losses],
    }


def _loss_json(inspection: Inspection) -> dict[str, Any]:
    """The loss of the rows, by class of token."""
    from t5smith.inspection.token_losses import mean_square_log_z, score_json, score_of

    tokens = [loss for row in inspection.rows for trace in row.windows for loss in trace.losses]
    return {**score_json(score_of(tokens)), "mean_square_log_z": mean_square_log_z(tokens)}


def statistics_json(statistics: Statistics) -> dict[str, Any]:
    """Counts and theory as a tree of JSON; lists by length begin at length 0."""
    from t5smith.inspection.token_losses import score_json
    from t5smith.inspection.views.tables import scores

    scored = any(one.scores.any() for one in statistics.denoisers)
    return {
        "source": statistics.source,
        "batches": statistics.batches,
        "rows": statistics.rows,
        "windows": statistics.windows,
        "window_length": statistics.objective.window,
        "input_length": statistics.input_length,
        "target_length": statistics.target_length,
        "plan_fill": statistics.objective.plan.fill,
        "sentinels_available": len(statistics.objective.sentinel_ids),
        "corpora": [
            {"name": name, "windows": windows, "share_wanted": share}
            for name, windows, share in statistics.corpora
        ],
        "denoisers": [_denoiser_json(one) for one in statistics.denoisers],
        "loss": {name: score_json(score) for name, score in scores(statistics).items()} if scored else None,
    }


def _denoiser_json(counts: DenoiserCounts) -> dict[str, Any]:
    names: Sequence[str] = (
        "windows", "closing", "sentinels", "inputs", "targets", "crossing", "ends", "ends_in_spans",
    )  # fmt: skip
    return {
        "denoiser": counts.task.denoiser.title,
        "share_wanted": counts.share,
        **{name: getattr(counts, name) for name in names},
        **{name: getattr(counts, name).tolist() for name in ("masked", "span_lengths", "text_lengths")},
        "theory": {
            **{name: getattr(counts.theory, name) for name in ("closing", "inputs", "targets")},
            **{
                name: getattr(counts.theory, name).tolist()
                for name in ("masked", "span_lengths", "text_lengths")
            },
            "ends_in_spans": counts.ends_expected,
        },
    }
