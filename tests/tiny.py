"""A run small enough for tests: the Declaration of Human Rights, 300 pieces, a model of two thin layers."""

from __future__ import annotations

from pathlib import Path

from t5smith.recipe.recipe import Recipe

TEXT = ("bundled:norwegian/udhr-nob.txt.xz",)


def tiny_recipe(folder: Path, **changes: object) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "tiny",
            "run_dir": folder,
            "language": "nb",
            "corpus": {"train": TEXT, "document": "line", "held_out_fraction": 0.3},
            "vocab": {"size": 300},
            "objective": {"input_length": 32},
            "model": {
                "d_model": 16,
                "d_kv": 8,
                "d_ff": 32,
                "num_layers": 2,
                "num_decoder_layers": 2,
                "num_heads": 2,
            },
            "train": {
                "steps": 6,
                "batch_size": 4,
                "precision": "float32",
                "checkpoint_every": 2,
                "log_every": 1,
                "evaluate_every": 0,
                "schedule": {"name": "constant", "warmup_steps": 2},
            },
            "evaluate": {"batch_size": 8, "examples": 2, "masks_per_window": 2},
        }
    ).replace(**changes)
