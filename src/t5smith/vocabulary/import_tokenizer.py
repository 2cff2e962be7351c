"""A tokenizer of one's own: a file, a folder, a name on the Hub, or bytes, as a vocabulary of t5smith."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from t5smith.base import artifact
from t5smith.base.progress import info, warn
from t5smith.recipe.recipe import Recipe
from t5smith.recipe.vocab import VocabSettings
from t5smith.vocabulary import byt5, hub
from t5smith.vocabulary import sentencepiece as spiece
from t5smith.vocabulary import tokenizer_json as trees
from t5smith.vocabulary.vocabulary import FILES, Vocabulary, extra_ids, read, text_of, tokenizer_file

METHOD = 1
"""Raised when the same file would give another vocabulary than before."""
BYTES = "bytes"
FIELD = "vocab.tokenizer"
ENDINGS = (".json", ".xz", ".model")
"""What ends like this is a path."""
KEPT = ("tokenizer", "control_symbols")
"""What of [vocab] has a meaning where nothing is trained."""


@dataclass(frozen=True)
class ImportedTokenizer:
    """A tokenizer as it was found.

    Attributes:
      name: what it was asked for as.
      file: what was read, for people.
      sha256: of the bytes of that file.
      vocabulary: with sentinels and the control symbols asked for.
      appended: control pieces that it lacked and that now stand at its end.
    """

    name: str
    file: str
    sha256: str
    vocabulary: Vocabulary
    appended: tuple[str, ...] = field(repr=False)


def import_tokenizer(name: str, control_symbols: Iterable[str] = (), where: str = FIELD) -> ImportedTokenizer:
    """Read a tokenizer, and give it the sentinels and control symbols that it lacks.

    Args:
      name: a folder, also a run folder, a `tokenizer.json`, a SentencePiece `.model`, a name on the Hub
        as `google/mt5-small` or `hf:NAME@REVISION`, or `bytes`. A path goes before a name.
      control_symbols: pieces that no text turns into.
      where: the setting or flag that named it, for messages.

    Raises:
      T5smithError: nothing there, it cannot be read, or is no Unigram tokenizer with `<pad>` and `</s>`.
    """
    if name == BYTES:
        data, file, tree = b"", Path(BYTES), byt5.tree()
    else:
        path = Path(name).expanduser()
        looks_like_one = path.is_absolute() or name.startswith((".", "~")) or path.suffix in ENDINGS
        file = tokenizer_file(path) if path.exists() or looks_like_one else hub.fetch(name, FILES, where)
        data = read(file)
        tree = _tree(data, file)
    symbols = dict.fromkeys(control_symbols)
    before = set(trees.pieces_and_control(tree)[0])
    tree = trees.with_control(tree, list(symbols))
    tree = trees.with_sentinels(tree, extra_ids(file))
    appended = tuple(name for name in trees.pieces_and_control(tree)[0] if name not in before)
    vocabulary = Vocabulary(json.dumps(tree), file)
    return ImportedTokenizer(name, _told(file), hashlib.sha256(data).hexdigest(), vocabulary, appended)


def _tree(data: bytes, file: Path) -> trees.Tree:
    if file.suffix == ".model":
        return spiece.tree(data, file)
    return trees.parse(text_of(data, file), file)


def _told(file: Path) -> str:
    """A file's name; of one that the Hub keeps also the revision, as its cache has it."""
    return f"{file.name} at {file.parent.name}" if file.parent.parent.name == "snapshots" else file.name


def imported(recipe: Recipe) -> Path:
    """Make the vocabulary folder of a recipe that brings its tokenizer.

    Raises:
      T5smithError: see :func:`import_tokenizer`.
    """
    folder = recipe.folder / "vocab"
    settings = recipe.vocab
    found = import_tokenizer(settings.tokenizer, settings.control_symbols)
    symbols = list(dict.fromkeys(settings.control_symbols))
    inputs = {"import": METHOD, "tokenizer": found.sha256, "control_symbols": symbols}
    if settings.tokenizer == BYTES:
        inputs["tokenizer"] = BYTES
    if unused := _unused(settings):
        warn(f"with {FIELD} nothing is trained, so this is without effect: {', '.join(unused)}")
    if there := artifact.find_up_to_date(folder, "vocab", artifact.fingerprint(inputs)):
        info(f"vocab     unchanged: {there.facts['pieces']:,} pieces in {folder}")
        return folder
    facts = _facts(found, symbols)
    with artifact.building(folder, "vocab", inputs, facts) as work:
        found.vocabulary.save(work)
    what = f"{facts['pieces']:,} pieces and {facts['sentinels']} sentinels"
    info(f"vocab     {what}: {found.name}" + (f" ({found.file})" if found.file != found.name else ""))
    if added := _in_words(found.appended):
        info(f"vocab     appended: {added}")
    return folder


def _facts(found: ImportedTokenizer, symbols: list[str]) -> dict[str, Any]:
    vocabulary = found.vocabulary
    facts: dict[str, Any] = {
        "tokenizer": found.name,
        "read_from": found.file,
        "pieces": vocabulary.size - len(vocabulary.sentinel_ids) - len(symbols),
        "ids": vocabulary.size,
        "sentinels": len(vocabulary.sentinel_ids),
        "control_symbols": len(symbols),
    }
    return facts | ({"appended": _in_words(found.appended)} if found.appended else {})


def _in_words(appended: tuple[str, ...]) -> str:
    """Control pieces in words, the sentinels counted."""
    others = [name for name in appended if not trees.SENTINEL.fullmatch(name)]
    count = len(appended) - len(others)
    return ", ".join([*others, f"{count} sentinels"] if count else others)


def _unused(settings: VocabSettings) -> list[str]:
    """The settings of training that were set all the same."""
    default = VocabSettings()
    changed = (
        name for name in type(settings).model_fields if getattr(settings, name) != getattr(default, name)
    )
    return [f"vocab.{name}" for name in changed if name not in KEPT]
