"""What came of the text: files in, documents out and why not all; their lengths, pieces, sample windows.

It is a section of a run's report, and a page of its own after `t5smith prepare`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import cast

from t5smith.base.progress import count
from t5smith.base.wrapping import pluralize
from t5smith.pages.facts import Facts, number, percent, size
from t5smith.pages.histogram import histogram
from t5smith.pages.markup import Html, document, join, stylesheet, tag
from t5smith.pages.parts import card, cards, table
from t5smith.reports.tokens import SPLITS, tokens_part, unknown_card
from t5smith.text.skipped_records import DAMAGED_ARCHIVE, skipped_messages

OPEN_WINDOWS = 6
"""Further windows are shown when asked for."""


def corpus_page(name: str, store: Facts, figures: Facts) -> str:
    """The section as a whole HTML page.

    Args:
      name: of the run.
      store: facts of the store's manifest.
      figures: what :mod:`t5smith.store.statistics` found.
    """
    documents = [number(store, split, "documents") for split in SPLITS]
    abouts = [
        "tokens" if found is None else f"tokens, in {pluralize(int(found), 'document')}"
        for found in documents
    ]
    read, taken = _taken(store)
    gone = sum(sum(reasons.values()) for _, reasons in taken)
    pieces = figures.get("pieces") or {}
    unused, known = number(pieces, "unused"), number(pieces, "pieces")
    found = [
        card("Training text", number(store, "train", "tokens"), count, abouts[0]),
        card("Held out", number(store, "valid", "tokens"), count, abouts[1]),
        card("Left out", gone / read if read else None, percent, f"{gone:,} of {pluralize(read, 'record')}"),
        card("Bytes a token", number(store, "train", "bytes_per_token"), "{:.2f}".format, "of training text"),
        unknown_card(store),
        card(
            "Pieces never used",
            unused / known if unused is not None and known else None,
            percent,
            f"{unused:,.0f} of {known:,.0f}, in training text" if unused is not None and known else None,
        ),
    ]
    header = tag("header", tag("h1", name), tag("p", "Text made ready for a T5 with t5smith"))
    sections = [tag("section", tag("h2", title), content) for title, content in _parts(store, figures)]
    styles = [
        stylesheet("t5smith.pages", "theme.css"),
        *(stylesheet("t5smith.pages", name) for name in ("page.css", "corpus.css")),
    ]
    return document(f"{name}: the text", join([header, cards(found), *sections]), styles)


def corpus_section(store: Facts, figures: Facts) -> Html | None:
    """The same below headings of one section of a page; None if nothing is known.

    The page needs `corpus.css`.
    """
    parts = [tag("h3", title) + content for title, content in _parts(store, figures)]
    return tag("div", *map(Html, parts), class_="corpus") if parts else None


def untold(facts: Facts) -> Facts:
    """Of a vocabulary's or a store's facts those that are not shown better here."""
    told = {"skipped_records", "cleaning", "cut_stretches", "corpora"}
    return {
        key: untold(cast("Facts", value)) if isinstance(value, Mapping) else value
        for key, value in facts.items()
        if key not in told
    }


def _parts(store: Facts, figures: Facts) -> Iterator[tuple[str, Html]]:
    """Every part of which something is known, with its title."""
    found = {
        "What came in, what went out": _flow(store, figures),
        "Cleaning": _cleaning(store.get("cleaning") or ()),
        "Tokens": tokens_part(store, figures),
        "Lengths of documents": _lengths(figures.get("lengths") or {}),
        "Pieces most used": _pieces(figures.get("pieces") or {}),
        "Sample windows": _windows(figures.get("windows") or ()),
    }
    yield from ((title, content) for title, content in found.items() if content)


def _taken(store: Facts) -> tuple[int, list[tuple[str, Mapping[str, int]]]]:
    """How many records were read, and of each step in order how many it took away, by reason."""
    kept, empty = (
        int(sum(number(store, split, what) or 0 for split in SPLITS))
        for what in ("documents", "empty_documents")
    )
    counts: Mapping[str, int] = (store.get("skipped_records") or {}).get("counts", {})
    taken: list[tuple[str, Mapping[str, int]]] = [
        ("cannot be read", {kind: often for kind, often in counts.items() if kind != DAMAGED_ARCHIVE}),
        *((step["step"], step["dropped"]) for step in store.get("cleaning") or ()),
        ("without text", {"": empty} if empty else {}),
    ]
    taken = [(step, reasons) for step, reasons in taken if reasons]
    return kept + sum(sum(reasons.values()) for _, reasons in taken), taken


def _flow(store: Facts, figures: Facts) -> Html | None:
    """From records to documents: what was taken away at each step, and what was left."""
    read, taken = _taken(store)
    if not read:
        return None
    lines = [_flow_line(_from_files(figures), read, read, read, "total")]
    left = read
    for step, reasons in taken:
        gone = sum(reasons.values())
        left -= gone
        ordered = sorted(reasons.items(), key=lambda entry: (-entry[1], entry[0]))
        only = ordered[0][0] if len(ordered) == 1 else ""
        name = f"{step}: {only}" if only else step
        lines.append(_flow_line(name, -gone, left, read))
        if len(ordered) > 1:
            lines += [_flow_line(reason, -often, None, read, "reason") for reason, often in ordered]
    lines.append(_flow_line("Documents in the store", left, left, read, "total"))
    notes: list[Html] = []
    if cut := number(store, "cut_stretches"):
        stretches = "stretch without white space was" if cut == 1 else "stretches without white space were"
        notes.append(tag("p", f"{cut:,.0f} {stretches} too long for the tokenizer and cut.", class_="note"))
    left_out = store.get("skipped_records") or {}
    if archives := number(left_out, "counts", DAMAGED_ARCHIVE):
        what = f"{archives:,.0f} archives are" if archives > 1 else "1 archive is"
        told = f"{what} cut short or damaged. What could not be unpacked is lost, and counted nowhere here."
        notes.append(tag("p", told, class_="note"))
    if left_out.get("first"):
        lines_ = tag("ul", *(tag("li", line) for line in skipped_messages(left_out)), class_="places")
        notes.append(tag("details", tag("summary", "The first of what could not be read"), lines_))
    kinds = {"": None, "documents": "number", "share": "number share", "left": "drawn"}
    head = tag("tr", *(tag("th", name, class_=kind) for name, kind in kinds.items()))
    whole = tag("table", tag("thead", head), tag("tbody", *lines), class_="flow")
    return join([tag("div", whole, class_="scroll"), *notes])


def _from_files(figures: Facts) -> str:
    files = sum(own["files"] for own in figures.get("came_in") or ())
    if not files:
        return "Records read"
    on_disk = size(sum(own["bytes"] for own in figures["came_in"]))
    return f"Records in {pluralize(files, 'file')} of {on_disk}"


def _flow_line(name: str, documents: int, left: int | None, read: int, kind: str | None = None) -> Html:
    """A line with its documents, their share of all, and, as a bar, what was taken away and what is left."""
    shown = f"−{-documents:,}" if documents < 0 else f"{documents:,}"
    bar = None
    if left is not None:
        before = left + max(-documents, 0)
        style = f"--left:{100 * left / read:.2f}%;--before:{100 * before / read:.2f}%"
        bar = tag("span", "", class_="funnel", style=style)
    return tag(
        "tr",
        tag("th", name, scope="row"),
        tag("td", shown, class_="number"),
        tag("td", percent(abs(documents) / read), class_="number share"),
        tag("td", bar, class_="drawn"),
        class_=kind,
    )


def _cleaning(steps: Sequence[Facts]) -> Html | None:
    """What each step did, and some of what it dropped."""
    if not steps:
        return None
    lines: list[list[str]] = []
    details: list[Html] = []
    for step in steps:
        dropped = sum(step["dropped"].values())
        share = percent(dropped / step["in"]) if step["in"] else ""
        lines.append([step["step"], f"{step['in']:,}", f"{dropped:,}", share, f"{step['changed']:,}"])
        if examples := step.get("examples"):
            shown = [
                tag(
                    "blockquote",
                    tag("p", tag("strong", one["reason"]), " ", tag("span", one["place"], class_="muted")),
                    tag("p", one["text"], class_="passage"),
                )
                for one in examples
            ]
            of = "all" if len(examples) == dropped else f"{len(examples)}"
            title = f"{step['step']}: {of} of {pluralize(dropped, 'dropped document')}"
            details.append(tag("details", tag("summary", title), *shown))
    about = "One step after the other, each on what the one before left. Texts begin as they were read."
    head = ["step", "in", "dropped", "share", "changed"]
    return join([tag("p", about, class_="note"), table(lines, head, numbers=True), *details])


def _lengths(lengths: Facts) -> Html | None:
    """How long documents are, in powers of two."""
    figures: list[Html] = []
    quantiles: list[list[str]] = []
    for split, title in SPLITS.items():
        if not (own := lengths.get(split)):
            continue
        documents = sum(row[1] for row in own["powers"])
        tokens = sum(row[2] for row in own["powers"])
        shares = {
            "documents": [row[1] / documents for row in own["powers"]],
            "tokens": [row[2] / tokens for row in own["powers"]],
        }
        edges = [count(row[0]) for row in own["powers"]]
        figures.append(tag("figure", histogram(edges, shares, "tokens of a document", title)))
        names = ("shortest", "median", "ninth_decile", "longest")
        quantiles.append([title, *(f"{own[name]:,}" for name in names), f"{tokens / documents:,.0f}"])
    if not figures:
        return None
    about = (
        "Each pair of bars is of documents with as many tokens as stand below it, or up to twice as many: "
        "their share of all documents, and of all tokens. The </s> at the end is not counted."
    )
    head = ["", "shortest", "median", "90 % up to", "longest", "mean"]
    shown = tag("div", *figures, class_="figures")
    return join([tag("p", about, class_="note"), shown, table(quantiles, head, numbers=True)])


def _pieces(pieces: Facts) -> Html | None:
    if not pieces.get("most_used"):
        return None
    tokens, most = pieces["tokens"], pieces["most_used"][0][1]
    items = [
        tag(
            "li",
            tag("code", piece),
            tag("span", count(often), class_="often"),
            tag("span", percent(often / tokens), class_="share"),
            style=f"--share:{100 * often / most:.1f}%",
        )
        for piece, often in pieces["most_used"]
    ]
    unused, known = pieces["unused"], pieces["pieces"]
    about = (
        f"Of {tokens:,} tokens of training text, </s> left out. ▁ is the space that opens a word. "
        f"{unused:,} of {known:,} pieces ({percent(unused / known if known else 0)}) never occur in it."
    )
    return join([tag("p", about, class_="note"), tag("ol", *items, class_="pieces")])


def _windows(windows: Sequence[Facts]) -> Html | None:
    """Stretches of training text as they lie in the store, documents and their ends."""
    if not windows:
        return None
    shown = [_window(window) for window in windows]
    about = (
        "Stretches of the training text as they lie in the store, before anything is masked, put together "
        "from their ids. A mark stands where a document ends; an ellipsis where the stretch was cut."
    )
    more = None
    if shown[OPEN_WINDOWS:]:
        title = f"{len(shown) - OPEN_WINDOWS:,} more"
        more = tag("details", tag("summary", title), *shown[OPEN_WINDOWS:])
    return join([tag("p", about, class_="note"), *shown[:OPEN_WINDOWS], more])


def _window(window: Facts) -> Html:
    texts = window["texts"]
    ends = len(texts) - (not window["ends"])
    parts: list[str | Html] = [] if window["begins"] else ["… "]
    for i, text in enumerate(texts):
        parts += [text, tag("span", "end", class_="end") if i < ends else " …"]
    corpus = f"{window['corpus']} · " if window["corpus"] else ""
    place = f"{corpus}from token {window['start']:,}, in document {window['document']:,}"
    return tag("div", tag("p", place, class_="note"), tag("p", *parts, class_="passage"), class_="window")
