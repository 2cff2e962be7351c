"""The strict environment of all tests, set before JAX is imported.

Besides pyproject.toml's warnings as errors: no implicit promotion of types or ranks, shapes and types of
the array packages checked on every call, and eight devices, so that what must not depend on their number
is seen to.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

CACHE = Path(__file__).resolve().parent.parent / ".cache" / "jax"

os.environ["JAX_NUMPY_DTYPE_PROMOTION"] = "strict"
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
os.environ["JAX_NUM_CPU_DEVICES"] = "8"
os.environ["JAX_PLATFORMS"] = "cpu"
# One cache of compiled programs for all workers and all runs, of everything however quick to compile.
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(CACHE)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
# Most of the time goes into compiling what runs but once. XLA's own passes stay; only LLVM's are left out.
flags = [
    "--xla_backend_optimization_level=0",
    "--xla_cpu_parallel_codegen_split_count=1",
    # Half of what it takes to compile a training step.
    "--xla_cpu_use_fusion_emitters=false",
]
if "PYTEST_XDIST_WORKER" in os.environ:
    # A worker a core: each keeps to its own.
    flags.append("--xla_cpu_multi_thread_eigen=false")
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["RAYON_NUM_THREADS"] = "1"
os.environ["XLA_FLAGS"] = " ".join(flags)
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"
# Hashes of files are cached here, not in the home folder.
os.environ["XDG_CACHE_HOME"] = str(CACHE.parent)
os.environ["MPLBACKEND"] = "agg"

# A shell that starts the tests in the background has Ctrl-C ignored, and every child would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Examples are as many and as different as hypothesis likes, but never judged by the clock.
settings.register_profile("local", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("local"), derandomize=True, print_blob=True)
settings.load_profile("ci" if "CI" in os.environ else "local")

# Shapes and types are checked on every call of the array modules, but not where trees are defined: JAX
# also builds them of shapes, booleans and targets.
ARRAY_PACKAGES = ("model", "model.attention", "objective", "training", "generation", "evaluation")
TREES = ("params.py", "state.py")
SOURCE = Path(__file__).resolve().parent.parent / "src" / "t5smith"
install_import_hook(
    [
        f"t5smith.{package}.{path.stem}"
        for package in ARRAY_PACKAGES
        for path in (SOURCE / package.replace(".", "/")).glob("*.py")
        if path.name not in TREES
    ],
    "beartype.beartype",
)


def pytest_configure(config: pytest.Config) -> None:
    # A worker may read an entry of the cache that another is still writing; JAX then compiles by itself.
    config.addinivalue_line("filterwarnings", "ignore:Error (reading|writing) persistent compilation cache")


# After the environment above is set: these import JAX.
import jax  # noqa: E402

import programs  # noqa: E402
from runs import finished, prepared, run_folder  # noqa: E402, F401

programs.share()


@pytest.fixture(autouse=True, scope="module")
def _few_programs():
    """Let go of compiled programs once there are many: Linux allows a process 65,530 mappings."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > 15_000:
        jax.clear_caches()
