"""The benchmark of `prepare` runs and its figures hang together."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from t5smith.base.errors import T5smithError
from t5smith.benchmarking import preparing
from t5smith.benchmarking.preparing import bench_prepare, process_tree_memory
from t5smith.cli.main import main


@pytest.mark.slow
def test_figures_are_consistent(tmp_path, capsys):
    lines = [json.dumps({"text": f"det er dag {i} og natt {i * i}"}) for i in range(3_000)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    facts = bench_prepare([str(tmp_path / "a.jsonl")], repeats=1)
    assert facts["documents"] == 3_000
    assert facts["text_bytes"] == sum(len(json.loads(line)["text"]) for line in lines)
    ratio = facts["bytes_per_second"] / facts["tokenizer_bytes_per_second"]
    assert facts["ratio"] == pytest.approx(ratio, abs=0.001)
    assert facts["peak_memory_bytes"] > 10_000_000
    assert main(["bench", "prepare", "--input", str(tmp_path / "a.jsonl"), "--repeats", "1", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {"bytes_per_second", "tokenizer_bytes_per_second", "peak_memory_bytes"} <= printed.keys()


def test_the_bundled_text_is_repeated(tmp_path, monkeypatch):
    monkeypatch.setattr(preparing, "BYTES", 5_000_000)
    file = preparing._bundled(tmp_path)
    data = [json.loads(line)["text"] for line in Path(file).read_text(encoding="utf-8").splitlines()]
    assert sum(len(text.encode()) for text in data) >= 5_000_000
    assert len(set(data)) < len(data)


def test_no_repeats_is_an_error():
    with pytest.raises(T5smithError, match="--repeats: 0 cannot be used"):
        bench_prepare(repeats=0)


def test_memory_of_this_process():
    assert process_tree_memory(os.getpid()) > 10_000_000
