"""The optimizers, each right for stacked layers.

A rule that works "per parameter" (the RMS scale and the factoring of Adafactor) must see one layer's
matrix at a time, not the stack of all layers. Here the rule itself is mapped over the stack's first
axis, so it never learns that layers are stacked.
"""

from __future__ import annotations

from typing import Any, cast

import jax
import optax

from t5smith.model.params import Parameters, is_stacked
from t5smith.recipe import OptimizerSettings
from t5smith.train.schedule import Schedule

DEFAULT_LEARNING_RATE = {"adafactor": 0.01, "adamw": 1e-3, "adamwscale": 0.02}
"""T5's; the usual one for AdamW at these sizes; nanoT5's."""

MIN_SCALE = 1e-3
"""A parameter's RMS counts as at least this much, so that one at zero can move (Shazeer & Stern 2018)."""


def peak_learning_rate(settings: OptimizerSettings) -> float:
    """The learning rate asked for, or the optimizer's own."""
    return settings.learning_rate or DEFAULT_LEARNING_RATE[settings.name]


def create_optimizer(settings: OptimizerSettings, schedule: Schedule) -> optax.GradientTransformation:
    """Clip, turn gradients into a direction per layer, decay weights, scale by the learning rate."""
    parts = [optax.clip_by_global_norm(settings.clip_norm)] if settings.clip_norm else []
    parts.append(per_layer(direction(settings)))
    if settings.weight_decay:
        parts.append(optax.add_decayed_weights(settings.weight_decay, mask=is_decayed))
    parts.append(optax.scale_by_learning_rate(cast(Any, schedule)))
    return optax.chain(*parts)


def direction(settings: OptimizerSettings) -> optax.GradientTransformation:
    """The rule for one layer's parameters, without learning rate: larger means a longer step."""
    adam = optax.scale_by_adam(settings.beta1, settings.beta2, settings.epsilon)
    match settings.name:
        case "adafactor":
            # T5's: no momentum, second moments decaying as 1 - t^-0.8, updates clipped at RMS 1.
            rule = optax.adafactor(learning_rate=None, multiply_by_parameter_scale=True)
            return optax.chain(rule, optax.scale(-1.0))
        case "adamw":
            return adam
        case "adamwscale":
            return optax.chain(adam, optax.scale_by_param_block_rms(MIN_SCALE))


def per_layer(rule: optax.GradientTransformation) -> optax.GradientTransformation:
    """Apply a rule to each layer of stacked leaves on its own, and to the other leaves as they are."""

    def init(params: Any) -> Any:
        return jax.vmap(rule.init)(params)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        return jax.vmap(rule.update)(updates, state, params)

    def labels(parameters: Parameters) -> Any:
        # Encoder and decoder are stacks of their own: they may differ in height.
        return jax.tree_util.tree_map_with_path(
            lambda path, stacked: path[0].name if stacked else "single", is_stacked(parameters)
        )

    mapped = optax.GradientTransformation(init, update)
    return optax.partition({"encoder": mapped, "decoder": mapped, "single": rule}, labels)


def is_decayed(parameters: Parameters) -> Any:
    """Weight decay is for matrices: norm scales and position biases are left alone."""

    def decayed(path: tuple[Any, ...], leaf: jax.Array, stacked: bool) -> bool:
        return leaf.ndim - stacked == 2 and path[-1].name != "relative_attention_bias"

    return jax.tree_util.tree_map_with_path(decayed, parameters, is_stacked(parameters))


def init_optimizer(optimizer: optax.GradientTransformation, parameters: Parameters) -> Any:
    """The optimizer's state before its first step."""
    # optax relies on implicit promotion, which our tests forbid everywhere else.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return optimizer.init(cast(Any, parameters))


def apply_gradient(
    optimizer: optax.GradientTransformation, gradient: Parameters, state: Any, parameters: Parameters
) -> tuple[Parameters, Any]:
    """Parameters and optimizer state after one update."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        updates, state = optimizer.update(cast(Any, gradient), state, cast(Any, parameters))
        return cast(Parameters, optax.apply_updates(cast(Any, parameters), updates)), state
