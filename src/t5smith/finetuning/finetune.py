"""`t5smith finetune`: examples, training, the test of the best checkpoint, and its export."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

from t5smith.base.artifact import Manifest, building, find_up_to_date, fingerprint, read_manifest
from t5smith.base.errors import T5smithError
from t5smith.base.lock import locked
from t5smith.base.progress import info, progress
from t5smith.base.run_folder import checkpoint_folder, saved_steps
from t5smith.finetuning.card import card
from t5smith.finetuning.evaluation import Scores, TaskEvaluation, by_task, copied_scores, generated, scores_of
from t5smith.finetuning.examples import Held
from t5smith.finetuning.run import FinetuneRun, in_finetune_terms
from t5smith.finetuning.scores import check_libraries, interval, one
from t5smith.interop.huggingface_names import arrays_of
from t5smith.interop.huggingface_save import Form, write_settings, write_weights
from t5smith.interop.model import Model
from t5smith.recipe.recipe import Recipe, plain
from t5smith.recipe.toml import save_run_settings
from t5smith.training.curves.advice import Point
from t5smith.training.loggers import check_loggers
from t5smith.training.metrics import HELD_OUT, read_rows
from t5smith.training.resume.checkpoints import model_fingerprint
from t5smith.training.resume.fingerprint import continues
from t5smith.training.resume.saved_parameters import SavedParameters
from t5smith.training.timing import clock
from t5smith.training.train import train_run

FORMAT = 1
WORST = 10
"""Examples of the worst errors that are kept of each task."""


def finetune(recipe: Recipe, *, restart: bool = False, extend: bool = False) -> dict[str, Any]:
    """What :func:`t5smith.pipeline.finetune` does, without its report."""
    begun = clock.now()
    with in_finetune_terms():
        run = FinetuneRun(recipe, restart=restart)
        check_loggers(run.recipe.train)
        check_libraries(kind for task in run.settings.tasks.values() for kind in task.all_scores)
        with locked(run.folder):
            keep = partial(save_run_settings, recipe, "finetune")
            last = _trained(run) or train_run(
                run, begun, partial(TaskEvaluation, run), extend=extend, keep=keep
            )
            step = best_step(run)
            load = cache(partial(_model, run, step))
            scores = _test(run, step, load)
            _export(run, step, scores, load)
            return _summary(run, last, step, scores)


def _trained(run: FinetuneRun) -> Path | None:
    """The last checkpoint, if training is over because its scores became no better; None: it is not."""
    if run.restart or not run.settings.early_stopping or not run.history.steps:
        return None
    rows = [row for row in read_rows(run.folder / "train" / HELD_OUT) if row["step"] <= run.history.steps]
    points = [point for row in rows if row["step"] and (point := Point.of(row))]
    if not points or points[-1].step != run.history.steps:
        return None
    best = min(points, key=lambda point: point.order).step
    enough = sum(point.step > best for point in points) >= run.settings.early_stopping
    folder = checkpoint_folder(run.setup.checkpoints, run.history.steps)
    if not enough or not continues(run.history.inputs, run.setup.inputs, run.history.steps):
        return None
    info(f"train     already done: the scores became no better; {folder}")
    return folder


def best_step(run: FinetuneRun) -> int:
    """The kept checkpoint with the best score; the last one if training was not evaluated."""
    saved = saved_steps(run.setup.checkpoints)
    points = [point for row in read_rows(run.folder / "train" / HELD_OUT) if (point := Point.of(row))]
    scored = [point for point in points if point.step in saved]
    return min(scored, key=lambda point: point.order).step if scored else saved[-1]


def _checkpoint(run: FinetuneRun, step: int) -> tuple[Path, Manifest]:
    folder = checkpoint_folder(run.setup.checkpoints, step)
    return folder, read_manifest(folder, "checkpoint")


def _model(run: FinetuneRun, step: int) -> Model:
    """The model of a checkpoint."""
    saved = SavedParameters([_checkpoint(run, step)[0]], run.setup.abstract_state())
    return Model(saved.tree(), run.config, run.vocabulary)


def _test(run: FinetuneRun, step: int, load: Callable[[], Model]) -> Manifest:
    """The scores of a checkpoint on `test`, and what it wrote, as the artifact `scores`."""
    settings, folder = run.settings, run.folder / "scores"
    manifest = _checkpoint(run, step)[1]
    inputs = {
        "format": FORMAT,
        "checkpoint": model_fingerprint(manifest),
        "examples": run.examples.manifest.key,
        "num_beams": settings.num_beams,
        "bootstrap": settings.bootstrap,
        "scores": {name: list(task.all_scores) for name, task in settings.tasks.items()},
    }
    if found := find_up_to_date(folder, "scores", fingerprint(inputs)):
        info(f"finetune  already scored: {folder}")
        return found
    held = run.examples.held("test")
    texts: list[str] = []
    precision = run.setup.recipe.train.precision
    with progress("finetune", len(held), "test examples") as bar:
        for text in generated(load(), held, settings, precision, num_beams=settings.num_beams):
            texts.append(text)
            bar.advance(1)
    scores = scores_of(settings.tasks, held, texts)
    facts: dict[str, Any] = {"step": step, "scores": scores, "examples": {}, "intervals": {}, "worst": {}}
    facts["copied"] = copied_scores(settings.tasks, held)
    with building(folder, "scores", inputs, facts) as work:
        _write_predictions(work / "predictions.jsonl", held, texts)
        at = 0
        for name, own in by_task(held):
            written, right = texts[at : at + len(own)], [one.targets for one in own]
            at += len(own)
            facts["examples"][name] = len(own)
            facts["intervals"][name] = {
                kind: interval(kind, written, right, settings.bootstrap) for kind in scores[name]
            }
            judge = one(settings.tasks[name].all_scores[0])
            points = [judge(*pair) for pair in zip(written, right, strict=True)]
            worst = sorted(range(len(own)), key=lambda n: (points[n], n))[:WORST]
            facts["worst"][name] = [
                {**_tree(own[n], written[n]), "score": round(100 * points[n], 2)}
                for n in worst
                if points[n] < 1
            ]
    for name, own in scores.items():
        shown = in_words(own, facts["intervals"][name])
        info(f"finetune  {name}: {shown} ({facts['examples'][name]:,} examples)")
    return read_manifest(folder, "scores")


def _tree(example: Held, text: str) -> dict[str, Any]:
    return {"place": example.place, "input": example.input, "targets": example.targets, "text": text}


def _write_predictions(path: Path, held: list[Held], texts: list[str]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for example, text in zip(held, texts, strict=True):
            tree = {"task": example.task, **_tree(example, text)}
            file.write(json.dumps(tree, ensure_ascii=False) + "\n")


def in_words(scores: Mapping[Any, float], intervals: Mapping[str, Any]) -> str:
    """Scores with their intervals: "bleu 41.23 [40.11, 42.38]"."""
    parts: list[str] = []
    for name, value in scores.items():
        own = intervals.get(name)
        parts.append(f"{name} {value:.2f}" + (f" [{own[0]:.2f}, {own[1]:.2f}]" if own else ""))
    return ", ".join(parts)


def _export(run: FinetuneRun, step: int, scores: Manifest, load: Callable[[], Model]) -> None:
    """Write the model of a checkpoint as a Hugging Face folder."""
    recipe, folder = run.outer, run.folder / "model"
    manifest = _checkpoint(run, step)[1]
    inputs = {
        "format": FORMAT,
        "checkpoint": model_fingerprint(manifest),
        "scores": scores.files,
        "card": {"name": recipe.name, "language": recipe.language, "license": recipe.license},
        "export": plain(recipe.export),
    }
    if find_up_to_date(folder, "model", fingerprint(inputs)):
        info(f"finetune  already exported: {folder}")
        return
    if recipe.export.dtype == "float16":
        where, fix = "export.dtype", "export as bfloat16 or float32"
        raise T5smithError("float16 is not checked for fine-tuned models", where=where, fix=fix)
    form = Form(recipe.export.dtype, recipe.export.shard_bytes)
    facts = {"step": step, "dtype": recipe.export.dtype, "scores": scores.facts["scores"]}
    with building(folder, "model", inputs, facts) as work:
        write_weights(work, arrays_of(load().parameters), run.config, form)
        length = run.settings.input_length
        write_settings(work, run.config, run.vocabulary, form, model_max_length=length)
        (work / "README.md").write_text(card(run, manifest, scores), encoding="utf-8")
        text = json.dumps(plain(recipe.replace(run_dir=None)), indent=1, ensure_ascii=False) + "\n"
        (work / "t5smith.json").write_text(text, encoding="utf-8")
    info(f"finetune  {folder}")


def _summary(run: FinetuneRun, last: Path, step: int, scores: Manifest) -> dict[str, Any]:
    facts = read_manifest(last, "checkpoint", check_hashes=False).facts
    found: Scores = scores.facts["scores"]
    return {
        "name": run.outer.name,
        "folder": str(run.folder),
        "model": str(run.folder / "model"),
        "predictions": str(run.folder / "scores" / "predictions.jsonl"),
        "step": step,
        "scores": found,
        "intervals": scores.facts["intervals"],
        "test_examples": scores.facts["examples"],
        "copied": scores.facts["copied"],
        "worst": scores.facts["worst"],
        "examples": run.examples.manifest.facts["tasks"],
        "train": facts,
    }
