"""A training on a mesh of devices is that of one device."""

from __future__ import annotations

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mesh_cases import CONFIG, TINY, losses, mesh_of, programs

from t5smith.base.errors import T5smithError
from t5smith.parallel.mesh import automatic_sizes, choose_devices
from t5smith.recipe.train import mesh_sizes
from t5smith.training import muon

MESHES = ((8, 1, 1), (1, 8, 1), (1, 1, 8), (2, 2, 2), (4, 2, 1))
OPTIMIZERS = ("adafactor", "adamw", "adamwscale", "muon", "muon_adafactor")
OPTIONS = {
    "packing": {"packed": True},
    "accumulation": {"accumulation": 2},
    "remat": {"remat": "dots"},
    "label smoothing": {"label_smoothing": 0.1},
    "dropout": {"dropout_rate": 0.1},
    "average": {"average_decay": 0.99},
    "all": {
        "packed": True,
        "accumulation": 2,
        "remat": "full",
        "label_smoothing": 0.1,
        "dropout_rate": 0.1,
        "z_loss": 1e-3,
        "average_decay": 0.99,
    },
}


def test_a_small_training_on_eight_devices_is_that_of_one():
    one, _ = losses(None, "muon_adafactor", 3, TINY)
    many, state = losses(mesh_of(2, 2, 2), "muon_adafactor", 3, TINY)
    np.testing.assert_allclose(many, one, atol=1e-3)
    wi_0 = state.parameters.encoder.layers.feed_forward.wi_0
    # (layers, embed, mlp): embed is divided by fsdp, mlp by tensor; data repeats.
    assert {shard.data.shape for shard in wi_0.addressable_shards} == {(1, 8, 8)}


@cache
def on_one_device(optimizer, steps, options=""):
    return losses(None, optimizer, steps, **OPTIONS.get(options, {}))[0]


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("sizes", MESHES, ids=str)
def test_losses_on_a_mesh_are_those_of_one_device(sizes, optimizer):
    many, _ = losses(mesh_of(*sizes), optimizer, 30)
    # Muon's bfloat16 iterations round sums that are made in another order.
    tolerance = 1e-3 if "muon" in optimizer else 1e-5
    np.testing.assert_allclose(many, on_one_device(optimizer, 30), atol=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["muon", "muon_adafactor"])
def test_with_float32_iterations_muon_is_as_exact(optimizer, monkeypatch):
    monkeypatch.setattr(muon, "ITERATED_IN", jnp.float32)
    one, _ = losses(None, optimizer, 30)
    for sizes in MESHES:
        np.testing.assert_allclose(losses(mesh_of(*sizes), optimizer, 30)[0], one, atol=1e-5, err_msg=sizes)


@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIONS)
def test_each_option_gives_the_losses_of_one_device(options):
    many, _ = losses(mesh_of(2, 2, 2), "adamw", 30, **OPTIONS[options])
    np.testing.assert_allclose(many, on_one_device("adamw", 30, options), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", MESHES, ids=str)
def test_all_options_together_on_each_mesh(sizes):
    many, _ = losses(mesh_of(*sizes), "adamw", 30, **OPTIONS["all"])
    np.testing.assert_allclose(many, on_one_device("adamw", 30, "all"), atol=1e-5)


def bytes_per_device(tree):
    """The bytes that the first device has of a tree's arrays or of their shapes."""

    def of(leaf):
        return int(np.prod(leaf.sharding.shard_shape(leaf.shape))) * leaf.dtype.itemsize

    return sum(map(of, jax.tree.leaves(tree)))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_fsdp_divides_parameters_and_optimizer(optimizer):
    divided = programs(mesh_of(1, 8, 1), optimizer, CONFIG, average_decay=0.9)[2]
    averaged = programs(None, optimizer, CONFIG, average_decay=0.9)[2]
    whole = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(averaged))
    assert bytes_per_device(divided) <= whole / 6


@pytest.mark.parametrize(
    ("text", "sizes"),
    [("data=8", (8, 1, 1)), ("fsdp=4 data=2", (2, 4, 1)), ("tensor=2", (1, 1, 2))],
)
def test_a_mesh_by_hand(text, sizes):
    assert tuple(mesh_sizes(text).values()) == sizes
    devices = choose_devices(text, CONFIG, 16)
    assert tuple(devices.mesh.shape.values()) == sizes
    assert devices.why == "set by train.mesh"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"^train\.mesh: '' cannot be used; expected auto, or some of data, fsdp and tensor"),
        ("data", r"^train\.mesh: 'data' cannot be used"),
        ("data=0", "cannot be used"),
        ("data=2 data=4", "cannot be used"),
        ("rows=2", "cannot be used"),
        ("data=16", r"16 devices are needed, but there are 8\. Choose sizes whose product is 8, or auto"),
        ("data=3", r"16 examples at a time do not divide by data × fsdp, which is 3"),
        ("tensor=6", r"tensor=6 does not divide the model's 8 heads"),
    ],
)
def test_a_mesh_that_cannot_be_used_is_rejected(text, message):
    with pytest.raises(T5smithError, match=message):
        choose_devices(text, CONFIG, 16)


@pytest.mark.parametrize(
    ("devices", "rows", "state", "limit", "sizes", "why"),
    [
        (8, 128, 10, 100, (8, 1, 1), "fits on each device"),
        (8, 128, 10, None, (8, 1, 1), "fits on each device"),
        (8, 128, 80, 100, (1, 8, 1), "is divided"),
        (8, 4, 10, 100, (4, 1, 2), "matrices are divided too"),
        (8, 4, 200, 100, (1, 4, 2), "is divided"),
        (3, 128, 10, 100, (2, 1, 1), "1 devices stay unused"),
    ],
)
def test_auto_uses_every_device_and_says_why(devices, rows, state, limit, sizes, why):
    found, reason = automatic_sizes(devices, CONFIG, rows, state, limit)
    assert tuple(found.values()) == sizes
    assert why in reason


def test_of_cpu_devices_auto_takes_one():
    devices = choose_devices("auto", CONFIG, 16)
    assert devices.mesh is None
    assert devices.describe() == "one device (cpu) of 8: CPU devices share its cores, so more are slower"
