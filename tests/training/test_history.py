"""Trained steps are continued, branched or extended, and never set aside unless the user says so."""

from __future__ import annotations

import contextlib
import copy
import errno
import json
import os
import shutil
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from t5smith import pipeline
from t5smith.base.artifact import MANIFEST, read_manifest
from t5smith.base.errors import T5smithError, TrainingAtStake
from t5smith.base.run_folder import (
    SETTINGS,
    archives,
    differences,
    recorded_inputs,
    saved_steps,
    trained_steps,
)
from t5smith.recipe.toml import save_run_settings, saved_recipe
from t5smith.recipe.train import ScheduleSettings
from t5smith.training.optimizer import DEFAULT_LEARNING_RATE
from t5smith.training.resume import checkpoints
from t5smith.training.resume.fingerprint import changes, continues, training_fingerprint
from t5smith.training.resume.history import History
from t5smith.training.schedule import create_schedule
from t5smith.training.setup import Run
from t5smith.training.timing import preflight
from t5smith.training.train import train
from t5smith.vocabulary.train import vocab
from tiny import tiny_recipe

WSD = {"train.schedule.name": "wsd", "train.schedule.decay_fraction": 0.5, "train.checkpoint_every": 100}
COSINE = {"train.schedule.name": "cosine"}


def state_of(recipe, **flags):
    setup = Run(recipe).setup
    state = checkpoints.restore(train(recipe, **flags), setup.abstract_state())
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state)]


def assert_same(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)


def steps_in(folder):
    return saved_steps(folder / "train" / "checkpoints")


def everything_in(folder):
    """The content of every artifact: path -> bytes, without what each start writes."""
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != ".lock"
    }


@pytest.fixture(scope="module")
def trained(prepared, tmp_path_factory):
    """A run with six steps at a constant rate."""
    recipe = tiny_recipe(shutil.copytree(prepared, tmp_path_factory.mktemp("trained") / "run"))
    train(recipe)
    return recipe


@pytest.fixture
def six(trained, tmp_path):
    return tiny_recipe(shutil.copytree(trained.folder, tmp_path / "run"))


schedules = st.builds(
    ScheduleSettings,
    name=st.sampled_from(["inverse_sqrt", "linear", "cosine", "wsd", "constant"]),
    warmup_steps=st.integers(0, 5),
    plateau_steps=st.sampled_from([10, 20]),
    decay_fraction=st.sampled_from([0.2, 0.5, 1.0]),
    final_fraction=st.sampled_from([0.0, 0.1]),
)


@given(schedules, schedules, st.integers(6, 30), st.integers(6, 30), st.integers(1, 30))
def test_a_state_belongs_to_a_training_if_its_learning_rates_do(ours, theirs, steps, other_steps, step):
    recipes = [
        tiny_recipe("unused").replace(**{"train.steps": n, "train.schedule": schedule.model_dump()})
        for schedule, n in ((ours, steps), (theirs, other_steps))
    ]
    before, now = (training_fingerprint(recipe) for recipe in recipes)
    done = np.arange(min(step, steps, other_steps), dtype=np.int32)
    rates = [
        np.asarray(jax.vmap(create_schedule(r.train.schedule, 1.0, r.train.steps))(jnp.asarray(done)))
        for r in recipes
    ]
    # Never a wrong yes. A no where the rates agree by chance, such as a decay to 100 %, only costs time.
    if continues(before, now, len(done)):
        np.testing.assert_allclose(rates[0], rates[1], rtol=1e-6)
    same_shape = (ours.name, ours.warmup_steps) == (theirs.name, theirs.warmup_steps)
    if same_shape and ours.name in ("wsd", "constant") and (rates[0] == rates[1]).all() and len(done):
        flat = rates[0][-1] == 1.0 or len(done) <= ours.warmup_steps
        assert not flat or continues(before, now, len(done) - 1)


def test_settings_without_effect_are_no_difference():
    recipe = tiny_recipe("unused")
    before = training_fingerprint(recipe)
    for name, value in {
        "train.schedule.plateau_steps": 7,
        "train.schedule.decay_fraction": 0.7,
        "train.schedule.final_fraction": 0.7,
        "train.optimizer.beta1": 0.5,
        "train.optimizer.beta2": 0.5,
        "train.optimizer.epsilon": 1e-3,
        "train.log_every": 7,
    }.items():
        now = training_fingerprint(recipe.replace(**{name: value}))
        assert not changes(before, now), name
        assert continues(before, now, 10_000), name
    adam = recipe.replace(**{"train.optimizer.name": "adamw"})
    other = adam.replace(**{"train.optimizer.beta1": 0.5})
    assert changes(training_fingerprint(adam), training_fingerprint(other)) == [
        "train.optimizer.beta1 0.9 → 0.5"
    ]


def test_a_training_of_a_version_without_a_setting_had_its_default():
    now = training_fingerprint(tiny_recipe("unused"))
    before = copy.deepcopy(now)
    del before["train"]["label_smoothing"], before["model"]["tie_word_embeddings"]
    assert continues(before, now, 5)
    smoothed = training_fingerprint(tiny_recipe("unused", **{"train.label_smoothing": 0.1}))
    assert changes(before, smoothed) == ["train.label_smoothing 0.0 → 0.1"]


def test_only_what_the_user_set_is_named():
    before = training_fingerprint(tiny_recipe("unused"))
    now = training_fingerprint(tiny_recipe("unused", **{"train.optimizer.name": "adamw"}))
    assert changes(before, now) == ['train.optimizer.name "muon_adafactor" → "adamw"']


@pytest.mark.parametrize(
    ("before", "now", "named"),
    [
        ({"vocab": {"size": 8}}, {"vocab": {"size": 4}}, ["vocab.size 8 → 4"]),
        ({"method": 3, "a": 1}, {"method": 4, "a": 1}, []),
        ({"a": []}, {"a": ()}, []),
        ({"import": 1, "tokenizer": "x"}, {"method": 4, "vocab": {}}, ["vocab.tokenizer"]),
        (
            {"corpus": {"train": [{"name": "a", "sha256": "1"}, {"name": "b", "sha256": "2"}]}},
            {"corpus": {"train": [{"name": "a", "sha256": "9"}, {"name": "c", "sha256": "2"}]}},
            ["corpus.train (c added, b removed, a changed)"],
        ),
        ({}, {"cleaning": {"steps": ["c4"], "c4": {"x": 1}}}, ['cleaning.steps none → ["c4"]']),
    ],
)
def test_differences_are_named_as_in_a_recipe(before, now, named):
    assert differences(before, now) == named


@pytest.mark.slow
def test_a_longer_run_continues_with_the_warm_up_it_was_trained_with(run_folder, capfd):
    short = {"train.schedule.warmup_steps": None, "train.steps": 40, "train.checkpoint_every": 100}
    recipe = tiny_recipe(run_folder, **short)
    train(recipe)
    longer = recipe.replace(**{"train.steps": 60})
    assert train(longer).name == "step-00000060"
    assert Run(longer).setup.recipe.train.schedule.warmup_steps == 2
    error = capfd.readouterr().err
    assert "resuming from step 40" in error
    assert "the warm-up stays at 2 steps, as it was trained; the default for 60 steps is 3" in error
    assert not (run_folder / "previous").exists()


def test_a_longer_run_continues_with_the_rate_it_was_trained_with(run_folder, capfd, monkeypatch):
    monkeypatch.setitem(DEFAULT_LEARNING_RATE, "muon_adafactor", (0.34, 0.01, 0.04))
    recipe = tiny_recipe(run_folder, **{"train.steps": 4})
    train(recipe)
    assert train(recipe.replace(**{"train.steps": 8})).name == "step-00000008"
    error = capfd.readouterr().err
    assert "the learning rate stays at 0.015, as it was trained; the default for 8 steps is 0.011" in error
    # Also that of an earlier version, whose default was another.
    settings = run_folder / "train" / "settings.json"
    assert json.loads(settings.read_text())["train"]["optimizer"]["learning_rate"] == 0.015
    monkeypatch.setitem(DEFAULT_LEARNING_RATE, "muon_adafactor", (0.34, 0.02, 0.04))
    train(recipe.replace(**{"train.steps": 8}))
    assert not (run_folder / "previous").exists()


@pytest.mark.slow
def test_wsd_branches_where_its_decay_begins(run_folder, tmp_path, capfd):
    other = tiny_recipe(shutil.copytree(run_folder, tmp_path / "other"), **WSD, **{"train.steps": 12})
    recipe = tiny_recipe(run_folder, **WSD)
    short = state_of(recipe)
    # Half of the four steps after the warm-up.
    assert steps_in(run_folder) == [4, 6]
    longer = recipe.replace(**{"train.steps": 12})
    assert_same(state_of(longer), state_of(other))
    assert "branching from step 4" in capfd.readouterr().err
    rows = (run_folder / "train" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["step"] for row in rows] == list(range(1, 13))
    (kept,) = archives(run_folder)
    # With the checkpoint at which its decay begins, so that it can branch again.
    assert saved_steps(kept.folder / "checkpoints") == [4, 6]
    assert len((kept.folder / "metrics.jsonl").read_text().splitlines()) == 6
    # The shorter run is named, and one command brings it back.
    with pytest.raises(T5smithError, match="--resume-from previous/train-1"):
        train(recipe)
    assert_same(state_of(recipe, resume_from=kept.folder), short)
    assert trained_steps(archives(run_folder)[0].folder.parents[1]) == 6


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) for name in ("cosine", "linear")]
)
def test_a_falling_schedule_is_extended_only_if_that_is_requested(run_folder, capfd, name):
    recipe = tiny_recipe(run_folder, **{"train.schedule.name": name})
    train(recipe)
    longer = recipe.replace(**{"train.steps": 12})
    before = everything_in(run_folder)
    with pytest.raises(TrainingAtStake, match=r"train\.steps 6 → 12.*--extend to continue from step 6"):
        train(longer)
    assert everything_in(run_folder) == before
    train(longer, extend=True)
    assert "the learning rate was" in capfd.readouterr().err
    assert steps_in(run_folder)[-1] == 12
    # From now on it is a run of twelve steps.
    assert train(longer, extend=True).name == "step-00000012"
    assert "--extend has no effect" in capfd.readouterr().err
    train(longer.replace(**{"train.steps": 15}), extend=True)
    assert recorded_inputs(run_folder / "train")["extended"][1][0] == 12
    with pytest.raises(T5smithError, match="15 steps are trained, more than the recipe's 12"):
        train(longer)


def test_an_extension_that_was_stopped_is_resumed(run_folder, monkeypatch):
    recipe = tiny_recipe(run_folder, **COSINE)
    train(recipe)
    longer = recipe.replace(**{"train.steps": 12})
    from t5smith.training import train as stage

    with monkeypatch.context() as patched:
        patched.setattr(stage, "Loop", lambda *_: pytest.fail("stopped"))
        with pytest.raises(pytest.fail.Exception):
            train(longer, extend=True)
    assert steps_in(run_folder)[-1] == 6
    train(longer)
    assert steps_in(run_folder)[-1] == 12


def test_a_lost_settings_file_is_read_from_the_newest_checkpoint(six):
    (six.folder / "train" / SETTINGS).write_text("{")
    with pytest.raises(TrainingAtStake, match=r"train\.batch_size 4 → 5"):
        train(six.replace(**{"train.batch_size": 5}))
    assert train(six).name == "step-00000006"


def test_a_signal_cannot_raise_within_orbax(six, monkeypatch):
    """Its event loop would report the exception and continue, or end in another one."""
    read, threads = ocp.StandardCheckpointer.restore, []

    def noted(*args, **kwargs):
        threads.append(threading.current_thread())
        return read(*args, **kwargs)

    monkeypatch.setattr(ocp.StandardCheckpointer, "restore", noted)
    run = Run(six)
    checkpoints.restore(run.trained[0], run.setup.abstract_state())
    assert threading.main_thread() not in threads
    assert len(threads) == 1


def test_no_readable_checkpoint_is_an_error_and_not_a_new_start(six):
    for manifest in (six.folder / "train").rglob(MANIFEST):
        manifest.write_text("{")
    with pytest.raises(T5smithError, match="no checkpoint of the 6 trained steps can be read"):
        train(six.replace(**{"train.steps": 8}))
    (six.folder / "train" / SETTINGS).unlink()
    with pytest.raises(T5smithError, match="missing or damaged, and so is every checkpoint"):
        train(six)


def test_an_archived_training_is_found_and_restored(six, capfd):
    other = six.replace(**{"train.batch_size": 5})
    before = everything_in(six.folder / "train")
    train(other, restart=True)
    with pytest.raises(TrainingAtStake, match="--resume-from previous/train-1 to continue the 6 steps"):
        train(six)
    with pytest.raises(T5smithError, match=r"this training has other settings: train\.batch_size 4 → 5"):
        train(other, resume_from=six.folder / "previous" / "train-1")
    with pytest.raises(T5smithError, match=r"no archived training; expected one of previous/train-1"):
        train(six, resume_from=six.folder / "previous" / "train-7")
    train(six, resume_from=Path("previous/train-1"))
    assert everything_in(six.folder / "train") == {**before, "restored_from": b"train-1\n"}
    train(six, resume_from=Path("previous/train-1"))
    assert "previous/train-1 is in place already" in capfd.readouterr().err
    assert [one.steps for one in archives(six.folder)] == [6]
    assert recorded_inputs(archives(six.folder)[0].folder)["train"]["batch_size"] == 5


@pytest.mark.slow
def test_the_run_folder_keeps_the_recipe_of_what_was_restored(six, capfd):
    pipeline.run(six.replace(**{"vocab.size": 280, "train.steps": 3}), restart=True)
    capfd.readouterr()
    train(six, resume_from=Path("previous/train-1"))
    assert "no effect" not in capfd.readouterr().err
    assert saved_recipe(six.folder) == six
    pipeline.check(saved_recipe(six.folder))
    # So does the next command after a restore that was killed before the recipe was written.
    save_run_settings(six.replace(**{"vocab.size": 280}))
    train(six)
    assert "no effect" not in capfd.readouterr().err
    assert saved_recipe(six.folder) == six


@pytest.mark.slow
def test_a_restore_that_is_killed_at_any_rename_is_finished_by_the_next_command(six, monkeypatch, tmp_path):
    other = six.replace(**{"vocab.size": 280, "train.steps": 3})
    pipeline.run(other, restart=True)
    kept = {path.name for path in (six.folder / "previous").iterdir()}
    assert {"train-1", "vocab-1", "store-1"} <= kept
    rename, renames = Path.rename, []
    for number in range(1, 20):
        folder = tmp_path / f"killed-{number}"
        shutil.copytree(six.folder, folder)
        recipe = six.replace(run_dir=folder)

        def killed(source, target, number=number):
            renames.append(target)
            if len(renames) == number:
                raise Killed
            return rename(source, target)

        renames.clear()
        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", killed)
            with contextlib.suppress(Killed):
                train(recipe, resume_from=Path("previous/train-1"))
                break
        assert train(recipe).name == "step-00000006"
        assert (folder / "train" / "restored_from").read_text() == "train-1\n"
        assert [one.steps for one in archives(folder) if one.steps] == [3]
        assert not (folder / "moves.json").exists()
    assert number == 7  # six renames


class Killed(BaseException):
    """Stands for SIGKILL: nothing may catch it."""


def test_only_an_archive_of_the_run_folder_is_restored(six, tmp_path, capfd):
    train(six)
    before = everything_in(six.folder)
    for place in ("train", six.folder / "train", six.folder / "store" / ".." / "train"):
        train(six, resume_from=Path(place))
        assert f"{place} is in place already" in capfd.readouterr().err
    elsewhere = shutil.copytree(six.folder / "train", tmp_path / "elsewhere")
    with pytest.raises(T5smithError, match=r"not an archive of the run folder; .* Copy it there first"):
        train(six, resume_from=elsewhere)
    assert everything_in(six.folder) == before
    shutil.copytree(elsewhere, six.folder / "previous" / "train-9")
    train(six, resume_from=Path("previous/train-9"))
    assert [one.folder.name for one in archives(six.folder)] == ["train-1"]


def test_a_restore_that_cannot_be_made_is_undone(six, monkeypatch):
    other = six.replace(**{"vocab.size": 280, "train.steps": 3})
    pipeline.run(other, restart=True)
    before = everything_in(six.folder)
    rename = Path.rename

    def on_other_disks(source, target):
        if source.name == "store-1":
            raise OSError(errno.EXDEV, "Invalid cross-device link", str(source))
        return rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", on_other_disks)
        with pytest.raises(T5smithError, match="moved within one file system only"):
            train(six, resume_from=Path("previous/train-1"))
    assert (six.folder / "previous" / "train-1" / "restored_from").is_file()
    (six.folder / "previous" / "train-1" / "restored_from").unlink()
    assert everything_in(six.folder) == before


def test_nothing_is_restored_before_the_checks(six, monkeypatch):
    train(six.replace(**{"train.batch_size": 5}), restart=True)
    before = everything_in(six.folder / "train")
    archive = Path("previous/train-1")
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(T5smithError, match="wandb is not installed"):
        train(six.replace(**{"train.loggers": ("wandb",)}), resume_from=archive)
    with pytest.raises(T5smithError, match=r"vocab\.size 300 → 280; nothing was changed"):
        pipeline.run(six.replace(**{"vocab.size": 280}), resume_from=archive)
    assert everything_in(six.folder / "train") == before
    assert (six.folder / archive).is_dir()


def test_nothing_is_archived_on_a_full_disk(six, monkeypatch):
    full = SimpleNamespace(free=1_000)
    monkeypatch.setattr(preflight, "shutil", SimpleNamespace(disk_usage=lambda _: full))
    with pytest.raises(T5smithError, match="1,000B are free on the disk, but 2 checkpoints of"):
        train(six, restart=True)
    assert steps_in(six.folder)[-1] == 6
    assert not archives(six.folder)


def test_what_was_made_in_the_place_of_a_lost_artifact_is_no_obstacle(six):
    before = everything_in(six.folder / "vocab")
    shutil.rmtree(six.folder / "vocab")
    vocab(six.replace(**{"vocab.size": 280}))
    pipeline.check(six)
    vocab(six)
    assert everything_in(six.folder / "vocab")["tokenizer.json"] == before["tokenizer.json"]
    (six.folder / "store" / MANIFEST).unlink()
    pipeline.prepare(six.replace(**{"corpus.held_out_fraction": 0.2}))
    pipeline.check(six)
    pipeline.prepare(six)
    assert train(six).name == "step-00000006"


def test_a_damaged_vocabulary_does_not_stop_the_run(six):
    file = six.folder / "vocab" / "tokenizer.json"
    file.write_text(file.read_text(encoding="utf-8") + " ", encoding="utf-8")
    pipeline.check(six)
    vocab(six)
    assert train(six).name == "step-00000006"


def test_the_recipe_of_lost_artifacts_is_that_of_the_run_folder(six):
    save_run_settings(six)
    shutil.rmtree(six.folder / "vocab")
    shutil.rmtree(six.folder / "store")
    with pytest.raises(TrainingAtStake, match=r"vocab\.size 300 → 280"):
        pipeline.check(six.replace(**{"vocab.size": 280}))
    pipeline.check(six)


def test_a_single_stage_leaves_the_settings_of_the_others_in_the_run_folder(six, capfd):
    save_run_settings(six)
    train(six.replace(**{"vocab.size": 280, "train.steps": 7}))
    assert "no effect on the vocabulary and store in place: vocab.size 300 → 280" in capfd.readouterr().err
    pipeline.prepare(six.replace(seed=5, **{"train.steps": 7}))
    assert saved_recipe(six.folder) == six.replace(**{"train.steps": 7})


@pytest.mark.parametrize(
    ("stage", "change", "named"),
    [
        (vocab, {"vocab.size": 280}, r"vocab\.size 300 → 280"),
        (pipeline.prepare, {"prepare.document_separator": "none"}, "prepare.document_separator"),
    ],
)
def test_a_single_stage_replaces_nothing_that_trained_steps_need(six, stage, change, named):
    other, before = six.replace(**change), everything_in(six.folder)
    with pytest.raises(TrainingAtStake, match=named):
        stage(other)
    assert everything_in(six.folder) == before
    stage(other, restart=True)
    assert trained_steps(six.folder) == 0
    assert [one.steps for one in archives(six.folder) if one.steps] == [6]


def test_a_new_start_says_that_an_archive_has_its_settings(six, capfd):
    (six.folder / "previous").mkdir()
    (six.folder / "train").rename(six.folder / "previous" / "train-1")
    train(six.replace(**{"train.steps": 7}))
    assert "starting from scratch; use --resume-from previous/train-1" in capfd.readouterr().err


def test_zero_trained_steps_are_replaced_without_a_word(run_folder, capfd):
    recipe = tiny_recipe(run_folder)
    (run_folder / "train" / "checkpoints").mkdir(parents=True)
    (run_folder / "train" / SETTINGS).write_text(json.dumps({"train": {}}))
    assert History.read(run_folder).steps == 0
    train(recipe)
    assert "archived" not in capfd.readouterr().err


def test_the_hard_links_of_an_archive_survive_without_support(run_folder, monkeypatch):
    def unsupported(self, target):
        raise OSError

    monkeypatch.setattr("pathlib.Path.hardlink_to", unsupported)
    recipe = tiny_recipe(run_folder, **WSD)
    train(recipe)
    train(recipe.replace(**{"train.steps": 12}))
    kept = run_folder / "previous" / "train-1" / "checkpoints" / "step-00000006"
    assert read_manifest(kept, "checkpoint").facts["step"] == 6


def test_nothing_is_archived_if_the_new_training_does_not_fit(six, monkeypatch):
    from t5smith.training import train as stage

    def too_large(setup, begun):
        raise T5smithError("does not fit", where="train.batch_size")

    monkeypatch.setattr(stage, "compiled_step", too_large)
    before = everything_in(six.folder)
    for flags in ({}, {"restart": True}):
        with pytest.raises(T5smithError):
            train(six.replace(**{"train.batch_size": 1_000_000}), **flags)
        with pytest.raises(T5smithError, match="does not fit"):
            train(six.replace(**{"train.steps": 9}), **flags)
    assert everything_in(six.folder) == before
    missing = six.replace(**{"train.loggers": ("wandb",)})
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(T5smithError, match="wandb is not installed"):
        train(missing, restart=True)
    assert everything_in(six.folder) == before


def test_archives_that_are_being_written_are_not_listed(six):
    shelf = six.folder / "previous"
    os.makedirs(shelf / "train.unfinished" / "train" / "checkpoints" / "step-00000001")
    assert archives(six.folder) == []
