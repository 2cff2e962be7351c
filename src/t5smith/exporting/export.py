"""`t5smith export`: the trained model of a run as a Hugging Face folder with its model card."""

from __future__ import annotations

import json
from pathlib import Path

from t5smith.base.artifact import building, find_up_to_date, fingerprint, read_manifest
from t5smith.base.errors import T5smithError
from t5smith.base.lock import in_run_folder
from t5smith.base.progress import info
from t5smith.exporting.model_card import model_card
from t5smith.interop.huggingface_save import write_model
from t5smith.interop.model import Model
from t5smith.model.params import parameter_count
from t5smith.recipe.recipe import Recipe, plain
from t5smith.training import checkpoints
from t5smith.training.setup import Setup, trained


@in_run_folder
def export(recipe: Recipe) -> Path:
    """Write the trained model of a run as a Hugging Face folder.

    Returns:
      The folder, `model` in the run folder.

    Raises:
      T5smithError: the model is not trained or not evaluated yet.
    """
    setup = Setup.create(recipe)
    source, mark = trained(setup)
    evaluation = read_manifest(recipe.folder / "evaluation", "evaluation")
    if evaluation.inputs["checkpoint"] != mark:
        raise T5smithError(
            "these figures are of another model",
            where=recipe.folder / "evaluation",
            fix="run `t5smith evaluate`",
        )
    card = {"name": recipe.name, "language": recipe.language, "license": recipe.license}
    inputs = {"checkpoint": mark, "evaluation": evaluation.files, "card": card}
    folder = recipe.folder / "model"
    if find_up_to_date(folder, "model", fingerprint(inputs)):
        info(f"export    already done: {folder}")
        return folder

    state = checkpoints.restore(source, setup.abstract_state())
    facts = {"parameters": parameter_count(state.parameters), "step": int(state.step), "dtype": "float32"}
    with building(folder, "model", inputs, facts) as work:
        write_model(
            work,
            Model(state.eval_params, setup.config, setup.vocabulary),
            model_max_length=max(spec.max_lengths[0] for spec in setup.objective.denoisers),
        )
        trained_facts = read_manifest(source, "checkpoint").facts
        text = model_card(recipe, setup.config, trained_facts, evaluation.facts)
        (work / "README.md").write_text(text, encoding="utf-8")
        settings = json.dumps(plain(recipe), indent=1, ensure_ascii=False) + "\n"
        (work / "t5smith.json").write_text(settings, encoding="utf-8")
    info(f"export    {folder}")
    return folder
