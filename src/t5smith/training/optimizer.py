"""The optimizers, each right for stacked layers.

A rule that works "per parameter" (the RMS scale and the factoring of Adafactor, Muon's orthogonal
matrices) must see one layer's matrix at a time, not the stack of all layers. Here the rule itself is mapped
over the stack's first axis, so it never learns that layers are stacked.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float
from optax import contrib

from t5smith.model.params import Parameters, is_stacked
from t5smith.recipe.train import OptimizerSettings
from t5smith.training.schedule import Schedule

DEFAULT_LEARNING_RATE = {
    "adafactor": 0.01,
    "adamw": 1e-3,
    "adamwscale": 0.02,
    "muon": 1e-3,
    "muon_adafactor": 0.01,
}
"""T5's, also with Muon; the usual one for AdamW, and for Muon scaled to AdamW's steps; nanoT5's."""

MIN_SCALE = 1e-3
"""A parameter's RMS counts as at least this much, so that one at zero can move (Shazeer & Stern 2018)."""

MUON_MOMENTUM = 0.95
MUON_RMS = 0.2
"""RMS of Muon's updates before the learning rate: about that of AdamW's (Liu et al. 2025, section 2.2)."""
MUON_SHARE = 0.15
"""With Adafactor: RMS of Muon's updates in shares of that of Adafactor's. Orthogonal updates are as long in
every direction, so shorter ones do; see docs/optimizers.md."""


def peak_learning_rate(settings: OptimizerSettings) -> float:
    """The learning rate asked for, or the optimizer's own."""
    return settings.learning_rate or DEFAULT_LEARNING_RATE[settings.name]


def create_optimizer(settings: OptimizerSettings, schedule: Schedule) -> optax.GradientTransformation:
    """Clip, turn gradients into a direction per layer, decay weights, scale by the learning rate."""
    parts = [optax.clip_by_global_norm(settings.clip_norm)] if settings.clip_norm else []
    parts.append(per_layer(*directions(settings)))
    if settings.weight_decay:
        parts.append(optax.add_decayed_weights(settings.weight_decay, mask=is_decayed))
    parts.append(optax.scale_by_learning_rate(cast(Any, schedule)))
    return optax.chain(*parts)


def directions(
    settings: OptimizerSettings,
) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
    """The rules without learning rate, larger meaning a longer step: for matrices of layers; for the rest."""
    adam = optax.scale_by_adam(settings.beta1, settings.beta2, settings.epsilon)
    match settings.name:
        case "adafactor":
            rule = _adafactor()
        case "adamw":
            rule = adam
        case "adamwscale":
            rule = optax.chain(adam, optax.scale_by_param_block_rms(MIN_SCALE))
        case "muon":
            return optax.chain(_muon(), _scale_to_rms(MUON_RMS)), adam
        case "muon_adafactor":
            own_scale = optax.scale_by_param_block_rms(MIN_SCALE)
            return optax.chain(_muon(), _scale_to_rms(MUON_SHARE), own_scale), _adafactor()
    return rule, rule


def _adafactor() -> optax.GradientTransformation:
    """T5's: no momentum, second moments decaying as 1 - t^-0.8, updates clipped at RMS 1, times the RMS."""
    rule = optax.adafactor(learning_rate=None, multiply_by_parameter_scale=True)
    return optax.chain(rule, optax.scale(-1.0))


def _muon() -> optax.GradientTransformation:
    """Orthogonal updates by five Newton-Schulz steps (Jordan et al. 2024) for a tree of matrices alone."""

    def dimensions(matrices: Any) -> Any:
        return jax.tree.map(lambda _: contrib.MuonDimensionNumbers(), matrices)

    return contrib.scale_by_muon(beta=MUON_MOMENTUM, weight_dimension_numbers=dimensions)


def _scale_to_rms(rms: float) -> optax.GradientTransformation:
    """Give orthogonal (m, n) matrices this RMS: theirs is 1 / sqrt(max(m, n))."""
    return optax.stateless_with_tree_map(
        lambda update, _: update * rms * max(cast(Array, update).shape) ** 0.5
    )


def per_layer(
    matrices: optax.GradientTransformation, rest: optax.GradientTransformation
) -> optax.GradientTransformation:
    """Apply rules to each layer of stacked leaves on its own, and to the other leaves as they are.

    Args:
      matrices: the rule for the layers' matrices.
      rest: for their norm scales, the embedding, the head, the position biases and the last norms.
    """

    def mapped(rule: optax.GradientTransformation) -> optax.GradientTransformation:
        def init(params: Any) -> Any:
            return jax.vmap(rule.init)(params)

        def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
            return jax.vmap(rule.update)(updates, state, params)

        return optax.GradientTransformation(init, update)

    def label(path: tuple[Any, ...], leaf: Array, stacked: bool) -> str:
        if not stacked:
            return "single"
        # Encoder and decoder are stacks of their own: they may differ in height.
        return f"{path[0].name} {'matrices' if leaf.ndim == 3 else 'vectors'}"

    def labels(parameters: Parameters) -> Any:
        return jax.tree_util.tree_map_with_path(label, parameters, is_stacked(parameters))

    rules: dict[Hashable, optax.GradientTransformation] = {"single": rest}
    for stack in ("encoder", "decoder"):
        rules |= {f"{stack} matrices": mapped(matrices), f"{stack} vectors": mapped(rest)}
    return optax.partition(rules, labels)


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
) -> tuple[Parameters, Any, Parameters]:
    """Parameters and optimizer state after one update, and what was added to the parameters."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        updates, state = optimizer.update(cast(Any, gradient), state, cast(Any, parameters))
        parameters = cast(Parameters, optax.apply_updates(cast(Any, parameters), updates))
        return parameters, state, cast(Parameters, updates)


def root_mean_square(tree: Parameters) -> Float[Array, ""]:
    """Over all numbers of a tree."""
    leaves = jax.tree.leaves(tree)
    return jnp.sqrt(sum(jnp.square(leaf).sum() for leaf in leaves) / sum(leaf.size for leaf in leaves))
