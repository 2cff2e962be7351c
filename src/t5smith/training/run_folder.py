"""The training folder: begun anew when what decides the parameters has changed; the old one is kept."""

from __future__ import annotations

import json
from typing import Any

from t5smith.base.artifact import disk_errors, set_aside, write_atomically
from t5smith.base.progress import info
from t5smith.training import checkpoints as checkpoint
from t5smith.training.setup import Setup

SETTINGS = "settings.json"


def archive_if_incompatible(setup: Setup) -> None:
    """Start a fresh training folder if what decides the parameters has changed; the old one is kept."""
    path = setup.folder / SETTINGS
    with disk_errors(setup.folder):
        if path.is_file():
            try:
                before = json.loads(path.read_text(encoding="utf-8"))
            except ValueError:
                before = {}
            if before != setup.inputs:
                changed = ", ".join(_differences(before, setup.inputs)) or "settings"
                moved = set_aside(setup.folder)
                info(f"train     starts anew ({changed} changed); the earlier training is kept in {moved}")
            elif _is_longer(setup):
                moved = set_aside(setup.folder)
                info(f"train     starts anew for fewer steps; the longer training is kept in {moved}")
        setup.checkpoints.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(setup.inputs, indent=1) + "\n")


def _is_longer(setup: Setup) -> bool:
    """Whether there are checkpoints beyond the steps asked for, and none at them."""
    steps, saved = setup.recipe.train.steps, checkpoint.saved_steps(setup.checkpoints)
    return bool(saved) and saved[-1] > steps and steps not in saved


def _differences(before: dict[str, Any], now: dict[str, Any], prefix: str = "") -> list[str]:
    """Dotted names of what differs between two nested mappings."""
    names: list[str] = []
    for name in sorted({*before, *now}):
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            names += _differences(old, new, f"{prefix}{name}.")
        elif old != new:
            names.append(f"{prefix}{name}")
    return names
