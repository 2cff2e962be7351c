"""The parameters in checkpoints, one array at a time, without the optimizer's state beside them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from t5smith.base.signals import interruptible
from t5smith.model.params import Parameters
from t5smith.training.resume.checkpoints import ARRAYS, NAMES_ON_DISK
from t5smith.training.state import TrainState


class SavedParameters:
    """The parameters to evaluate and export of one checkpoint, or their mean over several.

    Attributes:
      shapes: the tree, with shapes in the place of arrays.
    """

    def __init__(self, folders: Sequence[Path], like: TrainState) -> None:
        """Read nothing yet.

        Args:
          folders: of the checkpoints.
          like: the shapes of their states.
        """
        self.folders = folders
        self.shapes = like.eval_params
        self._part = "parameters" if like.ema_params is None else NAMES_ON_DISK["ema_params"]

    def array(self, path: str) -> np.ndarray:
        """One array, float32; a mean is summed in float64.

        Args:
          path: in :class:`Parameters`, such as `encoder.layers.self_attention.q`.
        """
        # A signal must not raise within Orbax, which would leave its event loop in a state of its own.
        first = interruptible(self._read, self.folders[0], path)
        if len(self.folders) == 1:
            return first
        total = first.astype(np.float64)
        for folder in self.folders[1:]:
            total += interruptible(self._read, folder, path)
        total /= len(self.folders)
        return total.astype(np.float32)

    def tree(self) -> Parameters:
        """All of them, on the first device."""
        return jax.tree_util.tree_map_with_path(
            lambda path, _: jnp.asarray(self.array(".".join(key.name for key in path))), self.shapes
        )

    def _read(self, folder: Path, path: str) -> np.ndarray:
        shape: Any = self.shapes
        for name in path.split("."):
            shape = getattr(shape, name)
        item: Any = jax.ShapeDtypeStruct(shape.shape, shape.dtype)
        how: Any = ocp.RestoreArgs(restore_type=np.ndarray)
        names = [self._part, *path.split(".")]
        for name in reversed(names):
            item, how = {name: item}, {name: how}
        found: Any = ocp.PyTreeCheckpointer().restore(
            (folder / ARRAYS).absolute(),
            args=ocp.args.PyTreeRestore(item=item, restore_args=how, partial_restore=True),
        )
        for name in names:
            found = found[name]
        return np.asarray(found)
