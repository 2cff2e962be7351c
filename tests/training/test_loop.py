"""Training resumes where it stopped, bit for bit, and reports what it cannot do."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5smith.base.artifact import read_manifest
from t5smith.base.errors import T5smithError, TrainingAtStake
from t5smith.cli.main import main
from t5smith.recipe.toml import dump
from t5smith.training import loop
from t5smith.training.metrics import MetricsFile, read_rows, up_to
from t5smith.training.resume import checkpoints as checkpoint
from t5smith.training.setup import Run
from t5smith.training.train import train
from t5smith.vocabulary.train import vocab
from tiny import tiny_recipe

TESTS = Path(__file__).parents[1]


def final(recipe):
    """All leaves of the state after training."""
    setup = Run(recipe).setup
    state = checkpoint.restore(train(recipe), setup.abstract_state())
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state)]


def same(a, b):
    return len(a) == len(b) and all((x == y).all() for x, y in zip(a, b, strict=True))


def rows(recipe):
    measured = {"seconds", "tokens_per_second", "mfu", "memory_bytes", "peak_memory_bytes"}
    return [
        {name: value for name, value in row.items() if name not in measured}
        for row in read_rows(recipe.folder / "train" / "metrics.jsonl")
    ]


@pytest.fixture(scope="module")
def uninterrupted(prepared, tmp_path_factory):
    recipe = tiny_recipe(shutil.copytree(prepared, tmp_path_factory.mktemp("whole") / "run"))
    return recipe, final(recipe)


def test_the_loss_falls_and_every_step_is_logged(uninterrupted):
    recipe, _ = uninterrupted
    steps = rows(recipe)
    assert [row["step"] for row in steps] == [1, 2, 3, 4, 5, 6]
    assert steps[-1]["nll"] < steps[0]["nll"]
    assert steps[0]["learning_rate"] == pytest.approx(0.02)
    assert steps[5]["learning_rate"] == pytest.approx(0.04)
    facts = read_manifest(
        checkpoint.checkpoint_folder(recipe.folder / "train" / "checkpoints", 6), "checkpoint"
    ).facts
    assert facts["first_loss"] == steps[0]["nll"]
    assert facts["ln_vocab"] == pytest.approx(np.log(400))
    assert abs(facts["first_loss"] - facts["ln_vocab"]) < 1


def test_only_the_newest_checkpoints_are_kept(uninterrupted):
    assert checkpoint.saved_steps(uninterrupted[0].folder / "train" / "checkpoints") == [4, 6]


def test_resuming_gives_the_same_parameters_and_metrics(run_folder, uninterrupted):
    train(tiny_recipe(run_folder, **{"train.steps": 3}))
    recipe = tiny_recipe(run_folder)
    assert same(final(recipe), uninterrupted[1])
    assert rows(recipe) == rows(uninterrupted[0])


def test_a_finished_training_is_not_repeated(run_folder, uninterrupted):
    shutil.copytree(uninterrupted[0].folder / "train", run_folder / "train")
    before = (run_folder / "train" / "metrics.jsonl").stat().st_mtime_ns
    train(tiny_recipe(run_folder))
    assert (run_folder / "train" / "metrics.jsonl").stat().st_mtime_ns == before


def test_settings_without_effect_on_the_parameters_do_not_restart_it(run_folder, uninterrupted):
    shutil.copytree(uninterrupted[0].folder / "train", run_folder / "train")
    recipe = tiny_recipe(run_folder, **{"train.log_every": 3, "train.checkpoint_every": 5})
    assert same(final(recipe), uninterrupted[1])
    assert not (run_folder / "previous").exists()


def test_settings_with_effect_are_an_error_and_restart_archives_the_steps(run_folder, uninterrupted, capfd):
    shutil.copytree(uninterrupted[0].folder / "train", run_folder / "train")
    recipe = tiny_recipe(run_folder, **{"train.optimizer.name": "adamw"})
    with pytest.raises(TrainingAtStake, match=r'train\.optimizer\.name "muon_adafactor" → "adamw"'):
        train(recipe)
    assert not (run_folder / "previous").exists()
    train(recipe, restart=True)
    assert not same(final(recipe)[1:5], uninterrupted[1][1:5])
    assert "6 trained steps are archived in" in capfd.readouterr().err
    kept = run_folder / "previous" / "train-1" / "checkpoints" / "step-00000006"
    assert read_manifest(kept, "checkpoint").facts["step"] == 6


def test_a_damaged_checkpoint_is_skipped_and_reported(run_folder, uninterrupted, capfd):
    shutil.copytree(uninterrupted[0].folder / "train", run_folder / "train")
    newest = run_folder / "train" / "checkpoints" / "step-00000006"
    victim = max((p for p in newest.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    recipe = tiny_recipe(run_folder)
    assert same(final(recipe), uninterrupted[1])
    assert "step-00000006 is skipped" in capfd.readouterr().err
    assert rows(recipe) == rows(uninterrupted[0])


def test_the_newest_checkpoint_is_never_deleted_for_a_damaged_later_one(run_folder, uninterrupted):
    shutil.copytree(uninterrupted[0].folder / "train", run_folder / "train")
    setup = Run(tiny_recipe(run_folder)).setup
    state = checkpoint.restore(checkpoint.checkpoint_folder(setup.checkpoints, 4), setup.abstract_state())
    (checkpoint.checkpoint_folder(setup.checkpoints, 6) / "manifest.json").write_text("{")
    five = dataclasses.replace(state, step=jnp.int32(5))
    saved = checkpoint.save(setup.checkpoints, five, setup.inputs, {}, checkpoint.Retention(1))
    assert checkpoint.saved_steps(setup.checkpoints) == [5, 6]
    assert checkpoint.latest(setup.checkpoints, setup.inputs)[0] == saved


def test_multiples_and_the_best_are_kept(run_folder):
    changes = {
        "train.steps": 9,
        "train.keep_checkpoints": 1,
        "train.keep_every": 4,
        "train.evaluate_every": 3,
    }
    recipe = tiny_recipe(run_folder, **changes, **{"train.keep_best": True})
    train(recipe)
    held_out = [
        json.loads(line) for line in (run_folder / "train" / "heldout.jsonl").read_text().splitlines()
    ]
    best = min(held_out, key=lambda row: row["text"]["nll"])["step"]
    assert checkpoint.saved_steps(run_folder / "train" / "checkpoints") == sorted({4, 8, 9, best})


def test_the_best_from_before_a_restart_is_kept(run_folder, monkeypatch):
    changes = {"train.keep_checkpoints": 1, "train.evaluate_every": 1, "train.keep_best": True}
    nll = iter([5.0, 3.0, 4.0, 4.5, 4.5, 2.0])

    def evaluate(self, state, signals):
        text = {"nll": next(nll)}
        self.log.held_out.write({"step": self.done, "text": text, "all": text})

    monkeypatch.setattr(loop.Loop, "evaluate", evaluate)
    saved = []
    for steps in (3, 5, 6):
        train(tiny_recipe(run_folder, **changes, **{"train.steps": steps}))
        saved.append(checkpoint.saved_steps(run_folder / "train" / "checkpoints"))
    assert saved == [[2, 3], [2, 5], [6]]


def test_which_checkpoints_are_deleted():
    assert checkpoint.Retention(2, 5).to_delete([3, 5, 6, 8, 9, 12], 9, best=3) == [6]


PROGRAM = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from tiny import tiny_recipe
from t5smith.cli.main import main
from t5smith.recipe.toml import dump
folder = Path(sys.argv[1])
Path(sys.argv[2]).write_text(dump(tiny_recipe(folder, **{{"train.steps": 400, "train.checkpoint_every": 3}})))
sys.exit(main(["train", sys.argv[2]]))
"""


def start(folder, settings):
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(tests=str(TESTS)), str(folder), str(settings)],
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_step(process, folder, step):
    """Until the checkpoint of a step, or of a later one, is there."""
    checkpoints = folder / "train" / "checkpoints"
    while not any(saved >= step for saved in checkpoint.saved_steps(checkpoints)):
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.05)
        assert process.poll() is None, process.stderr.read()


def test_a_killed_run_loses_only_the_steps_since_the_last_checkpoint(run_folder, tmp_path):
    process = start(run_folder, tmp_path / "recipe.toml")
    wait_for_step(process, run_folder, 6)
    process.kill()
    process.communicate()
    # Half-written work may be left: it must be ignored silently.
    recipe = tiny_recipe(run_folder)
    reference = tiny_recipe(shutil.copytree(run_folder, tmp_path / "reference"))
    shutil.rmtree(reference.folder / "train")
    steps = checkpoint.saved_steps(recipe.folder / "train" / "checkpoints")[-1] + 3
    assert same(
        final(recipe.replace(**{"train.steps": steps})), final(reference.replace(**{"train.steps": steps}))
    )


SIGNALS = [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 128 + signal.SIGUSR1)]


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_a_signal_saves_the_state_first(run_folder, tmp_path, number, code, monkeypatch, capfd):
    (tmp_path / "recipe.toml").write_text(dump(tiny_recipe(run_folder, **{"train.checkpoint_every": 3})))
    record, before = loop.Loop.record, [signal.getsignal(one) for one, _ in SIGNALS]

    def signalled(self, metrics):
        if self.done == 3:
            os.kill(os.getpid(), number)
        return record(self, metrics)

    monkeypatch.setattr(loop.Loop, "record", signalled)
    assert main(["train", str(tmp_path / "recipe.toml")]) == code
    err = capfd.readouterr().err
    assert "its checkpoint is saved" in err
    assert "Traceback" not in err
    last = read_rows(run_folder / "train" / "metrics.jsonl")[-1]["step"]
    assert 3 < last < 6
    assert checkpoint.saved_steps(run_folder / "train" / "checkpoints")[-1] == last
    assert [signal.getsignal(one) for one, _ in SIGNALS] == before


@pytest.mark.slow
def test_a_signal_from_outside_saves_the_state_first(run_folder, tmp_path):
    process = start(run_folder, tmp_path / "recipe.toml")
    wait_for_step(process, run_folder, 3)
    # Another in the same folder is refused meanwhile.
    with pytest.raises(T5smithError, match="another t5smith is running"):
        train(tiny_recipe(run_folder))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130
    assert "its checkpoint is saved" in err
    assert "Traceback" not in err
    last = read_rows(run_folder / "train" / "metrics.jsonl")[-1]["step"]
    assert checkpoint.saved_steps(run_folder / "train" / "checkpoints")[-1] == last


def test_fewer_steps_are_an_error_and_restart_archives_the_longer_run(run_folder, uninterrupted):
    shutil.copytree(uninterrupted[0].folder / "train", run_folder / "train")
    recipe = tiny_recipe(run_folder, **{"train.steps": 3})
    with pytest.raises(T5smithError, match=r"6 steps are trained, more than the recipe's 3.*step-00000004"):
        train(recipe)
    assert checkpoint.saved_steps(train(recipe, restart=True).parent) == [2, 3]
    assert checkpoint.saved_steps(run_folder / "previous" / "train-1" / "checkpoints") == [4, 6]
    assert [row["step"] for row in rows(recipe)] == [1, 2, 3]


def test_an_earlier_checkpoint_of_the_same_run_is_used(run_folder, uninterrupted):
    shutil.copytree(uninterrupted[0].folder / "train", run_folder / "train")
    assert train(tiny_recipe(run_folder, **{"train.steps": 4})).name == "step-00000004"
    assert not (run_folder / "previous").exists()


def test_a_store_of_another_vocabulary_is_rejected(run_folder):
    vocab(tiny_recipe(run_folder, **{"vocab.size": 250}))
    with pytest.raises(T5smithError, match="another vocabulary"):
        train(tiny_recipe(run_folder))


def test_too_little_held_out_text_is_found_before_training(run_folder):
    recipe = tiny_recipe(run_folder, **{"objective.input_length": 1024})
    with pytest.raises(T5smithError, match=r"the (valid|train) split has"):
        train(recipe)
    assert not (run_folder / "train").exists()


@contextlib.contextmanager
def full_disk():
    """As if the disk were full: no file may grow past this, so arrays and the manifest do not fit."""
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    cached = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)  # its files would not fit either
    resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, unlimited[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
        jax.config.update("jax_enable_compilation_cache", cached)


def on_a_full_disk(recipe, settings, room_again_at, monkeypatch):
    """The exit code of training on a disk that is full up to a step."""
    settings.write_text(dump(recipe))
    record, room = loop.Loop.record, contextlib.ExitStack()

    def with_room_again(self, metrics):
        if self.done + 1 == room_again_at:
            self.saver.wait()
            room.close()
        return record(self, metrics)

    with monkeypatch.context() as patched, room:
        patched.setattr(loop.Loop, "record", with_room_again)
        room.enter_context(full_disk())
        return main(["train", str(settings)])


def test_a_checkpoint_that_does_not_fit_is_one_line_and_leaves_the_older_ones_intact(
    run_folder, tmp_path, monkeypatch, capfd
):
    train(tiny_recipe(run_folder, **{"train.steps": 3}))
    capfd.readouterr()
    code = on_a_full_disk(tiny_recipe(run_folder), tmp_path / "recipe.toml", 100, monkeypatch)
    err = capfd.readouterr().err
    assert code == 2, err
    errors = [line for line in err.splitlines() if "error" in line.lower() or "Traceback" in line]
    assert len(errors) == 1
    assert errors[0].startswith("t5smith: error:")
    checkpoints = run_folder / "train" / "checkpoints"
    assert sorted(path.name for path in checkpoints.iterdir()) == ["step-00000002", "step-00000003"]
    assert all(read_manifest(path, "checkpoint") for path in checkpoints.iterdir())
    # With room again it goes on from there.
    assert train(tiny_recipe(run_folder)).name == "step-00000006"


def test_training_survives_a_disk_that_is_full_for_a_while(
    run_folder, tmp_path, uninterrupted, monkeypatch, capfd
):
    code = on_a_full_disk(tiny_recipe(run_folder), tmp_path / "recipe.toml", 5, monkeypatch)
    err = capfd.readouterr().err
    assert code == 0, err
    output = " ".join(err.split())
    assert "warning: the checkpoint of step 2 could not be written" in output
    assert "checkpoints that could not be written: 2" in output
    recipe = tiny_recipe(run_folder)
    assert checkpoint.saved_steps(run_folder / "train" / "checkpoints") == [6]
    assert same(final(recipe), uninterrupted[1])
    assert rows(recipe) == rows(uninterrupted[0])


def test_figures_wait_while_the_disk_is_full(tmp_path, monkeypatch, capfd):
    file = MetricsFile(tmp_path / "metrics.jsonl", up_to(0))
    file.write({"step": 1})
    file.flush()

    def full(self, *arguments, **named):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", full)
        for step in (2, 3):
            file.write({"step": step})
            file.flush()
        with pytest.raises(T5smithError, match="the disk is full"):
            file.flush(must=True)
    assert capfd.readouterr().err.count("figures are kept for later") == 1
    # What a failed try left behind is written over.
    with (tmp_path / "metrics.jsonl").open("a") as half:
        half.write('{"st')
    file.flush()
    assert read_rows(tmp_path / "metrics.jsonl") == [{"step": 1}, {"step": 2}, {"step": 3}]


def test_without_a_store_the_error_names_the_command(tmp_path):
    with pytest.raises(T5smithError, match="t5smith prepare"):
        train(tiny_recipe(tmp_path))


def test_held_out_loss_during_training(run_folder):
    train(tiny_recipe(run_folder, **{"train.evaluate_every": 2}))
    lines = (run_folder / "train" / "heldout.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [2, 4, 6]
    assert all(4 < json.loads(line)["text"]["nll"] < 9 for line in lines)
