"""Which axis of the mesh divides which axis of an array: one table for parameters, optimizer and batches.

An axis that its mesh axis does not divide is not divided. What has the shape of a parameter is divided as it
is, wherever it is in the state: moments and averages. All else is small and repeated on every device.
"""

from __future__ import annotations

from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from t5smith.model.compute import ROW_AXES
from t5smith.model.params import Parameters, is_stacked

RULES: dict[str, str | tuple[str, ...] | None] = {
    "vocab": "tensor",
    "embed": "fsdp",
    "heads": "tensor",  # with `kv`, the width of a head, within: a head is never divided
    "kv": None,
    "mlp": "tensor",
    "layers": None,
    "batch": ROW_AXES,
    "length": None,
}
"""From the names of axes to those of the mesh."""
PARAMETER_AXES: dict[str, tuple[str, ...]] = {
    "embedding": ("vocab", "embed"),
    "head": ("embed", "vocab"),
    "q": ("embed", "heads"),
    "k": ("embed", "heads"),
    "v": ("embed", "heads"),
    "o": ("heads", "embed"),
    "wi_0": ("embed", "mlp"),
    "wi_1": ("embed", "mlp"),
    "wo": ("mlp", "embed"),
}
"""The axes of matrices, by the name of the leaf; norm scales and position biases are repeated."""


def parameter_specs(parameters: Parameters, mesh: Mesh) -> Parameters:
    """How each parameter is divided, for a tree of parameters or of their shapes."""

    def spec(path: Any, leaf: Any, stacked: bool) -> PartitionSpec:
        axes = PARAMETER_AXES.get(path[-1].name)
        if axes is None:
            return PartitionSpec()
        names = ("layers", *axes) if stacked else axes
        return PartitionSpec(*map(_divided, names, leaf.shape, [mesh] * leaf.ndim))

    return jax.tree_util.tree_map_with_path(spec, parameters, is_stacked(parameters))


def _divided(name: str, size: int, mesh: Mesh) -> str | None:
    axis = RULES[name]
    assert axis is None or isinstance(axis, str)
    return axis if axis is not None and mesh.shape[axis] > 1 and size % mesh.shape[axis] == 0 else None


def state_shardings(state: Any, parameters: Parameters, mesh: Mesh) -> Any:
    """Where the arrays of a training state are.

    Args:
      state: a tree of arrays or shapes, with parameters and what belongs to them within it.
      parameters: those, or their shapes.
      mesh: the devices.
    """
    specs = parameter_specs(parameters, mesh)
    leaves = zip(
        jax.tree_util.tree_leaves_with_path(parameters),
        jax.tree.leaves(specs, is_leaf=lambda x: isinstance(x, PartitionSpec)),
        strict=True,
    )
    known = {_names(path): (leaf.shape, spec) for (path, leaf), spec in leaves}

    def sharding(path: Any, leaf: Any) -> NamedSharding:
        names = _names(path)
        for begin in range(len(names)):
            shape, spec = known.get(names[begin:], (None, None))
            if spec is not None:
                return NamedSharding(mesh, spec if shape == leaf.shape else PartitionSpec())
        return NamedSharding(mesh, PartitionSpec())

    return jax.tree_util.tree_map_with_path(sharding, state)


def _names(path: Any) -> tuple[str, ...]:
    return tuple(str(getattr(key, "name", getattr(key, "key", getattr(key, "idx", key)))) for key in path)


def with_shardings(shapes: Any, shardings: Any) -> Any:
    """Shapes that say where their arrays are."""
    return jax.tree.map(lambda leaf, where: leaf.update(sharding=where), shapes, shardings)
