"""From text to a vocabulary: SentencePiece-style Unigram pieces with T5's normalisation and sentinels.

Two runs on the same text write the same bytes. The trainer of the tokenizers library sums in the order of a
hash table whose seed differs from process to process: which pieces it finds does not change, but their
scores do, in the eleventh digit, and those of characters that no text needs are dealt out in that order.
So scores are rounded, such characters share the lowest score, and equal scores are sorted by piece.
"""

from __future__ import annotations

import itertools
import json
import random
import re
import threading
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from t5smith.base import artifact
from t5smith.base.lock import in_run_folder
from t5smith.base.progress import Bar, info, progress, warn
from t5smith.recipe.recipe import Recipe
from t5smith.recipe.symbols import CONTROL_WORD
from t5smith.recipe.vocab import VocabSettings
from t5smith.text.cleaning.pipeline import cleaning_inputs
from t5smith.text.corpus import CorpusFiles
from t5smith.text.fingerprints import file_size
from t5smith.text.skipped_records import SkippedRecords
from t5smith.vocabulary.alphabet import BYTE_NAMES, too_small
from t5smith.vocabulary.import_tokenizer import imported
from t5smith.vocabulary.normalizers import SPACE, normalizer, pre_tokenizer
from t5smith.vocabulary.sample import Sample
from t5smith.vocabulary.tokenizer_json import EOS, PAD, SENTINEL_NAMES, UNK
from t5smith.vocabulary.vocabulary import Vocabulary

METHOD = 4
"""Raised when the same text and settings would give another vocabulary than before."""

TRAINED_ON = 20_000_000
"""Characters of text whose word frequencies the trainer is given at most, see :func:`downsample_words`."""
LONGEST_WORD = 256
"""Longer runs without white space are cut for the trainer, whose time and memory grow with them."""
DECIMALS = 4
CONTROL = (PAD, EOS, UNK)

_CONTROL_PIECE = re.compile(f"{SPACE}?(?:{CONTROL_WORD.pattern})")

Scored = tuple[str, float]


@in_run_folder
def vocab(recipe: Recipe, *, files: CorpusFiles | None = None) -> Path:
    """Train the vocabulary of a recipe, or bring it in; the folder it is in. What is there is not made again.

    Held-out documents take no part.

    Args:
      recipe: names the text and the run folder.
      files: the recipe's files, if they have been found before.

    Raises:
      T5smithError: no text, more different characters than pieces, or a `vocab.tokenizer` of no use.
    """
    if recipe.vocab.tokenizer:
        return imported(recipe)
    folder = recipe.folder / "vocab"
    files = files or CorpusFiles.find(recipe.corpus)
    corpus = {name: value for name, value in files.inputs().items() if not name.startswith("valid")}
    settings = recipe.vocab.model_dump(exclude={"tokenizer"})
    inputs = {"method": METHOD, "vocab": settings, "corpus": corpus}
    inputs |= cleaning_inputs(recipe, duplicates=False)
    if found := artifact.find_up_to_date(folder, "vocab", artifact.fingerprint(inputs)):
        skipped = SkippedRecords(recipe.corpus.strict)
        skipped.merge(found.facts["skipped_records"])
        skipped.raise_if_strict()
        info(f"vocab     unchanged: {found.facts['pieces']:,} pieces in {folder}")
        return folder
    facts: dict[str, Any] = {}
    with artifact.building(folder, "vocab", inputs, facts) as work:
        size = sum(map(file_size, files.files("train")))
        with progress("vocab", size, "bytes", notes=("pieces", "stage")) as bar:
            sample = Sample(recipe, files, bar)
            trained = train_pieces(sample.chunks, recipe.vocab, bar)
            symbols = recipe.vocab.control_symbols
            vocabulary = Vocabulary(build(trained, symbols, recipe.vocab).to_str())
            pieces = vocabulary.size - len(vocabulary.sentinel_ids) - len(symbols)
            bar.advance(0, stage="", pieces=f"{pieces:,}")
        vocabulary.save(work)
        facts |= {
            "requested": recipe.vocab.size,
            "pieces": pieces,
            "ids": vocabulary.size,
            "sentinels": len(vocabulary.sentinel_ids),
            "control_symbols": len(symbols),
            "sample_bytes": sample.bytes,
            "text_bytes": sample.text_bytes,
            "documents": sample.documents,
            "dropped": sample.dropped,
            "skipped_records": sample.skipped.facts(),
        }
        sample.skipped.report()
        if facts["pieces"] < recipe.vocab.size:
            facts["why_smaller"] = why_smaller(facts, sample.chunks)
            warn(f"asked for {recipe.vocab.size:,} pieces, got {facts['pieces']:,}: {facts['why_smaller']}")
    return folder


def train_pieces(text: Iterable[str], settings: VocabSettings, bar: Bar | None = None) -> list[Scored]:
    """Pieces with their log probabilities, best first; control pieces and sentinels are not among them.

    Raises:
      T5smithError: the text has more different characters than pieces asked for, or none at all.
    """
    text = downsample_words(drop_rare_characters(list(text), settings), settings)
    tokenizer = Tokenizer(models.Unigram())
    # The trainer has a piece of this name whose score is no number, and a text with it ends in a panic.
    apart = normalizers.Replace("<UNK>", "<UNK >")
    tokenizer.normalizer = normalizers.Sequence([normalizer(settings), apart])
    cut = pre_tokenizers.Split(Regex(rf".{{1,{LONGEST_WORD}}}"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizer(settings, "always"), cut])
    size = settings.size - len(fixed(settings))
    trainer = trainers.UnigramTrainer(
        vocab_size=size,
        initial_alphabet=list(BYTE_NAMES) if settings.byte_fallback else [],
        special_tokens=list(CONTROL),
        unk_token=UNK,
        max_piece_length=settings.max_piece_length,
        # One EM round between prunings that keep 65 % does as well as the library's two and 75 %
        # (held-out bits per byte within 0.2 %), in 0.6 of the time.
        n_sub_iterations=1,
        shrinking_factor=0.65,
        show_progress=False,
    )
    _train(tokenizer, text + whole_words(text, settings), trainer, settings, bar)
    table: list[Scored] = json.loads(tokenizer.to_str())["model"]["vocab"][len(CONTROL) :]
    if len(table) + len(CONTROL) > size:
        # With room for no more than characters the library gives all it has.
        table = [entry for entry in table if len(entry[0]) == 1]
    if len(table) + len(CONTROL) > size:
        raise too_small(text, settings)
    return canonical(table)


def fixed(settings: VocabSettings) -> list[str]:
    """Pieces that are there whatever the text: bytes and user symbols."""
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)] if settings.byte_fallback else []
    return [*bytes_, *dict.fromkeys(settings.user_symbols)]


def drop_rare_characters(text: list[str], settings: VocabSettings) -> list[str]:
    """The text without its rarest characters, as far as the coverage asked for allows."""
    if settings.character_coverage == 1:
        return text
    normal = normalizer(settings)
    counts: Counter[str] = Counter()
    for stretch in text:
        counts.update(normal.normalize_str(stretch))
    room = (1 - settings.character_coverage) * counts.total()
    rare: set[str] = set()
    for character, number in sorted(counts.items(), key=lambda entry: (entry[1], entry[0])):
        if (room := room - number) < 0:
            break
        rare.add(character)
    # What is written in several ways may be rare in one of them: normalised first.
    table = dict.fromkeys(map(ord, rare - {" "}), " ")
    return [normal.normalize_str(stretch).translate(table) for stretch in text] if table else text


def downsample_words(text: list[str], settings: VocabSettings) -> list[str]:
    """The text if it is short; else its words, each as often as it would be in TRAINED_ON characters.

    The trainer's candidates begin, as far as we can tell, with a score by the number of *different*
    words they are in, single characters with one by *all* words. The more text, the more the latter
    weigh, until the pieces of the most frequent words, such as `▁er`, lose to their characters in the
    first round and are gone. So frequencies are brought down; a word that would come 0.3 times comes
    with that chance.
    """
    total = sum(map(len, text))
    if total <= TRAINED_ON:
        return text
    counts = Counter(word for stretch in text for word in stretch.split())
    share = TRAINED_ON / total
    draw = random.Random(0)
    often = {word: int(counts[word] * share + draw.random()) for word in sorted(counts)}
    # Letters in parts are joined, and the parts of one may all be there without it.
    normal = normalizer(settings)
    letters = {word: word if word.isascii() else normal.normalize_str(word) for word in often}
    seen = {character for word, number in often.items() if number for character in letters[word]}
    for word in often:
        if not seen.issuperset(letters[word]):
            # Every character is to be a piece, however rare.
            often[word] = 1
            seen.update(letters[word])
    return [" ".join([word] * number) for word, number in often.items() if number]


def whole_words(text: Iterable[str], settings: VocabSettings) -> list[str]:
    """Lines that make a candidate of each frequent word that no other word begins with.

    The trainer's candidates are strings that go on in two ways in the list of different words. A word
    such as `hvordan`, that nothing ever follows, is none, however frequent. So it is given once more with a
    letter after it; letters are taken in turn, for any one of them to stay as rare as it is.
    """
    counts = Counter(word for stretch in text for word in stretch.split())
    normal = normalizer(settings)
    words: Counter[str] = Counter()
    for word, number in counts.items():
        for part in normal.normalize_str(word).split():
            words[part] += number
    ordered = sorted(words)
    longest = settings.max_piece_length - len(SPACE)
    alone = [
        word
        for word, following in itertools.pairwise((*ordered, ""))
        if words[word] > 1 and len(word) <= longest and not following.startswith(word)
    ]
    alone = sorted(sorted(alone, key=lambda word: -words[word])[: settings.size])
    letters = itertools.cycle(
        sorted({letter for word in words for letter in word if letter.isalpha()}) or [""]
    )
    lines = (word + letter for word, letter in zip(alone, letters, strict=False))
    return [line for line in lines if normal.normalize_str(line) == line]


def _train(
    tokenizer: Tokenizer,
    text: list[str],
    trainer: trainers.UnigramTrainer,
    settings: VocabSettings,
    bar: Bar | None,
) -> None:
    """Train in a thread of its own, so that Ctrl-C works and the display shows the time."""
    failure: list[BaseException] = []

    def work() -> None:
        try:
            tokenizer.train_from_iterator(text, trainer)
        except BaseException as error:  # the library's panics are not Exceptions
            failure.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.5)
        if bar:
            bar.advance(0, stage="training")
    if failure and "not large enough" in str(failure[0]):
        raise too_small(text, settings) from None
    if failure:
        raise failure[0]


def canonical(table: Iterable[Scored]) -> list[Scored]:
    """The same pieces with scores and order that do not depend on how the trainer summed."""
    scores = {piece: score for piece, score in table if not _CONTROL_PIECE.fullmatch(piece)}
    lowest = min(scores.values(), default=0.0)
    # The trainer adds characters that no word needed by the steps of 0.0001 above the lowest score.
    reach = lowest + 1e-4 * sum(len(piece) == 1 for piece in scores)
    for piece, score in scores.items():
        scores[piece] = round(lowest if len(piece) == 1 and score <= reach else score, DECIMALS)
    return sorted(scores.items(), key=lambda entry: (-entry[1], entry[0]))


def build(
    pieces: Iterable[Scored], control_symbols: Iterable[str] = (), settings: VocabSettings | None = None
) -> Tokenizer:
    """A tokenizer laid out as T5's: `<pad>`, `</s>`, `<unk>`, the pieces, then the sentinels, highest first.

    Bytes and user symbols come before the pieces, control symbols before the sentinels; a piece that is
    called like one of them is left out.

    A sentinel strips_left white space before it but none after it, and `▁` is put before a text only where it
    begins. So text with sentinels gets the ids of training: `rød<extra_id_0> og` opens a word at ` og` alone.
    """
    settings = settings or VocabSettings()
    symbols = tuple(dict.fromkeys(control_symbols))
    named = [(name, 0.0) for name in (*CONTROL, *symbols, *SENTINEL_NAMES)]
    there = fixed(settings)
    own = [entry for entry in pieces if entry[0] not in {*symbols, *there}]
    # Below whatever a byte's name in a text is worth as characters: it is not the byte.
    lowest = 10 * min((score for _, score in own), default=-1.0)
    table = [*named[: len(CONTROL)], *((name, lowest) for name in there), *own, *named[len(CONTROL) :]]
    tokenizer = Tokenizer(
        models.Unigram(table, unk_id=CONTROL.index(UNK), byte_fallback=settings.byte_fallback)
    )
    tokenizer.normalizer = normalizer(settings)
    tokenizer.pre_tokenizer = pre_tokenizer(settings, "first")
    spaces = decoders.Metaspace(SPACE, prepend_scheme="first")
    bytes_ = [decoders.ByteFallback(), decoders.Fuse()] if settings.byte_fallback else []
    tokenizer.decoder = decoders.Sequence([*bytes_, spaces]) if bytes_ else spaces
    tokenizer.add_tokens(
        [AddedToken(name, special=False, normalized=False) for name in dict.fromkeys(settings.user_symbols)]
    )
    special = [AddedToken(name, special=True, normalized=False) for name in (*CONTROL, *symbols)]
    special += [AddedToken(name, special=True, normalized=False, lstrip=True) for name in SENTINEL_NAMES]
    tokenizer.add_special_tokens(special)
    return tokenizer


def why_smaller(facts: dict[str, Any], sample: Iterable[str]) -> str:
    """Why there are fewer pieces than asked for, in words a person can act on."""
    words = len({word for chunk in sample for word in chunk.split()})
    return (
        f"a piece is a repeated word, or a string that two different words share, that the best "
        f"splitting of some word uses, and {facts['sample_bytes'] / 1e6:.2f} MB with {words:,} different "
        f"words have no more of them. The model's sizes follow; more text would give more pieces"
    )
