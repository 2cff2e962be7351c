"""Compiled programs, shared by the tests of one process.

Most tests train with the same settings, and tracing and compiling a step takes longer than all else they do.
What a step is compiled from is made once for equal settings, so JAX finds its own earlier work again.

The functions of the model are here as programs of their own: called without, every operation in them would be
compiled alone. They do not see what a test changes in a module of the model; such a test compiles its own.
"""

from __future__ import annotations

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5smith.evaluation import scores
from t5smith.finetuning import evaluation as finetuning
from t5smith.model import loss, params, t5
from t5smith.model.compute import Compute
from t5smith.recipe.train import ScheduleSettings
from t5smith.training import base_setup, eval_step
from t5smith.training import compile as compiling
from t5smith.training.curves import held_out
from t5smith.training.schedule import FALLING
from t5smith.training.timing import trial

CPU, XLA = Compute(jnp.dtype(jnp.float32), "cpu_rows"), Compute(jnp.dtype(jnp.float32), "xla")
CPU_BFLOAT16, XLA_BFLOAT16 = (Compute(jnp.dtype(jnp.bfloat16), one.backend) for one in (CPU, XLA))
COMPUTES = pytest.mark.parametrize(
    "compute", [CPU, XLA, CPU_BFLOAT16, XLA_BFLOAT16], ids=lambda one: f"{one.dtype} {one.backend}"
)

init = jax.jit(params.init, static_argnums=0)
_encode = jax.jit(t5.encode, static_argnames=("config", "compute", "remat"))
_forward = jax.jit(t5.forward, static_argnames=("config", "compute"))
_batch_loss = jax.jit(
    loss.batch_loss, static_argnames=("config", "compute", "z_loss", "label_smoothing", "remat")
)


def encode(p, config, input_ids, compute=CPU, *args, **options):
    """The encoder's output, computed as a run on CPU computes it."""
    return _encode(p, config, input_ids, compute, *args, **options)


def forward(p, config, input_ids, decoder_input_ids, compute=CPU, *args, **options):
    """Logits, computed as a run on CPU computes them."""
    return _forward(p, config, input_ids, decoder_input_ids, compute, *args, **options)


def batch_loss(p, config, input_ids, targets, compute=CPU, *args, **options):
    """The loss, computed as a run on CPU computes it."""
    return _batch_loss(p, config, input_ids, targets, compute, *args, **options)


def share() -> None:
    """From now on, equal settings give the same optimizer, step and scorer, not equal ones."""
    # Of equal arguments these functions make equal results; the modules that use them hold their names.
    schedules = cache(base_setup.create_schedule)

    def create_schedule(settings: ScheduleSettings, peak: float, steps: int):
        length_matters = settings.name in FALLING or settings.warmup_steps is None
        return schedules(settings, peak, steps if length_matters else 1)

    scorers = cache(
        lambda config, classes, compute: eval_step.create_scorer(
            config, np.frombuffer(classes, np.int32), compute
        )
    )

    def create_scorer(config, classes, compute):
        return scorers(config, classes.tobytes(), compute)

    # What tests train takes no longer than a few steps; timing them well is not what they are about.
    trial.SECONDS = 0.0
    base_setup.create_schedule = create_schedule
    base_setup.create_optimizer = cache(base_setup.create_optimizer)
    compiling.create_step = cache(compiling.create_step)
    held_out.create_scorer = scores.create_scorer = finetuning.create_scorer = create_scorer
