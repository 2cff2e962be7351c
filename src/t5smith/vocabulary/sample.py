"""The text that a vocabulary is trained on: all training documents, or an even sample of them."""

from __future__ import annotations

import heapq
import math
import random
import re
from collections.abc import Iterator
from typing import Any

from t5smith.base.errors import T5smithError
from t5smith.base.progress import Bar, count
from t5smith.recipe.recipe import Recipe
from t5smith.recipe.symbols import CONTROL_WORD, KNOWN_CONTROL_WORD
from t5smith.recipe.vocab import VocabSettings
from t5smith.text.cleaning.exclusion import Exclusions
from t5smith.text.cleaning.pipeline import Cleaner
from t5smith.text.corpus import CorpusFiles
from t5smith.text.documents import no_training_text, split_documents
from t5smith.text.fingerprints import file_size
from t5smith.text.locations import split_row_range
from t5smith.text.skipped_records import SkippedRecords

MAX_CHUNK_CHARACTERS = 4_096
"""Length of the chunks that documents are cut into; they are what is sampled."""


class TextSample:
    """A sample of the cleaned training documents of at most `vocab.sample_bytes`.

    Each chunk of a document draws a random key, and the chunks with the highest keys are kept. So one pass
    is enough, every chunk of a corpus has the same chance, and memory is bounded by the budget.

    Cleaning is slow, so a document is cleaned only if one of its chunks could be kept: keys are drawn before
    it is cleaned.

    Attributes:
      chunks: the sampled text, in the order of the corpus.
      bytes: its size.
      documents, text_bytes: training documents, and UTF-8 bytes of all their chunks.
      dropped: documents that cleaning dropped.
      skipped: records that could not be read.
    """

    def __init__(self, recipe: Recipe, files: CorpusFiles, bar: Bar) -> None:
        """Read the training documents in the files of a recipe; `bar` counts bytes of files."""
        self.documents = self.text_bytes = self.bytes = 0
        rng = random.Random(recipe.vocab.seed)
        heap: list[tuple[float, int, str]] = []
        number = 0
        weights = _file_weights(recipe.vocab, files)
        control = KNOWN_CONTROL_WORD if recipe.vocab.unknown_words else CONTROL_WORD

        def on_bytes(amount: int) -> None:
            bar.advance(amount, documents=count(self.documents))

        self.skipped = SkippedRecords(recipe.corpus.strict)
        cleaner = Cleaner(recipe, Exclusions.read(recipe, files))
        tallies = cleaner.tallies()
        # A chunk with a key of at most this is not kept.
        threshold = -math.inf
        for document in split_documents(files, "train", on_bytes, self.skipped):
            self.documents += 1
            weight = weights[document.file] if weights else 1.0
            found = list(chunks(document.text, control))
            # The chunks with the largest of these keys are a sample weighted by `weight`
            # (Efraimidis and Spirakis, 2006).
            keys = [math.log1p(-rng.random()) / weight for _ in found]
            if cleaner.names and (threshold == -math.inf or max(keys, default=threshold) > threshold):
                text = cleaner.clean(document, tallies) or ""
                found = list(chunks(text, control))
                keys += [math.log1p(-rng.random()) / weight for _ in found[len(keys) :]]
            for key, chunk in zip(keys, found, strict=False):
                number += 1
                self.text_bytes += (size := len(chunk.encode()))
                if key <= threshold:
                    continue
                heapq.heappush(heap, (key, number, chunk))
                self.bytes += size
                while self.bytes > recipe.vocab.sample_bytes and len(heap) > 1:
                    threshold, _, removed = heapq.heappop(heap)
                    self.bytes -= len(removed.encode())
        if not any(chunk.strip() for _, _, chunk in heap):
            if self.documents:
                what = "no text to train on is left"
                fix = "name files with text, or remove cleaning steps (cleaning.steps)"
                raise T5smithError(what, where="corpus.train", fix=fix)
            raise no_training_text(files)
        self.dropped = sum(tally.dropped.total() for tally in tallies)
        self.chunks = [chunk for _, _, chunk in sorted(heap, key=lambda entry: entry[1])]

    def facts(self) -> dict[str, Any]:
        """Counts for the manifest."""
        return {
            "sample_bytes": self.bytes,
            "text_bytes": self.text_bytes,
            "documents": self.documents,
            "dropped": self.dropped,
            "skipped_records": self.skipped.facts(),
        }


def _file_weights(settings: VocabSettings, files: CorpusFiles) -> dict[str, float]:
    """Sampling weight of each file's chunks by `vocab.temperature`; empty if all weights are equal."""
    if settings.temperature == 1:
        return {}
    power = 1 / settings.temperature - 1
    weights: dict[str, float] = {}
    for corpus in files.train.values():
        weight = max(sum(map(file_size, corpus)), 1) ** power
        weights |= {split_row_range(str(file))[0]: weight for file in corpus}
    return weights


def chunks(text: str, control: re.Pattern[str] = CONTROL_WORD) -> Iterator[str]:
    """Cut a document into chunks of at most MAX_CHUNK_CHARACTERS, at white space where possible.

    Matches of `control` become spaces: a trained piece `</s>` could not be told from the control piece.
    """
    text = control.sub(" ", text)
    start = 0
    while len(text) - start > MAX_CHUNK_CHARACTERS:
        limit = start + MAX_CHUNK_CHARACTERS
        end = max(text.rfind(" ", start, limit), text.rfind("\n", start, limit))
        if end <= start:
            end = limit
        yield text[start:end]
        start = end
    if start < len(text):
        yield text[start:]
