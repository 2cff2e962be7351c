"""From text to a vocabulary: SentencePiece-style Unigram pieces with T5's normalisation and sentinels.

Two runs on the same text write the same bytes. The trainer of the tokenizers library sums in the order of a
hash table whose seed differs from process to process: which pieces it finds does not change, but their
scores do, in the eleventh digit, and those of characters that no text needs are dealt out in that order.
So scores are rounded, such characters share the lowest score, and equal scores are sorted by piece.
"""

from __future__ import annotations

import heapq
import itertools
import json
import random
import re
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from t5smith import artefact
from t5smith.corpus.sources import inputs, resolve, split_documents
from t5smith.errors import T5smithError
from t5smith.lock import in_run_folder
from t5smith.progress import Bar, count, progress, say, warn
from t5smith.recipe import SENTINELS, Recipe, VocabSettings
from t5smith.vocab.normalizers import SPACE, normalizer
from t5smith.vocab.vocabulary import EOS, PAD, UNK, Vocabulary

METHOD = 1
"""Raised when the same text and settings would give another vocabulary than before."""

CHUNK = 4_096
"""Longest stretch of text, in characters, that the trainer is given at once."""
LONGEST_WORD = 256
"""Longer runs without white space are cut for the trainer, whose time and memory grow with them."""
DECIMALS = 4
CONTROL = (PAD, EOS, UNK)
SENTINEL_NAMES = tuple(f"<extra_id_{i}>" for i in reversed(range(SENTINELS)))
"""In the order of their ids: `<extra_id_0>` has the highest."""

_CONTROL_WORD = re.compile(r"</s>|<pad>|<unk>|<extra_id_[0-9]+>")
_CONTROL_PIECE = re.compile(f"{SPACE}?(?:{_CONTROL_WORD.pattern})")

Scored = tuple[str, float]


@in_run_folder
def vocab(recipe: Recipe) -> Path:
    """Train the vocabulary of a recipe; the folder it is in. Nothing is done if it is there already.

    Held-out documents take no part.

    Raises:
      T5smithError: no text, or more different characters than pieces.
    """
    folder = recipe.folder / "vocab"
    corpus = inputs(recipe.corpus)
    corpus.pop("valid", None)
    made_from = {"method": METHOD, "vocab": recipe.vocab.model_dump(), "corpus": corpus}
    if found := artefact.find_current(folder, "vocab", artefact.fingerprint(made_from)):
        say(f"vocab     unchanged: {found.facts['pieces']:,} pieces in {folder}")
        return folder
    facts: dict[str, Any] = {}
    with artefact.building(folder, "vocab", made_from, facts) as work:
        size = sum(path.stat().st_size for path in resolve(recipe.corpus.train, "corpus.train"))
        with progress("vocab", size, "bytes") as bar:
            sample = Sample(recipe, bar)
            pieces = train_pieces(sample.chunks, recipe.vocab, bar)
            bar.advance(0, stage="done", pieces=f"{len(pieces) + len(CONTROL):,}")
        vocabulary = Vocabulary(build(pieces, recipe.vocab.control_symbols).to_str())
        vocabulary.save(work)
        facts |= {
            "asked": recipe.vocab.size,
            "pieces": len(pieces) + len(CONTROL),
            "ids": vocabulary.size,
            "sentinels": len(vocabulary.sentinel_ids),
            "control_symbols": len(set(recipe.vocab.control_symbols)),
            "sample_bytes": sample.bytes,
            "text_bytes": sample.text_bytes,
            "documents": sample.documents,
        }
        if facts["pieces"] < recipe.vocab.size:
            facts["why_smaller"] = why_smaller(facts, sample.chunks)
            warn(f"asked for {recipe.vocab.size:,} pieces, got {facts['pieces']:,}: {facts['why_smaller']}")
    return folder


class Sample:
    """The text to train on: all of it, or a part that fits in the byte budget, drawn evenly.

    Each chunk of a document draws a number; those with the lowest stay. So one pass is enough, every
    stretch of text has the same chance, and memory is bounded by the budget.
    """

    def __init__(self, recipe: Recipe, bar: Bar) -> None:
        self.documents = self.text_bytes = self.bytes = 0
        draw = random.Random(0)
        heap: list[tuple[float, int, str]] = []
        number = 0

        def on_bytes(amount: int) -> None:
            bar.advance(amount, documents=count(self.documents))

        for document in split_documents(recipe, "train", on_bytes):
            self.documents += 1
            for chunk in chunks(document.text):
                number += 1
                heapq.heappush(heap, (-draw.random(), number, chunk))
                self.text_bytes += (size := len(chunk.encode()))
                self.bytes += size
                while self.bytes > recipe.vocab.sample_bytes and len(heap) > 1:
                    self.bytes -= len(heapq.heappop(heap)[2].encode())
        if not any(chunk.strip() for _, _, chunk in heap):
            fix = "name files with text, or lower corpus.held_out_fraction"
            raise T5smithError("the text to train on is empty", where="corpus.train", fix=fix)
        self.chunks = [chunk for _, _, chunk in sorted(heap, key=lambda entry: entry[1])]


def chunks(text: str) -> Iterator[str]:
    """A document in stretches of at most CHUNK characters, cut at white space if there is any.

    Control words in it are left out: a piece that is called `</s>` could not be told from the real one.
    """
    text = _CONTROL_WORD.sub(" ", text)
    start = 0
    while len(text) - start > CHUNK:
        end = max(text.rfind(" ", start, start + CHUNK), text.rfind("\n", start, start + CHUNK))
        end = start + CHUNK if end <= start else end
        yield text[start:end]
        start = end
    if start < len(text):
        yield text[start:]


def train_pieces(text: Iterable[str], settings: VocabSettings, bar: Bar | None = None) -> list[Scored]:
    """Pieces with their log probabilities, best first; control pieces and sentinels are not among them.

    Raises:
      T5smithError: the text has more different characters than pieces asked for, or none at all.
    """
    text = list(text)
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizer()
    cut = pre_tokenizers.Split(Regex(rf".{{1,{LONGEST_WORD}}}"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([_metaspace("always"), cut])
    trainer = trainers.UnigramTrainer(
        vocab_size=settings.size,
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
    if len(table) + len(CONTROL) > settings.size:
        # Every character must be a piece. The library checks that too late and then returns more than asked.
        raise _too_small(settings)
    return canonical(table)


def whole_words(text: Iterable[str], settings: VocabSettings) -> list[str]:
    """Lines that make a candidate of each frequent word that no other word begins with.

    The trainer's candidates are strings that go on in two ways in the list of different words. A word
    such as `hvordan`, that nothing ever follows, is none, however frequent. So it is given once more with a
    letter after it; letters are taken in turn, for any one of them to stay as rare as it is.
    """
    counts = Counter(word for stretch in text for word in stretch.split())
    normal = normalizer()
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
        raise _too_small(settings) from None
    if failure:
        raise failure[0]


def _too_small(settings: VocabSettings) -> T5smithError:
    return T5smithError(
        f"{settings.size:,} pieces are too few: each different character of the text needs one",
        where="vocab.size",
        fix="raise vocab.size, or take out text in foreign scripts",
    )


def canonical(table: Iterable[Scored]) -> list[Scored]:
    """The same pieces with scores and order that do not depend on how the trainer summed."""
    scores = {piece: score for piece, score in table if not _CONTROL_PIECE.fullmatch(piece)}
    lowest = min(scores.values(), default=0.0)
    # The trainer adds characters that no word needed by the steps of 0.0001 above the lowest score.
    reach = lowest + 1e-4 * sum(len(piece) == 1 for piece in scores)
    for piece, score in scores.items():
        scores[piece] = round(lowest if len(piece) == 1 and score <= reach else score, DECIMALS)
    return sorted(scores.items(), key=lambda entry: (-entry[1], entry[0]))


def build(pieces: Iterable[Scored], control_symbols: Iterable[str] = ()) -> Tokenizer:
    """A tokenizer laid out as T5's: `<pad>`, `</s>`, `<unk>`, the pieces, then the sentinels, highest first.

    Control symbols stand before the sentinels; a piece that is called like one is left out.

    A sentinel swallows white space before it but none after it, and `▁` is put before a text only where it
    begins. So text with sentinels gets the ids of training: `rød<extra_id_0> og` opens a word at ` og` alone.
    """
    symbols = tuple(dict.fromkeys(control_symbols))
    named = [(name, 0.0) for name in (*CONTROL, *symbols, *SENTINEL_NAMES)]
    own = [entry for entry in pieces if entry[0] not in symbols]
    table = [*named[: len(CONTROL)], *own, *named[len(CONTROL) :]]
    tokenizer = Tokenizer(models.Unigram(table, unk_id=CONTROL.index(UNK), byte_fallback=False))
    tokenizer.normalizer = normalizer()
    tokenizer.pre_tokenizer = _metaspace("first")
    tokenizer.decoder = decoders.Metaspace(SPACE, prepend_scheme="first")
    special = [AddedToken(name, special=True, normalized=False) for name in (*CONTROL, *symbols)]
    special += [AddedToken(name, special=True, normalized=False, lstrip=True) for name in SENTINEL_NAMES]
    tokenizer.add_special_tokens(special)
    return tokenizer


def _metaspace(prepend_scheme: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Metaspace(SPACE, prepend_scheme=prepend_scheme)


def why_smaller(facts: dict[str, Any], sample: Iterable[str]) -> str:
    """Why there are fewer pieces than asked for, in words a person can act on."""
    words = len({word for chunk in sample for word in chunk.split()})
    return (
        f"a piece is a repeated word, or a string that two different words share, that the best "
        f"splitting of some word uses, and {facts['sample_bytes'] / 1e6:.2f} MB with {words:,} different "
        f"words have no more of them. The model's sizes follow; more text would give more pieces"
    )
