"""Importing a tokenizer as a vocabulary: from a file, a folder or the Hugging Face Hub, or ByT5's bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from t5smith.base import artifact
from t5smith.base.errors import T5smithError
from t5smith.base.hub import HubUnreachable, files_on_hub, hub_errors, hub_name, not_fetched
from t5smith.base.phase import phase
from t5smith.base.progress import info, warn
from t5smith.base.run_folder import up_to_date
from t5smith.recipe.recipe import Recipe
from t5smith.recipe.toml import save_run_settings
from t5smith.recipe.vocab import VocabSettings
from t5smith.vocabulary import tokenizer_json
from t5smith.vocabulary.encoding import byte_tokenizer
from t5smith.vocabulary.tokenizer_files import (
    TOKENIZER_CONFIG,
    TOKENIZER_FILES,
    is_byt5,
    parse_tokenizer_file,
    read_tokenizer_file,
    tokenizer_file,
    with_own_sentinels,
)
from t5smith.vocabulary.tokenizer_json import with_unknown_words
from t5smith.vocabulary.vocabulary import Vocabulary

METHOD = 1
"""Increase when the same file gives another vocabulary than before."""
BYTES = "bytes"
FIELD = "vocab.tokenizer"
PATH_SUFFIXES = (".json", ".xz", ".model")
"""A name with one of these suffixes is a path, not a name on the Hub."""
USED_BY_IMPORT = ("tokenizer", "control_symbols", "unknown_words")
"""Settings of `[vocab]` that have an effect if the tokenizer is imported."""


@dataclass(frozen=True)
class ImportedTokenizer:
    """A tokenizer that was read.

    Attributes:
      name: as requested.
      file: a readable name of the file that was read.
      sha256: of the bytes of that file.
      vocabulary: with sentinels and the requested control symbols.
      appended: control pieces that were missing and were appended.
    """

    name: str
    file: str
    sha256: str
    vocabulary: Vocabulary
    appended: tuple[str, ...] = field(repr=False)


def import_tokenizer(
    name: str, control_symbols: Iterable[str] = (), where: str = FIELD, unknown_words: Sequence[str] = ()
) -> ImportedTokenizer:
    """Read a tokenizer and append the sentinels and control symbols that it lacks.

    Args:
      name: a folder, also a run folder, a tokenizer.json, a SentencePiece .model file, a name on the Hub
        (`google/mt5-small` or `hf:NAME@REVISION`) or `bytes`. An existing path takes precedence.
      control_symbols: pieces that no text is encoded as.
      where: the setting or flag with the name, for messages.
      unknown_words: words of a text that become the unknown id.

    Raises:
      T5smithError: not found, unreadable, or not a Unigram tokenizer with `<pad>` and `</s>`.
    """
    if name == BYTES:
        data, file, tree = b"", Path(BYTES), byte_tokenizer()
    else:
        path = Path(name).expanduser()
        is_path = path.is_absolute() or name.startswith((".", "~")) or path.suffix in PATH_SUFFIXES
        file = tokenizer_file(path) if path.exists() or is_path else fetch_from_hub(name, where)
        data = read_tokenizer_file(file)
        tree = parse_tokenizer_file(data, file)
    before = set(tokenizer_json.pieces_and_control(tree)[0])
    tree = tokenizer_json.with_control(tree, list(dict.fromkeys(control_symbols)))
    tree = with_own_sentinels(tree, file)
    appended = tuple(piece for piece in tokenizer_json.pieces_and_control(tree)[0] if piece not in before)
    vocabulary = Vocabulary(json.dumps(tree), file)
    if unknown_words and vocabulary.is_byte_level:
        raise T5smithError(
            "a vocabulary of bytes has nothing unknown", where="vocab.unknown_words", expected="an empty list"
        )
    if unknown_words:
        vocabulary = Vocabulary(json.dumps(with_unknown_words(tree, unknown_words, file)), file)
    return ImportedTokenizer(name, _readable(file), hashlib.sha256(data).hexdigest(), vocabulary, appended)


def _readable(file: Path) -> str:
    """A file's name, with the revision if it is from the Hub's cache."""
    return f"{file.name} at {file.parent.name}" if file.parent.parent.name == "snapshots" else file.name


def recipe_tokenizer(recipe: Recipe) -> ImportedTokenizer:
    """Read the tokenizer that a recipe imports.

    Raises:
      T5smithError: as :func:`import_tokenizer`; the model that training continues from brings none.
    """
    settings, source = recipe.vocab, recipe.train.init_from
    try:
        return import_tokenizer(
            settings.tokenizer, settings.control_symbols, unknown_words=settings.unknown_words
        )
    except T5smithError as error:
        if settings.tokenizer != source:
            raise
        what = f"no tokenizer is imported with {source} ({error.what})"
        fix = "set vocab.tokenizer to the one that it was trained with, such as google/mt5-small"
        raise T5smithError(what, where="train.init_from", fix=fix) from None


def import_vocabulary(recipe: Recipe, *, restart: bool = False) -> Path:
    """Make the vocabulary folder of a recipe with `vocab.tokenizer`.

    Args:
      recipe: names the tokenizer.
      restart: archive trained steps if they need another vocabulary.

    Raises:
      TrainingAtStake: steps are trained with another vocabulary.
      T5smithError: see :func:`import_tokenizer`.
    """
    folder = recipe.folder / "vocab"
    settings = recipe.vocab
    with phase("vocab", f"reading the tokenizer {settings.tokenizer}", at_once=False):
        tokenizer = recipe_tokenizer(recipe)
    inputs = import_inputs(tokenizer, settings)
    if unused := _unused_settings(settings):
        warn(f"{FIELD} imports a tokenizer, so these settings have no effect: {', '.join(unused)}")
    if existing := up_to_date(folder, "vocab", inputs, restart=restart):
        save_run_settings(recipe, "vocab")
        info(f"vocab     unchanged: {existing.facts['pieces']:,} pieces in {folder}")
        return folder
    facts = {
        "tokenizer": tokenizer.name,
        "read_from": tokenizer.file,
        **tokenizer.vocabulary.size_facts(len(inputs["control_symbols"])),
    }
    appended = _list_control_pieces(tokenizer.appended)
    if appended:
        facts["appended"] = appended
    with artifact.building(folder, "vocab", inputs, facts) as work:
        tokenizer.vocabulary.save(work)
    save_run_settings(recipe, "vocab")
    source = tokenizer.name if tokenizer.file == tokenizer.name else f"{tokenizer.name} ({tokenizer.file})"
    info(f"vocab     {facts['pieces']:,} pieces and {facts['sentinels']} sentinels: {source}")
    if appended:
        info(f"vocab     appended: {appended}")
    return folder


def import_inputs(tokenizer: ImportedTokenizer, settings: VocabSettings) -> dict[str, Any]:
    """All that an imported vocabulary depends on."""
    return {
        "import": METHOD,
        "tokenizer": BYTES if settings.tokenizer == BYTES else tokenizer.sha256,
        "control_symbols": list(dict.fromkeys(settings.control_symbols)),
        **({"unknown_words": list(settings.unknown_words)} if settings.unknown_words else {}),
    }


def _list_control_pieces(names: tuple[str, ...]) -> str:
    """Names of control pieces, with the number of sentinels instead of their names."""
    others = [name for name in names if not tokenizer_json.SENTINEL.fullmatch(name)]
    sentinels = len(names) - len(others)
    return ", ".join([*others, f"{sentinels} sentinels"] if sentinels else others)


def _unused_settings(settings: VocabSettings) -> list[str]:
    """Settings for training a vocabulary that differ from their defaults."""
    default = VocabSettings()
    changed = (
        name for name in type(settings).model_fields if getattr(settings, name) != getattr(default, name)
    )
    return [f"vocab.{name}" for name in changed if name not in USED_BY_IMPORT]


def fetch_from_hub(model: str, field: str) -> Path:
    """The tokenizer's file of a model on the Hub, downloaded unless it is in the cache.

    The cache is used if the Hub cannot be reached or HF_HUB_OFFLINE is set.

    Args:
      model: see :data:`t5smith.base.hub.NAME`.
      field: the setting or flag with the name, for messages.

    Raises:
      T5smithError: no such model, revision or file, no access, or the Hub cannot be reached.
    """
    import huggingface_hub

    expected = "a folder, a tokenizer.json, a .model file, a name such as google/mt5-small, or bytes"
    name, revision = hub_name(model, field, expected)
    try:
        available = files_on_hub("model", name, field, revision)
        with hub_errors("model", name, field, revision):
            for file in (*TOKENIZER_FILES, TOKENIZER_CONFIG):
                if file not in available:
                    continue
                found = Path(huggingface_hub.hf_hub_download(name, file, revision=revision))
                if file != TOKENIZER_CONFIG or is_byt5(found):
                    return found
    except HubUnreachable as error:
        return _fetch_from_cache(name, revision, field, error)
    raise T5smithError(
        f"{name} on the Hub has no tokenizer", where=field, expected=f"one of {', '.join(TOKENIZER_FILES)}"
    )


def _fetch_from_cache(name: str, revision: str | None, field: str, error: HubUnreachable) -> Path:
    """The file in the Hub's cache; `error` says why the Hub could not be reached."""
    import huggingface_hub

    for file in (*TOKENIZER_FILES, TOKENIZER_CONFIG):
        found = huggingface_hub.try_to_load_from_cache(name, file, revision=revision)
        if isinstance(found, str) and (file != TOKENIZER_CONFIG or is_byt5(Path(found))):
            return Path(found)
    raise not_fetched(name, field, error) from None
