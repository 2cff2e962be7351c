"""Shares and epochs of named corpora: on the terminal, in the manifest, in the report, and the warning."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from t5smith.base.artifact import read_manifest
from t5smith.pipeline import prepare, summary
from t5smith.recipe.recipe import Recipe
from t5smith.reports.contents import run_report
from t5smith.training.curves.advice import print_outlook
from t5smith.training.curves.held_out import EvaluationPlan
from t5smith.training.curves.repetition import (
    SHOWN,
    CorpusUse,
    corpus_use,
    epochs_of,
    repetition_in_words,
    use_facts,
    use_in_lines,
)
from t5smith.training.setup import Run
from t5smith.training.train import train
from t5smith.vocabulary.train import vocab
from tiny import tiny_recipe


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A small and a large corpus, of which the small one is read as often; prepared."""
    folder = tmp_path_factory.mktemp("mixed")
    for name, documents in (("nb", 600), ("nn", 60)):
        text = "\n".join(f"{name} det er dag {i} og natt {i * 7}" for i in range(documents))
        (folder / f"{name}.txt").write_text(text)
    text = tuple(f"{name}={folder}/{name}.txt" for name in ("nb", "nn"))
    changes = {"corpus.train": text, "corpus.weights": ("nb=1", "nn=1"), "vocab.size": 120}
    recipe = tiny_recipe(folder / "run", **changes)
    vocab(recipe)
    prepare(recipe)
    return recipe


def test_use_is_what_the_windows_say(mixed: Recipe) -> None:
    setup = Run(mixed.replace(**{"train.steps": 2_000})).setup
    order, windows = setup.batches().order, 2_000 * 4
    read = Counter(order.corpus_of(np.arange(windows)).tolist())
    for number, use in enumerate(corpus_use(setup)):
        assert use.share == pytest.approx(read[number] / windows, abs=0.01)
        assert use.epochs == pytest.approx(read[number] / order.windows_per_epoch(number), rel=0.02)
    assert corpus_use(setup, 500)[0].epochs == pytest.approx(corpus_use(setup)[0].epochs / 4)


def test_shares_and_epochs_are_printed_and_a_repeated_corpus_gives_a_warning(
    mixed: Recipe, capfd: pytest.CaptureFixture[str]
) -> None:
    setup = Run(mixed.replace(**{"train.steps": 30})).setup
    nb, nn = corpus_use(setup)
    assert nb.epochs < 4 < nn.epochs < 20
    print_outlook(setup, EvaluationPlan(0, 0))
    error = " ".join(capfd.readouterr().err.split())
    assert f"train nb: 50.0% of the windows, {nb.epochs:.3g} epochs train nn:" in error
    assert f"warning: training reads often: 'nn' ({nn.epochs:.0f} times); text teaches less" in error
    assert "by heart" not in error
    print_outlook(Run(mixed.replace(**{"train.steps": 8})).setup, EvaluationPlan(0, 0))
    assert "warning" not in capfd.readouterr().err


@pytest.mark.slow
def test_the_manifest_has_what_was_read_until_then(mixed: Recipe) -> None:
    folder = train(mixed.replace(**{"train.keep_checkpoints": 3}))
    for name, steps in (("step-00000002", 2), (folder.name, mixed.train.steps)):
        facts = read_manifest(folder.parent / name, "checkpoint").facts
        assert facts["corpora"] == use_facts(corpus_use(Run(mixed).setup, steps))["corpora"]


@pytest.mark.parametrize(
    ("epochs", "past", "told"),
    [
        ({"": 4.0}, False, None),
        ({"train": 12.2}, False, "the text is read 12 times; "),
        ({"": 12.2}, True, "the text was read 12 times; "),
        ({"a": 25.0, "b": 2.0}, False, "training reads often: 'a' (25 times); "),
        (
            {"a": 5.0, "b": 9.0, "c": 7.0, "d": 6.0, "e": 8.0},
            True,
            "read often: 'b' (9 times), 'e' (8 times), 'c' (7 times) and 2",
        ),
    ],
)
def test_the_warning_names_what_is_read_most(epochs: dict[str, float], past: bool, told: str | None) -> None:
    found = repetition_in_words(epochs, past=past)
    assert (found is None) == (told is None)
    if found and told:
        assert told in found
        assert ("by heart" in found) == (max(epochs.values()) > 20)


def test_of_many_corpora_those_that_are_read_most_are_listed() -> None:
    uses = [CorpusUse(f"c{n}", 0.05, float(n)) for n in range(SHOWN + 3)]
    lines = use_in_lines(uses, forecast=True)
    assert lines[0] == "c3: 5.0% of the windows, about 3 epochs"
    assert lines[-1].startswith("3 other corpora")
    assert len(lines) == SHOWN + 1


def test_the_report_of_a_run_warns_too(finished: Recipe) -> None:
    run = Run(finished)
    facts = summary(run)
    assert facts["train"]["epochs"] == pytest.approx(corpus_use(run.setup)[0].epochs)
    assert not [text for text in run_report(run, facts).warnings if "times" in text]
    often = facts | {"train": facts["train"] | {"epochs": 9.0}}
    (warning,) = [text for text in run_report(run, often).warnings if "times" in text]
    assert warning.startswith("the text was read 9 times")


def test_epochs_come_back_from_the_facts() -> None:
    uses = [CorpusUse("a", 0.5, 1.5), CorpusUse("b", 0.5, 7.0)]
    assert epochs_of(use_facts(uses)) == {"a": 1.5, "b": 7.0}
    assert epochs_of(use_facts(uses[:1])) == {"": 1.5}
    assert epochs_of({}) == {}
