"""`t5smith export`: the trained model of a run as a Hugging Face folder with its model card."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from t5smith.base.artifact import Manifest, building, find_up_to_date, fingerprint, read_manifest
from t5smith.base.errors import T5smithError
from t5smith.base.lock import in_run_folder
from t5smith.base.phase import phase
from t5smith.base.progress import info, warn
from t5smith.evaluation.scores import score_model
from t5smith.exporting.check import check_folder, check_packages, in_words
from t5smith.exporting.chosen import Chosen, choose, intermediate_steps
from t5smith.exporting.half import check_float16
from t5smith.exporting.model_card import Made, model_card
from t5smith.exporting.push import MAIN, Repository
from t5smith.exporting.runtimes.export_for import check_runtime, export_for
from t5smith.exporting.source_card import source_card
from t5smith.interop.huggingface_names import huggingface_shapes
from t5smith.interop.huggingface_save import Form, write_settings, write_weights
from t5smith.interop.spiece.model_file import why_no_spiece
from t5smith.recipe.export import ExportSettings
from t5smith.recipe.recipe import Recipe, plain
from t5smith.training.curves.repetition import corpus_use
from t5smith.training.setup import Run

FORMAT = 4
"""Increase when the same model gives another folder than before."""


@in_run_folder
def export(
    recipe: Recipe | Run,
    *,
    step: int | None = None,
    average: int | None = None,
    encoder_only: bool = False,
    check: bool = False,
    push: str = "",
    public: bool = False,
    revisions: bool = False,
    runtime: str | None = None,
    python: Path | None = None,
) -> Path:
    """Write the trained model of a run as a Hugging Face folder, and on request push it to the Hub.

    Args:
      recipe: names the run folder.
      step: export the checkpoint after this step. Training need not be finished.
      average: export the mean of the parameters of the last `average` checkpoints, up to `step`.
      encoder_only: export the encoder alone, which turns a text into vectors.
      check: compare ids and logits with those in transformers, which must be installed, and say so on the
        card.
      push: the repository on the Hub that the folder is pushed to, as `USER/NAME`. Default: none.
      public: with `push`, everybody may read the repository.
      revisions: with `push`, export the kept checkpoints before the last step too, and push each as the
        branch `step-N`.
      runtime: also write the model for `ctranslate2` or `onnx`, compared with ours.
      python: the Python of the environment with the converter of `runtime`, if it is another than this.

    Returns:
      The folder: `model` in the run folder; with `step`, `average` or `encoder_only` `model-step-N`,
      `model-average-K` or `model-encoder`; with `runtime`, that one's, such as `model-ctranslate2`.

    Raises:
      T5smithError: the model is not trained or not evaluated yet, there is no such checkpoint, float16
        does not hold the model, transformers or the runtime computes something else, a package is missing,
        or the Hub cannot be pushed to.
    """
    if runtime is not None:
        for flag, given in (("--encoder-only", encoder_only), ("--push", bool(push))):
            if given:
                raise T5smithError("cannot be used together", where=f"--for and {flag}", fix="choose one")
        check_runtime(runtime, python)
    elif python is not None:
        raise T5smithError("needs `--for onnx`", where="--python", fix="add --for onnx")
    _check_flags(push, step, average, public=public, revisions=revisions)
    run, repository = Run.of(recipe), Repository.find(push, public=public) if push else None
    folder = _export(run, step, average, encoder_only=encoder_only, check=check)
    if repository is not None:
        # All of them are made before the first is pushed.
        branches = {
            f"step-{number}": _export(run, number, None, encoder_only=encoder_only, check=check)
            for number in (intermediate_steps(run) if revisions else ())
        }
        for branch, made in {MAIN: folder, **branches}.items():
            repository.push(made, branch)
    return export_for(folder, run.setup, runtime, python) if runtime else folder


def _check_flags(push: str, step: int | None, average: int | None, *, public: bool, revisions: bool) -> None:
    for flag, given in (("--public", public), ("--revisions", revisions)):
        if given and not push:
            raise T5smithError("needs `--push`", where=flag, fix="add --push USER/NAME")
    for flag, given in (("--step", step is not None), ("--average", average is not None)):
        if given and revisions:
            raise T5smithError("cannot be used together", where=f"--revisions and {flag}", fix="choose one")


def _export(run: Run, step: int | None, average: int | None, *, encoder_only: bool, check: bool) -> Path:
    """Write one folder, unless it is there and up to date."""
    recipe = run.recipe
    chosen = choose(run, step, average)
    evaluation = _evaluation(chosen, needed=step is None and average is None)
    inputs = _inputs(chosen, evaluation) | ({"encoder_only": True} if encoder_only else {})
    folder = run.folder / _folder_name(step, average, encoder_only)
    if check and encoder_only:
        raise T5smithError("compares whole models", where="--check", fix="export without --encoder-only")
    checked = inputs | {"check": True}
    if check:
        check_packages()
        inputs = checked
    if any(find_up_to_date(folder, "model", fingerprint(one)) for one in (inputs, checked)):
        info(f"export    already done: {folder}")
        return folder

    facts = _facts(chosen, encoder_only)
    if not recipe.license:
        source = source_card(run.setup)
        known = f"; that of the model it continues is {source.license}" if source and source.license else ""
        warn(f"the model card states no licence: set `license`, such as apache-2.0, and export again{known}")
    made = _made(chosen, evaluation or _score(chosen))
    writing = phase("export", "writing the model", at_once=False)
    with writing, building(folder, "model", inputs, facts) as work:
        _write(work, chosen, made, facts, encoder_only=encoder_only, check=check)
    info(f"export    {folder}")
    return folder


def _write(
    work: Path, chosen: Chosen, made: Made, facts: dict[str, Any], *, encoder_only: bool, check: bool
) -> None:
    """Write the files; the result of the check is added to the facts."""
    run, settings = chosen.run, chosen.run.recipe
    form = Form(settings.export.dtype, settings.export.shard_bytes, encoder_only)
    write_weights(work, chosen.parameters.array, made.config, form)
    write_settings(work, made.config, run.vocabulary, form, model_max_length=made.longest_input)
    if check:
        facts["checked"] = check_folder(work, run.setup)
        made = replace(made, checked=in_words(facts["checked"]))
    (work / "README.md").write_text(model_card(made, encoder_only=encoder_only), encoding="utf-8")
    # The run folder says nothing about the model.
    text = json.dumps(plain(settings.replace(run_dir=None)), indent=1, ensure_ascii=False) + "\n"
    (work / "t5smith.json").write_text(text, encoding="utf-8")


def _facts(chosen: Chosen, encoder_only: bool) -> dict[str, Any]:
    """What the manifest says of the model.

    Raises:
      T5smithError: float16 does not hold it.
    """
    dtype, config = chosen.run.recipe.export.dtype, chosen.run.setup.config
    shapes = huggingface_shapes(config, encoder_only=encoder_only).values()
    facts: dict[str, Any] = {
        "parameters": sum(map(math.prod, shapes)),
        "step": chosen.steps[-1],
        "dtype": dtype,
    }
    if len(chosen.steps) > 1:
        facts["averaged_steps"] = chosen.steps
    if dtype == "float16":
        facts["float16"] = check_float16(chosen)
    return facts


def _inputs(chosen: Chosen, evaluation: Manifest | None) -> dict[str, Any]:
    """What the folder depends on."""
    recipe = chosen.run.recipe
    card = {"name": recipe.name, "language": recipe.language, "license": recipe.license}
    if source := source_card(chosen.run.setup):
        card["source_license"] = source.license or source.missing
    inputs = {
        "format": FORMAT,
        "checkpoint": chosen.fingerprint,
        "evaluation": evaluation.files if evaluation else plain(recipe.evaluate),
        "card": card,
    }
    if recipe.export != ExportSettings():
        inputs["export"] = plain(recipe.export)
    return inputs


def _folder_name(step: int | None, average: int | None, encoder_only: bool) -> str:
    parts = ["model-encoder" if encoder_only else "model"]
    parts += [] if average is None else [f"average-{average}"]
    parts += [] if step is None else [f"step-{step}"]
    return "-".join(parts)


def _evaluation(chosen: Chosen, *, needed: bool) -> Manifest | None:
    """The scores in the run folder, if they are of this model; None if they are not, but not `needed`.

    Raises:
      T5smithError: they are needed, and missing or of another model.
    """
    folder = chosen.run.folder / "evaluation"
    try:
        found = read_manifest(folder, "evaluation")
    except T5smithError:
        if needed:
            raise
        return None
    if found.inputs["checkpoint"] == chosen.fingerprint:
        return found
    if needed:
        raise T5smithError("these scores are of another model", where=folder, fix="run `t5smith evaluate`")
    return None


def _score(chosen: Chosen) -> Manifest:
    """The scores of a model that is not the one that `t5smith evaluate` scores."""
    with phase("export", "restoring the checkpoint", at_once=False):
        model = chosen.model()
    return Manifest("evaluation", "", {}, score_model(chosen.run, model, chosen.steps[-1]), {})


def _made(chosen: Chosen, evaluation: Manifest) -> Made:
    """What the model card is written from."""
    setup, folder = chosen.run.setup, chosen.run.folder
    return Made(
        recipe=setup.recipe,
        config=setup.config,
        vocab=read_manifest(folder / "vocab", "vocab"),
        store=read_manifest(folder / "store", "store", check_hashes=False),
        checkpoint=chosen.last,
        evaluation=evaluation,
        longest_input=max(spec.max_lengths[0] for spec in setup.objective.denoisers),
        no_spiece=why_no_spiece(chosen.run.vocabulary),
        uses=corpus_use(setup, chosen.steps[-1]),
        steps=chosen.steps,
        source=source_card(setup),
    )
