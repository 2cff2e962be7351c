"""What must be set before JAX starts: malloc with huge pages, and where compiled programs are kept."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import sys
from pathlib import Path

COMPILATION_CACHE_BYTES = 4 << 30
"""Size of the cache of compiled programs; those that were not used for longest are removed first."""
KEPT_FROM_SECONDS = 0.1
"""Programs that took less time to compile are not kept."""
TUNABLES = "GLIBC_TUNABLES"
MALLOC = ":".join(
    f"glibc.malloc.{name}={value}"
    for name, value in {
        # A step's temporaries are one block, which XLA gets and frees in each step. With several arenas, the
        # default, a block that none of them holds is mapped and unmapped, so what a process takes does not
        # depend on how its heap is fragmented; huge pages make that cheap. Smaller blocks stay in the arenas.
        "hugetlb": 1,
        "mmap_threshold": 1 << 36,
        "trim_threshold": 1 << 36,
    }.items()
)
"""Settings of malloc under which XLA on CPU does not lose its time to page faults."""


def restart_with_huge_pages(args: list[str]) -> None:
    """Replace this process by one with `MALLOC` set, if the command trains on Linux.

    The C library reads the variable only when a process starts. A variable that is already set is kept.
    """
    trains = args[:1] in (["run"], ["train"], ["finetune"]) or args[:2] == ["bench", "train"]
    if (
        sys.platform == "linux"
        and trains
        and TUNABLES not in os.environ
        and not {"-h", "--help", "--help-all"} & set(args)
    ):
        os.execve(sys.executable, sys.orig_argv, os.environ | {TUNABLES: MALLOC})


def set_compilation_cache() -> None:
    """Let JAX keep compiled programs for the next start, unless JAX_COMPILATION_CACHE_DIR is already set.

    A program compiled for one processor may not run on another, and home folders are shared between
    machines, so each kind of processor has a folder of its own.
    """
    # JAX keeps what took a second; the program of a fresh state takes less, and each start needs it.
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", str(KEPT_FROM_SECONDS))
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    with contextlib.suppress(OSError):
        cpuinfo = Path("/proc/cpuinfo")
        lines = cpuinfo.read_text(errors="replace").splitlines() if cpuinfo.exists() else []
        features = "".join({line for line in lines if line.startswith("flags")}) + platform.platform()
        folder = base / "t5smith" / f"programs-{hashlib.sha256(features.encode()).hexdigest()[:12]}"
        folder.mkdir(parents=True, exist_ok=True)
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
        os.environ.setdefault("JAX_COMPILATION_CACHE_MAX_SIZE", str(COMPILATION_CACHE_BYTES))
