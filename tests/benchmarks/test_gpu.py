"""The GPU hour, rehearsed: every part on one tiny shape, results on disk at once, tables with every row."""

import dataclasses
import importlib
import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(HERE))

import jax  # noqa: E402
import numpy as np  # noqa: E402

import gpu  # noqa: E402
from gpu_parts import correct, models, scale  # noqa: E402
from gpu_parts.results import Results, tables  # noqa: E402
from t5smith.recipe.model import ModelSettings  # noqa: E402

ONE = dataclasses.replace(scale.CPU, batches=(2,), repeats=1, lengths=((7, 16),))
SMALL = ModelSettings(d_model=16, d_kv=8, d_ff=32, num_layers=1, num_decoder_layers=1, num_heads=2)


@pytest.fixture(autouse=True)
def _smaller(monkeypatch):
    monkeypatch.setattr(models, "TINY", SMALL)


@pytest.fixture
def results(tmp_path):
    return Results(tmp_path / "part.json", "part", 60.0)


def rows_on_disk(results):
    return json.loads(results.file.read_text())["rows"]


@pytest.mark.parametrize("part", ["facts", "attention", pytest.param("profile", marks=pytest.mark.slow)])
def test_a_part_runs_on_a_tiny_shape(part, results):
    module = importlib.import_module(f"gpu_parts.{gpu.MODULES.get(part, part)}")
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        module.measure(results, ONE)
    tree = json.loads(results.file.read_text())
    assert tree["finished"]
    failed = [row for row in tree["rows"] if "error" in row and "cuDNN" not in row["error"]]
    assert failed == []
    assert len(tree["rows"]) >= 4


def test_the_train_part_runs_on_a_tiny_shape(results):
    train = importlib.import_module("gpu_parts.train")
    train.one(results, ONE, "batch sizes", size="tiny", batch=2)
    train.one(results, ONE, "batch sizes", size="no such model", batch=2)
    first, second = rows_on_disk(results)
    assert set(train.FIGURES) <= first.keys()
    assert first["mfu"] > 0
    assert first["program_memory_bytes"] > 0
    assert "no such model" in second["error"]


@pytest.mark.slow
def test_gradients_resume_and_repeats_agree_with_themselves(results, monkeypatch, tmp_path):
    monkeypatch.setattr(correct, "REPEATS", 2)
    monkeypatch.setattr(correct, "PRECISIONS", {"float32": models.PRECISIONS["float32"]})
    monkeypatch.setattr(correct, "STEPS", 2)
    monkeypatch.setattr(correct, "BATCHES", {"packed": models.packed_batch})
    reference = correct.computed(ONE)
    np.savez(tmp_path / "cpu.npz", **reference)
    (head,) = (name for name in reference if name.endswith("gradient.head"))
    np.savez(tmp_path / "off.npz", **reference | {head: reference[head] * 1.1})
    correct.gradients(results, ONE, tmp_path / "off.npz")
    (wrong,) = rows_on_disk(results)
    assert wrong["worst_leaf"] == ".head"
    assert wrong["worst_leaf_error"] == pytest.approx(1 - 1 / 1.1, rel=1e-3)
    assert 0 < wrong["gradient_error"] < wrong["worst_leaf_error"]
    results.rows.clear()
    correct.gradients(results, ONE, tmp_path / "cpu.npz")
    correct.curves(results, ONE, tmp_path / "cpu.npz")
    correct.resume(results, tmp_path)
    correct.repeats(results, ONE)
    rows = rows_on_disk(results)
    assert all("error" not in row for row in rows)
    assert all(row["gradient_error"] == 0 for row in rows if "gradient_error" in row)
    assert [row["different_leaves"] for row in rows if "different_leaves" in row] == [0]
    assert [row["different"] for row in rows if "different" in row] == [0]


def test_repeats_that_differ_are_seen():
    assert correct.same({"a": np.arange(3)}, {"a": np.arange(3)})
    assert not correct.same({"a": np.arange(3)}, {"a": np.array([0, 1, 3])})


def test_later_parts_take_the_batch_that_train_found_to_fit(results):
    assert models.best_batch(results, scale.GPU, "t5-v1.1-base") == 128
    results.file.with_name("train.json").write_text('{"facts": {"best_batch_t5-v1.1-base": 32}}')
    assert models.best_batch(results, scale.GPU, "t5-v1.1-base") == 32


class Imitation:
    """A contender that takes a fixed time, or does not fit."""

    def __init__(self, spec, environment):
        self.spec = spec

    def ready(self):
        if self.spec.batch > 64 or self.spec.attention == "flex_attention":
            raise RuntimeError("RESOURCE_EXHAUSTED")
        return {"parameters": 7, "start_seconds": 0.0}

    def seconds(self):
        return 1.0 if self.spec.name == "ours" else 3.0 if self.spec.compiled else 4.0

    def peak_bytes(self):
        return 0

    def close(self):
        pass


def test_the_peer_is_compared_at_the_first_batch_that_fits(results, monkeypatch):
    """Only the turns: that contenders train is shown by the rehearsal."""
    peer = importlib.import_module("gpu_parts.peer")
    monkeypatch.setattr(peer, "Contender", Imitation)
    peer.size_by_size(results, scale.GPU, "t5-v1.1-small")
    rows = rows_on_disk(results)
    assert [row.get("batch") for row in rows if "ratio" in row] == [64]
    assert rows[-1]["ratio"] == 3.0
    assert rows[-1]["pytorch"] == "eager+compiled"
    assert "batch 128, each alone" in rows[0]["what"]
    assert "RESOURCE_EXHAUSTED" in rows[0]["error"]


def test_a_row_that_fails_says_why_and_the_part_goes_on(results):
    with results.attempt(what="a", batch=8):
        raise MemoryError("too much")
    with results.attempt(what="a", batch=4) as row:
        row["speed"] = 1.0
    assert rows_on_disk(results)[0]["error"] == "MemoryError: too much"
    table = "\n".join(tables(json.loads(results.file.read_text())))
    assert "| 8 |  | MemoryError: too much |" in table
    assert "| 4 | 1 |  |" in table
    assert "## part (cut off)" in table


def test_what_comes_after_the_limit_is_skipped_and_listed(tmp_path):
    results = Results(tmp_path / "part.json", "part", 0.0)
    results.run([("first", lambda: pytest.fail("no time"))])
    assert rows_on_disk(results)[0]["skipped"] == "no time left"


def test_packages_are_complete():
    """What the parts import is in the list, found by importing them in a fresh process."""
    program = """
import importlib, sys, json
sys.path[:0] = sys.argv[1:]
before = set(sys.modules)
for name in ("benchmarking.training", "benchmarking.inputs", "objective.batches",
             "training.resume.checkpoints", "training.step", "model.loss",
             "parallel.hardware", "vocabulary.vocabulary"):
    importlib.import_module("t5smith." + name)
for name in ("correct", "peer", "profile", "train", "inputs", "attention", "facts"):
    importlib.import_module("gpu_parts." + name)
from t5smith.vocabulary.vocabulary import Vocabulary
Vocabulary.bundled()
print(json.dumps(sorted({name.split(".")[0] for name in sys.modules.keys() - before})))
"""
    command = [sys.executable, "-c", program, str(HERE), str(HERE.parent / "src")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    homes = importlib.metadata.packages_distributions()
    found = {
        package.lower().replace("_", "-")
        for name in json.loads(done.stdout)
        if name not in sys.stdlib_module_names
        for package in homes.get(name, [])
    }
    # Used where they are installed, never needed.
    optional = {"attrs", "charset-normalizer", "beartype", "t5smith"}
    assert found - optional <= set(gpu.ENGINE.values())


def test_missing_packages_are_named_with_their_versions():
    assert gpu.missing({"json": "json", "no_such_module": "numpy", "no.such": "nothing"})[1] == "nothing"
    assert gpu.missing({"no_such_module": "numpy"})[0].startswith("numpy==")


def test_an_unknown_part_is_rejected(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["gpu.py", "trian"])
    assert gpu.main() == 2
    assert "unknown part trian" in capsys.readouterr().err


def test_goals_stand_beside_what_was_measured(tmp_path):
    parts = {
        "train": {"rows": [{"size": "t5-v1.1-base", "precision": "bfloat16", "mfu": 0.41}]},
        "peer": {"rows": [{"model": "t5-v1.1-base", "ratio": 1.5}]},
    }
    assert [line.split("|")[3].strip() for line in gpu.goals(parts)[2:]] == ["0.410", "1.500"]
    gpu.write_index(tmp_path)
    assert "No GPU has been measured yet." in (tmp_path / "README.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("part", gpu.PARTS)
def test_a_part_that_is_killed_has_left_what_it_measured(part, tmp_path):
    command = [sys.executable, str(HERE / "gpu.py"), "--inside", part, "--out", str(tmp_path)]
    command += ["--limit", "300", "--rehearse"]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONUNBUFFERED": "1"}
    environment.pop("JAX_NUMPY_DTYPE_PROMOTION", None)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
    ) as process:
        assert process.stdout is not None
        first = next(line for line in process.stdout if line.startswith(part))
        os.killpg(process.pid, signal.SIGKILL)
    tree = json.loads((tmp_path / f"{part}.json").read_text())
    assert tree["part"] == part
    assert tree["rows"], first
    assert not tree["finished"]


@pytest.mark.slow
def test_the_whole_rehearsal(tmp_path):
    begun = time.monotonic()
    command = [sys.executable, str(HERE / "gpu.py"), "--rehearse", "--patience", "5", "--out", str(tmp_path)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_"))}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    print(f"{time.monotonic() - begun:.0f} s", done.stdout[-2000:], done.stderr[-2000:])
    assert done.returncode == 0
    page = (tmp_path / "README.md").read_text()
    for part in gpu.PARTS:
        tree = json.loads((tmp_path / f"{part}.json").read_text())
        assert tree["finished"], part
        errors = [row["error"] for row in tree["rows"] if "error" in row]
        # Neither runs on a CPU.
        assert [error for error in errors if "cuDNN" not in error and "FlexAttention" not in error] == []
        assert [row for row in tree["rows"] if "skipped" in row] == []
        assert all(line in page for line in tables(tree)), part
