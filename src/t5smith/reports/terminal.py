"""The summary of a finished run on the terminal: what was made, how good it is, and three examples."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from t5smith.base.progress import count, duration
from t5smith.base.wrapping import hanging_indent, pluralize
from t5smith.reports.advice import no_better_than_unigrams, overfitting_in_words

_MARGIN = 2
NO_SPACE_BEFORE = re.compile(r"[.,;:!?…)\]}»”’%]|$")
"""Punctuation that follows a word without a space, or the end of the text."""
GOOD, BAD, FILL, FAINT = "bold green", "bold red", "bold cyan", "dim"


def show(summary: Mapping[str, Any], console: Console | None = None) -> None:
    """Print what `run` returned, wrapped to the terminal; in a pipe, lines are not wrapped."""
    console = console or Console(highlight=False)
    rows = _rows(summary)
    width = _MARGIN + max(len(name) for name, _ in rows) + 2
    lines = [Text(f"{summary['name']}: a T5 from your text", style="bold")]
    for name, value in rows:
        line = Text.assemble((f"{'':{_MARGIN}}{name}".ljust(width), FAINT), value)
        lines.append(hanging_indent(line, console, width))
    if examples := summary["evaluation"]["examples"]:
        title = Text("Filled-in spans: [model] (original); […]: the model filled in nothing", style="bold")
        lines.append(hanging_indent(title, console, 0))
        bullet = f"{'':{_MARGIN}}· "
        lines += [hanging_indent(Text(bullet) + _example(one), console, len(bullet)) for one in examples]
    for line in (Text(), *lines, Text()):
        console.print(line, soft_wrap=True)


def _rows(summary: Mapping[str, Any]) -> list[tuple[str, Text | str]]:
    vocab, store, train = summary["vocab"], summary["store"], summary["train"]
    score = summary["evaluation"]
    control = f", {pluralize(symbols, 'control symbol')}" if (symbols := vocab.get("control_symbols")) else ""
    sentinels = vocab["ids"] - vocab["pieces"] - (symbols or 0)
    pieces = (
        f"{vocab['pieces']:,} pieces ({vocab['requested']:,} requested)"
        if "requested" in vocab
        else f"{vocab['pieces']:,} pieces of {vocab['tokenizer']}"
    )
    notes: list[str] = []
    if (margin := score["margin"]) is not None and margin <= 0:
        notes.append(no_better_than_unigrams(train.get("held_out_curve")))
    if (overfitting := overfitting_in_words(train.get("held_out_curve"))) is not None:
        notes.append(overfitting)
    rows: list[tuple[str, Text | str]] = [
        (
            "vocabulary",
            f"{pieces}, and {pluralize(sentinels, 'sentinel')}{control}",
        ),
        (
            "text",
            f"{count(store['train']['tokens'])} tokens to train on, "
            f"{count(store['valid']['tokens'])} held out, "
            f"{store['train']['bytes_per_token']:.2f} bytes per token",
        ),
        ("parameters", f"{train['parameters']:,}"),
        (
            "training",
            f"{pluralize(train['step'], 'step')}, {count(train['tokens'])} tokens "
            f"in {duration(train['seconds'])} "
            f"at {train['tokens_per_second']:,.0f} tokens/s ({train['device']})",
        ),
        ("first loss", f"{train['first_loss']:.3f} (ln V = {train['ln_vocab']:.3f})"),
        (
            "loss",
            f"{_figure(train.get('last_loss'))} in training (last 20 steps), "
            f"{_figure(score['all']['nll'])} held out: nats per target of any kind",
        ),
        ("held-out NLL", _nll(score)),
        *(("", Text(note, BAD)) for note in notes),
        ("", f"sentinels {_figure(score['sentinels']['nll'])}, </s> {_figure(score['eos']['nll'])}"),
        *_scored(score),
        (
            "accuracy",
            f"{_percent(score['text']['accuracy'])} of text tokens, "
            f"{_percent(score['all']['accuracy'])} of all targets",
        ),
        ("bits per byte", _figure(score["bits_per_byte"])),
        ("model", summary["model"]),
        ("report", summary["report"]),
    ]
    if kept := summary.get("archives"):
        size = count(sum(one["bytes"] for one in kept))
        place = Path(kept[0]["folder"]).parent
        folders = pluralize(len(kept), "folder")
        rows.append(("archived", f"{folders} in {place}, {size}B; delete what you do not need"))
    return rows


def _scored(score: Mapping[str, Any]) -> list[tuple[str, Text | str]]:
    """What the scores are of; nothing for an evaluation that did not record it."""
    if "scored_windows" not in score:
        return []
    scored, available = score["scored_windows"], score["held_out_windows"]
    what = f"all {available:,}" if scored == available else f"{scored:,} of {available:,}"
    masks = pluralize(score["masks_per_window"], "mask")
    return [("scored on", f"{what} held-out windows, {masks} each")]


def _nll(score: Mapping[str, Any]) -> Text | str:
    """The NLL of text tokens beside the unigram baseline."""
    nll, baseline, margin = score["text"]["nll"], score["unigram_nll"], score["margin"]
    if nll is None or baseline is None:
        return "no text tokens among the held-out targets"
    verdict = (f"{margin:.3f} below", GOOD) if margin > 0 else (f"{-margin:.3f} above", BAD)
    return Text.assemble(
        (f"{nll:.3f}", "bold"), " nats per text token, ", verdict, f" the unigram baseline {baseline:.3f}"
    )


def _example(example: Mapping[str, Any]) -> Text:
    """The text with the model's words in brackets and the original words behind them."""
    line = Text()
    pairs: Sequence[tuple[str, str]] = list(zip(example["fills"], example["truth"], strict=True))
    for kept, pair in zip(map(str.strip, example["kept"]), [*pairs, None], strict=True):
        line.append("" if not line or NO_SPACE_BEFORE.match(kept) else " ")
        line.append(kept)
        if pair:
            fill, truth = pair
            line.append(" " if line else "")
            line.append(f"[{fill.strip() or '…'}]", FILL)
            line.append(f" ({truth.strip()})", FAINT)
    return line


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"
