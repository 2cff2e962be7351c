"""How the exported model is written: the table `[export]`."""

from __future__ import annotations

from typing import ClassVar, Literal

from t5smith.recipe.base import Positive, Settings

SHARD_BYTES = 5_000_000_000


class ExportSettings(Settings):
    """How the exported model is written."""

    section: ClassVar[str] = "export"

    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the exported weights. float16 is rejected if a value overflows in it, or a logit changes
    by more than 1e-2 of the largest, on 50 held-out inputs."""
    shard_bytes: Positive = SHARD_BYTES
    """Write weights of more than N bytes as several files with an index."""
