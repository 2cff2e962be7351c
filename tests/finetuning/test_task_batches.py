"""Batches of examples: every example once per epoch, packed or not, the same in any order of access."""

import numpy as np
import pytest

from finetuning.pairs import pairs, write_jsonl
from t5smith.base.errors import T5smithError
from t5smith.finetuning.batches import Denoising, PairObjective, TaskBatches
from t5smith.finetuning.examples import Examples, make_examples
from t5smith.finetuning.packed import CHUNK, EXACT, PackedRows
from t5smith.objective.objective import Objective
from t5smith.recipe.finetune.settings import FinetuneSettings
from t5smith.training.settle import training_batches
from t5smith.training.setup import Run
from tiny import tiny_recipe


def settings_of(folder, **changes):
    tasks = {}
    for name, (number, start) in {"a": (60, 0), "b": (20, 1000)}.items():
        train = write_jsonl(folder / f"{name}.jsonl", pairs(number, start))
        dev = write_jsonl(folder / f"{name}-dev.jsonl", pairs(4, start + 500))
        tasks[name] = {"train": (str(train),), "dev": (str(dev),), "input": "nb", "target": "nn"}
    tree = {"input_length": 40, "target_length": 24, "tasks": tasks}
    return FinetuneSettings.model_validate(tree | changes)


@pytest.fixture(scope="module")
def vocabulary(prepared):
    return Run(tiny_recipe(prepared)).vocabulary


@pytest.fixture
def made(tmp_path, vocabulary):
    def make(rows=4, denoising=None, seed=0, **changes):
        settings = settings_of(tmp_path, **changes)
        examples = make_examples(tmp_path / "examples", settings, vocabulary, "key")
        return TaskBatches(examples, PairObjective.of(settings, vocabulary), settings, rows, seed, denoising)

    return make


def unpacked(batch):
    """The pairs of ids in a batch, in order."""
    found = []
    for row in range(len(batch["targets"])):
        if "input_segments" not in batch:
            found.append(
                tuple(tuple(batch[name][row][batch[name][row] != 0]) for name in ("input_ids", "targets"))
            )
            continue
        for segment in range(1, batch["target_segments"][row].max() + 1):
            sides = (("input_ids", "input_segments"), ("targets", "target_segments"))
            found.append(tuple(tuple(batch[ids][row][batch[own][row] == segment]) for ids, own in sides))
    return found


@pytest.mark.parametrize("packing", [False, True])
def test_every_example_comes_once_per_epoch_whole(made, packing):
    batches = made(packing=packing)
    examples = batches.examples
    rows = 0
    while batches.first_window(rows) < CHUNK:
        rows += 1
    found = [pair for b in range(rows // 4 + 1) for pair in unpacked(batches[b])][:CHUNK]
    expected = [tuple(tuple(examples.ids(side, n)) for side in (0, 1)) for n in range(80)]
    visits = np.bincount([expected.index(pair) for pair in found], minlength=80)
    for task in (visits[:60], visits[60:]):
        # Each is read again only after all others of its task.
        assert task.max() - task.min() <= 1
    assert visits[60:].sum() / CHUNK == pytest.approx(0.25, abs=0.05)
    assert all(ids[-1] == 1 for pair in found for ids in pair)


def test_a_batch_follows_from_its_number_alone(made):
    forwards, backwards = made(packing=True), made(packing=True)
    numbers = [9, 0, 4]
    later = {b: backwards[b] for b in numbers}
    for b in sorted(numbers):
        for name, ids in forwards[b].items():
            np.testing.assert_array_equal(ids, later[b][name])
    other = made(packing=True, seed=1)[0]
    assert any((other[name] != forwards[0][name]).any() for name in other)


def test_rows_are_the_same_at_any_batch_size(made):
    small, large = made(rows=2, packing=True), made(rows=4, packing=True)
    both = [np.concatenate([small[2 * b][name], small[2 * b + 1][name]]) for b in (0, 1) for name in small[0]]
    for ours, theirs in zip(both, [large[b][name] for b in (0, 1) for name in large[0]], strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_packed_rows_hold_each_example_once_within_the_room():
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, [65, 33], (5000, 2))
    packed = PackedRows(lambda numbers: lengths[numbers % 5000], (64, 32), 3)
    rows = [packed[row] for row in range(900)]
    numbers = [n for row in rows for n in row]
    assert len(set(numbers)) == len(numbers)
    assert all((lengths[np.array(row) % 5000].sum(axis=0) <= (64, 32)).all() for row in rows)
    assert packed.first_example(0) == 0
    for row in (1, 13, 700):
        assert packed.first_example(row) == sum(map(len, rows[:row]))
    # Far ahead it is an estimate, and nothing is packed for it.
    per_row = len(numbers) / len(rows)
    assert packed.first_example(10**9) == pytest.approx(per_row * 10**9, rel=0.05)
    assert len(packed._before) <= EXACT + 1
    # Fewer rows than one per example, close to what the fuller side needs.
    needed = lengths[np.array(numbers) % 5000] / (64, 32)
    assert len(rows) < 1.25 * needed.sum(axis=0).max()
    # Rows are not in the order of their fill.
    sizes = [len(row) for row in rows[:100]]
    assert sizes != sorted(sizes)


def test_tasks_are_mixed_by_weight_or_temperature(made):
    assert made().weights() == [0.75, 0.25]
    assert made(temperature=1000).weights() == pytest.approx([0.5, 0.5], abs=1e-3)
    weighted = made(packing=False, rows=100)
    tree = weighted.settings.model_dump()
    for name, weight in (("a", 1.0), ("b", 3.0)):
        tree["tasks"][name]["weight"] = weight
    weighted = TaskBatches(
        weighted.examples, weighted.objective, FinetuneSettings.model_validate(tree), 100, 0
    )
    starts = weighted.order.starts(np.arange(10_007))
    assert np.mean(starts >= 60) == pytest.approx(0.75, abs=1e-3)
    del tree["tasks"]["a"]["weight"]
    with pytest.raises(T5smithError, match=r"finetune.tasks.a.weight"):
        FinetuneSettings.model_validate(tree)


def test_long_texts_are_cut_and_counted(made, capsys):
    batches = made(input_length=10, target_length=8)
    facts = batches.examples.manifest.facts["tasks"]["a"]
    assert facts["cut_inputs"] > 0
    assert facts["cut_targets"] > 0
    assert batches.examples.lengths.max(axis=0).tolist() == [10, 8]
    assert all(batches.examples.ids(0, n)[-1] == 1 for n in range(80))
    assert "inputs are longer than 10 tokens and were cut (finetune.input_length)" in capsys.readouterr().err


def test_finished_examples_are_opened_and_others_made_again(made, tmp_path):
    first = made().examples.manifest
    written = (tmp_path / "examples" / "manifest.json").stat().st_mtime_ns
    assert made(packing=False).examples.manifest == first
    assert (tmp_path / "examples" / "manifest.json").stat().st_mtime_ns == written
    assert made(input_length=20).examples.manifest.key != first.key
    (tmp_path / "examples" / "train-inputs.npy").write_bytes(b"x")
    with pytest.raises(T5smithError, match="changed since"):
        Examples.open(tmp_path / "examples")


@pytest.mark.parametrize("packing", [False, True])
def test_windows_of_text_are_examples_of_the_mixture(made, prepared, vocabulary, packing):
    recipe = tiny_recipe(prepared)
    text = Run(recipe)
    objective = Objective.create(recipe.objective, vocabulary)
    windows = training_batches(recipe, text.store, objective)
    batches = made(packing=packing, denoising=Denoising(windows, 0.5))
    found = [pair for b in range(10) for pair in unpacked(batches[b])]
    examples = batches.examples
    tasks = {tuple(tuple(examples.ids(side, n)) for side in (0, 1)) for n in range(80)}
    denoised = [pair for pair in found if pair not in tasks]
    assert 0.3 < len(denoised) / len(found) < 0.7
    rows = {
        tuple(tuple(batch[name][row][batch[name][row] != 0]) for name in ("input_ids", "targets"))
        for batch in (windows[b] for b in range(150))
        for row in range(4)
    }
    # They are those of pre-training, from the first on.
    assert set(denoised) <= rows
    with pytest.raises(T5smithError, match="32 or more"):
        made(input_length=20, denoising=Denoising(windows, 0.5))
