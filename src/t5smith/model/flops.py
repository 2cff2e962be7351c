"""The floating point operations of a step, counted exactly from the sizes.

A product of (m, k) and (k, n) takes 2 m k n operations. All matrix products of the network count: dense
layers, both products of each attention over all pairs of positions, the head. Norms, softmax, GELU and the
embedding lookup do not, as is usual (Chowdhery et al., "PaLM", 2022, appendix B). The backward pass has two
products for each of the forward pass, one per operand's gradient.

Shapes: B rows, S input and T target positions, D d_model, F d_ff.
"""

from __future__ import annotations

from typing import NamedTuple

from t5smith.model.config import ModelConfig


class Flops(NamedTuple):
    """Operations by where the products are.

    Attributes:
      dense: projections of attention and feed-forward.
      attention: queries with keys, and weights with values.
      head: decoder output with the head.
    """

    dense: int
    attention: int
    head: int


def forward_flops_by_part(config: ModelConfig, rows: int, input_length: int, target_length: int) -> Flops:
    """Operations of the forward pass on (B, S) inputs and (B, T) targets."""
    D, F, S, T = config.d_model, config.d_ff, input_length, target_length
    HK = config.num_heads * config.d_kv
    feed_forward = (3 if config.gated else 2) * D * F

    def projections(queries: int, keys: int) -> int:
        return 2 * queries * D * HK + 2 * keys * D * HK

    encoder = projections(S, S) + S * feed_forward
    decoder = projections(T, T) + projections(T, S) + T * feed_forward
    pairs = config.num_layers * S * S + config.num_decoder_layers * (T * T + T * S)
    return Flops(
        dense=2 * rows * (config.num_layers * encoder + config.num_decoder_layers * decoder),
        attention=2 * rows * 2 * pairs * HK,
        head=2 * rows * T * D * config.vocab_size,
    )


def step_flops_by_part(config: ModelConfig, rows: int, input_length: int, target_length: int) -> Flops:
    """Operations of a training step: the forward pass, and twice as many backward."""
    return Flops(*(3 * n for n in forward_flops_by_part(config, rows, input_length, target_length)))


def forward_flops(config: ModelConfig, rows: int, input_length: int, target_length: int) -> int:
    """The sum of :func:`forward_flops_by_part`."""
    return sum(forward_flops_by_part(config, rows, input_length, target_length))


def step_flops(config: ModelConfig, rows: int, input_length: int, target_length: int) -> int:
    """The sum of :func:`step_flops_by_part`."""
    return sum(step_flops_by_part(config, rows, input_length, target_length))
