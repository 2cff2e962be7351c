"""Pre-train a T5 for your language: raw text in, a Hugging Face T5 out.

The whole public API is here. Each verb of the command `t5smith` is one of these functions, with the same
name and meaning; what it needs is imported when it is first used, so `import t5smith` costs nothing.

| name | what it is |
| --- | --- |
| `run` | every stage in order; finished stages are skipped |
| `vocab`, `prepare`, `train`, `evaluate`, `export` | one stage each |
| `finetune` | a model fine-tuned on tasks from text to text, and its scores |
| `generate`, `generate_each`, `generate_file`, `stream` | fill in masked spans, or text to text |
| `prepare_status` | how far `prepare` is, and which tasks failed |
| `inspect`, `inspect_rows`, `inspect_counts` | what the model sees of a text, of a batch, of many batches |
| `compare_vocabularies` | how well tokenizers suit a text |
| `trim_vocabulary`, `extend_vocabulary` | a model with only a text's pieces, or with them added |
| `bench_corrupt`, `bench_input`, `bench_prepare`, `bench_train` | what `t5smith bench` measures |
| `import_model` | a T5 of another project as a Hugging Face folder |
| `load_recipe`, `load_model` | a recipe, bundled or from a file; a model from a Hugging Face folder |
| `Generator`, `GenerateSettings` | a model that is loaded once; how it generates |
| `Recipe`, `T5smithError` | all settings of a run; a mistake the user can fix |
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from t5smith.base.errors import T5smithError
    from t5smith.benchmarking.corrupt import bench_corrupt
    from t5smith.benchmarking.inputs import bench_input
    from t5smith.benchmarking.preparing import bench_prepare
    from t5smith.benchmarking.training import bench_train
    from t5smith.evaluation.scores import evaluate
    from t5smith.exporting.export import export
    from t5smith.exporting.import_model import import_model
    from t5smith.generation.files import generate_file
    from t5smith.generation.fill import Generator, generate, generate_each, stream
    from t5smith.inspection.results import inspect_counts, inspect_rows
    from t5smith.inspection.text import inspect
    from t5smith.interop.extension import extend_vocabulary
    from t5smith.interop.huggingface_load import load_model
    from t5smith.interop.trimming import trim_vocabulary
    from t5smith.pipeline import finetune, prepare, run
    from t5smith.recipe.evaluate import GenerateSettings
    from t5smith.recipe.recipe import Recipe
    from t5smith.recipe.toml import load_recipe
    from t5smith.store.tasks.status import prepare_status
    from t5smith.training.train import train
    from t5smith.vocabulary.compare import compare_vocabularies
    from t5smith.vocabulary.train import vocab

__all__ = [
    "GenerateSettings",
    "Generator",
    "Recipe",
    "T5smithError",
    "__version__",
    "bench_corrupt",
    "bench_input",
    "bench_prepare",
    "bench_train",
    "compare_vocabularies",
    "evaluate",
    "export",
    "extend_vocabulary",
    "finetune",
    "generate",
    "generate_each",
    "generate_file",
    "import_model",
    "inspect",
    "inspect_counts",
    "inspect_rows",
    "load_model",
    "load_recipe",
    "prepare",
    "prepare_status",
    "run",
    "stream",
    "train",
    "trim_vocabulary",
    "vocab",
]

_HOMES = {
    "GenerateSettings": "recipe.evaluate",
    "Generator": "generation.fill",
    "Recipe": "recipe.recipe",
    "T5smithError": "base.errors",
    "bench_corrupt": "benchmarking.corrupt",
    "bench_input": "benchmarking.inputs",
    "bench_prepare": "benchmarking.preparing",
    "bench_train": "benchmarking.training",
    "compare_vocabularies": "vocabulary.compare",
    "evaluate": "evaluation.scores",
    "export": "exporting.export",
    "extend_vocabulary": "interop.extension",
    "finetune": "pipeline",
    "generate": "generation.fill",
    "generate_each": "generation.fill",
    "generate_file": "generation.files",
    "import_model": "exporting.import_model",
    "inspect": "inspection.text",
    "inspect_counts": "inspection.results",
    "inspect_rows": "inspection.results",
    "load_model": "interop.huggingface_load",
    "load_recipe": "recipe.toml",
    "prepare": "pipeline",
    "prepare_status": "store.tasks.status",
    "run": "pipeline",
    "stream": "generation.fill",
    "train": "training.train",
    "trim_vocabulary": "interop.trimming",
    "vocab": "vocabulary.train",
}
"""The module of each public name; `tests/test_public_api.py` compares it with the imports above."""


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
