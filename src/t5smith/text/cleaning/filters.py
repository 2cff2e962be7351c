"""The steps of cleaning that look at one document: datatrove's blocks, set as a recipe says.

Nothing is fetched: where datatrove would load a model or a list of words from the network, a setting names
a file.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t5smith.base.errors import T5smithError
from t5smith.recipe.cleaning import CleaningSettings

if TYPE_CHECKING:
    from datatrove.data import Document
    from datatrove.utils.word_tokenizers import WordTokenizer

Step = Callable[["Document"], str]
"""Changes the text of a document; returns why it is dropped, or "" if it is kept."""

FILE = "file:"
_ENGLISH = {"en", "eng", "eng_Latn"}


def document_steps(settings: CleaningSettings, language: str) -> list[Step]:
    """The steps of a recipe, in their order.

    Args:
      settings: name the steps and their limits.
      language: the recipe's.

    Raises:
      T5smithError: a package, a model or a list of words is missing.
    """
    words = _words(settings, language)
    make: dict[str, Callable[[], Step]] = {
        "unicode": _unicode,
        "length": lambda: functools.partial(
            _length, settings.length.min_characters, settings.length.max_characters
        ),
        "language": lambda: _language(settings),
        "gopher_repetition": lambda: _gopher_repetition(settings, words()),
        "gopher_quality": lambda: _gopher_quality(settings, words(), language),
        "c4": lambda: _c4(settings, words(), language),
        "fineweb": lambda: _fineweb(settings, words()),
        "bad_words": lambda: _bad_words(settings),
    }
    return [make[name]() for name in settings.document_steps]


def _words(settings: CleaningSettings, language: str) -> Callable[[], WordTokenizer]:
    @functools.cache
    def made() -> WordTokenizer:
        from t5smith.text.cleaning.word_tokenizer import word_tokenizer

        return word_tokenizer(settings.words, language)

    return made


def _filter(block: Any) -> Step:
    """A datatrove filter as a step."""
    from datatrove.pipeline.filters.base_filter import get_filter_result

    def step(document: Document) -> str:
        kept, reason = get_filter_result(block.filter(document))
        return "" if kept else reason_of(reason or "dropped")

    return step


def _unicode() -> Step:
    from datatrove.pipeline.formatters import FTFYFormatter

    block = FTFYFormatter()

    def step(document: Document) -> str:
        document.text = block.format(document.text)
        return ""

    return step


def _length(least: int, most: int, document: Document) -> str:
    if len(document.text) < least:
        return f"under {least:,} characters"
    return f"over {most:,} characters" if most and len(document.text) > most else ""


def _language(settings: CleaningSettings) -> Step:
    own = settings.language
    if not Path(own.model).is_file():
        fix = "the file lid.176.bin is at https://fasttext.cc/docs/en/language-identification.html"
        raise T5smithError(f"there is no file {own.model}", where="cleaning.language.model", fix=fix)
    try:
        from datatrove.pipeline.filters import LanguageFilter
        from datatrove.utils.lid import FastTextLID
        from fasttext import FastText

        block = LanguageFilter(list(own.languages), own.threshold)
    except ImportError:
        fix = "run `pip install 't5smith[cleaning]'`"
        raise T5smithError("fastText is not installed", where="cleaning.steps", fix=fix) from None
    try:
        # fasttext.load_model prints advice.
        model: Any = FastText._FastText(own.model)  # pyright: ignore[reportPrivateUsage]
    except ValueError as error:
        raise T5smithError(
            f"not a fastText model ({error})", where=own.model, expected="a model that tells languages"
        ) from None
    labels = {label.removeprefix("__label__") for label in model.get_labels()}
    if missing := set(own.languages) - labels:
        raise T5smithError(
            f"the model does not know {', '.join(sorted(missing))}",
            where="cleaning.language.languages",
            expected=f"some of its {len(labels)} labels: {', '.join(sorted(labels)[:200])}",
        )

    class Local(FastTextLID):
        """datatrove's, with the model of a file."""

        @property
        def model(self) -> Any:
            return model

    block.model = Local(list(own.languages))  # pyright: ignore[reportAttributeAccessIssue]
    said = _filter(block)

    def step(document: Document) -> str:
        return said(document) and f"in {document.metadata['language']}"

    return step


def _gopher_quality(settings: CleaningSettings, words: WordTokenizer, language: str) -> Step:
    from datatrove.pipeline.filters import GopherQualityFilter

    limits = settings.gopher_quality.model_dump()
    limits["stop_words"] = listed(limits["stop_words"], "cleaning.gopher_quality.stop_words")
    if not limits["stop_words"]:
        if limits["min_stop_words"] and language not in _ENGLISH:
            raise T5smithError(
                "no stop words are given, and the language of the recipe is not English",
                where="cleaning.gopher_quality.stop_words",
                expected="a few of the most frequent words of the language, as og i er det som på for av",
                fix="give them, or set cleaning.gopher_quality.min_stop_words to 0",
            )
        limits["stop_words"] = None
    return _filter(GopherQualityFilter(**limits, language=words))  # pyright: ignore[reportArgumentType]


def _gopher_repetition(settings: CleaningSettings, words: WordTokenizer) -> Step:
    from datatrove.pipeline.filters import GopherRepetitionFilter

    limits = settings.gopher_repetition.model_dump()
    for name, shortest in (("top_n_grams", 2), ("dup_n_grams", 5)):
        shares = enumerate(limits[name], shortest)
        limits[name] = tuple((length, share) for length, share in shares if share)
    return _filter(GopherRepetitionFilter(**limits, language=words))  # pyright: ignore[reportArgumentType]


def _c4(settings: CleaningSettings, words: WordTokenizer, language: str) -> Step:
    from datatrove.pipeline.filters import C4QualityFilter

    limits = settings.c4.model_dump()
    phrases = listed(limits.pop("policy_phrases"), "cleaning.c4.policy_phrases")
    english = language in _ENGLISH and not phrases
    said = _filter(C4QualityFilter(**limits, filter_policy=english, language=words))  # pyright: ignore[reportArgumentType]
    if not phrases:
        return said
    found = _any_of(phrases, "{}")

    def step(document: Document) -> str:
        lines = document.text.splitlines()
        document.text = "\n".join(line for line in lines if not found.search(line.lower()))
        return said(document)

    return step


def _fineweb(settings: CleaningSettings, words: WordTokenizer) -> Step:
    from datatrove.pipeline.filters import FineWebQualityFilter

    return _filter(FineWebQualityFilter(**settings.fineweb.model_dump(), language=words))  # pyright: ignore[reportArgumentType]


def _bad_words(settings: CleaningSettings) -> Step:
    from datatrove.pipeline.filters import C4BadWordsFilter

    # As datatrove does for languages with spaces: a word is one where no letter stands beside it.
    found = _any_of(listed(settings.bad_words, "cleaning.bad_words"), r"(?:\W|^)({})(?:\W|$)")

    class Listed(C4BadWordsFilter):
        """datatrove's filter with a list of words from the recipe instead of a downloaded one."""

        def _get_badwords(self, lang: str) -> re.Pattern[str]:
            return found

    said = _filter(Listed())
    return lambda document: said(document) and "a bad word"


def _any_of(words: Iterable[str], around: str) -> re.Pattern[str]:
    return re.compile(around.format("|".join(re.escape(word.lower()) for word in words)))


def listed(entries: Iterable[str], where: str) -> list[str]:
    """The words of a setting; `file:PATH` stands for the words in a file.

    Raises:
      T5smithError: a file cannot be read, or has no words in it.
    """
    found: list[str] = []
    for entry in entries:
        if not entry.startswith(FILE):
            found.append(entry)
            continue
        file = Path(entry.removeprefix(FILE))
        try:
            lines = file.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise T5smithError(
                f"{file} cannot be read ({error})", where=where, expected="one word per line"
            ) from None
        words = [word for line in lines if (word := line.strip())]
        if not words:
            raise T5smithError(f"{file} has no words in it", where=where, expected="one word per line")
        found += words
    return found


def listed_files(settings: CleaningSettings) -> list[Path]:
    """The files that the cleaning steps of a recipe read."""
    entries: list[str] = []
    for step, words in (
        ("bad_words", settings.bad_words),
        ("gopher_quality", settings.gopher_quality.stop_words),
        ("c4", settings.c4.policy_phrases),
    ):
        if step in settings.steps:
            entries += words
    files = [Path(entry.removeprefix(FILE)) for entry in entries if entry.startswith(FILE)]
    return [*files, Path(settings.language.model)] if "language" in settings.steps else files


_RULES = {
    # Gopher's quality.
    r"gopher_short_doc": "too few words (min_doc_words)",
    r"gopher_long_doc": "too many words (max_doc_words)",
    r"gopher_below_avg_threshold": "words too short on average (min_avg_word_length)",
    r"gopher_above_avg_threshold": "words too long on average (max_avg_word_length)",
    r"gopher_too_many_hashes": "too many hash signs (max_symbol_word_ratio)",
    r"gopher_too_many_ellipsis": "too many ellipses (max_symbol_word_ratio)",
    r"gopher_too_many_bullets": "too many lines with a bullet (max_bullet_lines_ratio)",
    r"gopher_too_many_end_ellipsis": "too many lines that end in an ellipsis (max_ellipsis_lines_ratio)",
    r"gopher_below_alpha_threshold": "too few words with a letter (max_non_alpha_words_ratio)",
    r"gopher_enough_stop_words": "too few stop words (min_stop_words)",
    # Gopher's repetition.
    r"dup_para_frac": "too many repeated paragraphs (dup_para_frac)",
    r"dup_para_char_frac": "too much text in repeated paragraphs (dup_para_char_frac)",
    r"dup_line_frac": "too many repeated lines (dup_line_frac)",
    r"dup_line_char_frac": "too much text in repeated lines (dup_line_char_frac)",
    r"top_(\d+)_gram": r"the same \1 words too often (top_n_grams)",
    r"duplicated_(\d+)_n_grams": r"too much text in repeated runs of \1 words (dup_n_grams)",
    # C4.
    r"lorem_ipsum": "lorem ipsum (filter_lorem_ipsum)",
    r"curly_bracket": "a curly bracket (filter_curly_bracket)",
    r"too_few_sentences": "too few sentences left (min_num_sentences)",
    # FineWeb.
    r"line_punct_ratio": "too few lines that end in a punctuation mark (line_punct_thr)",
    r"short_line_ratio": "too many short lines (short_line_thr)",
    r"char_dup_ratio": "too much text in repeated lines (char_duplicates_ratio)",
    r"list_ratio": "too many ends of lines for so few words (new_line_ratio)",
}
"""The reason for each code, with the setting that decides, in the table of the step."""


def reason_of(code: str) -> str:
    """The reason that a code of datatrove stands for; an unknown code is returned unchanged."""
    for known, words in _RULES.items():
        if found := re.fullmatch(known, code):
            return found.expand(words)
    return code
