"""The report of a run as one HTML file.

It is made of plain values and depends on no stage; missing values are not shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from t5smith.base.progress import count, duration
from t5smith.inspection.views.page import fragment, marked
from t5smith.pages.curves import Series, curve
from t5smith.pages.facts import Facts, changed_settings, number, percent, rows
from t5smith.pages.markup import SPAN_COLOURS, Html, document, join, stylesheet, tag
from t5smith.pages.parts import card, cards, table
from t5smith.reports.contents import Columns, Example, Report
from t5smith.reports.corpus_page import corpus_section, unreported
from t5smith.reports.terminal import NO_SPACE_BEFORE

Kind = Literal["noisy", "line", "points"]


def page(report: Report) -> str:
    """The report as a whole HTML page."""
    sections = [
        ("Curves", _curves(report)),
        ("Filled-in spans", _examples(report.examples)),
        ("Held-out loss by class of token", _by_class(report.evaluation)),
        ("What the encoder and decoder see", fragment(report.trace) if report.trace else None),
        ("Corpus", corpus_section(report.store, report.corpus)),
        ("Data and model", _facts(report)),
        ("Settings", _settings(report.recipe)),
        ("Load the model", _snippet(report)),
        ("Versions", table(list(report.versions.items()))),
    ]
    body = [
        tag("header", tag("h1", report.name), tag("p", _subtitle(report))),
        _cards(report),
        _warnings(report.warnings),
        *(tag("section", tag("h2", title), content) for title, content in sections if content),
    ]
    styles = [stylesheet("t5smith.pages", name) for name in ("theme.css", "page.css", "corpus.css")]
    return document(f"{report.name}: report", join(body), styles)


def _subtitle(report: Report) -> str:
    return " · ".join(filter(None, ["A T5 pre-trained by span corruption with t5smith", report.created]))


def _cards(report: Report) -> Html | None:
    """The most important figures; unknown ones are not shown."""
    found = [
        _nll_card(report.evaluation),
        card(
            "Token accuracy", number(report.evaluation, "text", "accuracy"), percent, "of masked text tokens"
        ),
        card(
            "Bits per byte", number(report.evaluation, "bits_per_byte"), "{:.2f}".format, "of the masked text"
        ),
        card(
            "Loss, held out", number(report.evaluation, "total", "nll"), "{:.2f}".format, _loss(report.train)
        ),
        card("Parameters", number(report.train, "parameters"), count, _size_of(report.vocab)),
        card("Trained on", number(report.train, "tokens"), count, _pace(report.train)),
        card("Training time", report.seconds, _time, "restarts included"),
    ]
    return cards(found)


def _nll_card(evaluation: Facts) -> Html | None:
    nll, baseline = number(evaluation, "text", "nll"), number(evaluation, "unigram_nll")
    about: str | Html = "nats per token; lower is better"
    if nll is not None and baseline is not None:
        gap = baseline - nll
        verdict, tone = (f"{gap:.2f} below", "good") if gap > 0 else (f"{-gap:.2f} above", "bad")
        about = join(
            [
                "nats per token; ",
                tag("span", verdict, class_=tone),
                f" the unigram baseline of {baseline:.2f}",
            ]
        )
    return card("Held-out NLL of text", nll, "{:.2f}".format, about)


def _loss(train: Facts) -> str:
    last = number(train, "last_loss")
    return "nats per target of any kind" + ("" if last is None else f"; {last:.2f} in training")


def _size_of(vocab: Facts) -> str | None:
    got = number(vocab, "pieces")
    return None if got is None else f"vocabulary of {got:,.0f} pieces"


def _pace(train: Facts) -> str:
    steps, pace = number(train, "steps"), number(train, "tokens_per_second")
    parts = [f"in {steps:,.0f} steps" if steps else "", f"{count(pace)} per second" if pace else ""]
    return ", ".join(filter(None, ["tokens", *parts]))


def _time(seconds: float) -> str:
    if round(seconds) < 60:
        return f"{seconds:.0f} s"
    return f"{duration(seconds)} {'h' if round(seconds) >= 3600 else 'min'}"


def _warnings(warnings: Sequence[str]) -> Html | None:
    if not warnings:
        return None
    return tag("div", *(tag("p", tag("strong", "Warning: "), line) for line in warnings), class_="warnings")


def _curves(report: Report) -> Html | None:
    """The loss with its reference levels, and curves that help to explain it."""
    loss = [
        _series("train", report.metrics, "loss"),
        _series("held out", report.held_out, "loss", "points"),
    ]
    text = [_series("held out", report.held_out, "text", "points")]
    ceiling = {"ln V": number(report.train, "ln_vocab")}
    # Of the curve's windows and masks; the evaluation after training has others. Older logs have none.
    levels = report.held_out.get("unigram", np.empty(0))
    known = levels[np.isfinite(levels)]
    baseline = {"unigram": float(known[-1]) if len(known) else None}
    figures = [
        _whole(loss, "Loss of all targets", ceiling, _loss_note(report.train)),
        _whole(text, "Held-out NLL of text tokens", baseline, _TEXT_NOTE),
    ]
    others: list[tuple[str, str, Kind]] = [
        ("learning_rate", "Learning rate", "line"),
        ("grad_norm", "Gradient norm", "noisy"),
        ("tokens_per_second", "Tokens per second", "noisy"),
    ]
    for key, title, kind in others:
        svg = curve([_series("", report.metrics, key, kind)], "step", "", title, size=(230.0, 150.0))
        figures.append(tag("figure", Html(svg)) if svg else None)
    return tag("div", *figures, class_="figures") if any(figures) else None


def _whole(
    series: Sequence[Series], title: str, levels: Mapping[str, float | None], note: str
) -> Html | None:
    """A figure of full width with a note below it."""
    known = {name: level for name, level in levels.items() if level is not None}
    # Text scales with its figure: one figure is for wide screens, one for phones.
    sizes = {"wide": (640.0, 230.0), "narrow": (330.0, 220.0)}
    drawn = {
        kind: curve(series, "step", "nats per token", title, known, size=size) for kind, size in sizes.items()
    }
    if not any(drawn.values()):
        return None
    parts = [tag("div", Html(svg), class_=kind) for kind, svg in drawn.items()]
    return tag("figure", *parts, tag("p", note, class_="note"), class_="whole")


def _series(name: str, columns: Columns, key: str, kind: Kind = "noisy") -> Series:
    """One column over the steps; of a repeated step the last value counts."""
    if key not in columns:
        return Series(name, (), (), kind)
    steps, last = np.unique(columns["step"][::-1], return_index=True)
    return Series(name, steps, columns[key][::-1][last], kind)


def _loss_note(train: Facts) -> str:
    first, ceiling = number(train, "first_loss"), number(train, "ln_vocab")
    first_loss = ""
    if first is not None and ceiling is not None:
        first_loss = (
            f"The first loss was {first:.2f}. Uniform guessing costs ln V = {ceiling:.2f}; "
            "an untrained model begins about half a nat above it. "
        )
    return first_loss + (
        "Both curves are of all target tokens, also the easily predicted sentinels. Held-out points are "
        "always of the same windows and masks, one per window; the figures above are of all evaluated "
        "windows and masks, so they differ a little."
    )


_TEXT_NOTE = (
    "Quality is judged by text tokens. The unigram baseline knows only how often each piece occurs in the "
    "training text. Curve and baseline are of the same windows and masks, one per window; the figures above "
    "are of all evaluated windows and masks, so both differ from them."
)


def _examples(examples: Sequence[Example]) -> Html | None:
    if not examples:
        return None
    blocks = [
        tag(
            "dl",
            tag("dt", "Original"),
            tag(
                "dd",
                _with_spans(example, [marked(truth.strip(), j) for j, truth in enumerate(example.truth)]),
            ),
            tag("dt", "Model input"),
            tag("dd", _with_spans(example, [_chip(f"<extra_id_{j}>", j) for j in range(len(example.truth))])),
            tag("dt", "Filled in"),
            tag(
                "dd",
                _with_spans(
                    example, list(map(_filled, range(len(example.truth)), example.truth, example.filled))
                ),
            ),
            class_="example",
        )
        for example in examples
    ]
    about = "Where the model differs, the original follows in grey; an underlined span equals the original."
    return join([tag("p", about, class_="note"), *blocks])


def _with_spans(example: Example, spans: Sequence[Html]) -> Html:
    """The kept text with the given HTML for each span."""
    parts: list[str] = []
    for before, span, after in zip(example.kept, spans, example.kept[1:], strict=False):
        parts += [before.strip(), " " if before.strip() else "", span]
        parts.append("" if NO_SPACE_BEFORE.match(after.strip()) else " ")
    return join([*parts, example.kept[-1].strip()])


def _chip(text: str, span: int) -> Html:
    return tag("mark", tag("code", text), class_=f"s{span % SPAN_COLOURS}")


def _filled(span: int, truth: str, filled: str) -> Html:
    same = filled.split() == truth.split()
    colour = f"s{span % SPAN_COLOURS}"
    if same:
        return tag("mark", filled.strip(), tag("sup", str(span)), class_=f"{colour} right")
    written = filled.strip() or "(nothing)"
    return join([tag("mark", written, tag("sup", str(span)), class_=colour), " ", tag("del", truth.strip())])


def _by_class(evaluation: Facts) -> Html | None:
    """Losses of text tokens, and of sentinels, which are easy to predict from their order."""
    names = {"text": "Text", "sentinels": "Sentinels", "eos": "</s>", "total": "All"}
    found: list[list[str]] = []
    for key, name in names.items():
        nll, accuracy = number(evaluation, key, "nll"), number(evaluation, key, "accuracy")
        tokens = number(evaluation, key, "tokens")
        if nll is not None:
            cells = [f"{nll:.3f}", "" if accuracy is None else percent(accuracy)]
            found.append([name, *cells, "" if tokens is None else f"{tokens:,.0f}"])
    if (baseline := number(evaluation, "unigram_nll")) is not None:
        found.append(["Text, unigram baseline", f"{baseline:.3f}", "", ""])
    if not found:
        return None
    about = (
        "Nats per token, with fixed masks. Quality is judged by text tokens: the next sentinel is always "
        "known. The unigram baseline knows only how often each piece occurs in the training text."
    )
    return join(
        [
            tag("p", about, class_="note"),
            table(found, ["target tokens", "NLL", "accuracy", "tokens"], numbers=True),
        ]
    )


def _facts(report: Report) -> Html | None:
    """Every fact of every stage."""
    shown = {"text", "sentinels", "eos", "total", "all"}
    groups = {
        "Vocabulary": unreported(report.vocab),
        "Token store": unreported(report.store),
        "Training": report.train,
        "Evaluation": {key: value for key, value in report.evaluation.items() if key not in shown},
        "Export": report.export,
    }
    tables = [
        tag("div", tag("h3", name), table(found)) for name, facts in groups.items() if (found := rows(facts))
    ]
    return tag("div", *tables, class_="columns") if tables else None


def _settings(recipe: str) -> Html | None:
    if not recipe.strip():
        return None
    changed = changed_settings(recipe)
    whole = tag("details", tag("summary", "Whole recipe"), tag("pre", recipe.strip()))
    return join([table(changed, ["setting", "value", "default"]), whole])


def _snippet(report: Report) -> Html | None:
    if not report.model:
        return None
    code = f"""\
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({report.model!r})
model = AutoModelForSeq2SeqLM.from_pretrained({report.model!r})
inputs = tokenizer({report.prompt!r}, return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=20)[0]))"""
    return tag("pre", code)
