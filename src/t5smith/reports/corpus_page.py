"""The corpus report: from files to documents, their lengths, pieces, and sample windows.

It is a page of its own after `t5smith prepare`, and a section of a run's report.
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
from t5smith.reports.input_files import excluded_texts, input_files
from t5smith.reports.tokens import SPLITS, control_words_part, tokens_part, unknown_card
from t5smith.text.skipped_records import DAMAGED_ARCHIVE, NOT_FAULTS, NOT_RECORDS, skipped_messages

OPEN_WINDOWS = 6
"""Further windows are folded away."""


def corpus_page(name: str, store: Facts, figures: Facts) -> str:
    """The corpus report as a whole HTML page.

    Args:
      name: of the run.
      store: facts of the store's manifest.
      figures: what :mod:`t5smith.store.statistics` computed.
    """
    documents = [number(store, split, "documents") for split in SPLITS]
    abouts = [
        "tokens" if found is None else f"tokens, in {pluralize(int(found), 'document')}"
        for found in documents
    ]
    read, removed = _removed(store)
    skipped = sum(sum(reasons.values()) for _, reasons in removed)
    pieces = figures.get("pieces") or {}
    unused, known = number(pieces, "unused"), number(pieces, "pieces")
    found = [
        card("Training text", number(store, "train", "tokens"), count, abouts[0]),
        card("Held out", number(store, "valid", "tokens"), count, abouts[1]),
        card(
            "Removed",
            skipped / read if read else None,
            percent,
            f"{skipped:,} of {pluralize(read, 'record')}",
        ),
        card(
            "Bytes per token", number(store, "train", "bytes_per_token"), "{:.2f}".format, "of training text"
        ),
        unknown_card(store),
        card(
            "Pieces never used",
            unused / known if unused is not None and known else None,
            percent,
            f"{unused:,.0f} of {known:,.0f}, in training text" if unused is not None and known else None,
        ),
    ]
    header = tag("header", tag("h1", name), tag("p", "Text prepared for a T5 with t5smith"))
    sections = [tag("section", tag("h2", title), content) for title, content in _parts(store, figures)]
    styles = [
        stylesheet("t5smith.pages", "theme.css"),
        *(stylesheet("t5smith.pages", name) for name in ("page.css", "corpus.css")),
    ]
    return document(f"{name}: the text", join([header, cards(found), *sections]), styles)


def corpus_section(store: Facts, figures: Facts) -> Html | None:
    """The corpus report as a section of a page, which needs `corpus.css`; None if nothing is known."""
    parts = [tag("h3", title) + content for title, content in _parts(store, figures)]
    return tag("div", *map(Html, parts), class_="corpus") if parts else None


def unreported(facts: Facts) -> Facts:
    """The facts of a vocabulary or store that the corpus report does not show."""
    reported = {"skipped_records", "cleaning", "cut_stretches", "corpora", "input_files"}
    reported |= {"control_words", "excluded"}
    return {
        key: unreported(cast("Facts", value)) if isinstance(value, Mapping) else value
        for key, value in facts.items()
        if key not in reported
    }


def _parts(store: Facts, figures: Facts) -> Iterator[tuple[str, Html]]:
    """The title and content of every part that is not empty."""
    found = {
        "From records to documents": _flow(store, figures),
        "Formats and files not read": input_files(
            store.get("input_files") or {}, store.get("skipped_records") or {}
        ),
        "Cleaning": _cleaning(store.get("cleaning") or ()),
        "Excluded texts": excluded_texts(store.get("excluded") or {}),
        "Tokens": tokens_part(store, figures),
        "Control words in the text": control_words_part(store),
        "Lengths of documents": _lengths(figures.get("lengths") or {}),
        "Most frequent pieces": _pieces(figures.get("pieces") or {}),
        "Sample windows": _windows(figures.get("windows") or ()),
    }
    yield from ((title, content) for title, content in found.items() if content)


def _removed(store: Facts) -> tuple[int, list[tuple[str, Mapping[str, int]]]]:
    """The number of records read, and for each step in order the numbers of records it removed, by reason."""
    kept, empty = (
        int(sum(number(store, split, what) or 0 for split in SPLITS))
        for what in ("documents", "empty_documents")
    )
    counts: Mapping[str, int] = (store.get("skipped_records") or {}).get("counts", {})
    removed: list[tuple[str, Mapping[str, int]]] = [
        ("dropped", {kind: number for kind, number in counts.items() if kind in NOT_FAULTS}),
        (
            "unreadable",
            {k: number for k, number in counts.items() if k not in NOT_RECORDS and k not in NOT_FAULTS},
        ),
        *((step["step"], step["dropped"]) for step in store.get("cleaning") or ()),
        ("without text", {"": empty} if empty else {}),
    ]
    removed = [(step, reasons) for step, reasons in removed if reasons]
    return kept + sum(sum(reasons.values()) for _, reasons in removed), removed


def _flow(store: Facts, figures: Facts) -> Html | None:
    """The number of records that each step removed and left."""
    read, removed = _removed(store)
    if not read:
        return None
    lines = [_flow_line(_from_files(figures), read, read, read, "total")]
    left = read
    for step, reasons in removed:
        number_removed = sum(reasons.values())
        left -= number_removed
        ordered = sorted(reasons.items(), key=lambda entry: (-entry[1], entry[0]))
        only = ordered[0][0] if len(ordered) == 1 else ""
        name = f"{step}: {only}" if only else step
        lines.append(_flow_line(name, -number_removed, left, read))
        if len(ordered) > 1:
            lines += [_flow_line(reason, -n, None, read, "reason") for reason, n in ordered]
    lines.append(_flow_line("Documents in the store", left, left, read, "total"))
    notes: list[Html] = []
    if cut := number(store, "cut_stretches"):
        stretches = (
            "stretch of text without white space was"
            if cut == 1
            else "stretches of text without white space were"
        )
        notes.append(tag("p", f"{cut:,.0f} {stretches} too long for the tokenizer and split.", class_="note"))
    skipped = store.get("skipped_records") or {}
    if archives := number(skipped, "counts", DAMAGED_ARCHIVE):
        what = f"{archives:,.0f} archives are" if archives > 1 else "1 archive is"
        note = f"{what} truncated or damaged. What could not be unpacked is lost and not counted above."
        notes.append(tag("p", note, class_="note"))
    if members := skipped.get("members"):
        names = tag("ul", *(tag("li", name) for name in members), class_="places")
        notes.append(tag("details", tag("summary", "Members of archives without text"), names))
    if skipped.get("first"):
        found = tag("ul", *(tag("li", line) for line in skipped_messages(skipped)), class_="places")
        notes.append(tag("details", tag("summary", "First unreadable records"), found))
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
    """Documents, their share of all records, and a bar of what was removed and what is left."""
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
    """What each cleaning step did, with some of the documents that it dropped."""
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
    about = "Each step gets the documents that the step before it kept. Examples show the original text."
    head = ["step", "in", "dropped", "share", "changed"]
    return join([tag("p", about, class_="note"), table(lines, head, numbers=True), *details])


def _lengths(lengths: Facts) -> Html | None:
    """The distribution of document lengths, by powers of two."""
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
        "Each pair of bars: documents with at least the number of tokens below it, and less than twice as "
        "many; their share of all documents, and of all tokens. The </s> at the end is not counted."
    )
    head = ["", "shortest", "median", "90th percentile", "longest", "mean"]
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
            tag("span", count(occurrences), class_="often"),
            tag("span", percent(occurrences / tokens), class_="share"),
            style=f"--share:{100 * occurrences / most:.1f}%",
        )
        for piece, occurrences in pieces["most_used"]
    ]
    unused, known = pieces["unused"], pieces["pieces"]
    about = (
        f"Of {tokens:,} tokens of training text, without </s>. ▁ is the space before a word. "
        f"{unused:,} of {known:,} pieces ({percent(unused / known if known else 0)}) never occur."
    )
    return join([tag("p", about, class_="note"), tag("ol", *items, class_="pieces")])


def _windows(windows: Sequence[Facts]) -> Html | None:
    """Sample windows of the training text, with the ends of documents marked."""
    if not windows:
        return None
    shown = [_window(window) for window in windows]
    about = (
        "Windows of the training text as stored, decoded from their ids, before masking. A mark shows the "
        "end of a document; an ellipsis shows that the document continues."
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
