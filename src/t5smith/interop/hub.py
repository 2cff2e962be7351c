"""A model on the Hugging Face Hub: its configuration, tokenizer and weights, from the Hub or its cache."""

from __future__ import annotations

from pathlib import Path

from t5smith.base.errors import T5smithError
from t5smith.base.hub import HubUnreachable, files_on_hub, hub_errors, hub_name, not_fetched
from t5smith.base.phase import phase
from t5smith.interop.weights import INDEX, weight_file

SMALL_FILES = (
    *("config.json", "tokenizer_config.json", "generation_config.json"),
    *("tokenizer.json", "spiece.model", "sentencepiece.model", "README.md"),
)
"""Files beside the weights that are of use."""


def fetch_model(name: str, where: str, stage: str = "train") -> Path:
    """The folder with a model's files, downloaded unless they are in the cache.

    Of several kinds of weights only the one that is read is downloaded.

    Args:
      name: `google/t5-v1_1-base`, or `hf:NAME@REVISION`.
      where: the setting or flag with the name, for messages.
      stage: the command that needs it.

    Raises:
      T5smithError: it is no name of a model, there is no such model, it has no weights that can be read, or
        the Hub cannot be reached and the cache has no copy.
    """
    import huggingface_hub

    repository, revision = hub_name(name, where, "a folder, or a name such as google/t5-v1_1-base")
    try:
        available = files_on_hub("model", repository, where, revision)
        weights = weight_file(available)
        if not weights:
            what = f"{name} on the Hub has no weights that are read"
            expected = "safetensors, flax_model.msgpack or pytorch_model.bin"
            raise T5smithError(what, where=where, expected=expected)
        patterns = [file for file in SMALL_FILES if file in available]
        patterns.append(weights)
        if weights.endswith(INDEX):
            patterns.append(weights.removesuffix(INDEX).replace(".", "-*."))  # its shards
        with phase(stage, f"fetching {name}"), hub_errors("model", repository, where, revision):
            return Path(
                huggingface_hub.snapshot_download(repository, revision=revision, allow_patterns=patterns)
            )
    except HubUnreachable as error:
        return _cached(repository, revision, where, error)


def _cached(repository: str, revision: str | None, where: str, error: HubUnreachable) -> Path:
    import huggingface_hub

    found = huggingface_hub.try_to_load_from_cache(repository, "config.json", revision=revision)
    if isinstance(found, str) and weight_file(entry.name for entry in Path(found).parent.iterdir()):
        return Path(found).parent
    raise not_fetched(repository, where, error) from None
