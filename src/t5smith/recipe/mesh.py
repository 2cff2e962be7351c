"""The words of `train.mesh`: how devices are arranged."""

from __future__ import annotations

from t5smith.base.errors import T5smithError

AXES = ("data", "fsdp", "tensor")
"""Rows divided, with a copy of the state on each device; rows and state divided; matrices divided."""
AUTO = "auto"


def mesh_sizes(text: str) -> dict[str, int]:
    """The size of each axis of a mesh such as `data=2 fsdp=4`; an axis that is not named has size 1.

    Raises:
      T5smithError: it is not written so.
    """
    sizes = dict.fromkeys(AXES, 1)
    for number, part in enumerate(words := text.split()):
        name, _, size = part.partition("=")
        named_before = any(word.startswith(f"{name}=") for word in words[:number])
        if name not in AXES or named_before or not size.isdecimal() or int(size) < 1:
            words = []
            break
        sizes[name] = int(size)
    if not words:
        raise T5smithError(
            f"{text!r} cannot be used",
            where="train.mesh",
            expected='auto, or some of data, fsdp and tensor with a number of devices, as "data=2 fsdp=4"',
        )
    return sizes
