"""Held-out numbers of a trained model, beside what is known without one.

Definitions: NLL is nats a target token; quality is judged on text tokens (no sentinels, no `</s>`).
The unigram baseline is the NLL of the same text tokens under the frequencies of the training split, 0.1
added to every count, over text ids. Bits per byte is the NLL of all targets in bits over the UTF-8 bytes
of the masked text; between vocabularies it is indicative only, since spans are drawn in tokens.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from t5smith.base.artifact import building, find_up_to_date, fingerprint
from t5smith.base.lock import in_run_folder
from t5smith.base.progress import info, progress
from t5smith.generation.fill import complete
from t5smith.interop.model import Model
from t5smith.objective.batches import Batch, evaluation_batches
from t5smith.objective.rng import EXAMPLES, generator
from t5smith.recipe.recipe import Recipe, plain
from t5smith.training import checkpoints as checkpoint
from t5smith.training.eval_step import HeldOutScore, RowSums, Score, create_scorer, token_classes, total
from t5smith.training.setup import DTYPES, Setup, trained
from t5smith.vocabulary.vocabulary import SPACE, Vocabulary

RESULTS = "evaluation.json"
SMOOTHING = 0.1
EXAMPLE_TOKENS = (12, 32)
"""Examples are held-out sentences of so many tokens: they fit on a line or two."""
LONGEST_EXAMPLE = 3
"""Masked words have at most so many tokens, about as many as the spans of training."""
EXAMPLE_ANSWER = 24
"""The model may write so many tokens."""
EXAMPLE_DOCUMENTS, EXAMPLE_STRETCH = 200, 2_000
"""They are looked for in the first documents, and in so many tokens of each."""


@in_run_folder
def evaluate(recipe: Recipe) -> Path:
    """Measure the trained model on the held-out split.

    Returns:
      The evaluation folder, whose `evaluation.json` holds the numbers and the examples.

    Raises:
      T5smithError: the model is not trained yet, or the held-out split has no whole window.
    """
    setup = Setup.create(recipe)
    source, mark = trained(setup)
    inputs = {"checkpoint": mark, "evaluate": plain(recipe.evaluate)}
    folder = recipe.folder / "evaluation"
    if find_up_to_date(folder, "evaluation", fingerprint(inputs)):
        info(f"evaluate  already done: {folder}")
        return folder

    state = checkpoint.restore(source, setup.abstract_state())
    model = Model(state.eval_params, setup.config, setup.vocabulary)
    batches = evaluation_batches(
        setup.store.valid,
        setup.objective,
        batch_size=recipe.evaluate.batch_size,
        masks_per_window=recipe.evaluate.masks_per_window,
        windows=recipe.evaluate.windows,
    )
    scorer = create_scorer(setup.config, token_classes(setup.vocabulary), DTYPES["float32"])
    with progress("evaluate", sum(len(batch["targets"]) for batch in batches), "windows") as bar:
        parts: list[RowSums] = []
        text = Score(0.0, 0.0, 0.0)
        for batch in batches:
            parts.append(scorer(model.parameters, [batch]))
            text += total(parts[-1]).text
            bar.advance(len(batch["targets"]), nll=f"{text.nll / max(text.tokens, 1):.3f}")
    rows = np.concatenate(parts)
    facts = numbers(setup, batches, total(rows))
    if len(setup.objective.denoisers) > 1:
        facts["denoisers"] = by_denoiser(setup, batches, rows)
    facts["examples"] = examples(setup, model, recipe.evaluate.examples)
    with building(folder, "evaluation", inputs, facts) as work:
        text = json.dumps(facts, indent=1, ensure_ascii=False) + "\n"
        (work / RESULTS).write_text(text, encoding="utf-8")
    return folder


def by_denoiser(setup: Setup, batches: Sequence[Batch], rows: RowSums) -> dict[str, Any]:
    """For each denoiser of a mixture its figures; they differ in how much of the text they show."""
    task = np.concatenate([batch["denoiser"][:, 0] for batch in batches])
    found: dict[str, Any] = {}
    for number, one in enumerate(setup.objective.denoisers):
        mine = rows[task == number]
        score = total(mine)
        found[one.denoiser.title] = {
            "windows": len(mine),
            "text": score.text.per_token(),
            "all": score.total.per_token(),
        }
    return found


def numbers(setup: Setup, batches: Sequence[Batch], score: HeldOutScore) -> dict[str, Any]:
    """The figures of a report from sums over held-out batches."""
    targets = np.concatenate([batch["targets"].ravel() for batch in batches])
    masked_bytes = int(setup.vocabulary.piece_bytes[targets].sum())
    baseline = unigram_nll(setup.store.train.counts(setup.vocabulary.size), setup.vocabulary.is_text, targets)
    return {
        "text": score.text.per_token(),
        "sentinels": score.sentinels.per_token(),
        "eos": score.eos.per_token(),
        "all": score.total.per_token(),
        "unigram_nll": baseline,
        "margin": None if baseline is None else baseline - score.text.nll / score.text.tokens,
        "bits_per_byte": score.total.nll / math.log(2) / masked_bytes if masked_bytes else None,
        "masked_bytes": masked_bytes,
        "windows": sum(len(batch["targets"]) for batch in batches),
        "masks_per_window": setup.recipe.evaluate.masks_per_window,
        "step": setup.recipe.train.steps,
    }


def unigram_nll(counts: np.ndarray, is_text: np.ndarray, targets: np.ndarray) -> float | None:
    """Mean NLL of the text targets under smoothed training frequencies of the text ids."""
    text = targets[is_text[targets]]
    if not len(text):
        return None
    weights = (counts + SMOOTHING)[is_text].sum()
    return float(-np.log((counts[text] + SMOOTHING) / weights).mean())


def examples(setup: Setup, model: Model, how_many: int) -> list[dict[str, Any]]:
    """Held-out sentences with two words masked, and how the model fills them in."""
    vocabulary, rng = model.vocabulary, generator(0, EXAMPLES, 0)
    candidates = list(_sentences(setup))
    chosen: list[dict[str, Any]] = []
    for index in rng.permutation(len(candidates)):
        ids = candidates[index]
        spans = _two_words(vocabulary, ids, rng)
        if len(chosen) == how_many:
            break
        if spans is None:
            continue
        kept = [ids[: spans[0][0]], ids[spans[0][1] : spans[1][0]], ids[spans[1][1] :]]
        inputs = [
            *kept[0],
            int(vocabulary.sentinel_ids[0]),
            *kept[1],
            int(vocabulary.sentinel_ids[1]),
            *kept[2],
        ]
        chosen.append({"ids": ids, "kept": kept, "spans": spans, "inputs": inputs})
    # A mixture's first denoiser that masks spans is the one for short ones.
    modes = [task.prefix for task in setup.objective.denoisers if task.lengths is not None]
    prefix = modes[0] if modes else setup.objective.denoisers[0].prefix
    longest = EXAMPLE_ANSWER * _tokens_a_piece(vocabulary)
    completions = complete(model, [one["inputs"] for one in chosen], max_new_tokens=longest, prefix=prefix)
    return [
        {
            "text": vocabulary.decode(one["ids"]),
            "input": vocabulary.decode(one["inputs"]),
            "kept": [vocabulary.decode(part) for part in one["kept"]],
            "truth": [vocabulary.decode(one["ids"][start:stop]) for start, stop in one["spans"]],
            "fills": list(completion.fills),
            "output": completion.text,
            "filled": completion.filled,
        }
        for one, completion in zip(chosen, completions, strict=True)
    ]


def _tokens_a_piece(vocabulary: Vocabulary) -> int:
    """How many tokens say what a piece does: bytes say less."""
    return 4 if vocabulary.is_byte_level else 1


def _sentences(setup: Setup) -> Iterator[list[int]]:
    """Sentences of the first held-out documents that have a length to be shown."""
    split = setup.store.valid
    low, high = (tokens * _tokens_a_piece(setup.vocabulary) for tokens in EXAMPLE_TOKENS)
    for end, start in zip(split.ends[:EXAMPLE_DOCUMENTS], (0, *split.ends), strict=False):
        text = setup.vocabulary.decode(split.tokens[start : min(end, start + EXAMPLE_STRETCH)])
        sentences = re.split(r"(?<=[.!?]) +(?=\w)", text)
        # Where the stretch was cut the last one is not whole.
        for ids in setup.vocabulary.encode_batch(sentences[:-1] or sentences):
            if low <= len(ids) <= high and setup.vocabulary.unk_id not in ids:
                yield ids


def _two_words(
    vocabulary: Vocabulary, ids: list[int], rng: np.random.Generator
) -> list[tuple[int, int]] | None:
    """A short word of each half of a sentence, as places in `ids`; None if a half has none to spare.

    The last word is left alone: its full stop would be masked with it.
    """
    starts = [at for at, piece in enumerate(vocabulary.readable_pieces(ids)) if piece.startswith(SPACE)]
    words = list(pairwise(starts))
    halves = words[1 : len(words) // 2], words[len(words) // 2 + 1 :]
    longest = LONGEST_EXAMPLE * _tokens_a_piece(vocabulary)
    short = [[word for word in half if word[1] - word[0] <= longest] for half in halves]
    return [half[rng.integers(len(half))] for half in short] if all(short) else None
