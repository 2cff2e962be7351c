"""Peak memory of exporting and importing a model, in times its size in float32.

    .venv/bin/python benchmarks/export_memory.py

A random T5 1.1 of about 1 GB is saved as a checkpoint, with its optimizer's state. One process exports it
as `t5smith export` does, another imports the result as `load_model` does. Two more run `t5smith import`: of
that folder, and of one with the same weights in Flax's msgpack. Each reports its highest resident memory
above that after its imports.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

LAYERS, ROWS, D_MODEL, D_FF, HEADS = 12, 32_128, 768, 2_048, 12
MOST = 1.3
BYTES_OF_KIB = 1024


def config_of() -> object:
    """The sizes of t5-v1.1-base."""
    from t5smith.model.config import ModelConfig

    return ModelConfig(ROWS, ROWS, D_MODEL, 64, D_FF, LAYERS, LAYERS, HEADS)


def state_shapes(config: object) -> object:
    """Shapes of the state of a training with AdamW."""
    from t5smith.recipe.train import OptimizerSettings
    from t5smith.training.optimizer import create_optimizer
    from t5smith.training.state import abstract_state

    optimizer = create_optimizer(OptimizerSettings(name="adamw"), lambda step: 1e-3, HEADS, "xla")
    return abstract_state(config, optimizer, averaged=False)


def make(folder: Path) -> None:
    """Write the checkpoint."""
    import jax
    import jax.numpy as jnp

    from t5smith.training.resume.checkpoints import Retention, save

    numbers = iter(range(10_000))

    def draw(leaf: jax.ShapeDtypeStruct) -> jax.Array:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return jnp.ones(leaf.shape, leaf.dtype)
        return jax.random.normal(jax.random.key(next(numbers)), leaf.shape, leaf.dtype)

    save(folder, jax.tree.map(draw, state_shapes(config_of())), {}, {}, Retention(1))


def make_msgpack(work: Path) -> None:
    """Write the exported weights as the old Flax script did, in a folder beside it."""
    import numpy as np
    from orbax.checkpoint import msgpack_utils

    from t5smith.interop.safetensors_file import read_safetensors

    tree: dict = {}
    for name, tensor in read_safetensors(work / "model" / "model.safetensors").items():
        *above, last = name.split(".")
        array = tensor.read()
        if above[-1] in ("shared", "relative_attention_bias"):
            last = "embedding"
        elif array.ndim > 1:
            array, last = np.ascontiguousarray(array.T), "kernel"
        node = tree
        for part in above:
            node = node.setdefault(part, {})
        node[last] = array
    folder = work / "msgpack"
    folder.mkdir()
    (folder / "flax_model.msgpack").write_bytes(msgpack_utils.msgpack_serialize(tree))
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((work / "model" / name).read_bytes())


def resident() -> int:
    """Bytes of memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def measured(work: Path, what: str) -> dict[str, float]:
    """Export or import, and what it took."""
    from t5smith.exporting.import_model import import_model
    from t5smith.interop.huggingface_load import config_of as sizes_in
    from t5smith.interop.huggingface_load import read_tensors
    from t5smith.interop.huggingface_names import from_huggingface
    from t5smith.interop.huggingface_save import Form, config_json, write_weights
    from t5smith.model.params import parameter_count
    from t5smith.training.resume.saved_parameters import SavedParameters
    from t5smith.vocabulary.vocabulary import Vocabulary

    config, folder = config_of(), work / "model"
    folder.mkdir(exist_ok=True)
    saved = SavedParameters([work / "checkpoints" / "step-00000001"], state_shapes(config))
    size = 4 * parameter_count(saved.shapes)
    before = resident()
    if what == "export":
        write_weights(folder, saved.array, config, Form())
        values = config_json(config, SimpleNamespace(pad_id=0, eos_id=1))
        (folder / "config.json").write_text(json.dumps(values))
        Vocabulary.bundled().save(folder)
    elif what.startswith("t5smith import"):
        kind = what.split()[-1]
        import_model(str(work / ("msgpack" if kind == "msgpack" else "model")), work / f"from-{kind}")
    else:
        values = json.loads((folder / "config.json").read_text())
        sizes = sizes_in(values, ROWS, folder / "config.json")
        parameters = from_huggingface(read_tensors(folder, values), sizes)
        assert parameter_count(parameters) == size // 4
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * BYTES_OF_KIB
    return {"size": size, "before": before, "peak": peak, "ratio": (peak - before) / size}


def main() -> None:
    """Measure both, and print a table."""
    if len(sys.argv) > 1:
        what, work = sys.argv[1], Path(sys.argv[2])
        if what == "make":
            make(work / "checkpoints")
        elif what == "make msgpack":
            make_msgpack(work)
        else:
            print(json.dumps(measured(work, what)))
        return
    with tempfile.TemporaryDirectory() as work:
        print("| | size, GB | before, GB | peak, GB | ratio |\n| --- | ---: | ---: | ---: | ---: |")
        worst = 0.0
        imports = "t5smith import safetensors", "make msgpack", "t5smith import msgpack"
        for what in ("make", "export", "import", *imports):
            command = [sys.executable, __file__, what, work]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            if not what.startswith("make"):
                found = json.loads(done.stdout)
                gigabytes = (f"{found[name] / 1e9:.3f}" for name in ("size", "before", "peak"))
                print(f"| {what} | {' | '.join(gigabytes)} | {found['ratio']:.2f} |", flush=True)
                worst = max(worst, found["ratio"])
    if worst > MOST:
        raise SystemExit(f"more than {MOST} times the model")


if __name__ == "__main__":
    main()
