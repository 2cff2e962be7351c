"""The optimizers, applied layer by layer although layers are stacked.

A rule that works "per parameter" (Adafactor's RMS scale and factored moments, Muon's orthogonal updates) must
see the matrix of one layer, not the stack of all layers. So the rule is vmapped over the stack's first axis.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int
from optax import contrib

from t5smith.model.params import Parameters, is_stacked
from t5smith.recipe.train import OptimizerSettings, TrainSettings
from t5smith.training.schedule import Schedule, create_timed_schedule

DEFAULT_LEARNING_RATE = {
    "adafactor": 0.01,
    "adamw": 1e-3,
    "adamwscale": 0.02,
    "muon": 1e-3,
    "muon_adafactor": 0.01,
}
"""T5's for Adafactor, also with Muon; the usual one for AdamW, and for Muon, whose updates have AdamW's RMS;
nanoT5's for AdamWScale."""

MIN_SCALE = 1e-3
"""Lower bound for a parameter's RMS, so that one at zero can move (Shazeer & Stern 2018)."""

MUON_MOMENTUM = 0.95
MUON_RMS = 0.2
"""RMS of Muon's updates before the learning rate: about that of AdamW (Liu et al. 2025, section 2.2)."""
MUON_SHARE = 0.15
"""With Adafactor: RMS of Muon's updates relative to Adafactor's. Orthogonal updates are equally long in every
direction, so a smaller RMS is enough; see docs/optimizers.md."""


def peak_learning_rate(settings: OptimizerSettings) -> float:
    """`learning_rate` if set, else the optimizer's default."""
    return settings.learning_rate or DEFAULT_LEARNING_RATE[settings.name]


def create_optimizer(settings: OptimizerSettings, schedule: Schedule) -> optax.GradientTransformation:
    """Clip the gradient, compute a direction layer by layer, decay weights, scale by the learning rate."""
    parts = [optax.clip_by_global_norm(settings.clip_norm)] if settings.clip_norm else []
    parts.append(per_layer(*directions(settings)))
    if settings.weight_decay:
        parts.append(optax.add_decayed_weights(settings.weight_decay, mask=is_decayed))
    parts.append(optax.scale_by_learning_rate(cast(Any, schedule)))
    return optax.chain(*parts)


def optimizer_at(train: TrainSettings, points: Array) -> tuple[optax.GradientTransformation, Schedule]:
    """Optimizer and schedule with the clock's corrections; see :func:`create_timed_schedule`."""
    rate = create_timed_schedule(train.schedule, peak_learning_rate(train.optimizer))

    def schedule(step: Int[Array, ""]) -> Float[Array, ""]:
        return rate(step, points)

    return create_optimizer(train.optimizer, schedule), schedule


def directions(
    settings: OptimizerSettings,
) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
    """The rules without learning rate and sign: for the matrices of layers, and for all other parameters."""
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
    """As in T5: no momentum, second-moment decay 1 - t^-0.8, updates clipped at RMS 1, times the RMS."""
    rule = optax.adafactor(learning_rate=None, multiply_by_parameter_scale=True)
    return optax.chain(rule, optax.scale(-1.0))


def _muon() -> optax.GradientTransformation:
    """Orthogonal updates by five Newton-Schulz steps (Jordan et al. 2024), for a tree of matrices only."""

    def dimensions(matrices: Any) -> Any:
        return jax.tree.map(lambda _: contrib.MuonDimensionNumbers(), matrices)

    return contrib.scale_by_muon(beta=MUON_MOMENTUM, weight_dimension_numbers=dimensions)


def _scale_to_rms(rms: float) -> optax.GradientTransformation:
    """Scale orthogonal (m, n) matrices, whose RMS is 1 / sqrt(max(m, n)), to this RMS."""
    return optax.stateless_with_tree_map(
        lambda update, _: update * rms * max(cast(Array, update).shape) ** 0.5
    )


def per_layer(
    matrices: optax.GradientTransformation, rest: optax.GradientTransformation
) -> optax.GradientTransformation:
    """Apply rules to each layer of the stacked leaves separately, and to the other leaves directly.

    Args:
      matrices: the rule for the layers' matrices.
      rest: the rule for their norm scales, the embedding, the head, the position biases and the final norms.
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
        # Encoder and decoder are separate stacks: they may have different numbers of layers.
        return f"{path[0].name} {'matrices' if leaf.ndim == 3 else 'vectors'}"

    def labels(parameters: Parameters) -> Any:
        return jax.tree_util.tree_map_with_path(label, parameters, is_stacked(parameters))

    rules: dict[Hashable, optax.GradientTransformation] = {"single": rest}
    for stack in ("encoder", "decoder"):
        rules |= {f"{stack} matrices": mapped(matrices), f"{stack} vectors": mapped(rest)}
    return optax.partition(rules, labels)


def is_decayed(parameters: Parameters) -> Any:
    """Which parameters are decayed: matrices; norm scales and position biases are not."""

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
    """Parameters and optimizer state after one update, and the update that was added to the parameters."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        updates, state = optimizer.update(cast(Any, gradient), state, cast(Any, parameters))
        parameters = cast(Parameters, optax.apply_updates(cast(Any, parameters), updates))
        return parameters, state, cast(Parameters, updates)


def root_mean_square(tree: Parameters) -> Float[Array, ""]:
    """The root mean square over all numbers of a tree."""
    leaves = jax.tree.leaves(tree)
    return jnp.sqrt(sum(jnp.square(leaf).sum() for leaf in leaves) / sum(leaf.size for leaf in leaves))
