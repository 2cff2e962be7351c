"""Small files of rows, and recipes that fine-tune the tiny run on them."""

from __future__ import annotations

import json

from tiny import tiny_recipe

TEXT = "alle mennesker er født frie og med samme menneskeverd og menneskerettigheter"
WORDS = TEXT.split()


def pairs(number: int, start: int = 0) -> list[dict[str, str]]:
    """Rows whose target is the input's words from the end; inputs differ in length."""
    found = []
    for n in range(start, start + number):
        words = [WORDS[(n * 7 + k * (n % 5 + 1)) % len(WORDS)] for k in range(n % 6 + 1)]
        found.append({"nb": f"{' '.join(words)} {n}", "nn": " ".join(reversed(words))})
    return found


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def tuned(folder, file, **changes):
    """A recipe that fine-tunes the exported model of a run folder."""
    task = {"train": (str(file),), "input": "snu: {nb}", "target": "nn", "scores": ("exact_match",)}
    tree = tiny_recipe(folder).model_dump() | {
        "finetune": {
            "input_length": 32,
            "target_length": 16,
            "dev_examples": 4,
            "num_beams": 1,
            "bootstrap": 20,
            "tasks": {"snu": task},
            "train": {
                "steps": 6,
                "batch_size": 4,
                "precision": "float32",
                "checkpoint_every": 2,
                "evaluate_every": 3,
                "log_every": 1,
                "loggers": (),
            },
        }
    }
    return type(tiny_recipe(folder)).model_validate(tree).replace(**changes)
