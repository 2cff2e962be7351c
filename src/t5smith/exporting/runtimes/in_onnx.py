"""A program for the environment with optimum-onnx: converts a folder, or runs a converted one.

It stands alone: t5smith cannot be in that environment, since optimum-onnx needs transformers < 4.58. Its
arguments: `versions`; `convert SOURCE TARGET`; `run FOLDER`, with JSON on stdin. The last line of stdout is
the result, as JSON.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import sys
from typing import Any

ROWS = 10


def versions() -> dict[str, str]:
    """The versions of what converts and runs."""
    importlib.import_module("optimum.exporters.onnx")
    names = ("optimum-onnx", "onnxruntime", "transformers", "torch")
    return {name: importlib.metadata.version(name) for name in names}


def convert(source: str, target: str) -> None:
    """Write encoder and decoder as optimum lays them out, in float32."""
    exporters: Any = importlib.import_module("optimum.exporters.onnx")
    exporters.main_export(
        source, target, task="text2text-generation-with-past", dtype="fp32", do_validation=False
    )


def run(folder: str) -> dict[str, Any]:
    """Greedy ids, by the decoders with and without past; log probabilities of targets, by the merged one."""
    torch: Any = importlib.import_module("torch")
    optimum: Any = importlib.import_module("optimum.onnxruntime")
    runtime: Any = importlib.import_module("onnxruntime")
    # For the merged decoder this class makes a past with d_model / heads numbers per head, not d_kv.
    model = optimum.ORTModelForSeq2SeqLM.from_pretrained(folder, use_merged=False)
    encoder, decoder = (
        runtime.InferenceSession(f"{folder}/{name}.onnx", providers=["CPUExecutionProvider"])
        for name in ("encoder_model", "decoder_model_merged")
    )
    given = json.load(sys.stdin)
    found: dict[str, Any] = {"greedy": [], "scores": []}
    for first in range(0, len(given["inputs"]), ROWS):
        rows, targets = (torch.tensor(given[name][first : first + ROWS]) for name in ("inputs", "targets"))
        mask = (rows != 0).long()
        before = torch.nn.functional.pad(targets, (1, 0))[:, :-1]
        given_encoder = {"input_ids": rows.numpy(), "attention_mask": mask.numpy()}
        (memory,) = encoder.run(None, given_encoder)
        feed = _without_past(decoder, before.numpy(), memory, mask.numpy())
        logits = torch.tensor(decoder.run(["logits"], feed)[0])
        scores = torch.log_softmax(logits, -1).gather(2, targets[..., None])[..., 0]
        found["scores"] += scores.tolist()
        ids = model.generate(
            input_ids=rows, attention_mask=mask, max_new_tokens=given["new"], num_beams=1, do_sample=False
        )
        found["greedy"] += ids[:, 1:].tolist()
    return found


def _without_past(decoder: Any, ids: Any, memory: Any, mask: Any) -> dict[str, Any]:
    """What the merged decoder gets in its first step: a past of length 0."""
    numpy: Any = importlib.import_module("numpy")
    known = {
        "input_ids": ids,
        "encoder_hidden_states": memory,
        "encoder_attention_mask": mask,
        "use_cache_branch": numpy.array([False]),
    }
    shapes = {one.name: one.shape for one in decoder.get_inputs() if one.name not in known}
    past = {
        name: numpy.zeros((len(ids), shape[1], 0, shape[3]), numpy.float32) for name, shape in shapes.items()
    }
    names = [one.name for one in decoder.get_inputs()]
    return {name: (known | past)[name] for name in names}


if __name__ == "__main__":
    print(json.dumps({"versions": versions, "convert": convert, "run": run}[sys.argv[1]](*sys.argv[2:])))
