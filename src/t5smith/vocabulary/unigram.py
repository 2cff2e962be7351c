"""Training the pieces of a Unigram vocabulary from text.

The same text gives the same pieces and scores. The trainer of the tokenizers library sums in the order of a
hash table whose seed differs between processes. That does not change which pieces it finds, but it changes
the eleventh digit of their scores, and the scores of characters that no word needs, which it numbers in that
order. So scores are rounded, such characters share the lowest score, and equal scores are sorted by piece.
"""

from __future__ import annotations

import itertools
import json
import random
import re
import threading
from collections import Counter
from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from t5smith.base.phase import phase
from t5smith.recipe.symbols import CONTROL_WORD
from t5smith.recipe.vocab import VocabSettings
from t5smith.vocabulary import white_space
from t5smith.vocabulary.normalizers import (
    SPACE,
    always_pieces,
    normalizer,
    pre_tokenizer,
    size_error,
    symbol_pattern,
)
from t5smith.vocabulary.tokenizer_json import CONTROL, UNK

MAX_TRAINING_CHARACTERS = 20_000_000
"""Above this many characters of text its word frequencies are scaled down, see :func:`downsample_words`."""
MAX_WORD_LENGTH = 256
"""Longer runs without white space are cut for the trainer, whose time and memory grow with them."""
SCORE_DECIMALS = 4

_CONTROL_PIECE = re.compile(f"{SPACE}?(?:{CONTROL_WORD.pattern})")

ScoredPiece = tuple[str, float]
"""A piece and its log probability."""


def train_pieces(text: Iterable[str], settings: VocabSettings) -> list[ScoredPiece]:
    """Train pieces, best first, without control pieces, sentinels and :func:`reserved_pieces`.

    Raises:
      T5smithError: the text has more different characters than `vocab.size` has room for.
    """
    with phase("vocab", "counting words", at_once=False):
        text = downsample_words(drop_rare_characters(list(text), settings), settings)
        extra = whole_words(text, settings)
    tokenizer = Tokenizer(models.Unigram())
    # The trainer has a piece of this name with a score of NaN, and panics if the text contains it.
    break_unk = normalizers.Replace("<UNK>", "<UNK >")
    tokenizer.normalizer = normalizers.Sequence([normalizer(settings, drop_last_space=False), break_unk])
    cut = pre_tokenizers.Split(Regex(rf"[\s\S]{{1,{MAX_WORD_LENGTH}}}"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizer(settings, "always", without_symbols=True), cut]
    )
    runs: list[str] = []
    if settings.keep_whitespace:
        counts = _counted_words(text, settings)
        runs = white_space.frequent_runs(counts, settings.size, settings.max_piece_length)
    size = settings.size - len(reserved_pieces(settings)) - len(runs)
    trainer = trainers.UnigramTrainer(
        vocab_size=size,
        initial_alphabet=always_pieces(settings),
        special_tokens=list(CONTROL),
        unk_token=UNK,
        max_piece_length=settings.max_piece_length,
        # One EM round between prunings that keep 65 % does as well as the library's two and 75 %
        # (held-out bits per byte within 0.2 %), in 0.6 of the time.
        n_sub_iterations=1,
        shrinking_factor=0.65,
        show_progress=False,
    )
    # The library does not say how far it is.
    with phase("vocab", f"training {settings.size:,} pieces", at_once=False):
        _train(tokenizer, text + extra, trainer, settings)
    pieces: list[ScoredPiece] = json.loads(tokenizer.to_str())["model"]["vocab"][len(CONTROL) :]
    if len(pieces) + len(CONTROL) > size:
        # If there is room for single characters only, the library returns more pieces than requested.
        pieces = [entry for entry in pieces if len(entry[0]) == 1]
    if len(pieces) + len(CONTROL) > size:
        raise size_error(text, settings)
    pieces = canonical(pieces)
    return canonical([*pieces, *white_space.scored_runs(runs, dict(pieces))])


def reserved_pieces(settings: VocabSettings) -> list[str]:
    """Pieces that do not depend on the text: bytes and user symbols."""
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)] if settings.byte_fallback else []
    return [*bytes_, *dict.fromkeys(settings.user_symbols)]


def drop_rare_characters(text: list[str], settings: VocabSettings) -> list[str]:
    """The text without its rarest characters, as far as `character_coverage` allows."""
    if settings.character_coverage == 1:
        return text
    normal = normalizer(settings)
    # User symbols need no characters, and lose none. Stretches of other text have even numbers.
    symbols = symbol_pattern(settings)
    stretches = re.compile(f"({symbols})").split if symbols else lambda part: [part]
    counts: Counter[str] = Counter()
    for part in text:
        counts.update("".join(stretches(normal.normalize_str(part))[::2]))
    room = (1 - settings.character_coverage) * counts.total()
    rare: set[str] = set()
    for character, number in sorted(counts.items(), key=lambda entry: (entry[1], entry[0])):
        if (room := room - number) < 0:
            break
        rare.add(character)
    # Normalized first: a character that is written in several ways may be rare in one of them only.
    table = dict.fromkeys(map(ord, rare - {" ", *white_space.BREAKS}), " ")
    if not table:
        return text
    return [
        "".join(
            stretch if i % 2 else stretch.translate(table)
            for i, stretch in enumerate(stretches(normal.normalize_str(part)))
        )
        for part in text
    ]


def downsample_words(text: list[str], settings: VocabSettings) -> list[str]:
    """A short text as it is; of a longer one its words, as often as in MAX_TRAINING_CHARACTERS of it.

    The trainer seems to score a candidate by the number of *different* words that contain it, but single
    characters by *all* words. So the longer the text, the more characters weigh, until pieces of the most
    frequent words, such as `▁er`, lose to their characters in the first round and are gone. Therefore
    frequencies are scaled down; a word with an expected count of 0.3 is kept with probability 0.3.
    """
    total = sum(map(len, text))
    if total <= MAX_TRAINING_CHARACTERS:
        return text
    counts = _counted_words(text, settings)
    share = MAX_TRAINING_CHARACTERS / total
    rng = random.Random(0)
    scaled = {word: int(counts[word] * share + rng.random()) for word in sorted(counts)}
    # Decomposed letters are composed: the parts of a letter may all occur without the letter.
    normal = normalizer(settings)
    letters = {word: word if word.isascii() else normal.normalize_str(word) for word in scaled}
    seen = {character for word, number in scaled.items() if number for character in letters[word]}
    for word in scaled:
        if not seen.issuperset(letters[word]):
            # Every character must become a piece, however rare.
            scaled[word] = 1
            seen.update(letters[word])
    if settings.keep_whitespace:
        return [part for word, number in scaled.items() for part in white_space.repeated(word, number)]
    return [" ".join([word] * number) for word, number in scaled.items() if number]


def _counted_words(text: Iterable[str], settings: VocabSettings) -> Counter[str]:
    """How often each raw word occurs, or with `keep_whitespace` each normalized unit."""
    if settings.keep_whitespace:
        return white_space.counted_units(text, normalizer(settings, drop_last_space=False))
    return Counter(word for part in text for word in part.split())


def whole_words(text: Iterable[str], settings: VocabSettings) -> list[str]:
    """Extra lines that make each frequent word a candidate, if no other word begins with it.

    The trainer's candidates are strings that continue in two different ways in the list of different words.
    A word such as `hvordan`, which nothing ever continues, is not one, however frequent. So it is added once
    more with a letter after it. The letters take turns, so that none of them becomes frequent.

    What follows a user symbol in a word is a word too, which does not begin with `▁`: its line begins with a
    symbol, which the trainer removes.

    With `keep_whitespace` a word has its own `▁`.
    """
    counts = _counted_words(text, settings)
    normal = normalizer(settings)
    words: Counter[str] = Counter()
    keep = settings.keep_whitespace
    for word, number in counts.items():
        own = [] if white_space.is_run(word) else [word]
        for part in own if keep else normal.normalize_str(word).split():
            for piece in _between_symbols(part, settings):
                words[piece] += number
    ordered = sorted(words)
    longest = settings.max_piece_length - (0 if keep else len(SPACE))
    uncontinued = [
        word
        for word, following in itertools.pairwise((*ordered, ""))
        if words[word] > 1 and len(word) <= longest and not following.startswith(word)
    ]
    frequent = sorted(sorted(uncontinued, key=lambda word: -words[word])[: settings.size])
    known = {letter for word in words for letter in _without_symbols(word, settings) if letter.isalpha()}
    letters = sorted(known) or [""]
    lines = (word + letter for word, letter in zip(frequent, itertools.cycle(letters), strict=False))
    return [line for line in lines if normal.normalize_str(line).replace(" ", SPACE) == line]


def _without_symbols(text: str, settings: VocabSettings) -> str:
    symbols = symbol_pattern(settings)
    return re.sub(symbols, "", text) if symbols else text


def _between_symbols(word: str, settings: VocabSettings) -> list[str]:
    """The parts of a word before, between and after user symbols, with a symbol before all but the first."""
    symbols = symbol_pattern(settings)
    if not symbols:
        return [word]
    first, *others = re.split(symbols, word)
    symbol = (*settings.user_symbols, UNK)[0]
    return [*([first] if first else []), *(symbol + part for part in others if part)]


def _train(
    tokenizer: Tokenizer,
    text: list[str],
    trainer: trainers.UnigramTrainer,
    settings: VocabSettings,
) -> None:
    """Train in another thread, so that Ctrl-C works."""
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
    if failure and "not large enough" in str(failure[0]):
        raise size_error(text, settings) from None
    if failure:
        raise failure[0]


def canonical(pieces: Iterable[ScoredPiece]) -> list[ScoredPiece]:
    """The pieces with scores and order that do not depend on the trainer's order of summation."""
    scores = {piece: score for piece, score in pieces if not _CONTROL_PIECE.fullmatch(piece)}
    lowest = min(scores.values(), default=0.0)
    # The trainer gives characters that no word needs scores in steps of 0.0001 above the lowest one.
    unneeded_below = lowest + 1e-4 * sum(len(piece) == 1 for piece in scores)
    for piece, score in scores.items():
        unneeded = len(piece) == 1 and score <= unneeded_below
        scores[piece] = round(lowest if unneeded else score, SCORE_DECIMALS)
    return sorted(scores.items(), key=lambda entry: (-entry[1], entry[0]))
