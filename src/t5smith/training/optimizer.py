"""The optimizers, applied layer by layer although layers are stacked.

A rule that works "per parameter" (Adafactor's RMS scale and factored moments, Muon's orthogonal updates) must
see the matrix of one layer, not the stack of all layers. So the rule is vmapped over the stack's first axis.

Every rule gets `applied`, whether the update is made, and returns the state of before if it is not. A choice
between the two states after the update would need both in memory.
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from t5smith.model.compute import Backend
from t5smith.model.params import Parameters, is_stacked
from t5smith.recipe.recipe import Recipe
from t5smith.recipe.train import OptimizerSettings, TrainSettings
from t5smith.training.adafactor import MIN_SCALE, adafactor
from t5smith.training.muon import muon
from t5smith.training.schedule import Schedule, create_timed_schedule

DEFAULT_LEARNING_RATE = {
    "adafactor": (60.0, 0.01, 0.04),
    "adamw": (3.0, 0.001, 0.002),
    "adamwscale": (60.0, 0.02, 0.05),
    "muon": (6.0, 0.001, 0.004),
    "muon_adafactor": (60.0, 0.01, 0.04),
}
"""By optimizer: what is divided by the root of the number of tokens, and the lowest and highest rate. Long
runs get the usual rates: T5's for Adafactor, also with Muon; nanoT5's for AdamWScale; AdamW's for AdamW, and
for Muon, whose updates have the same RMS. Short runs need higher ones: see docs/optimizers.md."""

POSITION_BIAS = "relative_attention_bias"
"""Name of a leaf: numbers for each distance and head, not a matrix that vectors are multiplied by."""
MUON_RMS = 0.2
"""RMS of Muon's updates before the learning rate: about that of AdamW (Liu et al. 2025, section 2.2)."""
MUON_SHARE = 0.15
"""With Adafactor: RMS of Muon's updates relative to Adafactor's. Orthogonal updates are equally long in every
direction, so a smaller RMS is enough; see docs/optimizers.md."""


def peak_learning_rate(recipe: Recipe, steps: int | None = None) -> float:
    """`learning_rate` if set, else the optimizer's default for the tokens of this training.

    Args:
      recipe: with a number as batch size.
      steps: instead of the recipe's.
    """
    rate = recipe.train.optimizer.learning_rate
    return default_learning_rate(recipe, steps) if rate is None else rate


def default_learning_rate(recipe: Recipe, steps: int | None = None) -> float:
    """The optimizer's default for steps × batch size × input length tokens, to two digits.

    The input length is the recipe's, else its window length, else 512, which is T5's.
    """
    train, objective = recipe.train, recipe.objective
    length = objective.input_length or objective.window_length or 512
    tokens = (train.steps if steps is None else steps) * train.rows * length
    factor, lowest, highest = DEFAULT_LEARNING_RATE[train.optimizer.name]
    return float(f"{min(max(factor / tokens**0.5, lowest), highest):.2g}")


def create_optimizer(
    settings: OptimizerSettings, schedule: Schedule, num_heads: int, backend: Backend
) -> optax.GradientTransformation:
    """Clip the gradient, compute a direction layer by layer, decay weights, scale by the learning rate.

    Args:
      settings: of the rule.
      schedule: the learning rate of each step.
      num_heads: the model's; Muon updates the heads of attention separately.
      backend: the programs for this device.
    """
    parts = [_clip(settings.clip_norm)] if settings.clip_norm else []
    parts.append(per_layer(*directions(settings, num_heads, backend)))
    if settings.weight_decay:
        parts.append(optax.add_decayed_weights(settings.weight_decay, mask=is_decayed))
    parts.append(_unless_skipped(optax.scale_by_learning_rate(cast(Any, schedule))))
    return optax.chain(*parts)


def optimizer_at(
    train: TrainSettings, num_heads: int, backend: Backend, points: Array
) -> tuple[optax.GradientTransformation, Schedule]:
    """Optimizer and schedule with the clock's corrections; see :func:`create_timed_schedule`."""
    rate = create_timed_schedule(train.schedule)

    def schedule(step: Int[Array, ""]) -> Float[Array, ""]:
        return rate(step, points)

    return create_optimizer(train.optimizer, schedule, num_heads, backend), schedule


def directions(
    settings: OptimizerSettings, num_heads: int, backend: Backend
) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
    """The rules without learning rate and sign: for stacked matrices of layers, and for other parameters."""
    adam = _adam(settings.beta1, settings.beta2, settings.epsilon)
    match settings.name:
        case "adafactor":
            rule = adafactor(backend)
        case "adamw":
            rule = adam
        case "adamwscale":
            rule = optax.chain(adam, optax.scale_by_param_block_rms(MIN_SCALE))
        case "muon":
            return optax.chain(muon(num_heads, backend), optax.scale(MUON_RMS)), adam
        case "muon_adafactor":
            own_scale = each_layer(optax.scale_by_param_block_rms(MIN_SCALE))
            matrices = optax.chain(muon(num_heads, backend), optax.scale(MUON_SHARE), own_scale)
            return matrices, adafactor(backend)
    return each_layer(rule), rule


def _clip(norm: float) -> optax.GradientTransformation:
    """Scale gradients to this norm if theirs is larger. XLA keeps what optax's clipping returns."""

    def clip(updates: Any, params: Any = None) -> Any:
        scale = jnp.minimum(1.0, norm / optax.tree.norm(updates))
        return jax.tree.map(lambda leaf: leaf * scale, updates)

    return optax.stateless(clip)


def _unless_skipped(rule: optax.GradientTransformation) -> optax.GradientTransformation:
    """A rule that keeps its state if the update is not made."""

    def update(updates: Any, state: Any, params: Any = None, *, applied: Array) -> tuple[Any, Any]:
        updates, after = rule.update(updates, state, params)
        return updates, jax.tree.map(lambda new, old: jnp.where(applied, new, old), after, state)

    return optax.GradientTransformationExtraArgs(rule.init, cast(Any, update))


def _adam(beta1: float, beta2: float, epsilon: float) -> optax.GradientTransformation:
    """Adam's direction (Kingma & Ba 2015), with optax's state, written over that of before."""

    def update(updates: Any, state: Any, params: Any = None, *, applied: Array) -> tuple[Any, Any]:
        count = state.count + 1

        def moments(gradient: Array, mu: Array, nu: Array) -> tuple[Array, Array]:
            return (
                jnp.where(applied, beta1 * mu + (1 - beta1) * gradient, mu),
                jnp.where(applied, beta2 * nu + (1 - beta2) * gradient * gradient, nu),
            )

        def direction(mu: Array, nu: Array) -> Array:
            return (mu / (1 - beta1**count)) / (jnp.sqrt(nu / (1 - beta2**count)) + epsilon)

        pairs = jax.tree.map(moments, updates, state.mu, state.nu)
        mu, nu = jax.tree.transpose(jax.tree.structure(updates), jax.tree.structure((0, 0)), pairs)
        after = optax.ScaleByAdamState(jnp.where(applied, count, state.count), mu, nu)
        return jax.tree.map(direction, mu, nu), after

    return optax.GradientTransformationExtraArgs(
        optax.scale_by_adam(beta1, beta2, epsilon).init, cast(Any, update)
    )


def each_layer(rule: optax.GradientTransformation) -> optax.GradientTransformation:
    """A rule for stacks that applies this one to each layer separately."""
    rule = optax.with_extra_args_support(rule)

    def init(params: Any) -> Any:
        return jax.vmap(rule.init)(params)

    def update(updates: Any, state: Any, params: Any = None, *, applied: Array) -> tuple[Any, Any]:
        one_layer = partial(cast(Any, rule).update, applied=applied)
        return jax.vmap(one_layer)(updates, state, params)

    return optax.GradientTransformationExtraArgs(init, cast(Any, update))


def per_layer(
    matrices: optax.GradientTransformation, rest: optax.GradientTransformation
) -> optax.GradientTransformation:
    """Apply rules to each layer of the stacked leaves separately, and to the other leaves directly.

    Args:
      matrices: the rule for the layers' matrices, applied to their stacks.
      rest: the rule for their norm scales, the embedding, the head, the position biases and the final norms.
    """

    def label(path: tuple[Any, ...], leaf: Array, stacked: bool) -> str:
        if not stacked:
            return "single"
        # Encoder and decoder are separate stacks: they may have different numbers of layers.
        is_matrix = leaf.ndim == 3 and path[-1].name != POSITION_BIAS
        return f"{path[0].name} {'matrices' if is_matrix else 'vectors'}"

    def labels(parameters: Parameters) -> Any:
        return jax.tree_util.tree_map_with_path(label, parameters, is_stacked(parameters))

    rules: dict[Hashable, optax.GradientTransformation] = {"single": rest}
    for stack in ("encoder", "decoder"):
        rules |= {f"{stack} matrices": matrices, f"{stack} vectors": each_layer(rest)}
    return optax.partition(rules, labels)


def is_decayed(parameters: Parameters) -> Any:
    """Which parameters are decayed: matrices; norm scales and position biases are not."""

    def decayed(path: tuple[Any, ...], leaf: jax.Array, stacked: bool) -> bool:
        return leaf.ndim - stacked == 2 and path[-1].name != POSITION_BIAS

    return jax.tree_util.tree_map_with_path(decayed, parameters, is_stacked(parameters))


def init_optimizer(optimizer: optax.GradientTransformation, parameters: Parameters) -> Any:
    """The optimizer's state before its first step."""
    # optax relies on implicit promotion, which our tests forbid everywhere else.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return optimizer.init(cast(Any, parameters))


def apply_gradient(
    optimizer: optax.GradientTransformation,
    gradient: Parameters,
    state: Any,
    parameters: Parameters,
    applied: Bool[Array, ""],
) -> tuple[Parameters, Any, Parameters]:
    """Parameters and optimizer state after one update, and the update that is added to the parameters.

    Args:
      optimizer: from :func:`create_optimizer`.
      gradient: of the loss.
      state: the optimizer's.
      parameters: those that the gradient is of.
      applied: whether the update is made; if not, parameters and state are returned as they are.
    """
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        updates, state = cast(Any, optimizer).update(gradient, state, parameters, applied=applied)
        after = jax.tree.map(lambda old, update: jnp.where(applied, old + update, old), parameters, updates)
        return after, state, cast(Parameters, updates)


def root_mean_square(tree: Parameters) -> Float[Array, ""]:
    """The root mean square over all numbers of a tree."""
    leaves = jax.tree.leaves(tree)
    return jnp.sqrt(sum(jnp.square(leaf).sum() for leaf in leaves) / sum(leaf.size for leaf in leaves))
