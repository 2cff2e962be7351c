"""The floating point operations of a step, counted exactly from the sizes.

A product of (m, k) and (k, n) takes 2 m k n operations. All matrix products of the network count: dense
layers, both products of each attention over all pairs of positions, the head. Norms, softmax, GELU and the
embedding lookup do not, as is usual (Chowdhery et al., "PaLM", 2022, appendix B). The backward pass has two
products for each of the forward pass, one per operand's gradient.

Shapes: B rows, S input and T target positions, D d_model, F d_ff.
"""

from __future__ import annotations

from t5smith.model.config import ModelConfig


def forward_flops(config: ModelConfig, rows: int, input_length: int, target_length: int) -> int:
    """Operations of the forward pass on (B, S) inputs and (B, T) targets."""
    D, F, S, T = config.d_model, config.d_ff, input_length, target_length
    HK = config.num_heads * config.d_kv
    feed_forward = (3 if config.gated else 2) * D * F

    def attention(queries: int, keys: int) -> int:
        projections = 2 * queries * D * HK + 2 * keys * D * HK
        return projections + 2 * queries * keys * HK

    encoder = attention(S, S) + S * feed_forward
    decoder = attention(T, T) + attention(T, S) + T * feed_forward
    head = T * D * config.vocab_size
    products = config.num_layers * encoder + config.num_decoder_layers * decoder + head
    return 2 * rows * products


def step_flops(config: ModelConfig, rows: int, input_length: int, target_length: int) -> int:
    """Operations of a training step: the forward pass, and twice as many backward."""
    return 3 * forward_flops(config, rows, input_length, target_length)
