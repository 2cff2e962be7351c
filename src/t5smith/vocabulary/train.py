"""The vocabulary stage: train a SentencePiece-style Unigram vocabulary with T5's sentinels, or import one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models

from t5smith.base import artifact
from t5smith.base.artifact import fingerprint
from t5smith.base.errors import T5smithError
from t5smith.base.lock import in_run_folder
from t5smith.base.phase import phase
from t5smith.base.progress import count, info, progress, warn
from t5smith.base.run_folder import differences, up_to_date
from t5smith.recipe.recipe import Recipe
from t5smith.recipe.toml import save_run_settings
from t5smith.recipe.vocab import VocabSettings
from t5smith.text.cleaning.exclusion import STEP
from t5smith.text.cleaning.pipeline import cleaning_inputs
from t5smith.text.corpus import CorpusFiles
from t5smith.text.fingerprints import bytes_to_read
from t5smith.text.skipped_records import SkippedRecords
from t5smith.vocabulary.import_tokenizer import import_vocabulary
from t5smith.vocabulary.normalizers import SPACE, check_symbols_survive, normalizer, pre_tokenizer
from t5smith.vocabulary.sample import TextSample
from t5smith.vocabulary.tokenizer_json import CONTROL, SENTINEL_NAMES, UNK, symbol_score
from t5smith.vocabulary.unigram import ScoredPiece, reserved_pieces, train_pieces
from t5smith.vocabulary.vocabulary import Vocabulary

MEASURED_BYTES = 2_000_000
"""About the size of the part of the sample that is encoded to know how often pieces occur."""
ENOUGH_OCCURRENCES = 50
"""A vocabulary whose pieces occur less often in the training text, on average, gives a warning."""
SMALLEST = 1_000
"""A smaller vocabulary is not recommended."""
FILES, HELD_OUT = ("train", "corpora", "exclude"), "held_out_fraction"
"""Inputs of a corpus that other files change. A trained vocabulary does not depend on them."""
METHOD = 4
"""Increase when the same text and settings give another vocabulary than before. With user symbols it is one
more."""


@in_run_folder
def vocab(
    recipe: Recipe, *, files: CorpusFiles | None = None, restart: bool = False, retrain_vocab: bool = False
) -> Path:
    """Train the vocabulary of a recipe on its training documents, or import `vocab.tokenizer`.

    Nothing is done if the vocabulary exists and its settings are unchanged. It is kept when files of the text
    are added, removed or changed; its manifest has those that it was learned from.

    Args:
      recipe: names the text and the run folder.
      files: the recipe's files, if they have been found before.
      restart: archive trained steps if they need another vocabulary than the recipe's.
      retrain_vocab: train it again if it was learned from other files.

    Returns:
      The vocabulary's folder.

    Raises:
      TrainingAtStake: steps are trained with a vocabulary of other settings or other text.
      T5smithError: no text, more different characters than pieces, or an unusable `vocab.tokenizer`.
    """
    if recipe.vocab.tokenizer:
        return import_vocabulary(recipe, restart=restart)
    check_symbols_survive(recipe.vocab)
    folder = recipe.folder / "vocab"
    files = files or CorpusFiles.find(recipe.corpus)
    inputs = vocab_inputs(recipe, files.inputs())
    kept = inputs if retrain_vocab else with_text_of(recorded_vocab_inputs(folder), inputs)
    if found := up_to_date(folder, "vocab", kept, restart=restart):
        changed = text_changes(found.inputs, inputs)
        if not changed:
            skipped = SkippedRecords(recipe.corpus.strict)
            skipped.merge(found.facts["skipped_records"])
            skipped.raise_if_strict()
        save_run_settings(recipe, "vocab")
        state = f"kept ({changed}; --retrain-vocab trains it again)" if changed else "unchanged"
        info(f"vocab     {state}: {found.facts['pieces']:,} pieces in {folder}")
        return folder
    if recipe.vocab.keep_whitespace and "c4" in recipe.cleaning.steps:
        warn("the cleaning step c4 strips lines and drops blank ones, also with vocab.keep_whitespace")
    facts: dict[str, Any] = {"requested": recipe.vocab.size}
    with artifact.building(folder, "vocab", inputs, facts) as work:
        size = sum(map(bytes_to_read, files.files("train")))
        with progress("vocab", size or None, "bytes") as bar:
            sample = TextSample(recipe, files, bar)
        pieces = train_pieces(sample.chunks, recipe.vocab)
        vocabulary = Vocabulary(build(pieces, recipe.vocab.control_symbols, recipe.vocab).to_str())
        facts |= vocabulary.size_facts(len(recipe.vocab.control_symbols))
        vocabulary.save(work)
        facts |= sample.facts()
        with phase("vocab", "measuring", at_once=False):
            facts["occurrences_per_piece"] = round(occurrences(vocabulary, sample) / facts["pieces"], 1)
        sample.skipped.report()
        info(f"vocab     {facts['pieces']:,} pieces from {count(facts['text_bytes'])}B of text")
        warn_of_rare_pieces(facts)
        if facts["pieces"] < recipe.vocab.size:
            facts["why_smaller"] = why_smaller(facts, sample.chunks)
            warn(f"{facts['pieces']:,} pieces ({recipe.vocab.size:,} requested): {facts['why_smaller']}")
    save_run_settings(recipe, "vocab")
    return folder


def vocab_inputs(recipe: Recipe, corpus: Mapping[str, Any]) -> dict[str, Any]:
    """All that a trained vocabulary depends on; `corpus` are the inputs of :class:`CorpusFiles`."""
    corpus = {name: value for name, value in corpus.items() if not name.startswith("valid")}
    settings = recipe.vocab.inputs()
    return {
        "method": METHOD + bool(recipe.vocab.user_symbols),
        "vocab": settings,
        "corpus": corpus,
        **cleaning_inputs(recipe, duplicates=False),
    }


def recorded_vocab_inputs(folder: Path) -> dict[str, Any]:
    """The inputs of the vocabulary in a folder; empty without one."""
    try:
        return artifact.read_manifest(folder, "vocab", check_hashes=False).inputs
    except T5smithError:
        return {}


def with_text_of(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs `now` with the files that an existing vocabulary was learned from: other files keep it.

    Args:
      before: inputs of the existing vocabulary; one that was imported was learned from no file.
      now: inputs of the recipe's.
    """
    if "corpus" not in before or "corpus" not in now:
        return dict(now)
    old, new = before["corpus"], now["corpus"]
    # Files that are named in `corpus.valid` hold out instead of a share of the documents.
    names = FILES if ("held_out_fraction" in old) == ("held_out_fraction" in new) else (*FILES, HELD_OUT)
    text = {name: value for name, value in old.items() if name in names}
    kept = {STEP: before[STEP]} if STEP in before else {}
    now = {name: value for name, value in now.items() if name != STEP} | kept
    return {**now, "corpus": {**{k: v for k, v in new.items() if k not in names}, **text}}


def text_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The files in which two inputs of a vocabulary differ, in words; empty: none, or more than files."""
    if fingerprint(with_text_of(before, now)) != fingerprint(before):
        return ""
    return ", ".join(differences(before, now))


def occurrences(vocabulary: Vocabulary, sample: TextSample) -> float:
    """The number of tokens of all training text, by what a part of the sample has per byte."""
    encoder = vocabulary.bulk_encoder(np.dtype(np.uint32))
    part = sample.chunks[:: -(-sample.bytes // MEASURED_BYTES)]
    tokens = sum(len(encoder.encode(chunk)) for chunk in part) / np.dtype(np.uint32).itemsize
    return tokens / sum(len(chunk.encode()) for chunk in part) * sample.text_bytes


def warn_of_rare_pieces(facts: Mapping[str, Any]) -> None:
    """Warn if the text is too short for its vocabulary, and name a size that suits it."""
    rate = facts["occurrences_per_piece"]
    if rate >= ENOUGH_OCCURRENCES:
        return
    # Fewer pieces are shorter, so they occur a little more often than this.
    suits = facts["pieces"] * rate / ENOUGH_OCCURRENCES
    digits = 2 - len(f"{suits:.0f}")
    advice = f"vocab.size = {round(suits, digits):.0f} suits this text" if suits >= SMALLEST else "add text"
    warn(
        f"{facts['pieces']:,} pieces from {count(facts['text_bytes'])}B of text: each occurs {rate:.0f} "
        f"times on average, and a model needs about {ENOUGH_OCCURRENCES} or more to learn one; {advice}"
    )


def build(
    pieces: Iterable[ScoredPiece], control_symbols: Iterable[str] = (), settings: VocabSettings | None = None
) -> Tokenizer:
    """A tokenizer with ids as in T5: `<pad>`, `</s>`, `<unk>`, pieces, then sentinels, `<extra_id_0>` last.

    Bytes and user symbols come before the trained pieces, control symbols before the sentinels. A trained
    piece with the name of one of them is dropped, and so is one with a user symbol in it.

    A user symbol is a piece as any other, whose score makes it preferred as in SentencePiece. (An added token
    would cut the text, and the space before it would be lost.)

    A sentinel strips the white space before it but not after it, and `▁` is prepended only at the beginning
    of a text. So text with sentinels gets the ids of training: in `rød<extra_id_0> og` only ` og` starts a
    word. With `keep_whitespace` normalization drops one space before a sentinel, and nothing is prepended.
    """
    settings = settings or VocabSettings()
    symbols = tuple(dict.fromkeys(control_symbols))
    reserved = reserved_pieces(settings)
    trained = [
        (name, score)
        for name, score in pieces
        if name not in {*symbols, *reserved} and not any(own in name for own in settings.user_symbols)
    ]
    # Lower than its name spelled in characters, so that `<0x41>` typed in a text is not the byte.
    reserved_score = 10 * min((score for _, score in trained), default=-1.0)
    table: list[ScoredPiece] = [
        *((name, 0.0) for name in CONTROL),
        *(
            (name, symbol_score(name) if name in settings.user_symbols else reserved_score)
            for name in reserved
        ),
        *trained,
        *((name, 0.0) for name in (*symbols, *SENTINEL_NAMES)),
    ]
    tokenizer = Tokenizer(
        models.Unigram(table, unk_id=CONTROL.index(UNK), byte_fallback=settings.byte_fallback)
    )
    tokenizer.normalizer = normalizer(settings)
    tokenizer.pre_tokenizer = pre_tokenizer(settings, "first")
    keep = settings.keep_whitespace
    metaspace = decoders.Metaspace(SPACE, prepend_scheme="never" if keep else "first")
    tokenizer.decoder = metaspace
    if settings.byte_fallback:
        tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse(), metaspace])
    # Found after normalization, <unk> does not cut the text before it, and other words have become <unk>.
    found_late = {UNK} if settings.unknown_words else set[str]()
    special = [AddedToken(name, special=True, normalized=name in found_late) for name in (*CONTROL, *symbols)]
    special += [AddedToken(name, special=True, normalized=False, lstrip=not keep) for name in SENTINEL_NAMES]
    tokenizer.add_special_tokens(special)
    return tokenizer


def why_smaller(facts: dict[str, Any], sample: Iterable[str]) -> str:
    """Why there are fewer pieces than requested, and what gives more."""
    words = len({word for chunk in sample for word in chunk.split()})
    return (
        f"{facts['sample_bytes'] / 1e6:.2f} MB of text with {words:,} different words have no more. A piece "
        f"is a repeated word, or a string that two different words share, and some word's best segmentation "
        f"uses it. The model's vocabulary becomes smaller too; more text gives more pieces"
    )
