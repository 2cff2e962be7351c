"""Documents, tokens and bytes of text of each split and corpus of a store, and the share that is unknown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from t5smith.pages.facts import Facts, number, percent, size
from t5smith.pages.markup import Html, join, tag
from t5smith.pages.parts import card, table
from t5smith.store.control_words import SENTINELS
from t5smith.store.merge import UNKNOWN_WARNING_SHARE

SPLITS = {"train": "Training", "valid": "Held out"}
TEXTS = {"train": "training text", "valid": "held-out text"}


def unknown_card(store: Facts) -> Html | None:
    """The share of unknown tokens in the split where it is larger."""
    rates = {split: rate for split in SPLITS if (rate := number(store, split, "unknown_rate")) is not None}
    if not rates:
        return None
    worse = max(rates, key=lambda split: rates[split])
    same = len(rates) > 1 and len(set(rates.values())) == 1
    about = "of all tokens" if same else f"of the tokens of {TEXTS[worse]}"
    return card("Unknown tokens", rates[worse], percent, about)


def tokens_part(store: Facts, figures: Facts) -> Html | None:
    """The table of splits and corpora."""
    lines: list[Html] = []
    came_in: Sequence[Facts] = figures.get("came_in") or ()
    for split, title in SPLITS.items():
        facts = store.get(split)
        if not isinstance(facts, Mapping) or number(facts, "tokens") is None:
            continue
        ends = bool(number(facts, "separators"))
        lines.append(_line(title, facts, None, ends, "total"))
        corpora: Mapping[str, Any] = facts.get("corpora") or {}
        whole = number(facts, "tokens") or 1
        lines += [
            _line(name, own, (number(own, "tokens") or 0) / whole, ends, "reason")
            for name, own in corpora.items()
        ]
    if not lines:
        return None
    names = ["", "documents", "tokens", "", "unknown", "text", "tokens per document"]
    head = tag("tr", *(tag("th", name, class_="number" if name else None) for name in names))
    whole = tag("table", tag("thead", head), tag("tbody", *lines), class_="flow tokens")
    parts = [_much_unknown(store), tag("div", whole, class_="scroll"), _about_ends(store)]
    if len(came_in) > 1:
        files = [
            [own["corpus"] or SPLITS[own["split"] or "train"], f"{own['files']:,}", size(own["bytes"])]
            for own in came_in
        ]
        shown = table(files, ["", "files", "on disk"], numbers=True)
        parts.append(tag("details", tag("summary", "Input files"), shown))
    return join(parts)


def control_words_part(store: Facts) -> Html | None:
    """Words such as `<unk>` that stand in the text itself."""
    words: Mapping[str, Any] = store.get("control_words") or {}
    if not words:
        return None
    lines = [
        [
            f"{word}…>" if word == SENTINELS else word,
            f"{own['occurrences']:,}",
            f"{own['tokens']:,}",
            percent(own["share"]),
            own["read_as"],
        ]
        for word, own in words.items()
    ]
    about = (
        "Training reads such words as text, or as unknown if they are in vocab.unknown_words. AutoTokenizer "
        "reads those that are pieces of the vocabulary as control pieces."
    )
    head = ["word", "occurrences", "tokens", "share of tokens", "read as"]
    return join([tag("p", about, class_="note"), table(lines, head, numbers=True)])


def _much_unknown(store: Facts) -> Html | None:
    """The warning that `t5smith prepare` prints too."""
    warnings = [
        tag(
            "p",
            tag("strong", "Warning: "),
            f"{percent(rate)} of the tokens of {text} are <unk>: the vocabulary lacks characters of this "
            "text; train it on similar text.",
        )
        for split, text in TEXTS.items()
        if (rate := number(store, split, "unknown_rate") or 0) > UNKNOWN_WARNING_SHARE
    ]
    return tag("div", *warnings, class_="warnings") if warnings else None


def _about_ends(store: Facts) -> Html | None:
    if not any(number(store, split, "separators") for split in SPLITS):
        return None
    about = "Tokens include the </s> at the end of each document; tokens per document do not."
    return tag("p", about, class_="note")


def _line(name: str, facts: Facts, share: float | None, ends: bool, kind: str) -> Html:
    """One split or corpus; `ends`: each document ends in a token that is not part of its text."""
    documents, tokens, text = (number(facts, key) for key in ("documents", "tokens", "text_bytes"))
    unknown = number(facts, "unknown_rate")
    bar = None
    if share is not None:
        bar = tag("span", percent(share), class_="bar", style=f"--share:{100 * share:.1f}%")
    cells = [
        "" if documents is None else f"{documents:,.0f}",
        "" if tokens is None else f"{tokens:,.0f}",
        bar or "",
        "" if unknown is None else percent(unknown),
        "" if text is None else size(text),
        f"{tokens / documents - ends:,.0f}" if documents and tokens is not None else "",
    ]
    return tag(
        "tr", tag("th", name, scope="row"), *(tag("td", cell, class_="number") for cell in cells), class_=kind
    )
