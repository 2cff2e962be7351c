"""The flags of `inspect`."""

from __future__ import annotations

from typing import Annotated, Literal

from t5smith.cli.flags import POSITIONAL, command
from t5smith.recipe.base import Folder, Strings


@command
class InspectCommand:
    """Show what the model sees: a text, a batch of a run, or statistics of many batches."""

    text: Annotated[str | None, POSITIONAL] = None
    """The text to mask."""
    noise: Strings = ()
    """Parts of the text to mask; a part is widened to whole tokens. Default: random spans."""
    file: Folder | None = None
    """Read the text from this file; all of it is one window."""
    store: Folder | None = None
    """A run folder. Without a text: show examples of its training batches. With a text: use its objective and
    tokenizer."""
    batch: int = 0
    """The number of the batch to show; with --stats the first to count."""
    rows: int = 1
    """How many examples of the batch to show."""
    held_out: bool = False
    """Show held-out windows with the fixed masks of evaluation, not training batches."""
    stats: bool = False
    """Count spans, positions, padding and more over many batches, and compare with theory. Without --store
    the windows are synthetic."""
    batches: int | None = None
    """How many batches --stats counts. Default: 20 of training, or all that are held out."""
    loss: bool = False
    """Show the probability and loss of each target token, and how they sum to the batch's loss."""
    model: Folder | None = None
    """The model for --loss: a run folder or an exported model folder. Default: the model of --store."""
    recipe: str | None = None
    """Use the objective of this recipe: bundled, a .toml file, or a run folder. Default: that of --store or
    --model, or T5's."""
    objective: Literal["span_corruption", "prefix_lm", "ul2"] | None = None
    """Use this objective instead; the flags below change its settings."""
    noise_density: float | None = None
    """Share of the tokens that are masked."""
    mean_noise_span_length: float | None = None
    """Mean length of a masked span, in tokens."""
    roll: bool = False
    """Rotate the mask by a random offset."""
    no_eos: bool = False
    """Do not end inputs and targets with </s>."""
    seed: int | None = None
    """Random seed of the masks and of the order of a run's windows. Default: the recipe's, or 0."""
    tokenizer: Folder | None = None
    """A tokenizer folder, for a text. Default: that of --model or --store, or T5's."""
    full: bool = False
    """Show every position of long examples and every length of each denoiser."""
    json: bool = False
    """Print one JSON object as the last line of stdout."""
    html: Folder | None = None
    """Write the same as a page into this .html file."""
    plot: Folder | None = None
    """With --stats: draw the counts into this .png, .svg or .pdf file."""
