"""Figures in documents that the code decides are those of the code."""

import re
from pathlib import Path

import pytest

from t5smith.objective.denoisers import resolve_lengths
from t5smith.objective.lengths import Masking, lengths_for_inputs
from t5smith.objective.objective import Objective
from t5smith.pages.written import PICTURES
from t5smith.recipe.objective import ObjectiveSettings
from t5smith.recipe.symbols import SENTINELS
from t5smith.recipe.toml import load_recipe, presets
from t5smith.recipe.train import OptimizerSettings
from t5smith.store import plan
from t5smith.text import fingerprints
from t5smith.text.files import SAMPLES
from t5smith.text.formats import jsonl
from t5smith.training.optimizer import DEFAULT_LEARNING_RATE
from t5smith.vocabulary import train as vocab
from t5smith.vocabulary.compare import compare_vocabularies
from t5smith.vocabulary.encoding import BYTE_SENTINELS
from t5smith.vocabulary.vocabulary import Vocabulary

ROOT = Path(__file__).resolve().parent.parent


def read(name: str) -> str:
    """A document, with line breaks as spaces."""
    return " ".join((ROOT / name).read_text(encoding="utf-8").split())


def demo_lengths() -> tuple[int, int, int]:
    """Window, inputs and targets of the demo."""
    objective = load_recipe("norwegian-tiny").objective
    (spec,) = resolve_lengths(objective, SENTINELS, ((),))
    return spec.window, *spec.max_lengths


def figures() -> list[tuple[str, str]]:
    """Documents, and what must be in them."""
    window, inputs, targets = demo_lengths()
    demo = load_recipe("norwegian-tiny")
    lengths = {n: lengths_for_inputs(n, Masking(0.15, 3.0)) for n in (512, 1024, 2048)}
    ul2 = Objective.create(ObjectiveSettings(name="ul2"), Vocabulary.bundled())
    steps, batch = f"{demo.train.steps:,}", demo.train.batch_size
    listed = f"{', '.join(f'.{kind}' for kind in PICTURES[:-1])} or .{PICTURES[-1]}"
    handbook = demo.corpus.valid[0].removeprefix("bundled:")
    assert (SAMPLES / handbook).is_file()
    return [
        ("docs/decisions.md", f"windows of {window} tokens a step"),
        ("docs/decisions.md", f"Files of up to {fingerprints.MAX_HASHED_BYTES >> 20} MiB"),
        ("docs/decisions.md", f"{ul2.input_length:,} input and {ul2.target_length:,} target positions"),
        ("docs/decisions.md", f"fewer than {vocab.ENOUGH_OCCURRENCES} times"),
        ("docs/objective.md", f"a row has {ul2.input_length:,} inputs and {ul2.target_length:,} targets"),
        ("docs/objective.md", f"{lengths[512].window} tokens for 512"),
        ("docs/objective.md", f"{lengths[1024].window:,} for 1,024 (targets {lengths[1024].targets})"),
        ("docs/objective.md", f"{lengths[2048].window:,} for 2,048 (targets {lengths[2048].targets})"),
        ("docs/objective.md", f"have {lengths[2048].spans} spans, more than {SENTINELS} sentinels"),
        ("docs/training.md", f"each example: {inputs} input + {targets} target tokens ({window} tokens of"),
        ("docs/training.md", f"{steps} steps of {batch} examples"),
        ("docs/corpora.md", f"Files of up to {fingerprints.MAX_HASHED_BYTES >> 20} MiB"),
        ("docs/corpora.md", f"{plan.MIN_BLOCK_BYTES >> 20} to {plan.MAX_BLOCK_BYTES >> 20} MB"),
        ("docs/corpora.md", f"first {jsonl.MAX_SAMPLED} records of each file"),
        ("docs/corpora.md", f"{BYTE_SENTINELS} of them"),
        ("docs/corpora.md", f"draws a {listed}"),
        ("docs/corpora.md", f"fewer than {vocab.ENOUGH_OCCURRENCES} times"),
        ("README.md", f"{steps} steps, "),
        ("README.md", f"{SENTINELS} sentinels"),
        ("README.md", f"| vocabulary | {demo.vocab.size:,} pieces"),
        (
            "CHANGELOG.md",
            f"TOML files, {['', 'one', 'two', 'three', 'four'][len(presets())]} of them bundled",
        ),
    ]


@pytest.mark.parametrize(("document", "figure"), figures())
def test_a_figure_that_the_code_decides_is_that_of_the_code(document, figure):
    assert figure in read(document)


def test_default_learning_rates_are_described_as_they_are():
    described = " ".join(str(OptimizerSettings.model_fields["learning_rate"].description).split())
    for name, (factor, lowest, highest) in DEFAULT_LEARNING_RATE.items():
        limits = f"(?:at least )?{lowest:g} (?:and at most|to) {highest:g}"
        rule = rf"{factor:g}/sqrt\(tokens\), {limits}, for [^;]*\b{name}\b"
        assert re.search(rule, described), name


def test_the_comparison_of_tokenizers_is_what_is_printed(capsys, tmp_path):
    from t5smith.reports.vocab_comparison import show

    recipe = load_recipe("norwegian-tiny").replace(run_dir=tmp_path)
    show(compare_vocabularies(recipe, ["bytes"]))
    printed = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    shown = read("docs/corpora.md")
    # The row of bytes and the lines around the table; other rows need vocabularies that are not here.
    for line in printed:
        assert line in shown, line
