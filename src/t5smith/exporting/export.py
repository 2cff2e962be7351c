"""`t5smith export`: the trained model of a run as a Hugging Face folder with its model card."""

from __future__ import annotations

import json
from pathlib import Path

from t5smith.base.artifact import Manifest, building, find_up_to_date, fingerprint, read_manifest
from t5smith.base.errors import T5smithError
from t5smith.base.lock import in_run_folder
from t5smith.base.phase import phase
from t5smith.base.progress import info, warn
from t5smith.exporting.model_card import Made, model_card
from t5smith.interop.huggingface_save import write_model
from t5smith.interop.spiece.model_file import why_no_spiece
from t5smith.model.params import parameter_count
from t5smith.recipe.recipe import Recipe, plain
from t5smith.training.curves.repetition import corpus_use
from t5smith.training.setup import Run

FORMAT = 4
"""Increase when the same model gives another folder than before."""


@in_run_folder
def export(recipe: Recipe | Run) -> Path:
    """Write the trained model of a run as a Hugging Face folder.

    Returns:
      The folder, `model` in the run folder.

    Raises:
      T5smithError: the model is not trained or not evaluated yet.
    """
    run = Run.of(recipe)
    recipe = run.recipe
    evaluation = read_manifest(run.folder / "evaluation", "evaluation")
    if evaluation.inputs["checkpoint"] != run.model_fingerprint:
        raise T5smithError(
            "these scores are of another model",
            where=run.folder / "evaluation",
            fix="run `t5smith evaluate`",
        )
    card = {"name": recipe.name, "language": recipe.language, "license": recipe.license}
    inputs = {
        "format": FORMAT,
        "checkpoint": run.model_fingerprint,
        "evaluation": evaluation.files,
        "card": card,
    }
    folder = run.folder / "model"
    if find_up_to_date(folder, "model", fingerprint(inputs)):
        info(f"export    already done: {folder}")
        return folder

    with phase("export", "restoring the checkpoint", at_once=False):
        trained, model = run.trained[1].facts, run.model
    facts = {
        "parameters": parameter_count(model.parameters),
        "step": trained["step"],
        "dtype": "float32",
    }
    if not recipe.license:
        warn("the model card states no licence: set `license`, such as apache-2.0, and export again")
    made = _made(run, evaluation)
    writing = phase("export", "writing the model", at_once=False)
    with writing, building(folder, "model", inputs, facts) as work:
        write_model(work, model, model_max_length=made.longest_input)
        (work / "README.md").write_text(model_card(made), encoding="utf-8")
        # The run folder says nothing about the model.
        settings = json.dumps(plain(recipe.replace(run_dir=None)), indent=1, ensure_ascii=False) + "\n"
        (work / "t5smith.json").write_text(settings, encoding="utf-8")
    info(f"export    {folder}")
    return folder


def _made(run: Run, evaluation: Manifest) -> Made:
    """What the model card is written from."""
    setup, folder = run.setup, run.folder
    return Made(
        recipe=setup.recipe,
        config=setup.config,
        vocab=read_manifest(folder / "vocab", "vocab"),
        store=read_manifest(folder / "store", "store", check_hashes=False),
        checkpoint=run.trained[1],
        evaluation=evaluation,
        longest_input=max(spec.max_lengths[0] for spec in setup.objective.denoisers),
        uses=corpus_use(setup),
        no_spiece=why_no_spiece(run.vocabulary),
    )
