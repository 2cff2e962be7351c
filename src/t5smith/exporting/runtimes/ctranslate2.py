"""CTranslate2: its model specification filled with our weights, and run.

CTranslate2's own converter for transformers reads such a model through transformers. Under transformers 5,
which calls every T5 tied, it takes an untied model for a tied one, and multiplies its logits by d_model^-0.5:
greedy output is right, beams and scores are wrong. It also gives spare rows the names of sentinels.
"""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Sequence
from typing import Any

import numpy as np

from t5smith.base.errors import T5smithError
from t5smith.exporting.runtimes.comparison import NEW_TOKENS, WITHOUT, Found, Rows
from t5smith.exporting.runtimes.job import Job, Runtime, needs, versions
from t5smith.interop.huggingface_names import to_huggingface
from t5smith.interop.model import Model
from t5smith.vocabulary.vocabulary import EOS, PAD, Vocabulary

COPIED = ("tokenizer.json", "tokenizer_config.json")
USAGE = """\
import ctranslate2
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(".")
translator = ctranslate2.Translator(".")  # or with compute_type="int8"
tokens = tokenizer.convert_ids_to_tokens(tokenizer("Your text with a <extra_id_0> to fill in").input_ids)
best = translator.translate_batch([tokens], beam_size=1)[0].hypotheses[0]
print(tokenizer.decode(tokenizer.convert_tokens_to_ids(best)))
"""


def convert(job: Job) -> None:
    """Write the model.

    Weights are float16 if they are so in the Hugging Face folder, else float32, which holds bfloat16 exactly.

    Raises:
      T5smithError: CTranslate2 does not have such a model.
    """
    model = job.model
    if model.config.bias_per_layer:
        what = "CTranslate2 has one position bias for all layers, and this model one per layer (UMT5)"
        raise T5smithError(what, where="--for ctranslate2", fix=WITHOUT)
    spec = _spec(model)
    names = token_names(model.vocabulary, model.config.vocab_size)
    spec.register_source_vocabulary(names)
    spec.register_target_vocabulary(names)
    spec.config.bos_token = spec.config.decoder_start_token = PAD
    spec.config.eos_token = EOS
    spec.config.unk_token = names[model.vocabulary.unk_id]
    spec.config.layer_norm_epsilon = model.config.layer_norm_epsilon
    spec.validate()
    spec.optimize(quantization="float16" if job.dtype == "float16" else "float32")
    spec.save(str(job.folder))
    for name in COPIED:
        shutil.copyfile(job.source / name, job.folder / name)


def token_names(vocabulary: Vocabulary, rows: int) -> list[str]:
    """The name of each row of the embedding; CTranslate2 reads and writes names.

    Those of spare rows are like no piece.

    Raises:
      T5smithError: two pieces have the same name.
    """
    names = list(vocabulary.all_pieces)
    spare = "<spare_{}>"
    while any(spare.format(number) in names for number in range(len(names), rows)):
        spare = f"<{spare}>"
    names += [spare.format(number) for number in range(len(names), rows)]
    if len(set(names)) < len(names):
        what = "two pieces of the vocabulary have the same name"
        raise T5smithError(what, where="--for ctranslate2", fix=WITHOUT)
    return names


def _spec(model: Model) -> Any:
    """The specification with all weights."""
    config, tensors = model.config, to_huggingface(model.parameters, model.config)
    specs: Any = importlib.import_module("ctranslate2.specs")
    spec = specs.TransformerSpec.from_config(
        (config.num_layers, config.num_decoder_layers),
        config.num_heads,
        pre_norm=True,
        activation=specs.Activation.GELUTanh if config.gated else specs.Activation.RELU,
        ffn_glu=config.gated,
        relative_attention_bias=True,
        rms_norm=True,
    )
    distance = np.int32(config.relative_attention_max_distance)
    for name, stack in (("encoder", spec.encoder), ("decoder", spec.decoder)):
        embeddings = stack.embeddings[0] if name == "encoder" else stack.embeddings
        embeddings.weight = tensors["shared.weight"]
        stack.scale_embeddings = False
        stack.layer_norm.gamma = tensors[f"{name}.final_layer_norm.weight"]
        bias = tensors[f"{name}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
        for number, layer in enumerate(stack.layer):
            own = f"{name}.block.{number}.layer"
            _attention(layer.self_attention, tensors, f"{own}.0", "SelfAttention", ("qkv", "o"))
            layer.self_attention.relative_attention_bias = bias
            layer.self_attention.relative_attention_max_distance = distance
            if name == "decoder":
                _attention(layer.attention, tensors, f"{own}.1", "EncDecAttention", ("q", "kv", "o"))
            _feed_forward(layer.ffn, tensors, f"{own}.{2 if name == 'decoder' else 1}", gated=config.gated)
    head = "shared.weight" if config.tie_word_embeddings else "lm_head.weight"
    spec.decoder.projection.weight = tensors[head]
    if config.tie_word_embeddings:
        spec.decoder.scale_outputs = np.float32(config.d_model**-0.5)
    return spec


def _attention(spec: Any, tensors: Any, layer: str, name: str, fused: Sequence[str]) -> None:
    spec.queries_scale = np.float32(1)  # T5 does not divide by the root of d_kv
    spec.layer_norm.gamma = tensors[f"{layer}.layer_norm.weight"]
    for linear, parts in zip(spec.linear, fused, strict=True):
        linear.weight = np.concatenate([tensors[f"{layer}.{name}.{one}.weight"] for one in parts])


def _feed_forward(spec: Any, tensors: Any, layer: str, *, gated: bool) -> None:
    spec.layer_norm.gamma = tensors[f"{layer}.layer_norm.weight"]
    spec.linear_0.weight = tensors[f"{layer}.DenseReluDense.{'wi_0' if gated else 'wi'}.weight"]
    if gated:
        spec.linear_0_noact.weight = tensors[f"{layer}.DenseReluDense.wi_1.weight"]
    spec.linear_1.weight = tensors[f"{layer}.DenseReluDense.wo.weight"]


def run(job: Job, inputs: Rows, targets: Rows) -> Found:
    """What CTranslate2 computes on the CPU in float32."""
    package: Any = importlib.import_module("ctranslate2")
    translator = package.Translator(str(job.folder), device="cpu", compute_type="float32")
    names = token_names(job.model.vocabulary, job.model.config.vocab_size)
    ids = {name: number for number, name in enumerate(names)}
    sources, expected = ([[names[one] for one in row] for row in some] for some in (inputs, targets))
    found = translator.translate_batch(
        sources, beam_size=1, max_decoding_length=NEW_TOKENS, max_input_length=0, return_end_token=True
    )
    # It adds the end itself.
    asked = [row[:-1] if row[-1] == EOS else row for row in expected]
    scored = translator.score_batch(sources, asked, max_input_length=0)
    return Found(
        [[ids[name] for name in one.hypotheses[0]] for one in found],
        [one.log_probs[: len(row)] for one, row in zip(scored, expected, strict=True)],
    )


CTRANSLATE2 = Runtime(
    title="CTranslate2",
    check=lambda python: needs("ctranslate2", "ctranslate2"),
    convert=convert,
    run=run,
    usage=USAGE,
    made_by=lambda python: versions("ctranslate2"),
)
