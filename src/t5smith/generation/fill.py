"""Text to text: filling in masked spans, continuing, or whatever else the model was trained for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any

from t5smith.base.errors import T5smithError
from t5smith.base.hub import download_first
from t5smith.base.phase import phase
from t5smith.base.progress import progress, warn
from t5smith.generation.completion import Completion, completion
from t5smith.generation.decoding import Decoder
from t5smith.generation.modes import Mode, mode_of
from t5smith.interop.huggingface_load import load_model
from t5smith.interop.model import Model
from t5smith.recipe.evaluate import GenerateSettings

BATCHES_AHEAD = 8
"""Inputs of so many batches are read ahead, to put those of similar length into one batch."""


def model_folder(folder: Path) -> Path:
    """The exported model of a run folder, or the folder itself.

    Raises:
      T5smithError: there is no such folder, or it is a run folder without an exported model.
    """
    if not folder.is_dir():
        what = "this is a file" if folder.exists() else "there is no such folder"
        expected, fix = "a run folder or an exported model folder", download_first(str(folder))
        raise T5smithError(what, where=folder, expected=expected, fix=fix)
    if (folder / "config.json").is_file():
        return folder
    if (folder / "model").is_dir():
        return folder / "model"
    if any((folder / part).is_dir() for part in ("vocab", "store", "train")):
        raise T5smithError(
            "this run has no exported model yet",
            where=folder,
            fix="finish it with `t5smith run RECIPE`, or run `t5smith export RECIPE`",
        )
    return folder


class Generator:
    """A model that is loaded once and completes any number of texts.

    Attributes:
      settings: how it generates.
      mode: the mode token that it puts before each text, if any.
    """

    def __init__(
        self,
        model: str | Path | Model,
        settings: GenerateSettings | None = None,
        mode: str | None = None,
        **changes: Any,
    ) -> None:
        """Load a model.

        Args:
          model: a Hugging Face T5 folder, a run folder with an exported `model`, or a loaded model.
          settings: how to generate.
          mode: mode token put before each text, such as `[R]`, for a model that was trained with mode tokens.
            "": none. Default: that of its first denoiser that masks spans.
          changes: settings that differ from `settings`, by name: `num_beams=4`.

        Raises:
          T5smithError: there is no model, it was not trained with this mode token, or a setting cannot be
            used.
        """
        tree = (settings or GenerateSettings()).model_dump()
        self.settings = GenerateSettings.model_validate(tree | changes)
        if isinstance(model, Model):
            self.model, self.mode = model, Mode("", ())
        else:
            folder = model_folder(Path(model))
            with phase("generate", "loading the model", at_once=False):
                self.model = load_model(folder)
            self.mode = mode_of(folder, self.model.vocabulary, mode)
        self._decoder = Decoder(self.model, self.settings)

    def each(self, texts: Iterable[str], first: int = 0) -> Iterator[Completion]:
        """Complete texts one after the other; they are read as they are needed, a few batches ahead.

        Args:
          texts: `The <extra_id_0> ruined my sleep`, or texts without sentinels.
          first: the number of the first one, which draws at random depend on.

        Raises:
          T5smithError: a text is empty or has a sentinel that does not exist, or the work does not fit into
            memory.
        """
        yield from self.each_of_ids(self._all_encoded(texts), count(first))

    def each_of_ids(
        self, inputs: Iterable[Sequence[int]], numbers: Iterable[int] | None = None
    ) -> Iterator[Completion]:
        """As :meth:`each`, of ids from :meth:`encoded`, with a number for each."""
        size, left = (
            self.settings.batch_size,
            zip(inputs, count() if numbers is None else numbers, strict=False),
        )
        while ahead := list(islice(left, size * BATCHES_AHEAD)):
            done: dict[int, Completion] = {}
            by_length = sorted(range(len(ahead)), key=lambda at: len(ahead[at][0]))
            for begin in range(0, len(ahead), size):
                batch = by_length[begin : begin + size]
                own = [ahead[at][0] for at in batch]
                outputs = self._decoder.decode(
                    [self._with_mode(ids) for ids in own],
                    [ahead[at][1] for at in batch],
                    [self._sentinels(ids) for ids in own],
                )
                for at, ids, sequences in zip(batch, own, outputs, strict=True):
                    done[at] = self._completion(ids, sequences)
            yield from (done[at] for at in range(len(ahead)))

    def stream(self, text: str) -> Iterator[Completion]:
        """What is written for a text so far, after every token.

        Raises:
          T5smithError: as :meth:`each`; or beam search is set, which writes several texts at once.
        """
        if self.settings.num_beams > 1:
            raise T5smithError("beam search cannot stream", where="num_beams", fix="set it to 1")
        (ids,) = self._all_encoded([text])
        for output in self._decoder.stream(self._with_mode(ids), self._sentinels(ids)):
            yield self._completion(ids, [output])

    def encoded(self, text: str) -> list[int]:
        """The ids of a text, without mode token and `</s>`.

        Raises:
          T5smithError: it has a sentinel that does not exist, or more than `max_new_tokens` has room for.
        """
        ids = self.model.vocabulary.encode_with_sentinels(text)
        self._decoder.check_room(self._sentinels(ids))
        return ids

    def _all_encoded(self, texts: Iterable[str]) -> Iterator[list[int]]:
        for number, text in enumerate(texts, 1):
            ids = self.encoded(text)
            if not ids:
                what = f"text {number} is empty ({text!r})"
                raise T5smithError(what, expected="text, with sentinels where there is something to fill in")
            if self.mode.continues and "<extra_id_" in text and number == 1:
                name = self.mode.token or "this model"
                warn(f"{name} continues texts (prefix LM): sentinels mean nothing to it")
            yield ids

    def _with_mode(self, ids: Sequence[int]) -> list[int]:
        return [*self.mode.ids, *ids, self.model.vocabulary.eos_id]

    def _sentinels(self, ids: Sequence[int]) -> list[int]:
        """The sentinels that an output must have: those of the input, each once."""
        if not self.settings.constrain or self.mode.continues:
            return []
        vocabulary = self.model.vocabulary
        return list(dict.fromkeys(one for one in ids if vocabulary.sentinel_number(one) is not None))

    def _completion(self, ids: Sequence[int], outputs: Any) -> Completion:
        return completion(self.model.vocabulary, ids, outputs, self.mode, self.settings.stop)


def generate(
    model: str | Path | Model,
    texts: Sequence[str],
    settings: GenerateSettings | None = None,
    mode: str | None = None,
    **changes: Any,
) -> list[Completion]:
    """Complete texts: fill in sentinels, as in `The <extra_id_0> ruined my sleep`, or write a text for each.

    Args:
      model: a Hugging Face T5 folder, a run folder with an exported `model`, or a loaded model.
      texts: one or more; each is completed on its own.
      settings: how to generate.
      mode: mode token put before each text, such as `[R]`, for a model that was trained with mode tokens.
        "": none. Default: that of its first denoiser that masks spans.
      changes: settings by name, such as `max_new_tokens=20`, `num_beams=4`.

    Raises:
      T5smithError: there is no model, a text is empty or has a sentinel that does not exist, the model was
        not trained with this mode token, a setting cannot be used, or the work does not fit into memory.
    """
    return list(generate_each(model, texts, settings, mode, total=len(texts), **changes))


def generate_each(
    model: str | Path | Model,
    texts: Iterable[str],
    settings: GenerateSettings | None = None,
    mode: str | None = None,
    total: int | None = None,
    **changes: Any,
) -> Iterator[Completion]:
    """As :func:`generate`, one completion after the other; any iterable of texts is read as it is needed.

    `total` is their number, for the progress bar, if it is known.
    """
    generator = Generator(model, settings, mode, **changes)
    if total is not None and total <= generator.settings.batch_size:
        with phase("generate", "decoding", at_once=False):
            done = list(generator.each(texts))
        yield from done
        return
    with progress("generate", total, "texts") as bar:
        for one in generator.each(texts):
            bar.advance(1)
            yield one


def stream(
    model: str | Path | Model,
    text: str,
    settings: GenerateSettings | None = None,
    mode: str | None = None,
    **changes: Any,
) -> Iterator[Completion]:
    """What a model writes for one text so far, after every token; arguments as :func:`generate`."""
    yield from Generator(model, settings, mode, **changes).stream(text)


def complete(
    model: Model,
    inputs: Sequence[Sequence[int]],
    settings: GenerateSettings,
    prefix: Sequence[int] = (),
    on_done: Callable[[int], Any] | None = None,
) -> list[Completion]:
    """Complete tokenised inputs (without `</s>`); the results are in the order of the inputs.

    Args:
      model: the model.
      inputs: the ids of each input.
      settings: how to generate.
      prefix: ids put before each input: a mode token that the model was trained with.
      on_done: called with 1 after each input.
    """
    assert all(inputs)
    generator = Generator(model, settings)
    generator.mode = Mode("", tuple(prefix))
    results: list[Completion] = []
    for one in generator.each_of_ids(inputs):
        results.append(one)
        if on_done:
            on_done(1)
    return results
