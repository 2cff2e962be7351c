"""How many examples hypothesis makes: all of them under `make test-all`, a part of them under `make test`."""

from __future__ import annotations

import os

from hypothesis import settings

ALL = os.environ.get("EXAMPLES") == "all"
SHARE = 5


def examples(count: int) -> settings:
    """For tests whose examples are slow: so many of them, or a fifth."""
    return settings(max_examples=count if ALL else max(5, count // SHARE))
