"""The steps that clean documents before tokenisation, and their limits: the table `[cleaning]`.

Limits have datatrove's names and defaults, which are those of the papers.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from t5smith.base.errors import T5smithError
from t5smith.recipe.base import NonNegative, Positive, Settings, Strings, did_you_mean

DOCUMENT_STEPS = (
    "unicode",
    "length",
    "language",
    "gopher_repetition",
    "gopher_quality",
    "c4",
    "fineweb",
    "bad_words",
)
"""Steps that look at one document at a time."""
DUPLICATE_STEPS = ("exact_duplicates", "near_duplicates")
"""Steps that compare documents. They are the last steps."""

_WORDS = "words, or file:NAME for a file with one per line"
Share = Annotated[float, Field(ge=0, le=1)]


class LengthSettings(Settings):
    """Limits on the length of a document."""

    section: ClassVar[str] = "cleaning.length"

    min_characters: NonNegative = 0
    """Drop shorter documents."""
    max_characters: NonNegative = 0
    """Drop longer documents. 0: no limit."""


class LanguageSettings(Settings):
    """Keep the documents that a fastText model classifies as one of the languages."""

    section: ClassVar[str] = "cleaning.language"

    model: str = ""
    """File of a fastText model that identifies languages, such as lid.176.bin or GlotLID's model.bin."""
    languages: Strings = ()
    """Labels of the languages to keep, as the model writes them after `__label__`: no nn, or nob_Latn."""
    threshold: Share = 0.65
    """Drop documents in which none of the languages has a higher probability than this."""


class GopherQualitySettings(Settings):
    """Gopher's rules for the words of a document (Rae et al., 2021). 0: no limit."""

    section: ClassVar[str] = "cleaning.gopher_quality"

    min_doc_words: Positive = 50
    """Minimum number of words."""
    max_doc_words: NonNegative = 100_000
    """Maximum number of words."""
    min_avg_word_length: Annotated[float, Field(ge=0)] = 3
    """Minimum mean word length, in characters."""
    max_avg_word_length: Annotated[float, Field(ge=0)] = 10
    """Maximum mean word length, in characters."""
    max_symbol_word_ratio: Annotated[float, Field(ge=0)] = 0.1
    """Maximum number of hash signs per word, and of ellipses per word."""
    max_bullet_lines_ratio: Share = 0.9
    """Maximum share of lines that begin with a bullet or a hyphen."""
    max_ellipsis_lines_ratio: Share = 0.3
    """Maximum share of lines that end in an ellipsis."""
    max_non_alpha_words_ratio: Share = 0.8
    """Minimum share of words that contain a letter (the name is datatrove's)."""
    min_stop_words: NonNegative = 2
    """Minimum number of different `stop_words` in a document."""
    stop_words: Strings = ()
    """Frequent short words of the language, or file:NAME for a file with one per line. Default: Gopher's
    eight English words, if the recipe's language is English."""


class GopherRepetitionSettings(Settings):
    """Gopher's limits on repetition within a document (Rae et al., 2021, table A1). 0: no limit."""

    section: ClassVar[str] = "cleaning.gopher_repetition"

    dup_line_frac: Share = 0.3
    """Maximum share of lines that repeat an earlier line."""
    dup_para_frac: Share = 0.3
    """Maximum share of paragraphs that repeat an earlier paragraph."""
    dup_line_char_frac: Share = 0.2
    """Maximum share of characters in repeated lines."""
    dup_para_char_frac: Share = 0.2
    """Maximum share of characters in repeated paragraphs."""
    top_n_grams: Annotated[tuple[float, ...], Field(strict=False)] = (0.2, 0.18, 0.16)
    """Maximum share of characters in the most frequent 2-gram of words, 3-gram, and so on."""
    dup_n_grams: Annotated[tuple[float, ...], Field(strict=False)] = (0.15, 0.14, 0.13, 0.12, 0.11, 0.1)
    """Maximum share of characters in repeated 5-grams of words, 6-grams, and so on."""


class C4Settings(Settings):
    """C4's rules for lines and pages (Raffel et al., 2020)."""

    section: ClassVar[str] = "cleaning.c4"

    filter_no_terminal_punct: bool = True
    """Remove lines that do not end in . ? ! or a quotation mark."""
    min_words_per_line: NonNegative = 3
    """Remove lines with fewer words."""
    min_num_sentences: NonNegative = 5
    """Drop documents with fewer sentences after lines were removed."""
    max_word_length: Positive = 1000
    """Remove lines that contain a longer word, in characters."""
    remove_citations: bool = True
    """Remove [1], [edit] and [citation needed]."""
    filter_javascript: bool = True
    """Remove lines that mention JavaScript."""
    filter_lorem_ipsum: bool = True
    """Drop documents that contain \"lorem ipsum\"."""
    filter_curly_bracket: bool = True
    """Drop documents that contain a curly bracket."""
    policy_phrases: Strings = ()
    """Remove lines that contain one of these phrases, ignoring case; file:NAME is a file with one per line.
    Default: C4's English phrases about cookies and terms of use, if the recipe's language is English."""


class FineWebSettings(Settings):
    """FineWeb's rules for the lines of a document (Penedo et al., 2024)."""

    section: ClassVar[str] = "cleaning.fineweb"

    line_punct_thr: Share = 0.12
    """Minimum share of lines that end in a punctuation mark."""
    short_line_thr: Share = 0.67
    """Maximum share of short lines."""
    short_line_length: Positive = 30
    """Lines of at most this many characters are short."""
    char_duplicates_ratio: Share = 0.01
    """Maximum share of characters in lines that repeat an earlier line."""
    new_line_ratio: Annotated[float, Field(ge=0)] = 0.3
    """Maximum number of line ends per word."""


class NearDuplicateSettings(Settings):
    """Keep one of the documents that have many n-grams of words in common, found by MinHash (Broder, 1997).

    Two documents that share a part s of their n-grams are found with a probability of
    1 - (1 - s^hashes_per_bucket)^num_buckets: 0.92 for s = 0.8, 0.05 for s = 0.5.
    """

    section: ClassVar[str] = "cleaning.near_duplicates"

    n_grams: Positive = 5
    """Words per n-gram."""
    num_buckets: Annotated[int, Field(ge=1, le=256)] = 14
    """Number of groups of hashes (buckets). Documents are compared in each group."""
    hashes_per_bucket: Annotated[int, Field(ge=1, le=256)] = 8
    """Hashes per bucket, all of which must be equal."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 1
    """Random seed of the hash functions."""


class CleaningSettings(Settings):
    """How documents are cleaned before tokenisation: only by the cleaning steps that `steps` lists."""

    section: ClassVar[str] = "cleaning"

    steps: Strings = ()
    """Cleaning steps, in the order in which they run: unicode length language gopher_repetition
    gopher_quality c4 fineweb bad_words, then exact_duplicates near_duplicates. All but the last two also
    clean the text of `vocab`."""
    words: Literal["unicode", "language"] = "unicode"
    """How words and sentences are found. unicode: rules for any script with spaces between words. language:
    datatrove's tokenizer for the recipe's language, mostly spaCy (t5smith[cleaning]), which is far slower."""
    bad_words: Strings = ()
    """Drop documents that contain one of these words; file:NAME is a file with one per line."""
    length: LengthSettings = LengthSettings()
    language: LanguageSettings = LanguageSettings()
    gopher_quality: GopherQualitySettings = GopherQualitySettings()
    gopher_repetition: GopherRepetitionSettings = GopherRepetitionSettings()
    c4: C4Settings = C4Settings()
    fineweb: FineWebSettings = FineWebSettings()
    near_duplicates: NearDuplicateSettings = NearDuplicateSettings()

    @property
    def document_steps(self) -> tuple[str, ...]:
        """The steps that look at one document at a time."""
        return tuple(step for step in self.steps if step in DOCUMENT_STEPS)

    @property
    def duplicate_steps(self) -> tuple[str, ...]:
        """The steps that compare documents."""
        return tuple(step for step in self.steps if step in DUPLICATE_STEPS)

    @model_validator(mode="after")
    def _no_empty_words(self) -> Self:
        lists = {
            "bad_words": self.bad_words,
            "gopher_quality.stop_words": self.gopher_quality.stop_words,
            "c4.policy_phrases": self.c4.policy_phrases,
        }
        for name, words in lists.items():
            # Every text contains the empty word.
            if not all(map(str.strip, words)):
                raise T5smithError("a word is empty", where=f"cleaning.{name}", expected=_WORDS)
        return self

    @model_validator(mode="after")
    def _known_steps(self) -> Self:
        known = (*DOCUMENT_STEPS, *DUPLICATE_STEPS)
        for number, step in enumerate(self.steps):
            if step not in known:
                raise T5smithError(
                    f"{step!r} cannot be used{did_you_mean(step, known)}",
                    where="cleaning.steps",
                    expected=f"some of {', '.join(known)}",
                )
            if step in self.steps[:number]:
                raise T5smithError(
                    f"{step} is listed twice", where="cleaning.steps", expected="each step once"
                )
        if self.steps != (*self.document_steps, *(step for step in DUPLICATE_STEPS if step in self.steps)):
            raise T5smithError(
                "duplicates are removed before the last step",
                where="cleaning.steps",
                expected="exact_duplicates and near_duplicates last, in this order",
            )
        if "language" in self.steps and not (self.language.model and self.language.languages):
            raise T5smithError(
                "the step `language` needs a model and languages",
                where="cleaning.language",
                expected="model = the file of a fastText model, languages = its labels",
                fix="lid.176.bin is at https://fasttext.cc/docs/en/language-identification.html",
            )
        if "bad_words" in self.steps and not self.bad_words:
            raise T5smithError(
                "the step `bad_words` needs words", where="cleaning.bad_words", expected=_WORDS
            )
        if "length" in self.steps and not (self.length.min_characters or self.length.max_characters):
            raise T5smithError(
                "the step `length` needs a limit",
                where="cleaning.length",
                expected="min_characters, max_characters or both",
            )
        return self
