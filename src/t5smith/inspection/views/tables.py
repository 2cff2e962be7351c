"""Counts beside the theory as tables of text: what the terminal prints, the page shows and JSON holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from t5smith.inspection.query import View
from t5smith.inspection.statistics import Stats, Tally
from t5smith.inspection.token_losses import mean_square_log_z, score_json, score_of
from t5smith.inspection.views.trace import Table
from t5smith.training.eval_step import HeldOutScore, Score

TENTHS = 10
MOST_LENGTHS = 12
"""Lengths are put together in so many lines at most."""


def tables(stats: Stats, *, full: bool) -> list[Table]:
    """The tables of some counts; lengths and places of a mixture's denoisers only if asked for."""
    seen = [tally for tally in stats.tallies if tally.windows]
    found = [_overview(stats)]
    if len(stats.tallies) > 1:
        found.append(_denoisers(stats))
    if len(stats.corpora) > 1:
        found.append(_corpora(stats))
    if len(seen) == 1 or full:
        for tally in seen:
            found += _details(tally, tally.task.denoiser.title if len(seen) > 1 else "")
    return found


def scores(stats: Stats) -> dict[str, HeldOutScore]:
    """The loss by class of token of all windows, and of each denoiser where there are several."""
    found = {"all": _score(np.sum([tally.scores for tally in stats.tallies], axis=0))}
    if len(stats.tallies) > 1:
        found |= {f"{n}: {t.task.denoiser.title}": _score(t.scores) for n, t in enumerate(stats.tallies)}
    return found


def _score(sums: np.ndarray) -> HeldOutScore:
    return HeldOutScore(*(Score(*map(float, row)) for row in sums))


def loss_tables(view: View) -> list[Table]:
    """How the targets that are shown or counted sum to the loss; nothing where no model was asked."""
    if not view.model:
        return []
    if view.stats is not None:
        found = scores(view.stats)
        tables = [_loss_table("Loss", view.model, found.pop("all"), "")]
        lines = [("denoiser", "nats", "a token", "a text token", "right")]
        for name, score in found.items():
            if score.total.tokens:
                text, every = score.text, score.total
                means = f"{every.nll / every.tokens:.4f}", f"{text.nll / max(text.tokens, 1):.4f}"
                lines.append((name, f"{every.nll:,.2f}", *means, f"{text.correct / max(text.tokens, 1):.1%}"))
        if found:
            note = "Right: text tokens of which no other id is more likely."
            tables.append(Table("Loss by denoiser", note, tuple(lines)))
        return tables
    tokens = [loss for row in view.rows for trace in row.windows for loss in trace.losses]
    square = mean_square_log_z(tokens)
    z = f"Apart from it: the mean of (log Z)² is {square:.4f}"
    if view.z_loss:
        z += f", which z_loss = {view.z_loss:g} makes {view.z_loss * square:.6f} of"
    return [_loss_table("Loss", view.model, score_of(tokens), f" {z}.")]


def _loss_table(title: str, model: str, score: HeldOutScore, more: str) -> Table:
    """A loss by class of token, and the sum that it is."""
    lines = [("target tokens", "number", "sum of nats", "nats a token", "right")]
    parts = {"text": score.text, "sentinels": score.sentinels, "</s>": score.eos, "all": score.total}
    for name, part in parts.items():
        if part.tokens:
            mean, right = part.nll / part.tokens, part.correct / part.tokens
            lines.append((name, f"{part.tokens:,.0f}", f"{part.nll:,.4f}", f"{mean:.4f}", f"{right:.1%}"))
    every = score.total
    note = (
        f"By {model}, in float32. The loss is {every.nll:,.4f} nats / {every.tokens:,.0f} target tokens = "
        f"{every.nll / every.tokens:.4f}.{more}"
    )
    return Table(title, note, tuple(lines))


def _overview(stats: Stats) -> Table:
    objective, windows = stats.objective, stats.windows
    inputs = sum(tally.inputs for tally in stats.tallies)
    targets = sum(tally.targets for tally in stats.tallies)
    tallies = stats.tallies
    W = objective.window

    def expected(name: str) -> float:
        """A window's expected value, by the windows that each denoiser had."""
        return sum(getattr(tally.theory, name) * tally.windows for tally in tallies)

    rows_in, rows_out = stats.rows * stats.input_length, stats.rows * stats.target_length
    noise, spans = (sum(getattr(tally, name) for tally in tallies) for name in ("noise", "spans"))
    lines = [
        ("", "counted", "theory"),
        ("tokens of text", f"{windows * W:,}", ""),
        ("masked", _share(noise, windows * W), _share(expected("noise"), windows * W)),
        ("spans a window", f"{spans / windows:.2f}", f"{expected('spans') / windows:.2f}"),
        ("tokens a span", f"{noise / spans:.2f}", f"{expected('noise') / expected('spans'):.2f}"),
        ("inputs that are not padding", _share(inputs, rows_in), _share(expected("inputs"), rows_in)),
        ("targets that are not padding", _share(targets, rows_out), _share(expected("targets"), rows_out)),
        ("most sentinels in the targets", f"{max(t.sentinels for t in tallies)} of {_available(stats)}", ""),
        (
            "windows with a closing sentinel",
            _share(sum(tally.closing for tally in tallies), windows),
            _share(expected("closing"), windows),
        ),
    ]
    if stats.documents:
        ends = sum(tally.ends for tally in tallies)
        within = objective.cross_documents
        lines += [
            ("ends of documents in windows", f"{ends:,}", ""),
            (
                "of these within a span",
                f"{sum(tally.ends_in_spans for tally in tallies):,}",
                f"{sum(tally.ends_expected for tally in tallies):,.1f}" if within else "none",
            ),
            ("spans across the end of a document", f"{sum(tally.crossing for tally in tallies):,}", ""),
        ]
    note = "Theory is of masks as they are drawn"
    note += "." if objective.cross_documents else ", before spans are moved off the ends of documents."
    return Table("Counts", note, tuple(lines))


def _available(stats: Stats) -> int:
    return len(stats.objective.sentinel_ids)


def _denoisers(stats: Stats) -> Table:
    lines = [("denoiser", "windows", "wanted", "masked", "theory", "spans", "theory")]
    for tally in stats.tallies:
        if not tally.windows:
            lines.append((tally.task.denoiser.title, "0", f"{tally.share:.1%}", "", "", "", ""))
            continue
        of = tally.windows * tally.task.window
        lines.append(
            (
                tally.task.denoiser.title,
                _share(tally.windows, stats.windows),
                f"{tally.share:.1%}",
                _share(tally.noise, of),
                _share(tally.theory.noise, tally.task.window),
                f"{tally.spans / tally.windows:.2f}",
                f"{tally.theory.spans:.2f}",
            )
        )
    return Table(
        "Denoisers", "Shares of the windows; masked share of the tokens; spans a window.", tuple(lines)
    )


def _corpora(stats: Stats) -> Table:
    lines = [("corpus", "windows", "share", "wanted")]
    for name, windows, share in stats.corpora:
        wanted = "" if share is None else f"{share:.2%}"
        lines.append((name, f"{windows:,}", _share(windows, stats.windows), wanted))
    return Table("Corpora", "", tuple(lines))


def _details(tally: Tally, of: str) -> list[Table]:
    told = tally.task.lengths is None
    titles = ("Tokens to be told", "Tokens given") if told else ("Length of spans", "Length of text between")
    found: list[Table] = []
    for title, counted, law in (
        (titles[0], tally.span_lengths, tally.theory.span_lengths),
        (titles[1], tally.text_lengths, tally.theory.text_lengths),
    ):
        lines = [("tokens", "counted", "share", "theory")]
        for first, last in groups(counted, law):
            seen, expected = counted[first : last + 1].sum(), law[first : last + 1].sum()
            name = f"{first}" if first == last else f"{first} to {last}"
            lines.append(
                (name, f"{seen:,}", _share(seen, counted.sum()), _share(float(expected), float(law.sum())))
            )
        found.append(Table(title, of, tuple(lines)))
    W = tally.task.window
    edges = np.unique(np.linspace(0, W, min(TENTHS, W) + 1).round().astype(int))
    lines = [("places", "masked", "theory")]
    for first, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        at = slice(first, stop)
        rate = tally.masked[at].sum() / tally.windows / (stop - first)
        name = f"{first} to {stop - 1}" if stop - first > 1 else f"{first}"
        lines.append((name, f"{rate:.2%}", f"{tally.theory.masked[at].mean():.2%}"))
    found.append(Table("Masked by place in the window", of, tuple(lines)))
    return found


def groups(counted: np.ndarray, law: np.ndarray) -> list[tuple[int, int]]:
    """Lengths, first and last, that share a line: about a dozen lines, from the shortest to the longest."""
    there = np.flatnonzero((counted > 0) | (law > 1e-9))
    mass = law / law.sum()
    found: list[tuple[int, int]] = []
    # The finest grouping of few enough lines, in which each has some share of all.
    for least in (0.0, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.1):
        found, first = [], int(there[0])
        for length in range(first, int(there[-1]) + 1):
            if mass[first : length + 1].sum() >= least:
                found.append((first, length))
                first = length + 1
        if first <= there[-1]:
            found.append((first, int(there[-1])))
        if len(found) <= MOST_LENGTHS:
            break
    return found


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.2%}" if whole else ""


def loss_json(view: View) -> dict[str, Any]:
    """The loss of the rows that are shown, by class of token, and of what it is the mean."""
    tokens = [loss for row in view.rows for trace in row.windows for loss in trace.losses]
    return {**score_json(score_of(tokens)), "mean_square_log_z": mean_square_log_z(tokens)}


def stats_json(stats: Stats) -> dict[str, Any]:
    """Counts and theory as what JSON can hold; lists by length begin at length 0."""
    scored = any(tally.scores.any() for tally in stats.tallies)
    return {
        "source": stats.source,
        "batches": stats.batches,
        "rows": stats.rows,
        "windows": stats.windows,
        "window_length": stats.objective.window,
        "input_length": stats.input_length,
        "target_length": stats.target_length,
        "plan_fill": stats.objective.plan.fill,
        "sentinels_available": _available(stats),
        "corpora": [
            {"name": name, "windows": windows, "share_wanted": share}
            for name, windows, share in stats.corpora
        ],
        "denoisers": [_tally_json(tally) for tally in stats.tallies],
        "loss": {name: score_json(score) for name, score in scores(stats).items()} if scored else None,
    }


def _tally_json(tally: Tally) -> dict[str, Any]:
    names: Sequence[str] = (
        "windows", "closing", "sentinels", "inputs", "targets", "crossing", "ends", "ends_in_spans",
    )  # fmt: skip
    return {
        "denoiser": tally.task.denoiser.title,
        "share_wanted": tally.share,
        **{name: getattr(tally, name) for name in names},
        **{name: getattr(tally, name).tolist() for name in ("masked", "span_lengths", "text_lengths")},
        "theory": {
            **{name: getattr(tally.theory, name) for name in ("closing", "inputs", "targets")},
            **{
                name: getattr(tally.theory, name).tolist()
                for name in ("masked", "span_lengths", "text_lengths")
            },
            "ends_in_spans": tally.ends_expected,
        },
    }
