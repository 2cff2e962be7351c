"""From ids to ids: a model made ready for decoding, batches of few shapes, programs that fit into memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Int

from t5smith.base.errors import T5smithError
from t5smith.base.signals import interruptible
from t5smith.base.wrapping import pluralize
from t5smith.generation.cache import decoder_weights
from t5smith.generation.engine import run, start
from t5smith.generation.processors import Rules
from t5smith.generation.state import Given, Slots, State
from t5smith.generation.stops import create_stops
from t5smith.interop.model import Model
from t5smith.model.params import Parameters
from t5smith.parallel.backend import compute_in
from t5smith.recipe.evaluate import GenerateSettings
from t5smith.training.compile import fitting_program

LENGTH = 32
"""The shortest length of inputs and of outputs that is compiled; longer ones are 1.5 times, twice, ... it."""


@dataclass(frozen=True)
class Output:
    """One generated sequence.

    Attributes:
      ids: with `</s>` if it was generated, without padding.
      log_probs: of each token by the model alone, in nats; empty unless they are asked for.
      score: in beam search, the sum of log probabilities after penalties, divided by the length penalty.
    """

    ids: tuple[int, ...]
    log_probs: tuple[float, ...] = ()
    score: float | None = None


class Decoder:
    """A model made ready for decoding with some settings; parameters stay on the devices where they are."""

    def __init__(self, model: Model, settings: GenerateSettings) -> None:
        vocabulary = model.vocabulary
        self.model, self.settings = model, settings
        self.rules = Rules.of(settings, vocabulary.eos_id)
        self.compute = compute_in(settings.precision)
        self.weights = decoder_weights(model.parameters, model.config, self.compute)
        self.parameters: Parameters = model.parameters
        rows = model.config.vocab_size
        self.stops = create_stops(settings.stop, vocabulary, rows) if settings.stop else None
        text = np.zeros(rows, bool)
        text[: vocabulary.size] = vocabulary.is_text
        text[vocabulary.unk_id] = False
        self.text = text

    def decode(
        self,
        inputs: Sequence[Sequence[int]],
        numbers: Sequence[int],
        sentinels: Sequence[Sequence[int]] | None = None,
    ) -> list[list[Output]]:
        """The sequences that the model generates for a batch of inputs.

        Args:
          inputs: ids of each input, with `</s>`.
          numbers: of the inputs among all that are generated; draws depend on them.
          sentinels: those that the output of each input must have, in order; none: it is free.

        Raises:
          T5smithError: it does not fit into memory, or `max_new_tokens` is too small for the sentinels.
        """
        *_, state = self._states(inputs, numbers, sentinels, every=self.settings.max_new_tokens)
        return self._sequences(state, len(inputs))

    def stream(self, ids: Sequence[int], sentinels: Sequence[int] = (), number: int = 0) -> Iterator[Output]:
        """What is generated for one input so far, after every token; without beam search.

        Raises:
          T5smithError: as :meth:`decode`.
        """
        assert self.rules.num_beams == 1
        for state in self._states([ids], [number], [sentinels], every=1):
            yield self._sequences(state, 1)[0][0]

    def _states(
        self,
        inputs: Sequence[Sequence[int]],
        numbers: Sequence[int],
        sentinels: Sequence[Sequence[int]] | None,
        every: int,
    ) -> Iterator[State]:
        """The state after every so many tokens, until all have ended."""
        settings, config = self.settings, self.model.config
        padded = np.full(
            (_at_least(len(inputs), 1), _at_least(max(map(len, inputs)))),
            self.model.vocabulary.pad_id,
            np.int32,
        )
        for row, ids in enumerate(inputs):
            padded[row, : len(ids)] = ids
        rows = np.zeros(len(padded), np.int32)
        rows[: len(inputs)] = numbers
        given = Given(
            np.int32(settings.max_new_tokens),  # type: ignore[arg-type]
            jax.random.PRNGKey(settings.seed),
            rows,  # type: ignore[arg-type]
            self._slots(sentinels, len(padded)) if sentinels and any(sentinels) else None,
            self.stops,
        )
        length = _at_least(settings.max_new_tokens)
        static = {"config": config, "rules": self.rules, "compute": self.compute}
        what = f"generating {settings.max_new_tokens:,} tokens for {pluralize(len(inputs), 'text')} "
        what += f"of up to {padded.shape[1]:,}"
        args = self.parameters, self.weights, padded, given
        memory, state = self._program(start, args, what, static | {"length": length})(*args)
        for until in range(every, settings.max_new_tokens + every, every):
            args = self.weights, memory, given, state, np.int32(until)
            program = self._program(run, args, what, static)
            state = interruptible(lambda program=program, args=args: jax.block_until_ready(program(*args)))
            yield state
            if int(state.position) < until:
                return

    def _program(self, function: Any, args: Any, what: str, static: dict[str, Any]) -> Any:
        fix = "ask for fewer tokens, a smaller --batch-size, or give shorter texts"
        return fitting_program(function, *args, what=what, where="--max-new-tokens", fix=fix, **static)

    def check_room(self, sentinels: Sequence[int]) -> None:
        """Check that an output with these sentinels, and a token after each, is not too long.

        Raises:
          T5smithError: it is.
        """
        needed, room = 2 * len(sentinels), self.settings.max_new_tokens
        if needed > room:
            raise T5smithError(
                f"{pluralize(room, 'token')} cannot hold {pluralize(len(sentinels), 'span')}",
                where="--max-new-tokens",
                expected="a sentinel and a token for each",
                fix=f"set it to {needed} or more, or add --no-constrain",
            )

    def _slots(self, sentinels: Sequence[Sequence[int]], rows: int) -> Slots:
        """The sentinels as arrays; after the last one, the next sentinel of the vocabulary may close."""
        vocabulary = self.model.vocabulary
        order = np.full((rows, _at_least(max(map(len, sentinels)) + 1, 8)), -1, np.int32)
        count = np.zeros(rows, np.int32)
        for row, own in enumerate(sentinels):
            self.check_room(own)
            order[row, : len(own)], count[row] = own, len(own)
            following = 1 + max((vocabulary.sentinel_number(one) or 0 for one in own), default=0)
            if own and following < len(vocabulary.sentinel_ids):
                order[row, len(own)] = vocabulary.sentinel_ids[following]
        return Slots(order, count, self.text)  # type: ignore[arg-type]

    def _sequences(self, state: State, inputs: int) -> list[list[Output]]:
        """The sequences of a state; in beam search the best finished ones."""
        settings, beams = self.settings, state.beams
        count, asked = settings.num_return_sequences, settings.log_probs
        kept = (
            (state.tokens, state.log_probs, None)
            if beams is None
            else (beams.finished_tokens, beams.finished_log_probs, beams.scores)
        )
        tokens, log_probs, scores = (None if x is None else np.asarray(x) for x in kept)
        assert tokens is not None
        assert log_probs is not None
        found: list[list[Output]] = []
        for row in range(inputs):
            found.append([])
            for number in range(count):
                ids = _without_padding(tokens[row, number, 1:], self.model.vocabulary.pad_id)
                own = tuple(log_probs[row, number, : len(ids)].tolist()) if asked else ()
                score = None if scores is None else float(scores[row, number])
                found[-1].append(Output(ids, own, score))
        return found


def _at_least(size: int, least: int = LENGTH) -> int:
    """A size that is compiled: `least` times 1, 1.5, 2, 3, 4, 6, 8, ..."""
    bucket = least
    while bucket < size:
        power = 1 << (bucket // least).bit_length() - 1
        bucket = bucket * 3 // 2 if bucket == least * power and bucket % 2 == 0 else least * power * 2
    return bucket


def _without_padding(row: Int[np.ndarray, " T"], pad_id: int) -> tuple[int, ...]:
    """The ids before the padding at the end."""
    return tuple(row[: len(row) - int(np.argmax(row[::-1] != pad_id))].tolist()) if row.any() else ()
