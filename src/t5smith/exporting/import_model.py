"""`t5smith import`: a model of another project as a Hugging Face folder, with the same numbers and a card."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from t5smith import __version__
from t5smith.base.artifact import building, fingerprint, read_manifest
from t5smith.base.errors import T5smithError
from t5smith.base.progress import count, info, progress, warn
from t5smith.exporting.card_front_matter import hub_model, license_fields, yaml_lines
from t5smith.exporting.card_text import spiece_note, without_folders
from t5smith.exporting.card_usage import TRANSFORMERS_5, loaded
from t5smith.exporting.model_card import kind_of
from t5smith.exporting.source_card import SourceCard, read_card
from t5smith.interop.huggingface_names import check_tensors, huggingface_shapes
from t5smith.interop.huggingface_save import Form, write_settings, write_tensors
from t5smith.interop.source import Source
from t5smith.interop.spiece.model_file import why_no_spiece
from t5smith.interop.stored_tensor import StoredTensor
from t5smith.model.config import ModelConfig
from t5smith.vocabulary.import_tokenizer import import_tokenizer
from t5smith.vocabulary.vocabulary import Vocabulary

FORMAT = 1
"""Increase when the same model gives another folder than before."""
KIND = "imported"
STAGE = "import"
LENGTH = 512
"""The length that T5's tokenizers name; position biases have none."""
_FORMATS = {".safetensors": "safetensors", ".msgpack": "Flax's msgpack", ".bin": "PyTorch's pickle"}
_FAMILIES = {"mt5": "mT5", "umt5": "UMT5"}


@dataclass(frozen=True)
class Found:
    """What was read.

    Attributes:
      source: where it is.
      config: its sizes.
      vocabulary: its own tokenizer, or the one that was named.
      shapes: of the tensors that are written, by name.
      left_out: names of the others: copies, or without use.
      dtype: of the tensors that are written: that of all tensors, or float32.
      tokenizer: the name of a tokenizer that was not beside the model; "" if it was.
    """

    source: Source
    config: ModelConfig
    vocabulary: Vocabulary
    shapes: Mapping[str, tuple[int, ...]]
    left_out: tuple[str, ...]
    dtype: str
    tokenizer: str = ""

    @property
    def parameters(self) -> int:
        """The number of parameters."""
        return sum(map(math.prod, self.shapes.values()))

    @property
    def family(self) -> str:
        """What it is: T5 1.0, T5 1.1, mT5, UMT5 or ByT5."""
        own = _FAMILIES.get(self.source.model_type) or kind_of(self.config)
        return f"ByT5 ({own})" if self.vocabulary.is_byte_level else own

    @property
    def format(self) -> str:
        """The kind of files that the weights are in."""
        if self.source.is_t5x:
            return "a checkpoint of T5X " + ("(msgpack)" if self.source.path.is_file() else "(zarr)")
        file = self.source.files()[1]
        ending = _FORMATS[Path(file.name.removesuffix(".index.json")).suffix]
        return f"{ending} in shards" if file.suffix == ".json" else ending

    @property
    def sizes(self) -> str:
        """Its sizes, in words."""
        one = self.config
        return (
            f"{one.num_layers} encoder and {one.num_decoder_layers} decoder layers, d_model {one.d_model:,}, "
            f"d_ff {one.d_ff:,}, {one.num_heads} heads of {one.d_kv}, {one.vocab_size:,} rows for "
            f"{one.real_vocab_size:,} ids, {'tied' if one.tie_word_embeddings else 'untied'} head"
        )


def import_model(source: str, out: str | Path, *, tokenizer: str = "") -> Path:
    """Write a T5 of another project as a Hugging Face folder. Every number is the same as there.

    Args:
      source: what `train.init_from` accepts: a Hugging Face folder, a name on the Hub, a run folder, or a
        checkpoint of T5X.
      out: the folder that is made. If it is there already and from this model, nothing is done.
      tokenizer: for a model without one: what `vocab.tokenizer` accepts.

    Returns:
      The folder: configuration, weights in the precision of the source, tokenizer, and a card.

    Raises:
      T5smithError: there is no model, a file is damaged or has other tensors than the sizes say, it has no
        tokenizer, or something else is in the folder.
    """
    found, folder = _read(source, tokenizer), Path(out)
    card = (
        read_card(found.source.path) if found.source.path.is_dir() else SourceCard(missing="it has no card")
    )
    digest = hashlib.sha256(json.dumps(found.vocabulary.tree()).encode()).hexdigest()
    inputs = {
        "format": FORMAT,
        "source": without_folders(source),
        "model": found.source.fingerprint,
        "tokenizer": digest,
        "license": card.license or card.missing,
    }
    info(f"import    {source}: {found.family}, {count(found.parameters)} parameters, from {found.format}")
    info(f"import    {found.sizes}")
    if found.left_out:
        info(f"import    ignored, because no T5 computes with them: {', '.join(found.left_out)}")
    if _is_there(folder, inputs):
        info(f"import    already done: {folder}")
        return folder
    if not card.license:
        warn(f"the licence of {source} is not known, because {card.missing}")
    facts: dict[str, Any] = {
        "family": found.family,
        "parameters": found.parameters,
        "read_from": found.format,
        "dtype": found.dtype,
        "left_out": list(found.left_out),
    }
    size = sum(tensor.bytes for name, tensor in found.source.tensors.items() if name in found.shapes)
    with building(folder, KIND, inputs, facts) as work, progress("import", size, "bytes") as bar:

        def tensors() -> Iterator[tuple[str, np.ndarray]]:
            for name in found.shapes:
                tensor = found.source.tensors[name]
                yield name, tensor.read()
                bar.advance(tensor.bytes)

        form = Form(found.dtype)
        write_tensors(work, tensors(), found.config, form)
        write_settings(work, found.config, found.vocabulary, form, model_max_length=LENGTH)
        (work / "README.md").write_text(import_card(found, card), encoding="utf-8")
    info(f"import    {folder}")
    return folder


def _read(name: str, tokenizer: str) -> Found:
    """All of a model but its numbers.

    Raises:
      T5smithError: as :func:`import_model`.
    """
    source = Source.find(name, "SOURCE", STAGE)
    own = source.vocabulary
    if own and tokenizer:
        what = f"{name} has a tokenizer of its own"
        raise T5smithError(what, where="--tokenizer", fix="leave out --tokenizer")
    if not own and not tokenizer:
        fix = "name the one that it was trained with, such as --tokenizer google/mt5-small"
        raise T5smithError(f"{name} has no tokenizer", where="SOURCE", fix=fix)
    vocabulary = own or import_tokenizer(tokenizer, where="--tokenizer").vocabulary
    # What a checkpoint of T5X does not record has the value that all T5s have.
    config = source.config(ModelConfig(1, vocabulary.size, 1, 1, 1, 1, 1, 1))
    if vocabulary.size > config.vocab_size:
        what = f"the tokenizer has {vocabulary.size:,} ids but the model only {config.vocab_size:,} rows"
        raise T5smithError(what, where=name, expected="the tokenizer that the model was trained with")
    check_tensors(source.tensors, config)
    shapes = huggingface_shapes(config)
    left_out = tuple(sorted(source.tensors.keys() - shapes.keys()))
    return Found(source, config, vocabulary, shapes, left_out, _dtype(source.tensors, shapes), tokenizer)


def _dtype(tensors: Mapping[str, StoredTensor], shapes: Mapping[str, Any]) -> str:
    """The precision that keeps every number.

    Raises:
      T5smithError: there is none.
    """
    kinds = {tensors[name].dtype.name for name in shapes}
    if unknown := kinds - {"float32", "bfloat16", "float16"}:
        what = f"numbers of type {', '.join(sorted(unknown))}"
        raise T5smithError(what, where="SOURCE", expected="float32, bfloat16 or float16")
    return kinds.pop() if len(kinds) == 1 else "float32"


def _is_there(folder: Path, inputs: Mapping[str, Any]) -> bool:
    """Whether the model is in the folder.

    Raises:
      T5smithError: something else is there.
    """
    if not folder.exists():
        return False
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        return False
    try:
        if read_manifest(folder, KIND).key == fingerprint(inputs):
            return True
    except T5smithError:
        pass
    what = "there is something else in this folder already"
    raise T5smithError(what, where=folder, fix="name a folder that is not there yet")


def import_card(found: Found, card: SourceCard) -> str:
    """README.md of an imported model, with the Hub's front matter."""
    name = without_folders(found.source.name)
    fields: dict[str, str | list[str]] = {**license_fields(card.license)}
    if base := hub_model(found.source.name):
        fields["base_model"] = base
    fields |= {"library_name": "transformers", "tags": ["t5", "text2text-generation", "t5smith"]}
    weights = next(value for file, value in found.source.fingerprint.items() if file != "config.json")
    licence = (
        f"Its model card names the licence `{card.license}`, which applies to this folder too."
        if card.license
        else f"Its licence is not stated here, because {card.missing}: look it up before you publish this."
    )
    untied, tokenizer = not found.config.tie_word_embeddings, ""
    if found.tokenizer:
        tokenizer = f"The tokenizer is `{without_folders(found.tokenizer)}`, whose licence applies to it.\n"
    return f"""---
{yaml_lines(fields)}
---

# {name}

{found.family}, {found.parameters:,} parameters: {found.sizes}.

t5smith {__version__} read the weights from {found.format} and wrote them as they were ({found.dtype}).

## Use

```python
{loaded(found.config)}\
inputs = tokenizer("Your text with a <extra_id_0> to fill in", return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=20)[0]))
```
{chr(10) + TRANSFORMERS_5 if untied else ""}
## Tokenizer

The tokenizer has {found.vocabulary.size:,} ids, {len(found.vocabulary.sentinel_ids)} of them sentinels.
{spiece_note(why_no_spiece(found.vocabulary))}

## Licence and lineage

The parameters are those of `{name}` (SHA-256 of its weights {weights[:12]}…).
{licence}
{tokenizer}"""
