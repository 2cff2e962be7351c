"""The model that a training continues from: where its files are, its sizes, vocabulary and weights.

It is a Hugging Face folder or a name on the Hub, a run folder of t5smith, or a checkpoint of T5X.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from t5smith.base.errors import T5smithError
from t5smith.base.phase import phase
from t5smith.base.progress import info, warn
from t5smith.interop.huggingface_load import config_of, read_tensors
from t5smith.interop.huggingface_names import from_huggingface
from t5smith.interop.stored_tensor import StoredTensor
from t5smith.interop.weights import read_json, read_t5x, shards, weight_file
from t5smith.model.config import WORDS, ModelConfig
from t5smith.model.params import Parameters
from t5smith.text.fingerprints import HashCache
from t5smith.vocabulary.carry_over import carried_rows
from t5smith.vocabulary.tokenizer_files import tokenizer_file
from t5smith.vocabulary.vocabulary import Vocabulary

FIELD = "train.init_from"
BIAS = "0.SelfAttention.relative_attention_bias.weight"
NOT_A_SIZE = ("vocab_size", "real_vocab_size")


@dataclass(frozen=True)
class Source:
    """A model to continue from.

    Attributes:
      name: as it was named.
      path: its folder, or the file of a T5X checkpoint.
      is_t5x: whether it is a checkpoint of T5X, which has neither sizes nor a tokenizer beside the weights.
      stage: the command that reads it, for its progress.
    """

    name: str
    path: Path
    is_t5x: bool = False
    stage: str = "train"

    @classmethod
    def find(cls, name: str, where: str = FIELD, stage: str = "train") -> Source:
        """Find a model by its name; `where` is the setting or flag with it, for messages.

        Raises:
          T5smithError: nothing is there, or it has no weights.
        """
        path = Path(name).expanduser()
        if not path.exists():
            from t5smith.interop.hub import fetch_model

            return cls(name, fetch_model(name, where, stage), stage=stage)
        if (path / "model" / "config.json").is_file():
            path = path / "model"
        if (path / "config.json").is_file():
            return cls(name, path, stage=stage)
        if path.is_file() or (path / "checkpoint").is_file() or any(path.glob("target.*")):
            return cls(name, path, is_t5x=True, stage=stage)
        raise T5smithError(
            f"{name}: there is no model",
            where=where,
            expected="a Hugging Face folder, a run folder with an exported model, or a checkpoint of T5X",
            fix="name the folder with config.json; of a run, export the model first with `t5smith export`",
        )

    @cached_property
    def tensors(self) -> dict[str, StoredTensor]:
        """The weights under the names of Hugging Face, still in their files."""
        return read_t5x(self.path) if self.is_t5x else read_tensors(self.path, self._values)

    @cached_property
    def _values(self) -> dict[str, Any]:
        return read_json(self.path / "config.json")

    @cached_property
    def model_type(self) -> str:
        """The family by `config.json`, such as mt5; "" if there is none."""
        return "" if self.is_t5x else str(self._values.get("model_type", ""))

    @cached_property
    def vocabulary(self) -> Vocabulary | None:
        """The model's own vocabulary; None if it has none beside the weights."""
        if self.is_t5x or not tokenizer_file(self.path).is_file():
            return None
        return Vocabulary.load(self.path)

    def files(self) -> list[Path]:
        """The files with weights, and the sizes."""
        if self.is_t5x:
            return [self.path] if self.path.is_file() else sorted(filter(Path.is_file, self.path.rglob("*")))
        found = self.path / weight_file(entry.name for entry in self.path.iterdir())
        listed = [self.path / name for name in shards(found)] if found.suffix == ".json" else []
        return [self.path / "config.json", found, *listed]

    @cached_property
    def fingerprint(self) -> dict[str, str]:
        """The hash of each file by its name. It is computed again only if the file may have changed."""
        hashes, base = HashCache(), self.path if self.path.is_dir() else self.path.parent
        with phase(self.stage, f"checking {self.name}", at_once=False):
            found = {str(file.relative_to(base)): hashes.sha256(file) for file in self.files()}
        hashes.save()
        return found

    def config(self, like: ModelConfig) -> ModelConfig:
        """The model's sizes. What a T5X checkpoint does not record is taken from `like`."""
        if not self.is_t5x:
            ids = self.vocabulary.size if self.vocabulary else like.real_vocab_size
            return config_of(self._values, ids, self.path / "config.json")
        return sizes_of(self.tensors, like)

    def parameters(self, config: ModelConfig, vocabulary: Vocabulary, seed: int) -> Parameters:
        """The weights as parameters of a model of the given sizes, which were checked, and vocabulary.

        With another vocabulary than the model's, rows of embedding and head are carried over.

        Raises:
          T5smithError: a file is damaged, or its tensors do not have these sizes.
        """
        own = self.config(config)
        loaded, theirs = from_huggingface(self.tensors, own), self.vocabulary
        if theirs is None or theirs.all_pieces == vocabulary.all_pieces:
            return with_rows(loaded, config)
        rows = carried_rows(theirs, vocabulary)
        info(
            f"train     of {vocabulary.size:,} pieces {rows.carried:,} are carried over from {self.name}, "
            f"{rows.composed:,} composed of its pieces, {rows.random:,} random"
        )
        embedding = rows.rows(np.asarray(loaded.embedding)[: theirs.size], seed)
        head = None
        if loaded.head is not None:
            head = jnp.asarray(rows.rows(np.asarray(loaded.head).T[: theirs.size], seed + 1).T)
        return with_rows(replace(loaded, embedding=jnp.asarray(embedding), head=head), config)

    def check(self, config: ModelConfig) -> None:
        """Compare the sizes with those of a training.

        Raises:
          T5smithError: one of them differs, or a model without a vocabulary has fewer rows than needed.
        """
        own = self.config(config)
        if different := differing_sizes(own, config):
            fix = f"in [model] set {', '.join(f'{name} = {value}' for name, (value, _) in different.items())}"
            shown = ", ".join(f"{name} {theirs} → {ours}" for name, (theirs, ours) in different.items())
            what = f"{self.name} has other sizes than the recipe: {shown}"
            raise T5smithError(what, where=FIELD, fix=fix)
        if self.vocabulary is None and own.vocab_size < config.real_vocab_size:
            ids = f"{config.real_vocab_size:,} ids"
            what = f"{self.name} has {own.vocab_size:,} rows, but the vocabulary has {ids}"
            raise T5smithError(what, where=FIELD, fix="import the tokenizer of the model: vocab.tokenizer")


def source_and_input(name: str, trained: Mapping[str, Any]) -> tuple[Source | None, dict[str, Any]]:
    """The model of a name, and its hashes as an input of the training; None and nothing without a name.

    Args:
      name: `train.init_from`.
      trained: inputs of the steps that are trained. They do not need the model any more if it is gone.

    Raises:
      T5smithError: there is no such model, and no trained step.
    """
    if not name:
        return None, {}
    try:
        found = Source.find(name)
        return found, {"initial": found.fingerprint}
    except T5smithError as error:
        if "initial" not in trained:
            raise
        warn(f"{error.what}; it is taken to be the model that the trained steps started from")
        return None, {"initial": trained["initial"]}


def differing_sizes(theirs: ModelConfig, ours: ModelConfig) -> dict[str, tuple[Any, Any]]:
    """The settings of `[model]` in which two models differ, with both values as a recipe writes them."""
    found: dict[str, tuple[Any, Any]] = {}
    for field in fields(ModelConfig):
        one, other = getattr(theirs, field.name), getattr(ours, field.name)
        if one == other or field.name in NOT_A_SIZE:
            continue
        if field.name in WORDS:
            setting, words = WORDS[field.name]
            shown = {value: f'"{word}"' for word, value in words.items()}
            found[setting] = shown[one], shown[other]
        else:
            found[field.name] = (str(one).lower(), str(other).lower())
    return found


def with_rows(parameters: Parameters, config: ModelConfig) -> Parameters:
    """The parameters with as many rows of the vocabulary as the sizes say. Rows above the ids are spare."""
    rows = parameters.embedding.shape[0]
    if rows == config.vocab_size:
        return parameters
    missing, keep = max(config.vocab_size - rows, 0), min(rows, config.vocab_size)
    embedding = jnp.pad(parameters.embedding[:keep], ((0, missing), (0, 0)))
    head = parameters.head
    if head is not None:
        head = jnp.pad(head[:, :keep], ((0, 0), (0, missing)))
    return replace(parameters, embedding=embedding, head=head)


def sizes_of(tensors: dict[str, StoredTensor], like: ModelConfig) -> ModelConfig:
    """The sizes that the shapes of weights show; the rest as in `like`."""

    def shape(name: str) -> tuple[int, ...]:
        if name not in tensors:
            raise T5smithError("missing from the checkpoint", where=name)
        one = tensors[name]
        return one.shape[::-1] if one.transposed else one.shape

    layers = {"encoder": 0, "decoder": 0}
    for name in tensors:
        if found := re.match(r"(encoder|decoder)\.block\.(\d+)\.", name):
            layers[found[1]] = max(layers[found[1]], int(found[2]) + 1)
    first = "encoder.block.0.layer"
    buckets, heads = shape(f"{first}.{BIAS}")
    inner, d_model = shape(f"{first}.0.SelfAttention.q.weight")
    gated = f"{first}.1.DenseReluDense.wi_0.weight" in tensors
    return ModelConfig(
        vocab_size=shape("shared.weight")[0],
        real_vocab_size=min(shape("shared.weight")[0], like.real_vocab_size),
        d_model=d_model,
        d_kv=inner // heads,
        d_ff=shape(f"{first}.1.DenseReluDense.{'wi_0' if gated else 'wi'}.weight")[0],
        num_layers=layers["encoder"],
        num_decoder_layers=layers["decoder"],
        num_heads=heads,
        relative_attention_num_buckets=buckets,
        relative_attention_max_distance=like.relative_attention_max_distance,
        tie_word_embeddings="lm_head.weight" not in tensors,
        gated=gated,
        layer_norm_epsilon=like.layer_norm_epsilon,
        bias_per_layer=layers["encoder"] > 1 and f"{first.replace('block.0', 'block.1')}.{BIAS}" in tensors,
    )
