"""Models on the Hub: which files are fetched, and what is there without it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from hub_server import reaching, serving

SHARD = "model-00001-of-00001.safetensors"
DEAD = "http://127.0.0.1:9"
FETCH = """
import json, sys
from t5smith.base.errors import T5smithError
from t5smith.interop.hub import fetch_model
try:
    folder = fetch_model(sys.argv[1], "train.init_from")
    print(json.dumps(sorted(file.name for file in folder.iterdir())))
except T5smithError as error:
    print(json.dumps(str(error)))
"""


@pytest.fixture(scope="module")
def hub():
    small = {"config.json": b"{}", "spiece.model": b"x", "README.md": b"# x", "training_args.bin": b"x"}
    index = b'{"weight_map": {"a": "model-00001-of-00001.safetensors"}}'
    models = {
        "some/all": small | {"model.safetensors": b"x", "pytorch_model.bin": b"x", "tf_model.h5": b"x"},
        "some/shards": small
        | {
            "model.safetensors.index.json": index,
            "model-00001-of-00001.safetensors": b"x",
            "rust_model.ot": b"x",
        },
        "some/flax": small | {"flax_model.msgpack": b"x", "pytorch_model.bin": b"x"},
        "some/old": small | {"pytorch_model.bin": b"x"},
        "some/tensorflow": small | {"tf_model.h5": b"x"},
    }
    with serving(models) as address:
        yield address


def fetched(address, cache, name):
    line = [sys.executable, "-c", FETCH, name]
    done = subprocess.run(line, env=reaching(address, cache), capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


SMALL = ["README.md", "config.json", "spiece.model"]


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("some/all", ["model.safetensors"]),
        ("some/shards", [SHARD, "model.safetensors.index.json"]),
        ("some/flax", ["flax_model.msgpack"]),
        ("hf:some/old@main", ["pytorch_model.bin"]),
    ],
)
def test_the_best_weights_are_fetched_and_no_others(hub, tmp_path, name, weights):
    assert fetched(hub, tmp_path, name) == sorted([*SMALL, *weights])
    assert fetched(DEAD, tmp_path, name) == sorted([*SMALL, *weights])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("some/tensorflow", "some/tensorflow on the Hub has no weights that are read; expected safetensors"),
        ("no/such", "no/such was found neither here nor on the Hugging Face Hub"),
        ("not a name", "'not a name' is neither a path nor a name on the Hugging Face Hub"),
    ],
)
def test_what_cannot_be_fetched(hub, tmp_path, name, message):
    assert fetched(hub, tmp_path, name).startswith(f"train.init_from: {message}")


def test_without_the_hub(tmp_path):
    said = fetched(DEAD, tmp_path, "some/all")
    assert "some/all was not found here, and the Hugging Face Hub cannot be reached" in said
    assert "hf download some/all" in said
