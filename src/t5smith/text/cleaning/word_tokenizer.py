"""Words and sentences for datatrove's blocks, by rules that fit any script with spaces between words.

datatrove's own choice for a language, mostly spaCy, takes far longer and may need packages and models of its
own. The quality rules depend on the number of words and their lengths, which hardly change with where an
apostrophe is cut.
"""

from __future__ import annotations

import regex
from datatrove.utils.word_tokenizers import WordTokenizer

from t5smith.base.errors import T5smithError
from t5smith.base.progress import warn

# Letters, marks and digits, with single signs between them as in don't, e-post and 3,14; Chinese and Japanese
# characters one by one, for nothing stands between their words; all other signs one by one, or repeated.
_ALONE = r"[\p{Han}\p{Hiragana}\p{Katakana}]"
_PART = rf"[[\p{{L}}\p{{M}}\p{{N}}]--{_ALONE}]+"
_WORD = regex.compile(rf"{_ALONE}|{_PART}(?:['’.,\-]{_PART})*|(\S)\1*", regex.VERSION1)
_SENTENCE = regex.compile(rf".+?(?:[.!?…։؟۔।॥。！？]+[\"'”’»)\]]*(?=\s|$|{_ALONE})|\n|$)")

WITHOUT_SPACES = {"th", "tha", "lo", "lao", "km", "khm", "my", "mya", "bo", "bod", "dz", "dzo"}
"""Languages written without spaces between words: finding words takes a dictionary."""


class UnicodeWords(WordTokenizer):
    """Words and sentences by Unicode character classes."""

    def word_tokenize(self, text: str) -> list[str]:
        """The words of a text, punctuation marks among them."""
        return [match[0] for match in _WORD.finditer(text)]

    def sent_tokenize(self, text: str) -> list[str]:
        """The sentences of a text; a sentence ends at the end of its line."""
        return [part for piece in _SENTENCE.findall(text) if (part := piece.strip())]

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        """Where sentences begin and end."""
        return [match.span() for match in _SENTENCE.finditer(text) if match[0].strip()]


def word_tokenizer(kind: str, language: str) -> WordTokenizer:
    """The tokenizer that splits text into words and sentences.

    Args:
      kind: `unicode` or `language`, as `cleaning.words` says.
      language: the recipe's.

    Raises:
      T5smithError: datatrove has no tokenizer for the language, or it is not installed.
    """
    if kind == "unicode":
        if language.partition("_")[0] in WITHOUT_SPACES:
            warn(
                f"{language} has no spaces between words, so counts of words are wrong: "
                "cleaning.words = language finds them with a dictionary"
            )
        return UnicodeWords("")
    from datatrove.utils.word_tokenizers import load_word_tokenizer

    try:
        found = load_word_tokenizer(language)
        found.word_tokenize("a b.")
    except ValueError:
        raise T5smithError(
            f"datatrove has no words for {language!r}",
            where="language",
            expected="a code such as nb or nob_Latn",
            fix="set cleaning.words to unicode",
        ) from None
    except ImportError as error:
        said = " ".join(str(error).split())
        raise T5smithError(
            f"a package is missing ({said})",
            where="cleaning.words",
            fix="run `pip install 't5smith[cleaning]'`, or what it names; or set cleaning.words to unicode",
        ) from None
    return found
