"""How text becomes the token store, and where the work is done: the table `[prepare]`."""

from __future__ import annotations

from typing import ClassVar, Literal

from t5smith.recipe.base import NonNegative, Positive, Settings, Strings


class PrepareSettings(Settings):
    """From text to the token store."""

    section: ClassVar[str] = "prepare"

    document_separator: Literal["eos", "none"] = "eos"
    """`</s>` after each document, or nothing as in T5's and mT5's own data."""
    executor: Literal["local", "slurm", "ray"] = "local"
    """Where the work is done: in processes on this machine, by a Slurm cluster, by Ray."""
    tasks: NonNegative = 0
    """Parts that the work is dealt out in; the store does not depend on it. 0: one for each core here."""
    workers: NonNegative = 0
    """Tasks at work at a time. 0: as many as there are cores here, or as the cluster gives."""
    memory_gb: Positive = 2
    """slurm, ray: memory that is asked for each task."""
    slurm: Strings = ()
    """slurm: options of sbatch, as partition=normal time=24:00:00 account=mine."""
