"""Why a document is dropped, in words: datatrove says it in codes."""

from __future__ import annotations

import re

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
"""Each code, and what it says with the setting that decides, of the table of the step."""


def in_words(code: str) -> str:
    """What a code of datatrove's says; one that is not known as it is."""
    for known, words in _RULES.items():
        if found := re.fullmatch(known, code):
            return found.expand(words)
    return code
