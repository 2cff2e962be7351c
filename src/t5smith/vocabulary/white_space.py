r"""White space that is kept (`vocab.keep_whitespace`): new lines, tabs and runs of spaces are pieces.

`\r\n` and `\r` become `\n`, other white space becomes a space each, and nothing is collapsed. Text is cut
into units: a word with the space before it, if there is one; a run of other spaces; of new lines; of tabs.

No space is prepended: a text begins as a line does. So decoding gives the normalized text back exactly.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers

SPACE = "▁"
"""Stands for a space in pieces."""
BREAKS = "\n\t"
"""White space that is kept as it is."""
SPACES = " \v\f\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
"""White space that becomes a space, as a range of a regular expression: not line ends and tabs."""
UNIT = rf"{SPACE}?[^{SPACE}\n\t]+|{SPACE}+(?={SPACE}[^{SPACE}\n\t])|{SPACE}+|\n+|\t+"
"""The units of normalized text, in the regular expressions of Python, Oniguruma and JavaScript."""
LAST_SPACE = " \\z"
"""The space that is dropped: at the end of a text, so also before a sentinel, whose text begins with it."""
MARKS = (
    "\xa8\xaf\xb4\xb8\u02d8-\u02dd\u037a\u0384\u0385\u1fbd\u1fbf-\u1fc1\u1fcd-\u1fcf\u1fdd-\u1fdf\u1fed\u1fee"
    "\u1ffd\u1ffe\u2017\u203e\u309b\u309c\ufc5e-\ufc63\ufe49-\ufe4c\ufe70\ufe72\ufe74\ufe76\ufe78\ufe7a\ufe7c"
    "\ufe7e\uffe3"
)
"""Characters that NFKC turns into a space and a mark on it, as a range of a regular expression."""
RUN = rf"{SPACE}{{2,}}|\n{{2,}}|\t{{2,}}"
"""Units that are not shown to the trainer, see :func:`frequent_runs`."""
_SHOWN = str.maketrans({"\n": r"\n", "\t": r"\t"})


def normalizer_steps(*, drop_last: bool) -> list[normalizers.Normalizer]:
    """The steps instead of those that collapse white space; `drop_last`: drop one space at the end."""
    return [
        normalizers.Replace(Regex(r"\r\n?"), "\n"),
        normalizers.Replace(Regex(f"[{SPACES}{SPACE}]"), " "),
        *([normalizers.Replace(Regex(LAST_SPACE), "")] if drop_last else []),
    ]


def pre_tokenizer_steps(
    *, for_training: bool = False, symbols: str = ""
) -> list[pre_tokenizers.PreTokenizer]:
    """The steps that cut normalized text into units; `for_training` without symbols and long runs."""
    metaspace = pre_tokenizers.Metaspace(SPACE, prepend_scheme="never", split=False)
    units = pre_tokenizers.Split(Regex(UNIT), "isolated")
    if not for_training:
        return [metaspace, units]
    without = [pre_tokenizers.Split(Regex(symbols), "removed")] if symbols else []
    return [metaspace, *without, units, pre_tokenizers.Split(Regex(RUN), "removed")]


def keeps_white_space(tree: Mapping[str, Any]) -> bool:
    """Whether the tokenizer of a tokenizer.json is one of ours that keeps white space."""
    cut = tree.get("pre_tokenizer") or {}
    return any(step.get("pattern") == {"Regex": UNIT} for step in cut.get("pretokenizers", ()))


def raw_units(*, marks: bool, words: Sequence[str]) -> re.Pattern[str]:
    """A regular expression that cuts raw text into parts that can be normalized and encoded one by one.

    Args:
      marks: whether normalization is NFKC, which may put a space before a mark. Such a mark takes the spaces
        before it along.
      words: words of the text that become `<unk>`; they take the spaces before them along too, because the
        library cuts text at `<unk>`. `<` may also be written as one of two other characters.
    """
    spaces = SPACES + SPACE
    mark = MARKS if marks else ""
    other = rf"[^{spaces}{mark}\r\n\t]"
    unknown = "|".join(["[<\uff1c\ufe64]", *map(re.escape, words)])
    parts = [
        *([f"[{spaces}]*(?:{unknown}){other}*"] if words else []),
        *([f"[{spaces}{mark}]*[{mark}]{other}*"] if marks else []),
        f"[{spaces}]?{other}+",
        f"[{spaces}]+(?=[{spaces}]{other})",
        f"[{spaces}]+",
        r"[\r\n]+",
        r"\t+",
    ]
    return re.compile("|".join(parts))


def keeping_last_space(tokenizer: Tokenizer) -> Tokenizer:
    """A copy of a tokenizer of ours that does not drop the last space."""
    tree = json.loads(tokenizer.to_str())
    steps = tree["normalizer"]["normalizers"]
    tree["normalizer"]["normalizers"] = [one for one in steps if one.get("pattern") != {"Regex": LAST_SPACE}]
    return Tokenizer.from_str(json.dumps(tree))


def without_last_space(text: str) -> str:
    """Raw text without the space that normalization drops at its end."""
    return text[:-1] if _LAST.search(text) else text


_LAST = re.compile(rf"[{SPACES}{SPACE}]\Z")
_SPACE_OR_BREAK = re.compile(rf"[{SPACES}{SPACE}\r\n\t]")


def is_white(character: str) -> bool:
    """Whether a raw character is white space to a vocabulary that keeps it."""
    return bool(_SPACE_OR_BREAK.match(character))


def visible(piece: str) -> str:
    """A piece with its new lines and tabs written as escapes."""
    return piece.translate(_SHOWN)


def counted_units(text: Iterable[str], normal: normalizers.Normalizer) -> Counter[str]:
    """How often each unit occurs, a space written as `▁`; `normal` drops no last space."""
    find = re.compile(UNIT).findall
    counts: Counter[str] = Counter()
    for part in text:
        counts.update(find(normal.normalize_str(part).replace(" ", SPACE)))
    return counts


def repeated(unit: str, number: int) -> list[str]:
    """Texts in which a unit occurs as often as this: in one text, if the unit shows where it begins."""
    return [unit * number] if unit[0] == SPACE and not is_run(unit) else [unit] * number


def is_run(unit: str) -> bool:
    """Whether a unit is white space only."""
    return not unit.strip(SPACE + BREAKS)


def frequent_runs(counts: Mapping[str, int], size: int, longest: int) -> list[str]:
    """Runs of two to `longest` characters that become pieces: those that save most tokens, best first.

    The trainer would not find them: it scores a candidate by the number of different units with it, and there
    are few different runs. A run must occur twice, and runs take at most a fiftieth of the `size` pieces.
    """
    often = (unit for unit, number in counts.items() if number > 1)
    runs = (unit for unit in often if 1 < len(unit) <= longest and is_run(unit))
    return sorted(runs, key=lambda run: (-counts[run] * (len(run) - 1), run))[: size // 50]


def scored_runs(runs: Iterable[str], scores: Mapping[str, float]) -> Iterator[tuple[str, float]]:
    """Runs with scores just below that of their character, so that text gets as few of them as possible.

    A run is a unit of its own, so its score matters only beside those of shorter runs.
    """
    return ((run, scores[run[0]] - 1e-4 * place) for place, run in enumerate(runs, 1))
