"""Whether a recipe's training fits into memory and onto the disk, before its text is read."""

from __future__ import annotations

import shutil

import jax

from t5smith.base.errors import T5smithError
from t5smith.base.progress import warn
from t5smith.base.units import count
from t5smith.base.wrapping import pluralize
from t5smith.interop.source import Source
from t5smith.recipe.recipe import Recipe
from t5smith.training.base_setup import StepSetup
from t5smith.training.compile import compiled_step
from t5smith.training.settle import trial_recipe
from t5smith.training.timing.summary import state_bytes
from t5smith.vocabulary.import_tokenizer import recipe_tokenizer
from t5smith.vocabulary.tokenizer_json import CONTROL
from t5smith.vocabulary.train import build
from t5smith.vocabulary.unigram import reserved_pieces
from t5smith.vocabulary.vocabulary import Vocabulary


def check_machine(recipe: Recipe) -> None:
    """Compile a recipe's step with a vocabulary of the requested size; compare its needs with the machine's.

    A batch size of "auto" fits by the way it is chosen, so only the disk is checked then.

    Raises:
      T5smithError: the step does not fit into memory, a checkpoint and the model do not fit on the disk, or
        the model that training starts from does not fit the recipe.
    """
    train = recipe.train
    settled = (
        recipe if train.in_steps else trial_recipe(recipe, 1 if train.batch_size == "auto" else train.rows)
    )
    if train.batch_size == "auto":
        settled = settled.replace(**{"train.batch_size": train.gradient_accumulation})
    setup = StepSetup.create(settled, stand_in_vocabulary(recipe))
    if train.init_from:
        Source.find(train.init_from).check(setup.config)
    if train.batch_size != "auto":
        compiled_step(setup)
    check_disk(recipe, setup)


def stand_in_vocabulary(recipe: Recipe) -> Vocabulary:
    """A vocabulary of the size that a recipe requests, or the one that it imports."""
    settings = recipe.vocab
    if settings.tokenizer:
        return recipe_tokenizer(recipe).vocabulary
    trained = max(settings.size - len(CONTROL) - len(reserved_pieces(settings)), 1)
    pieces = [(f"▁{number}", -1.0 - number) for number in range(trained)]
    return Vocabulary(build(pieces, settings.control_symbols, settings).to_str())


def check_disk(recipe: Recipe, setup: StepSetup, saved: int = 0) -> None:
    """Compare the free space with what checkpoints and the exported model take.

    Args:
      recipe: names the run folder.
      setup: made from it.
      saved: number of checkpoints that are in place and need no more space.

    Raises:
      T5smithError: the next checkpoints and the model do not fit.
    """
    train, state = recipe.train, state_bytes(setup)
    model = sum(
        leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(setup.abstract_state().parameters)
    )
    folder = recipe.folder.absolute()
    place = next(path for path in [folder, *folder.parents] if path.is_dir())
    free = shutil.disk_usage(place).free
    # One checkpoint is written while the one before it is still there.
    needed = max(2 - saved, 1)
    least = needed * state + model
    if free < least:
        raise T5smithError(
            f"{count(free)}B are free on the disk, but {pluralize(needed, 'checkpoint')} of {count(state)}B "
            f"and the model take {count(least)}B",
            where=place,
            fix="free some space, or use --run-dir for a folder on another disk",
        )
    kept = train.keep_checkpoints + train.keep_best + (train.schedule.name == "wsd") + 1
    kept += setup.recipe.train.steps // train.keep_every if train.keep_every and train.in_steps else 0
    kept = max(kept - saved, 1)
    if free < kept * state + model:
        warn(
            f"{count(free)}B are free in {place}, but {pluralize(kept, 'checkpoint')} and the model take "
            f"{count(kept * state + model)}B; lower train.keep_checkpoints or free some space"
        )
