"""A trained model as a Hugging Face folder, and such a folder as a model.

The folder loads with `AutoTokenizer` and `AutoModelForSeq2SeqLM`; nothing of t5smith is needed for that.
We write the weights and the configuration ourselves, so the export needs neither PyTorch nor transformers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
from safetensors.flax import load_file
from safetensors.numpy import save_file

from t5smith.base.artifact import building, find_current, fingerprint, read_manifest
from t5smith.base.errors import T5smithError
from t5smith.base.lock import in_run_folder
from t5smith.base.progress import say
from t5smith.evaluation.scores import trained
from t5smith.exporting.model_card import model_card
from t5smith.generation.fill import Model
from t5smith.interop.huggingface_names import from_huggingface, to_huggingface
from t5smith.model.config import ModelConfig
from t5smith.model.params import parameter_count
from t5smith.model.t5 import PAD_ID
from t5smith.recipe.recipe import Recipe, plain
from t5smith.training import checkpoints as checkpoint
from t5smith.training.setup import Setup
from t5smith.vocabulary.vocabulary import Vocabulary

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
FEED_FORWARD = {"gated-gelu": True, "relu": False}


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
    if evaluation.made_from["checkpoint"] != mark:
        raise T5smithError(
            "these figures are of another model",
            where=recipe.folder / "evaluation",
            fix="run `t5smith evaluate`",
        )
    card = {"name": recipe.name, "language": recipe.language, "license": recipe.license}
    made_from = {"checkpoint": mark, "evaluation": evaluation.files, "card": card}
    folder = recipe.folder / "model"
    if find_current(folder, "model", fingerprint(made_from)):
        say(f"export    already done: {folder}")
        return folder

    state = checkpoint.read(source, checkpoint.abstract(setup.abstract_state()))
    facts = {"parameters": parameter_count(state.parameters), "step": int(state.step), "dtype": "float32"}
    with building(folder, "model", made_from, facts) as work:
        write_model(
            work,
            Model(state.result, setup.config, setup.vocabulary),
            model_max_length=max(task.alone[0] for task in setup.objective.tasks),
        )
        trained_facts = read_manifest(source, "checkpoint").facts
        text = model_card(recipe, setup.config, trained_facts, evaluation.facts)
        (work / "README.md").write_text(text, encoding="utf-8")
        settings = json.dumps(plain(recipe), indent=1, ensure_ascii=False) + "\n"
        (work / "t5smith.json").write_text(settings, encoding="utf-8")
    say(f"export    {folder}")
    return folder


def write_model(folder: Path, model: Model, *, model_max_length: int) -> None:
    """Write configuration, weights (float32) and tokenizer."""
    tensors = to_huggingface(model.parameters, model.config)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    _write_json(folder / "config.json", config_json(model.config, model.vocabulary))
    _write_json(folder / "generation_config.json", generation_json(model.config, model.vocabulary))
    model.vocabulary.save(folder, model_max_length=model_max_length)


def config_json(config: ModelConfig, vocabulary: Vocabulary) -> dict[str, Any]:
    """`config.json` of a T5 in the names of transformers."""
    return {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        "is_encoder_decoder": True,
        "vocab_size": config.vocab_size,
        "d_model": config.d_model,
        "d_kv": config.d_kv,
        "d_ff": config.d_ff,
        "num_layers": config.num_layers,
        "num_decoder_layers": config.num_decoder_layers,
        "num_heads": config.num_heads,
        "relative_attention_num_buckets": config.relative_attention_num_buckets,
        "relative_attention_max_distance": config.relative_attention_max_distance,
        "feed_forward_proj": "gated-gelu" if config.gated else "relu",
        "layer_norm_epsilon": config.layer_norm_epsilon,
        "tie_word_embeddings": config.tie_word_embeddings,
        "dropout_rate": 0.0,
        "initializer_factor": 1.0,
        "pad_token_id": vocabulary.pad_id,
        "eos_token_id": vocabulary.eos_id,
        "decoder_start_token_id": PAD_ID,
        "use_cache": True,
        "dtype": "float32",
    }


def generation_json(config: ModelConfig, vocabulary: Vocabulary) -> dict[str, Any]:
    """`generation_config.json`; rows that only round the vocabulary up are never generated."""
    settings: dict[str, Any] = {
        "decoder_start_token_id": PAD_ID,
        "eos_token_id": vocabulary.eos_id,
        "pad_token_id": vocabulary.pad_id,
    }
    if config.vocab_size > config.real_vocab_size:
        settings["suppress_tokens"] = list(range(config.real_vocab_size, config.vocab_size))
    return settings


def load(folder: Path) -> Model:
    """Read a T5 from a Hugging Face folder: ours, or another T5 or mT5 with a `tokenizer.json`.

    Raises:
      T5smithError: a file is missing or damaged, it is another kind of model, or sizes do not agree.
    """
    config_path = folder / "config.json"
    given = _read_json(config_path)
    if given.get("model_type") not in ("t5", "mt5"):
        raise T5smithError(
            f"the model is of type {given.get('model_type')!r}", where=config_path, expected="'t5' or 'mt5'"
        )
    feed_forward = given.get("feed_forward_proj", "relu")
    if feed_forward not in FEED_FORWARD:
        raise T5smithError(
            f"feed_forward_proj {feed_forward!r} is not supported",
            where=config_path,
            expected="gated-gelu or relu",
        )
    vocabulary = Vocabulary.load(folder)
    try:
        config = ModelConfig(
            vocab_size=given["vocab_size"],
            real_vocab_size=min(vocabulary.size, given["vocab_size"]),
            d_model=given["d_model"],
            d_kv=given["d_kv"],
            d_ff=given["d_ff"],
            num_layers=given["num_layers"],
            num_decoder_layers=given.get("num_decoder_layers", given["num_layers"]),
            num_heads=given["num_heads"],
            relative_attention_num_buckets=given.get("relative_attention_num_buckets", 32),
            relative_attention_max_distance=given.get("relative_attention_max_distance", 128),
            tie_word_embeddings=given.get("tie_word_embeddings", True),
            gated=FEED_FORWARD[feed_forward],
            layer_norm_epsilon=given.get("layer_norm_epsilon", 1e-6),
        )
    except KeyError as error:
        raise T5smithError(f"{error} is missing", where=config_path) from None
    if vocabulary.size > config.vocab_size:
        raise T5smithError(
            f"the tokenizer has {vocabulary.size} ids but the model {config.vocab_size} rows", where=folder
        )
    return Model(from_huggingface(_read_tensors(folder), config), config, vocabulary)


def _read_tensors(folder: Path) -> dict[str, np.ndarray]:
    names = [WEIGHTS]
    if not (folder / WEIGHTS).is_file() and (folder / INDEX).is_file():
        names = sorted(set(_read_json(folder / INDEX)["weight_map"].values()))
    tensors: dict[str, np.ndarray] = {}
    for name in names:
        path = folder / name
        if not path.is_file():
            raise T5smithError("not found", where=path, expected="the weights as safetensors")
        try:
            tensors |= {key: np.asarray(value, np.float32) for key, value in load_file(path).items()}
        except Exception as error:  # safetensors raises a type of its own without a stable home
            raise T5smithError(f"not a whole safetensors file ({error})", where=path) from None
    return tensors


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise T5smithError("not found", where=path, expected="a Hugging Face model folder") from None
    except OSError as error:
        raise T5smithError(f"cannot be read ({error.strerror})", where=path) from None
    except ValueError as error:
        raise T5smithError(f"not JSON ({error})", where=path) from None
    if not isinstance(value, dict):
        raise T5smithError("not a JSON object", where=path)
    return cast("dict[str, Any]", value)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
