"""Statistics and losses as tables of text, which the terminal and the page show."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from t5smith.inspection.results import Inspection
from t5smith.inspection.statistics import DenoiserCounts, Statistics
from t5smith.inspection.token_losses import mean_square_log_z, score_of
from t5smith.training.eval_step import HeldOutScore, Score

TENTHS = 10
MAX_LINES = 12
"""Lines of a table of lengths, at most."""


@dataclass(frozen=True)
class Table:
    """Lines of text with a title. The first line is the header, the first column names the lines."""

    title: str
    note: str
    lines: tuple[tuple[str, ...], ...]


def inspection_tables(inspection: Inspection, *, full: bool) -> list[Table]:
    """The tables of an inspection: statistics, and losses if a model is used."""
    found: list[Table] = []
    if inspection.statistics is not None:
        found = statistics_tables(inspection.statistics, full=full)
    if inspection.model:
        found += _loss_tables(inspection)
    return found


def statistics_tables(statistics: Statistics, *, full: bool) -> list[Table]:
    """The tables of statistics; lengths and positions of a mixture's denoisers only with `full`."""
    seen = [counts for counts in statistics.denoisers if counts.windows]
    found = [_overview(statistics)]
    if len(statistics.denoisers) > 1:
        found.append(_denoisers(statistics))
    if len(statistics.corpora) > 1:
        found.append(_corpora(statistics))
    if len(seen) == 1 or full:
        for counts in seen:
            found += _details(counts, counts.task.denoiser.title if len(seen) > 1 else "")
    return found


def scores(statistics: Statistics) -> dict[str, HeldOutScore]:
    """The loss of all windows by class of token, and that of each denoiser if there are several."""
    found = {"all": _score(np.sum([counts.scores for counts in statistics.denoisers], axis=0))}
    if len(statistics.denoisers) > 1:
        found |= {
            f"{n}: {c.task.denoiser.title}": _score(c.scores) for n, c in enumerate(statistics.denoisers)
        }
    return found


def _score(sums: np.ndarray) -> HeldOutScore:
    return HeldOutScore(*(Score(*map(float, row)) for row in sums))


def _loss_tables(inspection: Inspection) -> list[Table]:
    """How the targets sum to the loss, in all and by denoiser."""
    model = inspection.model
    if inspection.statistics is None:
        tokens = [loss for row in inspection.rows for trace in row.windows for loss in trace.losses]
        square = mean_square_log_z(tokens)
        z = f" The z-loss term is separate: the mean of (log Z)² is {square:.4f}"
        if inspection.z_loss:
            weighted = inspection.z_loss * square
            z += f", times z_loss = {inspection.z_loss:g} is {weighted:.6f}"
        return [_loss_table(model, score_of(tokens), f"{z}.")]
    by_denoiser = scores(inspection.statistics)
    found = [_loss_table(model, by_denoiser.pop("all"), "")]
    if by_denoiser:
        lines = [("denoiser", "nats", "per token", "per text token", "accuracy")]
        for name, score in by_denoiser.items():
            if score.total.tokens:
                text, every = score.text, score.total
                means = f"{every.nll / every.tokens:.4f}", f"{text.nll / max(text.tokens, 1):.4f}"
                accuracy = f"{text.correct / max(text.tokens, 1):.1%}"
                lines.append((name, f"{every.nll:,.2f}", *means, accuracy))
        found.append(Table("Loss by denoiser", "Accuracy is that of text tokens.", tuple(lines)))
    return found


def _loss_table(model: str, score: HeldOutScore, more: str) -> Table:
    """A loss by class of token, with its sum."""
    lines = [("target tokens", "number", "nats", "nats per token", "accuracy")]
    parts = {"text": score.text, "sentinels": score.sentinels, "</s>": score.eos, "all": score.total}
    for name, part in parts.items():
        if part.tokens:
            mean, accuracy = part.nll / part.tokens, part.correct / part.tokens
            lines.append((name, f"{part.tokens:,.0f}", f"{part.nll:,.4f}", f"{mean:.4f}", f"{accuracy:.1%}"))
    every = score.total
    note = (
        f"Model: {model}, in float32. Loss: {every.nll:,.4f} nats / {every.tokens:,.0f} target tokens = "
        f"{every.nll / every.tokens:.4f}.{more}"
    )
    return Table("Loss", note, tuple(lines))


def _overview(statistics: Statistics) -> Table:
    objective, windows, denoisers = statistics.objective, statistics.windows, statistics.denoisers
    tokens = windows * objective.window

    def counted(name: str) -> int:
        return sum(getattr(counts, name) for counts in denoisers)

    def expected(name: str) -> float:
        """The expected value over the windows that each denoiser had."""
        return sum(getattr(counts.theory, name) * counts.windows for counts in denoisers)

    def share(title: str, name: str, of: int) -> tuple[str, str, str]:
        return title, _share(counted(name), of), _share(expected(name), of)

    noise, spans = counted("noise"), counted("spans")
    most = max(counts.sentinels for counts in denoisers)
    lines = [
        ("", "counted", "theory"),
        ("tokens of text", f"{tokens:,}", ""),
        share("masked", "noise", tokens),
        ("spans per window", f"{spans / windows:.2f}", f"{expected('spans') / windows:.2f}"),
        ("tokens per span", f"{noise / spans:.2f}", f"{expected('noise') / expected('spans'):.2f}"),
        share("inputs that are not padding", "inputs", statistics.rows * statistics.input_length),
        share("targets that are not padding", "targets", statistics.rows * statistics.target_length),
        ("most sentinels in one window's targets", f"{most} of {len(objective.sentinel_ids)}", ""),
        share("windows with a closing sentinel", "closing", windows),
    ]
    if statistics.documents:
        in_spans = f"{counted('ends_expected'):,.1f}" if objective.cross_documents else "none"
        lines += [
            ("ends of documents within windows", f"{counted('ends'):,}", ""),
            ("ends of documents within spans", f"{counted('ends_in_spans'):,}", in_spans),
            ("spans across the end of a document", f"{counted('crossing'):,}", ""),
        ]
    note = "Theory: the distribution the masks are drawn from"
    note += "." if objective.cross_documents else ", before spans are moved off the ends of documents."
    return Table("Statistics", note, tuple(lines))


def _denoisers(statistics: Statistics) -> Table:
    lines = [("denoiser", "windows", "expected", "masked", "theory", "spans", "theory")]
    for counts in statistics.denoisers:
        if not counts.windows:
            lines.append((counts.task.denoiser.title, "0", f"{counts.share:.1%}", "", "", "", ""))
            continue
        of = counts.windows * counts.task.window
        lines.append(
            (
                counts.task.denoiser.title,
                _share(counts.windows, statistics.windows),
                f"{counts.share:.1%}",
                _share(counts.noise, of),
                _share(counts.theory.noise, counts.task.window),
                f"{counts.spans / counts.windows:.2f}",
                f"{counts.theory.spans:.2f}",
            )
        )
    return Table(
        "Denoisers", "Share of the windows; masked share of the tokens; spans per window.", tuple(lines)
    )


def _corpora(statistics: Statistics) -> Table:
    lines = [("corpus", "windows", "share", "expected")]
    for name, windows, share in statistics.corpora:
        expected = "" if share is None else f"{share:.2%}"
        lines.append((name, f"{windows:,}", _share(windows, statistics.windows), expected))
    return Table("Corpora", "", tuple(lines))


def _details(counts: DenoiserCounts, note: str) -> list[Table]:
    titles = "Length of spans", "Length of text between spans"
    if counts.task.lengths is None:
        titles = "Tokens to be predicted", "Tokens in the inputs"
    found: list[Table] = []
    for title, counted, theory in (
        (titles[0], counts.span_lengths, counts.theory.span_lengths),
        (titles[1], counts.text_lengths, counts.theory.text_lengths),
    ):
        lines = [("tokens", "counted", "share", "theory")]
        for first, last in groups(counted, theory):
            number, expected = counted[first : last + 1].sum(), theory[first : last + 1].sum()
            name = f"{first}" if first == last else f"{first} to {last}"
            lines.append(
                (
                    name,
                    f"{number:,}",
                    _share(number, counted.sum()),
                    _share(float(expected), float(theory.sum())),
                )
            )
        found.append(Table(title, note, tuple(lines)))
    W = counts.task.window
    edges = np.unique(np.linspace(0, W, min(TENTHS, W) + 1).round().astype(int))
    lines = [("positions", "masked", "theory")]
    for first, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        at = slice(first, stop)
        rate = counts.masked[at].sum() / counts.windows / (stop - first)
        name = f"{first} to {stop - 1}" if stop - first > 1 else f"{first}"
        lines.append((name, f"{rate:.2%}", f"{counts.theory.masked[at].mean():.2%}"))
    found.append(Table("Masked by position in the window", note, tuple(lines)))
    return found


def groups(counted: np.ndarray, expected: np.ndarray) -> list[tuple[int, int]]:
    """The first and last length of each line of a table: at most a dozen lines, without gaps."""
    occurring = np.flatnonzero((counted > 0) | (expected > 1e-9))
    mass = expected / expected.sum()
    found: list[tuple[int, int]] = []
    # The finest grouping with few enough lines, where each line has at least a minimum share.
    for least in (0.0, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.1):
        found, first = [], int(occurring[0])
        for length in range(first, int(occurring[-1]) + 1):
            if mass[first : length + 1].sum() >= least:
                found.append((first, length))
                first = length + 1
        if first <= occurring[-1]:
            found.append((first, int(occurring[-1])))
        if len(found) <= MAX_LINES:
            break
    return found


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.2%}" if whole else ""
