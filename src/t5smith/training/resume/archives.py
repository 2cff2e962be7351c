"""Archived trainings: which of them a recipe would continue, and how one comes back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t5smith.base.artifact import PREVIOUS, Manifest, fingerprint, free_place, read_manifest
from t5smith.base.disk import disk_errors, write_atomically
from t5smith.base.errors import T5smithError
from t5smith.base.moves import move_all
from t5smith.base.progress import info
from t5smith.base.run_folder import (
    CHECKPOINTS,
    TRAIN,
    differences,
    is_needed,
    recorded_inputs,
    saved_steps,
    trained_steps,
)
from t5smith.recipe.recipe import plain
from t5smith.recipe.toml import saved_recipe
from t5smith.store.prepare import store_inputs
from t5smith.text.corpus import CorpusFiles
from t5smith.training.resume.fingerprint import changes, training_fingerprint
from t5smith.training.resume.history import History
from t5smith.training.settle import clock_of, with_measured_settings
from t5smith.vocabulary.import_tokenizer import import_inputs, recipe_tokenizer
from t5smith.vocabulary.train import vocab_inputs, with_text_of

if TYPE_CHECKING:
    from t5smith.recipe.recipe import Recipe

RESTORED = "restored_from"
"""A file in `train` with the name that it had in `previous/`."""


def restore_training(recipe: Recipe, archive: Path, files: CorpusFiles | None = None) -> None:
    """Exchange the training of a run folder for an archived one, with the vocabulary and store it needs.

    Nothing is deleted: what is in place moves to `previous/`.

    Args:
      recipe: names the run folder.
      archive: a folder `previous/train-N`, from the run folder or from the working folder. If it is back in
        place already, nothing is done.
      files: its text, to compare vocabulary and store as well. Default: only the training is compared.

    Raises:
      T5smithError: it is no archived training, its settings are not the recipe's, or what it needs is gone.
    """
    folder = recipe.folder
    place = archive if archive.is_dir() else folder / archive
    in_place = place.resolve() == (folder / TRAIN).resolve() and trained_steps(folder)
    if in_place or (not place.exists() and _restored_from(folder) == place.name):
        info(f"train     {archive} is in place already")
        return
    _check_archive(folder, place, archive)
    inputs = recorded_inputs(place)
    if changed := training_changes(recipe, place):
        raise _other_settings(place, changed)
    artifacts = _needed(folder, inputs.get("store"), place)
    if files and (changed := artifact_changes(recipe, files, *artifacts)):
        raise _other_settings(place, changed)
    exchanged = {TRAIN: place, "vocab": artifacts[0], "store": artifacts[1]}
    moves = list[tuple[Path, Path]]()
    for name, source in exchanged.items():
        if source != folder / name:
            if (folder / name).exists():
                moves.append((folder / name, free_place(folder / name)))
            moves.append((source, folder / name))
    replaced = trained_steps(folder)
    with disk_errors(folder):
        write_atomically(place / RESTORED, place.name + "\n")
        move_all(folder, moves)
    if replaced:
        info(f"train     {replaced:,} trained steps are archived in {moves[0][1]}")
    info(f"train     {max(saved_steps(folder / TRAIN / CHECKPOINTS)):,} steps restored from {archive}")


def _check_archive(folder: Path, place: Path, named: Path) -> None:
    """Raise T5smithError if a place, as the user named it, is no archived training of a run folder."""
    if not saved_steps(place / CHECKPOINTS):
        known = ", ".join(f"{PREVIOUS}/{path.name}" for path, _ in _archived(folder))
        raise T5smithError(
            "no archived training",
            where=named,
            expected=f"one of {known}" if known else f"a folder in {folder / PREVIOUS}, which has none",
        )
    if place.parent.resolve() != (folder / PREVIOUS).resolve():
        raise T5smithError(
            "this training is not an archive of the run folder",
            where=named,
            expected=f"a folder in {folder / PREVIOUS}",
            fix="copy it there first",
        )


def _other_settings(place: Path, changed: Sequence[str]) -> T5smithError:
    return T5smithError(
        f"this training has other settings: {'; '.join(changed)}; nothing was changed",
        where=place,
        fix="set the recipe to what it was trained with",
    )


def _restored_from(folder: Path) -> str | None:
    """The name in `previous/` that the training in place had before it was restored."""
    try:
        return (folder / TRAIN / RESTORED).read_text(encoding="utf-8").strip()
    except OSError:
        return None


def artifact_changes(
    recipe: Recipe,
    files: CorpusFiles,
    vocab: Path | None = None,
    store: Path | None = None,
    *,
    retrain_vocab: bool = False,
) -> list[str]:
    """The settings by which the vocabulary and store of trained steps differ from a recipe's.

    Of one that is gone, the recipe in the run folder tells the settings.

    Args:
      recipe: the recipe.
      files: its text.
      vocab: the folder of the vocabulary, archived or not. Default: the one in place.
      store: that of the store.
      retrain_vocab: whether a vocabulary that was learned from other files is another one.
    """
    folder = recipe.folder
    made = _manifest(vocab or folder / "vocab", "vocab")
    if made is None:
        return saved_changes(recipe)
    if not (vocab or is_needed(folder, made)):
        return []
    if recipe.vocab.tokenizer:
        changed = differences(made.inputs, import_inputs(recipe_tokenizer(recipe), recipe.vocab))
    else:
        inputs = vocab_inputs(recipe, files.inputs())
        changed = differences(made.inputs, inputs if retrain_vocab else with_text_of(made.inputs, inputs))
    found = _manifest(store or folder / "store", "store")
    if found is None:
        changed = changed or saved_changes(recipe)
        recorded = recorded_inputs(folder / TRAIN).get("store")
        if changed or recorded in (None, fingerprint(store_inputs(recipe, files, made))):
            return changed
        return ["the text, or how t5smith stores it, since the store was lost"]
    if not (store or is_needed(folder, found)):
        return changed
    return changed + differences(found.inputs, store_inputs(recipe, files, made))


def saved_changes(recipe: Recipe) -> list[str]:
    """The settings of the text and vocabulary that differ from those of the recipe in the run folder."""
    before = saved_recipe(recipe.folder)
    return differences(_made_with(before), _made_with(recipe)) if before else []


def _made_with(recipe: Recipe) -> dict[str, Any]:
    corpus = plain(recipe.corpus)
    return {
        "vocab": plain(recipe.vocab),
        "cleaning": plain(recipe.cleaning),
        "corpus": {name: corpus[name] for name in ("held_out_fraction", "document", "text_field")},
        "prepare": {"document_separator": recipe.prepare.document_separator},
    }


def _manifest(folder: Path, kind: str) -> Manifest | None:
    try:
        return read_manifest(folder, kind, check_hashes=False)
    except T5smithError:
        return None


def _needed(folder: Path, store_key: str | None, archive: Path) -> list[Path]:
    """The vocabulary and the store that a training was made with, in place or archived."""
    stores = [place for place, found in _artifacts(folder, "store") if found.key == store_key]
    if not stores:
        raise T5smithError(
            "the store of this training is gone",
            where=archive,
            fix="use the settings it was trained with, and run `t5smith prepare`",
        )
    made_with = read_manifest(stores[0], "store", check_hashes=False).inputs["vocab"]
    vocabularies = [
        place
        for place, found in _artifacts(folder, "vocab")
        if found.files["tokenizer.json"]["sha256"] == made_with
    ]
    if not vocabularies:
        raise T5smithError(
            "the vocabulary of this training is gone",
            where=archive,
            fix="use the settings it was trained with, and run `t5smith vocab`",
        )
    return [vocabularies[0], stores[0]]


def matching_archive(recipe: Recipe, files: CorpusFiles | None = None) -> str | None:
    """How to continue the archived training with the most steps that has a recipe's settings.

    Args:
      recipe: the recipe.
      files: its text, to compare vocabulary and store as well. Default: only the training is compared.

    Returns:
      A sentence, or None without such a training.
    """
    found = [
        (steps, place)
        for place, steps in _archived(recipe.folder)
        if not training_changes(recipe, place) and _has_artifacts(recipe, place, files)
    ]
    if not found:
        return None
    steps, place = max(found)
    name = f"{PREVIOUS}/{place.name}"
    return f"use --resume-from {name} to continue the {steps:,} steps that were trained with these settings"


def _archived(folder: Path) -> Iterator[tuple[Path, int]]:
    """The archived trainings of a run folder, each with its number of steps."""
    for place in sorted((folder / PREVIOUS).glob(f"{TRAIN}-*")):
        if saved := saved_steps(place / CHECKPOINTS):
            yield place, saved[-1]


def _artifacts(folder: Path, kind: str) -> Iterator[tuple[Path, Manifest]]:
    """The finished artifacts of a kind, in place or archived."""
    for place in [folder / kind, *sorted((folder / PREVIOUS).glob(f"{kind}-*"))]:
        try:
            yield place, read_manifest(place, kind, check_hashes=False)
        except T5smithError:
            continue


def training_changes(recipe: Recipe, archive: Path) -> list[str]:
    """The settings of training that differ between a recipe and a training in a folder, archived or not."""
    try:
        inputs = recorded_inputs(archive)
        history = History(recipe.folder, saved_steps(archive / CHECKPOINTS)[-1], inputs)
        clock = clock_of(recipe, inputs, archive)
        settled = history.with_trained_defaults(with_measured_settings(recipe, inputs, archive))
    except T5smithError as error:
        return [str(error)]
    now = {
        **{name: inputs[name] for name in ("store", "corpora", "rows", "extended") if name in inputs},
        **training_fingerprint(settled, recipe.train.hours if clock else None),
    }
    if not settled.train.in_steps and "steps" in inputs["train"]:
        # How many steps its tokens or epochs amount to follows from the store.
        now["train"]["steps"] = inputs["train"]["steps"]
    return changes(inputs, now)


def _has_artifacts(recipe: Recipe, archive: Path, files: CorpusFiles | None) -> bool:
    """Whether the vocabulary and the store of an archived training are there and are a recipe's."""
    try:
        vocab, store = _needed(recipe.folder, recorded_inputs(archive).get("store"), archive)
        if files is None:
            return True
        return not artifact_changes(recipe, files, vocab, store)
    except T5smithError:
        return False
