"""The verb `import`."""

from __future__ import annotations

from typing import Annotated

from t5smith.cli.flags import POSITIONAL, command
from t5smith.cli.help import parse_or_help
from t5smith.cli.output import function, print_folder
from t5smith.recipe.base import Folder


@command
class ImportCommand:
    """Write a T5 of another project as a Hugging Face folder, with the same numbers, and a model card."""

    source: Annotated[str, POSITIONAL]
    """A Hugging Face folder, a name on the Hub, a run folder, or a checkpoint of T5X."""
    out: Annotated[Folder, POSITIONAL]
    """The folder that is made."""
    tokenizer: str = ""
    """For a model without a tokenizer, such as a checkpoint of T5X: what --vocab.tokenizer accepts."""
    json: bool = False
    """Print one JSON object as the last line of stdout."""


def import_model(args: list[str]) -> None:
    """Run the verb with its arguments, or print its help.

    Raises:
      T5smithError: arguments that cannot be used, or an error of importing.
    """
    command = parse_or_help(ImportCommand, args, "import")
    if command is None:
        return
    do = function("t5smith.exporting.import_model", "import_model", "import")
    print_folder(do(command.source, command.out, tokenizer=command.tokenizer), "imported", command.json)
