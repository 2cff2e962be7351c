"""`export --for`: a folder for another runtime, made from the Hugging Face folder and compared with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from t5smith.base.artifact import MANIFEST, building, file_hash, find_up_to_date, fingerprint
from t5smith.base.errors import T5smithError
from t5smith.base.phase import phase
from t5smith.base.progress import info
from t5smith.exporting.half import held_out_inputs
from t5smith.exporting.runtimes.comparison import Rows, compare, unpadded
from t5smith.exporting.runtimes.ctranslate2 import CTRANSLATE2
from t5smith.exporting.runtimes.job import Job
from t5smith.exporting.runtimes.onnx import ONNX
from t5smith.interop.huggingface_load import load_model
from t5smith.interop.weights import read_json
from t5smith.training.setup import Setup

FORMAT = 1
"""Increase when the same model gives another folder than before."""
RUNTIMES = {"ctranslate2": CTRANSLATE2, "onnx": ONNX}


def check_runtime(name: str, python: Path | None) -> None:
    """Check that a model can be converted for a runtime.

    Raises:
      T5smithError: there is no such runtime, or a package that it needs is missing.
    """
    if name not in RUNTIMES:
        raise T5smithError(f"unknown runtime {name!r}", where="--for", expected=" or ".join(RUNTIMES))
    RUNTIMES[name].check(python)


def export_for(source: Path, setup: Setup, name: str, python: Path | None = None) -> Path:
    """Write an exported model for a runtime, beside its folder.

    Args:
      source: the exported Hugging Face folder.
      setup: whose held-out text the runtime and t5smith are compared on.
      name: one of RUNTIMES.
      python: the Python of the environment with the runtime's converter, if it is another than this.

    Raises:
      T5smithError: a package is missing, the runtime has no such model, or it computes something else.
    """
    check_runtime(name, python)
    packages = RUNTIMES[name].made_by(python)
    # The hashes of all files of the model are in its manifest.
    inputs = {"format": FORMAT, "runtime": name, "packages": packages, "model": file_hash(source / MANIFEST)}
    folder = source.with_name(f"{source.name}-{name}")
    if find_up_to_date(folder, "model", fingerprint(inputs)):
        info(f"export    already done: {folder}")
        return folder
    batch, facts = held_out_inputs(setup), dict[str, Any]()
    with building(folder, "model", inputs, facts) as work:
        facts |= convert(source, work, name, unpadded(batch["input_ids"]), unpadded(batch["targets"]), python)
        facts |= packages
    info(f"export    {folder}: {in_words(name, facts)}")
    return folder


def convert(
    source: Path, target: Path, name: str, inputs: Rows, targets: Rows, python: Path | None = None
) -> dict[str, Any]:
    """Convert a Hugging Face folder into another folder, which exists, and compare both.

    Args:
      source: the Hugging Face folder.
      target: where the files go.
      name: one of RUNTIMES.
      inputs: the ids that both are compared on, with `</s>`.
      targets: the ids whose log probabilities are compared.
      python: the Python of the environment with the runtime's converter, if it is another than this.

    Returns:
      What :func:`t5smith.exporting.runtimes.comparison.compare` found.

    Raises:
      T5smithError: a package is missing, the runtime has no such model, or it computes something else.
    """
    runtime, model = RUNTIMES[name], load_model(source)
    dtype = read_json(source / "config.json").get("dtype", "float32")
    job = Job(source, target, model, dtype, python)
    with phase("export", f"converting for {runtime.title}", at_once=False):
        runtime.convert(job)
    with phase("export", f"comparing with {runtime.title}"):
        facts = compare(model, inputs, targets, runtime.run(job, inputs, targets))
    text = (
        f"# {runtime.title}\n\nThe model in `{source.name}`, whose `README.md` describes it, for "
        f"{runtime.title}: {in_words(name, facts)}.\n\n```python\n{runtime.usage}```\n"
    )
    (target / "README.md").write_text(text, encoding="utf-8")
    return facts


def in_words(name: str, facts: dict[str, Any]) -> str:
    """The result of the comparison."""
    title = RUNTIMES[name].title
    ties = f", but for {facts['ties']} ties within that" if facts["ties"] else ""
    return (
        f"on {facts['inputs']} inputs {title}'s log probabilities differ by at most "
        f"{facts['largest_difference']:.1e}, its greedy output is the same{ties}"
    )
