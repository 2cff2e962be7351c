"""How large everything is: for a GPU, or tiny for the rehearsal on CPU."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """Sizes of the measurements.

    Attributes:
      rehearse: whether this is the rehearsal.
      sizes: models of the `train` and `peer` parts, by their names in `t5smith bench train`.
      compared: models whose loss and gradients are compared with CPU.
      input_length, target_length: positions of encoder and decoder.
      batches: batch sizes to try, smallest first, until one does not fit.
      batch: the batch of parts that take one size only.
      peer_batches: batch sizes of the part `peer`, the first that fits.
      repeats: how often each timing is repeated; medians count.
      steps: steps per timing.
      lengths: query and key lengths of attention.
      head_sizes: d_kv.
      products: rows of the left operand of the products in `facts`.
      copy_bytes: size of the array that bandwidth is measured with.
    """

    rehearse: bool
    sizes: tuple[str, ...]
    compared: tuple[str, ...]
    input_length: int
    target_length: int
    batches: tuple[int, ...]
    batch: int
    peer_batches: tuple[int, ...]
    repeats: int
    steps: int
    lengths: tuple[tuple[int, int], ...]
    head_sizes: tuple[int, ...]
    products: int
    copy_bytes: int


GPU = Scale(
    rehearse=False,
    sizes=("t5-v1.1-base", "t5-v1.1-small"),
    compared=("tiny", "t5-v1.1-base"),
    input_length=512,
    target_length=114,
    batches=(16, 32, 64, 128, 256, 512, 1024),
    batch=128,
    peer_batches=(128, 64, 32, 16),
    repeats=5,
    steps=5,
    lengths=((512, 512), (114, 114), (114, 512), (568, 568), (1024, 1024), (1520, 1520)),
    head_sizes=(64, 128),
    products=128 * 512,
    copy_bytes=4 << 30,
)
CPU = Scale(
    rehearse=True,
    sizes=("tiny",),
    compared=("tiny",),
    input_length=32,
    target_length=10,
    batches=(2, 4),
    batch=4,
    peer_batches=(4,),
    repeats=2,
    steps=1,
    lengths=((16, 16), (7, 16)),
    head_sizes=(8,),
    products=64,
    copy_bytes=1 << 20,
)
