"""Words and sentences for datatrove's blocks, by rules that fit any script with spaces between words.

datatrove's own choice for a language, mostly spaCy, takes far longer and may need packages and models of its
own; the rules of quality that stand on this ask how many words there are and how long, which
hardly changes with where an apostrophe is cut.
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
"""Languages that write no spaces between words, whose words take a dictionary to find."""


class UnicodeWords(WordTokenizer):
    """Words and sentences by Unicode's classes of characters."""

    def word_tokenize(self, text: str) -> list[str]:
        """The words of a text, punctuation marks among them."""
        return [match[0] for match in _WORD.finditer(text)]

    def sent_tokenize(self, text: str) -> list[str]:
        """The sentences of a text; the end of a line ends one."""
        return [part for piece in _SENTENCE.findall(text) if (part := piece.strip())]

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        """Where sentences begin and end."""
        return [match.span() for match in _SENTENCE.finditer(text) if match[0].strip()]


def word_tokenizer(kind: str, language: str) -> WordTokenizer:
    """What finds words.

    Args:
      kind: `unicode` or `language`, as `cleaning.words` says.
      language: the recipe's.

    Raises:
      T5smithError: datatrove knows no tokenizer for the language, or it is not installed.
    """
    if kind == "unicode":
        if language.partition("_")[0] in WITHOUT_SPACES:
            warn(
                f"{language} has no spaces between words, so what is told of words is wrong: "
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
            fix="pip install 't5smith[cleaning]', or what it names; or set cleaning.words to unicode",
        ) from None
    return found
