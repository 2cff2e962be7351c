"""Which process does something, in words by which another one finds out whether it still runs."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def this_process() -> dict[str, Any]:
    """Host, number and start of this process, as JSON can hold them."""
    return {"host": socket.gethostname(), "pid": os.getpid(), "start": _start(os.getpid())}


def is_alive(process: Mapping[str, Any]) -> bool | None:
    """Whether a process, as :func:`this_process` describes it, still runs; None: it is another machine's."""
    if process.get("host") != socket.gethostname():
        return None
    try:
        os.kill(process["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # another user's
    # Numbers are used again.
    return _start(process["pid"]) == process.get("start")


def _start(pid: int) -> int:
    """When a process started, in clock ticks since the machine did; 0 where the system does not say."""
    try:
        # The name in brackets may have spaces.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] == "Z" else int(fields[19])
