"""A SentencePiece character map as bytes: a double-array trie of the Darts-clone library, and replacements.

A unit of the trie is a 32-bit number: the label of the edge that leads to it (8 bits), whether a key ends
here (bit 8), and the offset to its children (21 bits from bit 10). The child with label c is at
`position ^ offset ^ c`. The unit below label 0 holds a key's value, the place of its replacement, and bit 31.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

import numpy as np

_MAX_OFFSET = 1 << 21
_TRIED = 16
"""Blocks that are tried for a node's children; older ones have little room left."""
_LEAF, _VALUE = 1 << 8, 1 << 31


def serialized(entries: Mapping[str, str]) -> bytes:
    """The map in SentencePiece's form: the trie's size in bytes, the trie, the replacements, each with a NUL.

    Args:
      entries: what is replaced, and by what; no text in it contains a NUL.
    """
    texts = b""
    places: dict[str, int] = {}
    for text in sorted(set(entries.values())):
        places[text] = len(texts)
        texts += text.encode() + b"\0"
    trie = _units({key.encode(): places[text] for key, text in entries.items()}).tobytes()
    return struct.pack("<I", len(trie)) + trie + texts


def _units(values: Mapping[bytes, int]) -> np.ndarray:
    """The double array of some keys and their values: uint32 (units,)."""
    root = _Node()
    for key, value in values.items():
        node = root
        for byte in key:
            node = node.children.setdefault(byte, _Node())
        node.value = value
    array = _Array()
    # Nodes that have a place, and wait for their children to get one.
    waiting = [(0, root)]
    while waiting:
        position, node = waiting.pop()
        ends = [0] if node.value is not None else []
        base = array.base([*ends, *sorted(node.children)])
        array.units[position] |= (base ^ position) << 10
        if node.value is not None:
            array.units[position] |= _LEAF
            array.units[base] = _VALUE | node.value
        for label, child in node.children.items():
            array.units[base ^ label] |= label
            waiting.append((base ^ label, child))
    assert len(array.units) <= _MAX_OFFSET
    return np.array(array.units, "<u4")


class _Node:
    """A node of the trie: its children by label, and the value of the key that ends here."""

    __slots__ = ("children", "value")

    def __init__(self) -> None:
        self.children: dict[int, _Node] = {}
        self.value: int | None = None


class _Array:
    """Units, and which of them are free, in blocks of 256: children of a node share a block."""

    def __init__(self) -> None:
        self.units: list[int] = []
        self._free: list[set[int]] = []
        # SentencePiece takes a trie whose root has the offset 0 for damaged.
        self._bases = {0}
        self._open: list[int] = []

        self._append()
        self._free[0].discard(0)  # of the root

    def _append(self) -> None:
        self._open.append(len(self._free))
        self._free.append(set(range(len(self.units), len(self.units) + 256)))
        self.units += [0] * 256

    def base(self, labels: list[int]) -> int:
        """A base with a free unit for each label, which are taken; no two nodes have the same base."""
        first = labels[0]
        for number in self._open[-_TRIED:]:
            free = self._free[number]
            if len(free) < len(labels):
                continue
            for place in free:
                base = place ^ first
                if base not in self._bases and all(base ^ label in free for label in labels):
                    break
            else:
                continue
            break
        else:
            base = len(self.units)
            self._append()
        free = self._free[base >> 8]
        self._bases.add(base)
        free.difference_update(base ^ label for label in labels)
        if not free:
            self._open.remove(base >> 8)
        return base
