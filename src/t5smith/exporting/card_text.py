"""The model card's sections on text and tokenizer, from the manifests of the stages that made them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from t5smith.base.artifact import Manifest
from t5smith.base.wrapping import pluralize
from t5smith.text.skipped_records import NOT_FAULTS, UNREADABLE_FILE
from t5smith.training.curves.repetition import CorpusUse

MOST_FILES = 8
"""Names of files that are listed; of more, only the number is."""
NORMALIZATIONS = {
    "nfkc": "applies NFKC",
    "nmt_nfkc": "applies T5's normalization (nmt_nfkc)",
    "nfc": "applies NFC",
    "none": "applies no Unicode normalization",
}


def text_section(store: Manifest, uses: Sequence[CorpusUse]) -> str:
    """What was read, how it was cleaned, what was held out.

    Args:
      store: the manifest of the token store.
      uses: how training has read each corpus.
    """
    corpus, train, valid = store.inputs["corpus"], store.facts["train"], store.facts["valid"]
    names = _names(corpus["train"])
    rows = [_row("to train on", train), _row("held out", valid)]
    read = f"Training read this text {uses[0].epochs:.3g} times."
    if len(uses) > 1:
        corpora = train["corpora"]
        rows[1:1] = [
            _row(f"{use.name}: {use.share:.1%} of training, read {use.epochs:.3g} times", corpora[use.name])
            for use in uses
        ]
        read = "How often each corpus was read is in the table."
    lines = [
        f"The text was read from {names}.",
        "",
        "| | documents | tokens | bytes of text |",
        "| --- | ---: | ---: | ---: |",
        *rows,
        "",
        read,
        _held_out(corpus),
    ]
    counts: dict[str, int] = store.facts["skipped_records"]["counts"]
    skipped = sum(n for kind, n in counts.items() if kind not in NOT_FAULTS and kind != UNREADABLE_FILE)
    if skipped:
        lines.append(
            f"{pluralize(skipped, 'record')} could not be read and was skipped."
            if skipped == 1
            else f"{skipped:,} records could not be read and were skipped."
        )
    if files := counts.get(UNREADABLE_FILE):
        lines.append(
            f"{pluralize(files, 'file')} could not be read and {'was' if files == 1 else 'were'} skipped."
        )
    unknown = train["unknown_rate"]
    if unknown:
        lines.append(f"{unknown:.3%} of the tokens are `<unk>`: characters that the tokenizer does not have.")
    return "\n".join([*lines, "", *_cleaning(store)])


def _row(name: str, counts: Mapping[str, Any]) -> str:
    return f"| {name} | {counts['documents']:,} | {counts['tokens']:,} | {counts['text_bytes']:,} |"


def _names(files: Sequence[Mapping[str, Any]]) -> str:
    """The names of files, without folders and without the query of an address."""
    names = list(dict.fromkeys(file["name"].split("?")[0] for file in files))
    shown = ", ".join(f"`{name}`" for name in names[:MOST_FILES])
    size = f"{sum(file['bytes'] for file in files):,} bytes on disk"
    if len(names) > MOST_FILES:
        return f"{len(names):,} files ({size}), among them {shown}"
    return f"{shown} ({size})"


def _held_out(corpus: Mapping[str, Any]) -> str:
    if "valid" in corpus:
        return f"The documents of {_names(corpus['valid'])} are held out."
    share = f"{100 * corpus['held_out_fraction']:.3g}%"
    return f"Of the documents, {share} are held out, chosen by a hash of their text."


def _cleaning(store: Manifest) -> Iterator[str]:
    """What cleaning dropped and changed, with the settings of each step."""
    for name, own in (store.facts.get("excluded") or {}).items():
        number = own["documents"] + own["near_matches"]
        found = f"{own['found']:,} of its {pluralize(own['entries'], 'text')} found"
        yield f"Texts in `{name}` were excluded: {found}, {pluralize(number, 'document')} dropped."
        yield ""
    steps = [step for step in store.facts.get("cleaning") or () if step["step"] != "exclude"]
    if not steps:
        yield "The documents were not cleaned, and duplicates were not removed."
        return
    settings = store.inputs["cleaning"]
    yield "The documents were cleaned, in this order:"
    yield ""
    for step in steps:
        own = settings.get(step["step"])
        line = f"- {step['step']}: dropped {sum(step['dropped'].values()):,} of {step['in']:,}"
        if step["changed"]:
            line += f", changed {step['changed']:,}"
        if isinstance(own, dict):
            values = (
                f"{name} {_value(value)}" for name, value in sorted(own.items()) if value not in ("", [])
            )
            line += f" ({', '.join(values)})"
        yield line
    names = {step["step"] for step in steps}
    if not names & {"exact_duplicates", "near_duplicates"}:
        yield ""
        yield "Duplicates were not removed."
    elif "near_duplicates" not in names:
        yield ""
        yield "Near duplicates were not removed."


def _value(value: object) -> str:
    """A setting for people: a file without its folder."""
    if isinstance(value, list):
        return " ".join(map(str, value)) if len(value) <= 8 else f"{len(value):,} entries"
    return PurePath(value).name if isinstance(value, str) else str(value)


def tokenizer_section(vocab: Manifest, store: Manifest) -> str:
    """How the tokenizer was made and what it does to a text; `store` has the text of training."""
    facts = vocab.facts
    if "vocab" not in vocab.inputs:
        source = tokenizer_source(vocab)
        added = f" Added to it: {facts['appended']}." if facts.get("appended") else ""
        return f"Imported from {source}: {facts['pieces']:,} pieces, {facts['sentinels']} sentinels.{added}"
    settings = vocab.inputs["vocab"]
    normal = NORMALIZATIONS[settings["normalization"]]
    case = (
        "text is lowercased, so the model never writes capitals" if settings["lowercase"] else "case is kept"
    )
    keeps = settings.get("keep_whitespace", False)
    white_space = (
        "keeps new lines, tabs and every space" if keeps else "turns all white space into single spaces"
    )
    same = vocab.inputs["corpus"]["train"] == store.inputs["corpus"]["train"]
    text = "the text" if same else "an earlier version of the text"
    lines = [
        f"A SentencePiece-style Unigram tokenizer: {facts['pieces']:,} pieces of at most "
        f"{settings['max_piece_length']} characters, trained on {facts['sample_bytes']:,} bytes of {text}, "
        f"and {facts['sentinels']} sentinels.",
        f"It {normal} and {white_space}; {case}.",
    ]
    if settings["split_digits"]:
        lines.append("Each digit is a piece of its own.")
    if settings["character_coverage"] < 1:
        lines.append(f"The pieces cover {settings['character_coverage']:.4%} of the characters of {text}.")
    rare = "its UTF-8 bytes" if settings["byte_fallback"] else "`<unk>`"
    lines.append(f"A character without a piece becomes {rare}.")
    for name, what in (("user_symbols", "always one piece"), ("control_symbols", "never encoded from text")):
        if settings[name]:
            lines.append(f"{', '.join(f'`{symbol}`' for symbol in settings[name])}: {what}.")
    if words := settings.get("unknown_words"):
        names = ", ".join(f"`{word}`" for word in dict.fromkeys(("<unk>", *words)))
        lines.append(f"{names} in a text: the unknown piece.")
    return "\n".join(lines)


def spiece_note(why_not: str) -> str:
    """Which programs read which tokenizer file; `why_not`: why there is no `spiece.model`, or ""."""
    if why_not:
        return f"There is no `spiece.model`, which cannot do what this tokenizer does: {why_not}."
    return (
        "`spiece.model` with `added_tokens.json` is the same tokenizer for programs that read SentencePiece "
        "models, such as llama.cpp's converter. In transformers use `AutoTokenizer`, which reads "
        "`tokenizer.json`: `T5Tokenizer` of version 5 leaves out the normalization."
    )


def without_folders(name: str) -> str:
    """The last part of a path; a name on the Hub is left as it is."""
    is_path = name.startswith(("/", "~", ".")) or name.count("/") > 1
    return PurePath(name).name if is_path else name


def tokenizer_source(vocab: Manifest) -> str | None:
    """The name of an imported tokenizer, without the folders of a path; None if it was trained."""
    name = vocab.facts.get("tokenizer")
    if name is None:
        return None
    name = without_folders(name)
    read = vocab.facts["read_from"]
    return f"`{name}`" if read == name else f"`{name}` ({read})"
