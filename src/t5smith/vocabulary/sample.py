"""The text that a vocabulary is trained on: all of it, or a part that fits a budget, drawn evenly."""

from __future__ import annotations

import heapq
import math
import random
import re
from collections.abc import Iterator

from t5smith.base.errors import T5smithError
from t5smith.base.progress import Bar, count
from t5smith.recipe.recipe import Recipe
from t5smith.recipe.symbols import CONTROL_WORD
from t5smith.recipe.vocab import VocabSettings
from t5smith.text.cleaning.pipeline import Cleaner
from t5smith.text.corpus import CorpusFiles
from t5smith.text.documents import split_documents
from t5smith.text.fingerprints import file_size
from t5smith.text.locations import split_row_range
from t5smith.text.skipped_records import SkippedRecords

CHUNK = 4_096
"""Longest stretch of text, in characters, that the trainer is given at once."""


class Sample:
    """The text to train on: all of it, or a part that fits in the byte budget, drawn evenly.

    Each chunk of a document draws a number; those with the highest stay. So one pass is enough, every
    stretch of text of a corpus has the same chance, and memory is bounded by the budget.

    Chunks are of text after the recipe's steps of cleaning. Those take long, so a document of which nothing
    would stay is left as it is: its chunks draw before they are cleaned.
    """

    def __init__(self, recipe: Recipe, files: CorpusFiles, bar: Bar) -> None:
        self.documents = self.text_bytes = self.bytes = 0
        draw = random.Random(recipe.vocab.seed)
        heap: list[tuple[float, int, str]] = []
        number = 0
        weights = _weights(recipe.vocab, files)
        symbols = _symbols(recipe.vocab)

        def on_bytes(amount: int) -> None:
            bar.advance(amount, documents=count(self.documents))

        self.skipped = SkippedRecords(recipe.corpus.strict)
        cleaner = Cleaner(recipe)
        tallies = cleaner.tallies()
        # What draws no more than this does not stay.
        floor = -math.inf
        for document in split_documents(files, "train", on_bytes, self.skipped):
            self.documents += 1
            weight = weights[document.file] if weights else 1.0
            found = list(chunks(document.text, symbols))
            # The largest of these are a sample in which a chunk of weight 2 is drawn twice as readily
            # (Efraimidis and Spirakis, 2006).
            drawn = [math.log1p(-draw.random()) / weight for _ in found]
            if cleaner.names and (floor == -math.inf or max(drawn, default=floor) > floor):
                text = cleaner.clean(document, tallies) or ""
                found = list(chunks(text, symbols))
                drawn += [math.log1p(-draw.random()) / weight for _ in found[len(drawn) :]]
            for key, chunk in zip(drawn, found, strict=False):
                number += 1
                self.text_bytes += (size := len(chunk.encode()))
                if key <= floor:
                    continue
                heapq.heappush(heap, (key, number, chunk))
                self.bytes += size
                while self.bytes > recipe.vocab.sample_bytes and len(heap) > 1:
                    floor, _, gone = heapq.heappop(heap)
                    self.bytes -= len(gone.encode())
        if not any(chunk.strip() for _, _, chunk in heap):
            fix = "name files with text, or lower corpus.held_out_fraction"
            raise T5smithError("the text to train on is empty", where="corpus.train", fix=fix)
        self.dropped = sum(tally.dropped.total() for tally in tallies)
        self.chunks = [chunk for _, _, chunk in sorted(heap, key=lambda entry: entry[1])]


def _weights(settings: VocabSettings, files: CorpusFiles) -> dict[str, float]:
    """How readily text of each file is drawn, for corpora to have the shares that the temperature gives.

    At a temperature of 1 all text is alike, and nothing is said of any file.
    """
    if settings.temperature == 1:
        return {}
    sizes = {name: max(sum(map(file_size, own)), 1) for name, own in files.train.items()}
    power = 1 / settings.temperature - 1
    return {
        split_row_range(str(file))[0]: sizes[name] ** power
        for name, own in files.train.items()
        for file in own
    }


def _symbols(settings: VocabSettings) -> re.Pattern[str]:
    """What no piece is learned from: control words, and symbols that are pieces anyway."""
    longest_first = sorted(set(settings.user_symbols), key=len, reverse=True)
    return re.compile("|".join([CONTROL_WORD.pattern, *map(re.escape, longest_first)]))


def chunks(text: str, symbols: re.Pattern[str] = CONTROL_WORD) -> Iterator[str]:
    """A document in stretches of at most CHUNK characters, cut at white space if there is any.

    Control words in it are left out: a piece that is called `</s>` could not be told from the real one.
    """
    text = symbols.sub(" ", text)
    start = 0
    while len(text) - start > CHUNK:
        end = max(text.rfind(" ", start, start + CHUNK), text.rfind("\n", start, start + CHUNK))
        end = start + CHUNK if end <= start else end
        yield text[start:end]
        start = end
    if start < len(text):
        yield text[start:]
