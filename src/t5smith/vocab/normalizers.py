"""What happens to a text before it is cut into pieces."""

from __future__ import annotations

from tokenizers import Regex, normalizers

SPACE = "▁"
"""Stands for a space in pieces."""


def normalizer() -> normalizers.Normalizer:
    """NFKC, white space to single spaces, none at the end. `▁` stands for a space, so it becomes one.

    A leading space stays: it tells text after a sentinel that opens a word from text that does not.
    """
    spaces = normalizers.Replace(Regex(rf"[\s{SPACE}]+"), " ")
    return normalizers.Sequence([normalizers.NFKC(), spaces, normalizers.Strip(left=False, right=True)])
