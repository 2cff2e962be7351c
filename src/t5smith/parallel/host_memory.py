"""How much memory of this machine the process can still take: the least that anything leaves to it.

A container (control groups, version 1 or 2) or Slurm may leave less than the machine has; a process that
takes more is killed without a message.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

UNLIMITED = 1 << 60
"""Version 1 of control groups writes a number near 2^63 for no limit."""
MEGABYTE = 1 << 20


class FreeMemory(NamedTuple):
    """Bytes that the process can still take, and what sets this limit."""

    bytes: int
    limit: str


def free_memory(root: Path = Path("/"), environ: Mapping[str, str] = os.environ) -> FreeMemory | None:
    """The least of what the machine, the container and Slurm leave; None if nothing is known.

    Args:
      root: the folder of `proc` and `sys`.
      environ: environment variables.
    """
    found = [*_machine(root), *_control_groups(root), *_slurm(root, environ)]
    return min(found, key=lambda free: free.bytes, default=None)


def return_freed_memory() -> None:
    """Give the pages of freed memory back to the system, where the C library can (glibc).

    The compiler frees some hundreds of megabytes in small pieces in the heaps of its threads. A step, whose
    memory is one block, never uses them.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def held_memory(root: Path = Path("/")) -> int | None:
    """Bytes that the process holds and that the system cannot take back; None if unknown."""
    kilobytes = _fields(root / "proc/self/status").get("RssAnon")
    return None if kilobytes is None else kilobytes * 1024


def _machine(root: Path) -> Iterator[FreeMemory]:
    kilobytes = _fields(root / "proc/meminfo").get("MemAvailable")
    if kilobytes is not None:
        yield FreeMemory(kilobytes * 1024, "free on this machine")


def _control_groups(root: Path) -> Iterator[FreeMemory]:
    """What each control group of the process leaves; one inside a container may be seen as the root."""
    groups = root / "sys/fs/cgroup"
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            mounts = (groups, groups / "unified")
            names = (("memory.max", "memory.high"), "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            mounts = (groups / "memory", groups / controllers)
            names = (("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        limits, usage, reclaimable = names
        relative = PurePosixPath(path.strip("/"))
        for mount in mounts:
            for folder in {mount / part for part in (relative, *relative.parents)}:
                used = _number(folder / usage)
                limit = min(filter(None, (_number(folder / name) for name in limits)), default=None)
                if limit is None or used is None or limit >= UNLIMITED:
                    continue
                # Pages of files that were not used lately make way for the process.
                used -= min(used, _fields(folder / "memory.stat").get(reclaimable, 0))
                yield FreeMemory(max(limit - used, 0), "left in this container")


def _slurm(root: Path, environ: Mapping[str, str]) -> Iterator[FreeMemory]:
    """What the job's limit on this node leaves beside this process."""
    for variable, count in (
        ("SLURM_MEM_PER_NODE", None),
        ("SLURM_MEM_PER_CPU", "SLURM_CPUS_ON_NODE"),
        ("SLURM_MEM_PER_GPU", "SLURM_GPUS_ON_NODE"),
    ):
        try:
            megabytes = int(environ[variable]) * (int(environ[count]) if count else 1)
        except (KeyError, ValueError):
            continue
        if megabytes > 0:  # 0 is all of the node's memory
            left = megabytes * MEGABYTE - (held_memory(root) or 0)
            yield FreeMemory(max(left, 0), "left in this Slurm job")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdecimal() else None  # "max" is no limit


def _fields(path: Path) -> dict[str, int]:
    """The numbers of a file of lines such as `MemFree: 12 kB` or `inactive_file 12`."""
    rows = (line.split() for line in _text(path).splitlines())
    return {row[0].rstrip(":"): int(row[1]) for row in rows if len(row) > 1 and row[1].isdecimal()}
