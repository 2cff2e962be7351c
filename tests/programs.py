"""Compiled programs, shared by the tests of one process.

Most tests train with the same settings, and tracing and compiling a step takes longer than all else they do.
What a step is compiled from is made once for equal settings, so JAX finds its own earlier work again.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from t5smith.evaluation import scores
from t5smith.training import compile as compiling
from t5smith.training import eval_step, loop, setup


def share() -> None:
    """From now on, equal settings give the same optimizer, step and scorer, not equal ones."""
    # Of equal arguments these functions make equal results; the modules that use them hold their names.
    setup.create_schedule = cache(setup.create_schedule)
    setup.create_optimizer = cache(setup.create_optimizer)
    compiling.create_step = cache(compiling.create_step)
    scorers = cache(
        lambda config, classes, dtype: eval_step.create_scorer(
            config, np.frombuffer(classes, np.int32), dtype
        )
    )
    loop.create_scorer = scores.create_scorer = lambda config, classes, dtype: scorers(
        config, classes.tobytes(), dtype
    )
