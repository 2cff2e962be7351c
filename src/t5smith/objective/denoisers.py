"""The denoisers of an objective: span corruption at some density and mean span length, or prefix LM.

UL2's mixture is that of Tay et al., "UL2: Unifying Language Learning Paradigms" (2022), table 1: R-denoisers
mask short spans as T5 does, X-denoisers mask long spans or half of the text, the S-denoiser (prefix LM) has
the end of the window predicted from its beginning. A mode token before the inputs names the denoiser.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from t5smith.base.errors import T5smithError
from t5smith.objective.lengths import (
    Masking,
    SpanLengths,
    check_sentinels,
    lengths_for_inputs,
    span_lengths,
)
from t5smith.objective.row_plan import Item
from t5smith.objective.spans import draws_needed
from t5smith.recipe.objective import ObjectiveSettings
from t5smith.vocabulary.vocabulary import Vocabulary

INPUT_LENGTH = WINDOW_LENGTH = 512
SPAN_DENSITY, PREFIX_DENSITY = 0.15, 0.5
PREFIX_LM = "prefix"
WHERE = "objective.denoisers"

UL2 = (
    "0.15 3 1 [R]",
    "0.15 8 1 [R]",
    "0.25 prefix 1 [S]",
    "0.5 3 1 [X]",
    "0.5 8 1 [X]",
    "0.15 64 1 [X]",
    "0.5 64 1 [X]",
)
"""Seven denoisers with equal shares of the windows."""


@dataclass(frozen=True)
class Denoiser:
    """One way to corrupt a window.

    Attributes:
      noise_density: share of the tokens to predict; for prefix LM the mean share.
      mean_noise_span_length: in tokens; None for prefix LM.
      weight: share of the windows, relative to the other denoisers.
      prefix: the mode token, or "".
    """

    noise_density: float
    mean_noise_span_length: float | None
    weight: float = 1.0
    prefix: str = ""

    @classmethod
    def parse(cls, row: str) -> Denoiser:
        """Parse a row of a recipe's table: `density mean-span [weight [mode token]]`.

        Raises:
          T5smithError: not two to four columns, or a value out of range.
        """
        expected = 'density, mean span or "prefix", weight, mode token, such as "0.15 3 1 [R]"'
        columns = row.split()
        if not 2 <= len(columns) <= 4:
            raise T5smithError(f"{row!r} has {len(columns)} columns", where=WHERE, expected=expected)
        try:
            density = float(columns[0])
            mean = None if columns[1] == PREFIX_LM else float(columns[1])
            weight = float(columns[2]) if len(columns) > 2 else 1.0
        except ValueError:
            raise T5smithError(f"{row!r} cannot be used", where=WHERE, expected=expected) from None
        if not 0 < density < 1 or not (mean is None or mean >= 1) or not 0 < weight < float("inf"):
            allowed = "0 < density < 1, a mean span of 1 or more, a weight above 0"
            raise T5smithError(f"{row!r} cannot be used", where=WHERE, expected=allowed)
        return cls(density, mean, weight, columns[3] if len(columns) > 3 else "")

    @property
    def title(self) -> str:
        """A short name: `[R] 15% in spans of 3`."""
        mean = self.mean_noise_span_length
        where = "at the end" if mean is None else f"in spans of {mean:g}"
        return f"{self.prefix} {100 * self.noise_density:g}% {where}".lstrip()

    def __str__(self) -> str:
        mean = PREFIX_LM if self.mean_noise_span_length is None else f"{self.mean_noise_span_length:g}"
        return f"{self.noise_density:g} {mean} {self.weight:g} {self.prefix}".rstrip()


def denoisers_of(settings: ObjectiveSettings) -> tuple[Denoiser, ...]:
    """The denoisers of a recipe's objective.

    Raises:
      T5smithError: a row of the table is malformed.
    """
    if settings.name == "span_corruption":
        return (Denoiser(settings.noise_density or SPAN_DENSITY, settings.mean_noise_span_length),)
    if settings.name == "prefix_lm":
        return (Denoiser(settings.noise_density or PREFIX_DENSITY, None),)
    return tuple(Denoiser.parse(row) for row in (UL2 if settings.name == "ul2" else settings.denoisers))


def describe(settings: ObjectiveSettings) -> str:
    """An objective in one line, for people."""
    if settings.name == "span_corruption":
        density, mean = settings.noise_density or SPAN_DENSITY, settings.mean_noise_span_length
        size = (
            f"windows of {settings.window_length} tokens"
            if settings.window_length
            else f"{settings.input_length or INPUT_LENGTH} inputs"
        )
        return f"span corruption, density {density:g}, mean span {mean:g}, {size}"
    window = f"windows of {settings.window_length or WINDOW_LENGTH} tokens"
    if settings.name == "prefix_lm":
        return f"prefix language modelling, density {settings.noise_density or PREFIX_DENSITY:g}, {window}"
    name = "UL2" if settings.name == "ul2" else f"mixture of {len(settings.denoisers)} denoisers"
    return f"{name} ({', '.join(map(str, denoisers_of(settings)))}), {window}"


@dataclass(frozen=True)
class DenoiserSpec:
    """A denoiser with all its lengths.

    Attributes:
      denoiser: the denoiser.
      prefix: ids of the mode token.
      window: tokens per window.
      lengths: the lengths of span corruption; None for prefix LM.
      noise: tokens to predict; for prefix LM the mean.
      eos: inputs and targets end with `</s>`.
    """

    denoiser: Denoiser
    prefix: tuple[int, ...]
    window: int
    lengths: SpanLengths | None
    noise: int
    eos: bool

    @property
    def item(self) -> Item:
        """The room that its windows take in a row.

        Windows of prefix LM come in pairs: their numbers of tokens to predict are drawn so that the two
        windows together always take the same room.
        """
        weight = self.denoiser.weight
        if self.lengths is not None:
            return Item(self.lengths.inputs, self.lengths.targets, weight)
        inputs = len(self.prefix) + self.window - self.noise + self.eos
        return Item(2 * inputs, 2 * (self.noise + self.eos), weight, windows=2)

    @property
    def max_lengths(self) -> tuple[int, int]:
        """The most inputs and targets that one window can have."""
        if self.lengths is not None:
            return self.lengths.inputs, self.lengths.targets
        low, high = self.noise_range
        return len(self.prefix) + self.window - low + self.eos, high + self.eos

    @property
    def noise_range(self) -> tuple[int, int]:
        """Prefix LM: the fewest and the most tokens to predict; all counts between are equally likely."""
        low, high = max(1, 2 * self.noise - (self.window - 1)), min(self.window - 1, 2 * self.noise - 1)
        return low, high

    @property
    def draws(self) -> int:
        """Random numbers per window: those of its spans, and one for its rotation or its split."""
        return 1 + (draws_needed(self.lengths) if self.lengths is not None else 0)


def resolve_lengths(
    settings: ObjectiveSettings, sentinels: int, prefixes: Sequence[tuple[int, ...]]
) -> tuple[DenoiserSpec, ...]:
    """All lengths of an objective, checked against the number of sentinels.

    Args:
      settings: the objective of a recipe.
      sentinels: sentinels of the vocabulary that are not used as mode tokens.
      prefixes: ids of the mode token of each denoiser.

    Raises:
      T5smithError: no window fits, or a window has more spans than there are sentinels.
    """
    single = settings.name == "span_corruption"
    window = settings.window_length if single else settings.window_length or WINDOW_LENGTH
    specs: list[DenoiserSpec] = []
    for denoiser, prefix in zip(denoisers_of(settings), prefixes, strict=True):
        if denoiser.mean_noise_span_length is None:
            assert window is not None
            noise = min(max(round(window * denoiser.noise_density), 1), window - 1)
            specs.append(DenoiserSpec(denoiser, prefix, window, None, noise, settings.eos))
            continue
        masking = Masking(
            denoiser.noise_density,
            denoiser.mean_noise_span_length,
            roll=settings.roll,
            eos=settings.eos,
            prefix=len(prefix),
        )
        if window is None:
            lengths = lengths_for_inputs(settings.input_length or INPUT_LENGTH, masking)
            check_sentinels(lengths, sentinels, masking, fixed="input_length")
        else:
            lengths = span_lengths(window, masking)
            where = "objective" if single else f"objective: denoiser {str(denoiser)!r}"
            check_sentinels(lengths, sentinels, masking, fixed="window_length", where=where)
        specs.append(DenoiserSpec(denoiser, prefix, lengths.window, lengths, lengths.noise, settings.eos))
    return tuple(specs)


def fixed_input_length(settings: ObjectiveSettings) -> int | None:
    """The encoder positions per row if the settings fix them; None if the windows decide."""
    chooses_window = settings.name == "span_corruption" and settings.window_length is None
    return None if chooses_window else settings.input_length


def resolve_mode_tokens(
    settings: ObjectiveSettings, vocabulary: Vocabulary
) -> tuple[tuple[tuple[int, ...], ...], int]:
    """The ids of each denoiser's mode token, and the number of sentinels left for spans.

    Raises:
      T5smithError: a mode token cannot be encoded.
    """
    prefixes = tuple(mode_token_ids(denoiser.prefix, vocabulary) for denoiser in denoisers_of(settings))
    numbers = [vocabulary.sentinel_number(number) for ids in prefixes for number in ids]
    used = [number for number in numbers if number is not None]
    return prefixes, min([len(vocabulary.sentinel_ids), *used])


def mode_token_ids(name: str, vocabulary: Vocabulary) -> tuple[int, ...]:
    """The ids of a mode token: the piece of that name, which may be a sentinel; else the encoded text.

    Raises:
      T5smithError: the text has characters that are not in the vocabulary.
    """
    named = vocabulary.id_of(name)
    ids = tuple(vocabulary.encode(name)) if named is None else (named,)
    if name and (not ids or {vocabulary.unk_id, vocabulary.pad_id, vocabulary.eos_id} & {*ids}):
        raise T5smithError(
            f"the vocabulary cannot encode the mode token {name!r}",
            where="objective",
            fix="add it to vocab.control_symbols and train the vocabulary again, or use "
            f"<extra_id_{len(vocabulary.sentinel_ids) - 1}> in your own table of denoisers",
        )
    return ids
