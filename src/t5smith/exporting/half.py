"""Whether float16 holds a model: the network as runtimes compute it in float16, compared with float32.

float16 ends at 65,504, which the activations between the layers of some T5s exceed. bfloat16 has the range of
float32.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from t5smith.base.errors import T5smithError
from t5smith.base.phase import phase
from t5smith.exporting.chosen import Chosen
from t5smith.model.attention.masks import SegmentIds, causal, mask_bias
from t5smith.model.attention.multi_head import attention
from t5smith.model.attention.position_bias import position_bias, shared_or_own
from t5smith.model.compute import Compute
from t5smith.model.config import ModelConfig
from t5smith.model.layers import feed_forward, norm
from t5smith.model.params import Parameters
from t5smith.model.t5 import PAD_ID, forward, logits, shift_right
from t5smith.objective.batches import Batch, evaluation_batches
from t5smith.training.setup import Setup

INPUTS = 50
"""Held-out inputs that are computed in both precisions."""
MOST = 1e-2
"""The largest difference of a logit, as a share of the input's largest logit, or of 1 if that is less."""
HALF = Compute(jnp.dtype(jnp.float16))


def check_float16(chosen: Chosen) -> dict[str, Any]:
    """Compare a model in float16 and in float32 on held-out inputs.

    Returns:
      The number of inputs, and the largest difference; see MOST.

    Raises:
      T5smithError: an activation overflows, or the difference is larger than MOST.
    """
    with phase("export", "comparing float16 with float32"):
        batch, model = held_out_inputs(chosen.run.setup), chosen.model()
        return compare(model.parameters, model.config, batch["input_ids"], batch["targets"])


def held_out_inputs(setup: Setup) -> Batch:
    """A batch of INPUTS held-out rows. Of a short text, each window comes with several masks."""
    available = setup.store.valid.window_count(setup.objective.window)
    masks = -(-INPUTS // available)
    windows = -(-INPUTS // masks)
    return evaluation_batches(
        setup.store.valid, setup.objective, batch_size=INPUTS, masks_per_window=masks, windows=windows
    )[0]


def compare(
    parameters: Parameters, config: ModelConfig, input_ids: Int[Any, "B S"], targets: Int[Any, "B T"]
) -> dict[str, Any]:
    """The same as :func:`check_float16`, for a model and inputs."""
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.float16), parameters)
    exact, rough = (jax.jit(program, static_argnums=1) for program in (_in_float32, in_float16))
    finite, differences = 0, list[float]()
    # A few rows at a time: the logits of all would be large.
    for first in range(0, len(input_ids), 10):
        rows = slice(first, first + 10)
        expected = np.asarray(exact(parameters, config, input_ids[rows], targets[rows]))
        found = np.asarray(rough(half, config, input_ids[rows], targets[rows]), np.float32)
        seen = (np.asarray(targets[rows]) != PAD_ID)[..., None]
        good = (np.isfinite(found) | ~seen).all(axis=(1, 2))
        finite += int(good.sum())
        apart = np.where(seen, np.abs(found - expected), 0)[good].max(axis=(1, 2))
        largest = np.where(seen, np.abs(expected), 0)[good].max(axis=(1, 2))
        differences += list(apart / np.maximum(largest, 1))
    use = "use bfloat16, which has the range of float32, or float32"
    if finite < len(input_ids):
        what = (
            f"float16 does not hold this model: {len(input_ids) - finite} of {len(input_ids)} inputs overflow"
        )
        raise T5smithError(what, where="export.dtype", fix=use)
    worst = float(max(differences))
    if worst > MOST:
        what = f"float16 changes the logits of {len(input_ids)} inputs by up to {worst:.2g} of the largest"
        raise T5smithError(what, where="export.dtype", expected=f"at most {MOST:g}", fix=use)
    return {"inputs": len(input_ids), "largest_difference": worst}


def _in_float32(
    p: Parameters, config: ModelConfig, input_ids: Int[Array, "B S"], targets: Int[Array, "B T"]
) -> Float[Array, "B T V"]:
    return forward(p, config, input_ids, shift_right(targets))[..., : config.real_vocab_size]


def in_float16(
    p: Parameters, config: ModelConfig, input_ids: Int[Array, "B S"], targets: Int[Array, "B T"]
) -> Float[Array, "B T V"]:
    """The logits with weights, activations and their sums over layers in float16.

    As in PyTorch, norms and the sums within a product are float32; only their results are rounded.
    """
    (B, S), T, far = input_ids.shape, targets.shape[1], config.relative_attention_max_distance

    def normed(x: Array, scale: Array) -> Array:
        return norm(x.astype(jnp.float32), scale.astype(jnp.float32), config.layer_norm_epsilon).astype(
            x.dtype
        )

    def biases(table: Array, length: int, *, both: bool) -> Array:
        return position_bias(table.astype(jnp.float32), length, length, bidirectional=both, max_distance=far)

    keys = SegmentIds(jnp.ones((B, 1), jnp.int32), (input_ids != PAD_ID).astype(jnp.int32))
    bias_of = shared_or_own(p.encoder.relative_attention_bias, partial(biases, length=S, both=True))
    x = p.embedding[input_ids.reshape(-1)]
    for number in range(config.num_layers):
        layer: Any = jax.tree.map(lambda leaf, n=number: leaf[n], p.encoder.layers)
        h = normed(x, layer.self_attention_norm)
        bias = bias_of(layer.relative_attention_bias)
        x += attention(h, h, layer.self_attention, bias, keys, HALF).astype(x.dtype)
        x += feed_forward(normed(x, layer.feed_forward_norm), layer.feed_forward, HALF).astype(x.dtype)
    memory = normed(x, p.encoder.final_norm)

    past = SegmentIds(jnp.ones((B, 1), jnp.int32), jnp.ones((B, T), jnp.int32))
    bias_of = shared_or_own(
        p.decoder.relative_attention_bias,
        lambda table: biases(table, T, both=False) + mask_bias(jnp.asarray(causal(T))),
    )
    no_bias, x = (
        jnp.zeros((config.num_heads, T, S), jnp.float32),
        p.embedding[shift_right(targets).reshape(-1)],
    )
    for number in range(config.num_decoder_layers):
        layer = jax.tree.map(lambda leaf, n=number: leaf[n], p.decoder.layers)
        h = normed(x, layer.self_attention_norm)
        bias = bias_of(layer.relative_attention_bias)
        x += attention(h, h, layer.self_attention, bias, past, HALF).astype(x.dtype)
        h = normed(x, layer.cross_attention_norm)
        x += attention(h, memory, layer.cross_attention, no_bias, keys, HALF).astype(x.dtype)
        x += feed_forward(normed(x, layer.feed_forward_norm), layer.feed_forward, HALF).astype(x.dtype)
    decoded = normed(x, p.decoder.final_norm).reshape(B, T, -1)
    return logits(p, config, decoded, HALF)[..., : config.real_vocab_size].astype(x.dtype)
