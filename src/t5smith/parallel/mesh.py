"""Which devices are used, and how they are arranged.

A mesh has three axes. `data` divides the rows of a batch and repeats the state; `fsdp` divides rows and state
(Zhao et al. 2023); `tensor` divides matrices by heads, features and pieces of the vocabulary (Shoeybi et al.
2019). :mod:`t5smith.parallel.rules` says which axis of which array each of them divides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from t5smith.base.errors import T5smithError
from t5smith.base.units import count
from t5smith.model.compute import Compute
from t5smith.model.config import ModelConfig
from t5smith.parallel.hardware import memory_limit
from t5smith.parallel.rules import RULES
from t5smith.recipe.train import AUTO, AXES, mesh_sizes

STATE_SHARE = 0.3
"""Up to this share of a device's memory the state is repeated on all; above it, it is divided."""


@dataclass(frozen=True)
class Devices:
    """The devices of a run.

    Attributes:
      mesh: their arrangement; None: the first device alone.
      why: the reason for it.
    """

    mesh: Mesh | None = None
    why: str = "there is no other"

    @property
    def count(self) -> int:
        """How many are used."""
        return 1 if self.mesh is None else self.mesh.size

    @property
    def axes(self) -> str:
        """The mesh as `train.mesh` would have it."""
        if self.mesh is None:
            return ""
        return " ".join(f"{name}={size}" for name, size in self.mesh.shape.items() if size > 1) or "data=1"

    def facts(self, compute: Compute) -> dict[str, Any]:
        """What was computed on, and in what, for a manifest."""
        kind = jax.devices()[0].device_kind
        on = {"device": kind, "devices": self.count, "mesh": self.axes}
        return on | {"computed_in": compute.describe()}

    def describe(self) -> str:
        """Which devices, and why, in a line."""
        kind, there = jax.devices()[0].device_kind, jax.device_count()
        if self.mesh is None:
            return f"one device ({kind})" + (f" of {there}: {self.why}" if there > 1 else "")
        return f"{self.count} of {there} devices ({kind}), {self.axes}: {self.why}"


def choose_devices(
    setting: str, config: ModelConfig, rows: int, state_bytes: Callable[[], int] = lambda: 0
) -> Devices:
    """The devices of a run.

    Args:
      setting: `train.mesh`.
      config: the model.
      rows: those that are computed at a time: of a batch, or of each of its parts.
      state_bytes: gives the bytes of parameters and optimizer; asked if it matters.

    Raises:
      T5smithError: the mesh needs more devices than there are, or rows, heads or features do not divide.
    """
    if setting != AUTO:
        return Devices(_by_hand(mesh_sizes(setting), config, rows), "set by train.mesh")
    there = jax.device_count()
    if there == 1:
        return Devices()
    if jax.default_backend() == "cpu":
        return Devices(None, "CPU devices share its cores, so more are slower")
    sizes, why = automatic_sizes(there, config, rows, state_bytes(), memory_limit())
    return Devices(_by_hand(sizes, config, rows), why)


def automatic_sizes(
    there: int, config: ModelConfig, rows: int, state_bytes: int, limit: int | None
) -> tuple[dict[str, int], str]:
    """The axes for a number of devices, and why: as many as can be used, as little divided as fits.

    Args:
      there: the number of devices.
      config: the model.
      rows: those that are computed at a time.
      state_bytes: of parameters and optimizer.
      limit: bytes of memory of each device; None if unknown.
    """
    used = there
    while (layout := _rows_and_tensor(used, config, rows)) is None:
        used -= 1
    row_shards, tensor = layout
    whole = limit is None or state_bytes / tensor <= STATE_SHARE * limit
    sizes = {"data": row_shards, "fsdp": 1, "tensor": tensor}
    why = f"the state, {count(state_bytes)}B, fits on each device"
    if not whole:
        sizes |= {"data": 1, "fsdp": row_shards}
        why = f"the state, {count(state_bytes)}B, is divided: each device has {count(limit or 0)}B"
    if tensor > 1:
        why += f"; {rows} examples at a time are fewer than the devices, so matrices are divided too"
    if used < there:
        why += f"; {there - used} devices stay unused, as {rows} examples at a time do not divide by {there}"
    return sizes, why


def _rows_and_tensor(devices: int, config: ModelConfig, rows: int) -> tuple[int, int] | None:
    """The parts of rows and of matrices that use all these devices; None if there are none."""
    for shards in range(devices, 0, -1):
        if devices % shards == 0 and rows % shards == 0 and _divides_matrices(devices // shards, config):
            return shards, devices // shards
    return None


def _divides_matrices(parts: int, config: ModelConfig) -> bool:
    return all(size % parts == 0 for size in (config.num_heads, config.d_ff, config.vocab_size))


def _by_hand(sizes: dict[str, int], config: ModelConfig, rows: int) -> Mesh:
    wanted, there = int(np.prod([*sizes.values()])), jax.device_count()
    spelled = " ".join(f"{name}={size}" for name, size in sizes.items())
    if wanted > there:
        few = f"{wanted} devices are needed, but there {'is' if there == 1 else 'are'} {there}"
        where, fix = f"train.mesh ({spelled})", f"choose sizes whose product is {there}, or auto"
        raise T5smithError(few, where=where, fix=fix)
    shards = sizes["data"] * sizes["fsdp"]
    if rows % shards:
        raise T5smithError(
            f"{rows} examples at a time do not divide by data × fsdp, which is {shards}",
            where=f"train.mesh ({spelled})",
            fix="choose another mesh, or a train.batch_size that is a multiple",
        )
    if not _divides_matrices(sizes["tensor"], config):
        raise T5smithError(
            f"tensor={sizes['tensor']} does not divide the model's {config.num_heads} heads, d_ff "
            f"{config.d_ff} and {config.vocab_size} rows of the embedding",
            where=f"train.mesh ({spelled})",
            fix="choose a smaller one, or set model.vocab_multiple",
        )
    return create_mesh(sizes, jax.devices()[:wanted])


def create_mesh(sizes: dict[str, int], devices: list[Any]) -> Mesh:
    """The mesh of some devices."""
    shape = tuple(sizes[name] for name in AXES)
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Where the rows of a batch are."""
    return NamedSharding(mesh, PartitionSpec(RULES["batch"], RULES["length"]))


def batch_shapes(mesh: Mesh | None, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """The ids of a batch as shapes, which on a mesh say where the rows are."""
    where = None if mesh is None else batch_sharding(mesh)
    return {name: jax.ShapeDtypeStruct(shape, np.int32, sharding=where) for name, shape in shapes.items()}


T = TypeVar("T")


def one_at_a_time(mesh: Mesh | None, results: T) -> T:
    """Results of a program, awaited on a mesh of CPU devices.

    The devices of two such programs in flight share the threads of one pool, and may wait for each other.
    """
    if mesh is None or mesh.devices.flat[0].platform != "cpu":
        return results
    return jax.block_until_ready(results)


def put_batch(mesh: Mesh, batch: dict[str, np.ndarray], rows: int) -> dict[str, jax.Array]:
    """The global batch on the devices, from the rows that this process made.

    Args:
      mesh: the devices.
      batch: this process's rows.
      rows: of the global batch.
    """
    sharding = batch_sharding(mesh)
    return {
        name: jax.make_array_from_process_local_data(sharding, np.asarray(ids), (rows, *ids.shape[1:]))
        for name, ids in batch.items()
    }
