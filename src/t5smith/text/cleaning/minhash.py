"""MinHash signatures, by which near duplicates are found (Broder, 1997).

Words, n-grams and their hashes are datatrove's. The hashes of a bucket are combined to one hash, since two
documents meet in a bucket only if all of its hashes are equal.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from t5smith.recipe.recipe import Recipe

if TYPE_CHECKING:
    from datatrove.utils.word_tokenizers import WordTokenizer

    from t5smith.recipe.cleaning import NearDuplicateSettings

NGRAMS_AT_ONCE = 4096
"""n-grams hashed at once, each with `num_buckets * hashes_per_bucket` functions."""


class MinHasher:
    """MinHash signatures of texts."""

    def __init__(self, settings: NearDuplicateSettings, words: WordTokenizer, scratch: Path) -> None:
        """Set up datatrove's hashes.

        Args:
          settings: numbers of buckets, hashes and words of an n-gram.
          words: splits texts into words.
          scratch: a folder, which datatrove requires; nothing is written there.
        """
        from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
        from datatrove.utils.hashing import create_hash_func
        from datatrove.utils.text import simplify_text

        config = MinhashConfig(**settings.model_dump())
        self.buckets = settings.num_buckets
        self._n = settings.n_grams
        self._step = MinhashDedupSignature(str(scratch), config, words)  # pyright: ignore[reportArgumentType]
        self._hash: Any = create_hash_func(config.hash_config)
        self._split_words = lambda text: words.word_tokenize(simplify_text(text, config.norm_config))
        self._last = "", np.zeros((self.buckets, 2), np.uint64)

    def signature(self, text: str) -> NDArray[np.uint64]:
        """A hash per bucket: (buckets, 2); zeros if the text has too few words for an n-gram."""
        if text is not self._last[0]:  # a text may be asked for twice in a row
            self._last = text, self._signature(text)
        return self._last[1]

    def _signature(self, text: str) -> NDArray[np.uint64]:
        words = self._split_words(text)
        ngrams = len(words) - self._n + 1
        minima: NDArray[np.uint64] | None = None
        for start in range(0, ngrams, NGRAMS_AT_ONCE):
            # The hashes of all n-grams of a long document would not fit in memory.
            stop = min(start + NGRAMS_AT_ONCE, ngrams)
            hashes = [self._hash(" ".join(words[i : i + self._n]).encode()) for i in range(start, stop)]
            own = np.array(self._step.get_signature(np.array(hashes, np.uint64)[:, None]), np.uint64)
            minima = own if minima is None else np.minimum(minima, own)
        if minima is None:
            return np.zeros((self.buckets, 2), np.uint64)
        return np.array([short_hash(bucket.tobytes()) for bucket in minima], np.uint64)


def minhasher(recipe: Recipe, scratch: Path = Path()) -> MinHasher:
    """The hasher with a recipe's settings.

    Raises:
      T5smithError: a package is missing.
    """
    from t5smith.text.cleaning.word_tokenizer import word_tokenizer

    words = word_tokenizer(recipe.cleaning.words, recipe.language)
    return MinHasher(recipe.cleaning.near_duplicates, words, scratch)


def short_hash(data: bytes) -> tuple[int, int]:
    """128 bits of a hash, never all zeros, which stand for no hash."""
    digest = hashlib.blake2b(data, digest_size=16).digest()
    return int.from_bytes(digest[:8], "little") | 1, int.from_bytes(digest[8:], "little")
