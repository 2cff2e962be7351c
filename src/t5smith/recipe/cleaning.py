"""The settings of cleaning: which steps a text goes through before it is tokenised, and their limits.

Limits have the names that datatrove gives them and its defaults, which are the papers'.
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
"""Steps that compare documents; they come last."""

_WORDS = "words, or file:NAME for a file with one a line"
Share = Annotated[float, Field(ge=0, le=1)]


class LengthSettings(Settings):
    """Limits on the length of a document."""

    section: ClassVar[str] = "cleaning.length"

    min_characters: NonNegative = 0
    """Shorter documents are dropped."""
    max_characters: NonNegative = 0
    """Longer documents are dropped. 0: no such limit."""


class LanguageSettings(Settings):
    """Documents are kept that a fastText model holds to be in a language."""

    section: ClassVar[str] = "cleaning.language"

    model: str = ""
    """File of a fastText model that tells languages, as lid.176.bin or GlotLID's model.bin."""
    languages: Strings = ()
    """Labels of the languages to keep, as the model writes them behind `__label__`: no nn, or nob_Latn."""
    threshold: Share = 0.65
    """The model must give one of them more than this."""


class GopherQualitySettings(Settings):
    """Rules for the words of a document, of Gopher (Rae et al., 2021). 0: no such limit."""

    section: ClassVar[str] = "cleaning.gopher_quality"

    min_doc_words: Positive = 50
    """Fewer words are too few."""
    max_doc_words: NonNegative = 100_000
    """More words are too many."""
    min_avg_word_length: Annotated[float, Field(ge=0)] = 3
    """Shortest mean length of a word, in characters."""
    max_avg_word_length: Annotated[float, Field(ge=0)] = 10
    """Longest mean length of a word, in characters."""
    max_symbol_word_ratio: Annotated[float, Field(ge=0)] = 0.1
    """Most hash signs, and most ellipses, for each word."""
    max_bullet_lines_ratio: Share = 0.9
    """Largest share of lines that begin with a bullet or a hyphen."""
    max_ellipsis_lines_ratio: Share = 0.3
    """Largest share of lines that end in an ellipsis."""
    max_non_alpha_words_ratio: Share = 0.8
    """Smallest share of words with a letter in them (the name is datatrove's)."""
    min_stop_words: NonNegative = 2
    """How many different ones of `stop_words` a document must have."""
    stop_words: Strings = ()
    """Frequent short words of the language, or file:NAME for a file with one a line. Left out: Gopher's eight
    English ones, if the recipe's language is English."""


class GopherRepetitionSettings(Settings):
    """How much of a document may repeat itself, by Gopher (Rae et al., 2021, table A1). 0: no such limit."""

    section: ClassVar[str] = "cleaning.gopher_repetition"

    dup_line_frac: Share = 0.3
    """Share of lines that were there before."""
    dup_para_frac: Share = 0.3
    """The same for paragraphs."""
    dup_line_char_frac: Share = 0.2
    """Share of characters in such lines."""
    dup_para_char_frac: Share = 0.2
    """The same for paragraphs."""
    top_n_grams: Annotated[tuple[float, ...], Field(strict=False)] = (0.2, 0.18, 0.16)
    """Share of characters in the most frequent run of two words, of three, and so on."""
    dup_n_grams: Annotated[tuple[float, ...], Field(strict=False)] = (0.15, 0.14, 0.13, 0.12, 0.11, 0.1)
    """Share of characters in runs of five words that were there before, of six, and so on."""


class C4Settings(Settings):
    """Rules for lines and pages, of C4 (Raffel et al., 2020). Lines that break them are taken out."""

    section: ClassVar[str] = "cleaning.c4"

    filter_no_terminal_punct: bool = True
    """Take out lines that do not end in . ? ! or a quotation mark."""
    min_words_per_line: NonNegative = 3
    """Take out lines with fewer words."""
    min_num_sentences: NonNegative = 5
    """Drop documents with fewer sentences left."""
    max_word_length: Positive = 1000
    """Take out lines with a longer word."""
    remove_citations: bool = True
    """Take out [1], [edit] and [citation needed]."""
    filter_javascript: bool = True
    """Take out lines that mention it."""
    filter_lorem_ipsum: bool = True
    """Drop documents with that text."""
    filter_curly_bracket: bool = True
    """Drop documents with a curly bracket."""
    policy_phrases: Strings = ()
    """Take out lines with one of these in them, whatever their capitals, or file:NAME for a file with one a
    line. Left out: C4's English ones about cookies and terms of use, if the recipe's language is English."""


class FineWebSettings(Settings):
    """Rules for the lines of a document, of FineWeb (Penedo et al., 2024)."""

    section: ClassVar[str] = "cleaning.fineweb"

    line_punct_thr: Share = 0.12
    """Smallest share of lines that end in a punctuation mark."""
    short_line_thr: Share = 0.67
    """Largest share of short lines."""
    short_line_length: Positive = 30
    """A line of so many characters is short."""
    char_duplicates_ratio: Share = 0.01
    """Largest share of characters in lines that were there before."""
    new_line_ratio: Annotated[float, Field(ge=0)] = 0.3
    """Most ends of lines for each word."""


class NearDuplicateSettings(Settings):
    """Documents with many runs of words in common are one; by MinHash (Broder, 1997).

    Two documents that share a part s of their runs are found with a chance of
    1 - (1 - s^hashes_per_bucket)^num_buckets: 0.92 for s = 0.8, 0.05 for s = 0.5.
    """

    section: ClassVar[str] = "cleaning.near_duplicates"

    n_grams: Positive = 5
    """Words of a run."""
    num_buckets: Annotated[int, Field(ge=1, le=256)] = 14
    """Groups of hashes; documents are compared in each."""
    hashes_per_bucket: Annotated[int, Field(ge=1, le=256)] = 8
    """Hashes of a group, all of which must be equal."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 1
    """Decides the hashes."""


class CleaningSettings(Settings):
    """What is done to documents before they are tokenised. Nothing, unless `steps` names it."""

    section: ClassVar[str] = "cleaning"

    steps: Strings = ()
    """Steps in their order: unicode length language gopher_repetition gopher_quality c4 fineweb bad_words,
    then exact_duplicates near_duplicates. All but the last two are also done to the text of vocab."""
    words: Literal["unicode", "language"] = "unicode"
    """What finds words and sentences: rules for any script with spaces between words, or datatrove's choice
    for the recipe's language, mostly spaCy (t5smith[cleaning]), which takes far longer."""
    bad_words: Strings = ()
    """Drop documents with one of these words in them, or file:NAME for a file with one a line."""
    length: LengthSettings = LengthSettings()
    language: LanguageSettings = LanguageSettings()
    gopher_quality: GopherQualitySettings = GopherQualitySettings()
    gopher_repetition: GopherRepetitionSettings = GopherRepetitionSettings()
    c4: C4Settings = C4Settings()
    fineweb: FineWebSettings = FineWebSettings()
    near_duplicates: NearDuplicateSettings = NearDuplicateSettings()

    @property
    def document_steps(self) -> tuple[str, ...]:
        """Those that look at one document."""
        return tuple(step for step in self.steps if step in DOCUMENT_STEPS)

    @property
    def duplicate_steps(self) -> tuple[str, ...]:
        """Those that compare documents."""
        return tuple(step for step in self.steps if step in DUPLICATE_STEPS)

    @model_validator(mode="after")
    def _no_empty_words(self) -> Self:
        lists = {
            "bad_words": self.bad_words,
            "gopher_quality.stop_words": self.gopher_quality.stop_words,
            "c4.policy_phrases": self.c4.policy_phrases,
        }
        for name, words in lists.items():
            # An empty word is in every text.
            if not all(map(str.strip, words)):
                raise T5smithError("an empty word", where=f"cleaning.{name}", expected=_WORDS)
        return self

    @model_validator(mode="after")
    def _steps_that_there_are(self) -> Self:
        known = (*DOCUMENT_STEPS, *DUPLICATE_STEPS)
        for number, step in enumerate(self.steps):
            if step not in known:
                raise T5smithError(
                    f"{step!r} cannot be used",
                    where="cleaning.steps",
                    expected=f"some of {', '.join(known)}",
                    fix=did_you_mean(step, known),
                )
            if step in self.steps[:number]:
                raise T5smithError(f"{step} is named twice", where="cleaning.steps", expected="each once")
        if self.steps != (*self.document_steps, *(step for step in DUPLICATE_STEPS if step in self.steps)):
            raise T5smithError(
                "duplicates are looked for before the last step",
                where="cleaning.steps",
                expected="exact_duplicates and near_duplicates at the end, in this order",
            )
        if "language" in self.steps and not (self.language.model and self.language.languages):
            raise T5smithError(
                "no model or no languages are given",
                where="cleaning.language",
                expected="model = the file of a fastText model that tells languages, languages = its labels",
                fix="the file lid.176.bin is at https://fasttext.cc/docs/en/language-identification.html",
            )
        if "bad_words" in self.steps and not self.bad_words:
            raise T5smithError("no words are given", where="cleaning.bad_words", expected=_WORDS)
        if "length" in self.steps and not (self.length.min_characters or self.length.max_characters):
            raise T5smithError(
                "no limit is given",
                where="cleaning.length",
                expected="min_characters, max_characters or both",
            )
        return self
