"""How text becomes the token store, and where: the table `[prepare]`."""

from __future__ import annotations

from typing import ClassVar, Literal

from t5smith.recipe.base import NonNegative, Positive, Settings, Strings


class PrepareSettings(Settings):
    """How text becomes the token store, and where."""

    section: ClassVar[str] = "prepare"

    document_separator: Literal["eos", "none"] = "eos"
    """eos: `</s>` after each document. none: nothing, as in T5's and mT5's own data."""
    executor: Literal["local", "slurm", "ray"] = "local"
    """Where tasks run: in processes on this machine, on a Slurm cluster, or on Ray."""
    tasks: NonNegative = 0
    """Number of tasks that the work is split into. The store does not depend on it. 0: one per core."""
    workers: NonNegative = 0
    """Tasks that run at the same time. 0: one per core, or as many as the cluster runs."""
    memory_gb: Positive = 2
    """Memory requested per task, in GB; for slurm and ray."""
    slurm: Strings = ()
    """Options of sbatch, such as partition=normal time=24:00:00 account=mine; for slurm."""
