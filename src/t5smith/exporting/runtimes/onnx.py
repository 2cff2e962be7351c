"""ONNX: optimum-onnx converts the Hugging Face folder, onnxruntime runs it, in another environment."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from t5smith.base.errors import T5smithError
from t5smith.exporting.runtimes import in_onnx
from t5smith.exporting.runtimes.comparison import NEW_TOKENS, WITHOUT, Found, Rows, padded
from t5smith.exporting.runtimes.job import Job, Runtime

MAKE = (
    "python3 -m venv onnx-env && onnx-env/bin/pip install optimum-onnx onnxruntime torch 'transformers<4.58'"
)
USAGE = """\
from optimum.onnxruntime import ORTModelForSeq2SeqLM
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(".")
# Its class has another size of d_kv for the merged decoder, if d_model is not heads times d_kv.
model = ORTModelForSeq2SeqLM.from_pretrained(".", use_merged=False)
inputs = tokenizer("Your text with a <extra_id_0> to fill in", return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=20)[0]))
"""


def check(python: Path | None) -> None:
    """Raise T5smithError if no environment is given, or it has no optimum-onnx."""
    if python is None:
        what = "needs optimum-onnx, which cannot be installed beside t5smith (it needs transformers < 4.58)"
        fix = f"make an environment with `{MAKE}`, and add --python onnx-env/bin/python"
        raise T5smithError(what, where="--for onnx", fix=fix)
    made_by(python)


def made_by(python: Path | None) -> dict[str, str]:
    """The packages of the environment that convert and run, with their versions.

    Raises:
      T5smithError: it does not have them.
    """
    return _call(python, "versions", fix=f"make it with `{MAKE}`")


def convert(job: Job) -> None:
    """Write the files; weights are float32.

    Raises:
      T5smithError: optimum-onnx cannot convert this model.
    """
    if job.model.config.bias_per_layer:
        what = "optimum-onnx has no UMT5, a model with a position bias in each layer"
        raise T5smithError(what, where="--for onnx", fix=WITHOUT)
    _call(job.python, "convert", str(job.source), str(job.folder), fix=WITHOUT)


def run(job: Job, inputs: Rows, targets: Rows) -> Found:
    """What onnxruntime computes on the CPU, by optimum's class for such models."""
    rows = {"inputs": padded(inputs).tolist(), "targets": padded(targets).tolist(), "new": NEW_TOKENS}
    found = _call(job.python, "run", str(job.folder), given=json.dumps(rows), fix=WITHOUT)
    scores = [row[: len(own)] for row, own in zip(found["scores"], targets, strict=True)]
    return Found(found["greedy"], scores)


def _call(python: Path | None, *args: str, given: str = "", fix: str) -> Any:
    """Call the program in the other environment.

    Raises:
      T5smithError: it ends with an error, whose last line the message has.
    """
    # -I: neither its folder, with an onnx.py in it, nor PYTHONPATH are searched for packages.
    command = [str(python), "-I", in_onnx.__file__, *args]
    try:
        done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    except OSError as error:
        raise T5smithError(f"cannot be run ({error.strerror})", where=f"--python {python}", fix=fix) from None
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        what = f"`{args[0]}` failed in this environment: {last}"
        raise T5smithError(what, where=f"--python {python}", fix=fix)
    return json.loads(done.stdout.splitlines()[-1])


ONNX = Runtime(
    title="ONNX Runtime",
    check=check,
    convert=convert,
    run=run,
    usage=USAGE,
    made_by=made_by,
)
