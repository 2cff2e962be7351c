"""Files: a line for a line, in order, with what cannot be used counted, and resumable after any end."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys

import pytest
from torch_t5 import pair

from t5smith.base.errors import T5smithError
from t5smith.cli.main import main
from t5smith.generation import files, fill
from t5smith.generation.files import NOTE, generate_file
from t5smith.recipe.evaluate import GenerateSettings

WORDS = {"max_new_tokens": 8, "batch_size": 2, "sample": True}
TEXTS = ["ax <extra_id_0> by", "cz du", "ax", "by <extra_id_3> cz <extra_id_1>", "du ax by", "cz"] * 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("models")
    pair(where, 2, True)
    return where / "model-2-True"


@pytest.fixture
def source(tmp_path):
    lines = [json.dumps({"nb": text, "other": 1}) for text in TEXTS]
    lines[2], lines[4], lines[7] = '{"nb": 5}', "{", ""
    lines[9] = json.dumps({"nb": "ax <extra_id_100>"})
    lines[10] = json.dumps({"nb": " ".join(f"<extra_id_{n}>" for n in range(5))})
    path = tmp_path / "in.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_every_line_has_a_line(folder, source, tmp_path, capsys):
    out = tmp_path / "out.jsonl"
    counts = generate_file(folder, source, out, field="nb", **WORDS)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["line"] for row in rows] == list(range(1, 13))
    skipped = {row["line"]: row["skipped"] for row in rows if "skipped" in row}
    assert list(skipped) == [3, 5, 8, 10, 11]
    assert [skipped[n] for n in (3, 5, 8)] == ["no such text field", "not a JSON object", "empty"]
    assert (counts.lines, counts.generated, counts.found, sum(counts.skipped.values())) == (12, 7, 0, 5)
    one = next(fill.Generator(folder, **WORDS).each([TEXTS[3]], first=3))
    assert rows[3]["text"] == TEXTS[3]
    assert (rows[3]["filled"], rows[3]["answer"]) == (one.filled, one.text)
    err = capsys.readouterr().err
    assert "line 3 is skipped" in err
    assert "line 8 is skipped" not in err
    again = generate_file(folder, source, out, field="nb", **WORDS)
    assert (again.generated, again.found) == (0, 12)


def test_a_file_continues_after_any_end(folder, source, tmp_path, monkeypatch):
    out = tmp_path / "out.jsonl"
    generate_file(folder, source, out, field="nb", **WORDS)
    whole = out.read_bytes()
    monkeypatch.setattr(files, "BATCHES_AHEAD", 2)
    for end in (0, 1, len(whole) // 3, len(whole) // 2, len(whole) - 1):
        out.write_bytes(whole[:end])
        kept = whole[:end].count(b"\n")
        # Batches of another size give the same.
        counts = generate_file(folder, source, out, field="nb", **WORDS | {"batch_size": 3})
        assert out.read_bytes() == whole
        assert counts.found == kept
    out.unlink()


@pytest.mark.slow
def test_a_killed_command_continues(folder, source, tmp_path):
    out = tmp_path / "out.jsonl"
    source.write_text("\n".join(json.dumps({"text": text}) for text in TEXTS * 8) + "\n")
    flags = ["--max-new-tokens", "8", "--batch-size", "1", "--output", str(out)]
    command = [sys.executable, "-m", "t5smith", "generate", str(folder), "--input", str(source), *flags]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        while not (out.exists() and out.stat().st_size) and process.poll() is None:
            pass
        process.kill()
    kept = out.read_bytes()
    assert main(command[3:]) == 0
    assert out.read_bytes().startswith(kept[: kept.rfind(b"\n") + 1])
    assert len(out.read_bytes().splitlines()) == len(TEXTS) * 8


def test_text_files_and_compressed_files(folder, tmp_path, capsys):
    packed, out = tmp_path / "in.txt.gz", tmp_path / "new" / "out.jsonl"
    packed.write_bytes(gzip.compress(b"ax by\n\n\xff\ncz\n"))
    argv = ["generate", str(folder), "--input", str(packed), "--output", str(out), "--max-new-tokens", "4"]
    assert main([*argv, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["lines"], found["generated"], found["skipped"]) == (4, 2, {"empty": 1, "not UTF-8": 1})
    assert main(argv) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{out}\n"
    assert "2 of 4 lines were skipped: 1 empty, 1 not UTF-8" in captured.err


def test_other_settings_are_not_mixed_in(folder, source, tmp_path):
    out = tmp_path / "out.jsonl"
    generate_file(folder, source, out, field="nb", **WORDS)
    settings = GenerateSettings(**WORDS | {"seed": 1})
    with pytest.raises(T5smithError, match="it was begun with another settings"):
        generate_file(folder, source, out, settings, field="nb")
    source.write_text(source.read_text() + "\n")
    with pytest.raises(T5smithError, match=r"out\.jsonl: it was begun with another input\. Delete it, or ch"):
        generate_file(folder, source, out, field="nb", **WORDS)
    out.with_name(out.name + NOTE).unlink()
    with pytest.raises(T5smithError, match="this file exists, and was not generated here"):
        generate_file(folder, source, out, field="nb", **WORDS)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--input", "IN"], "--input: needs `--output`. Add --output FILE.jsonl"),
        (["--output", "OUT", "a"], "--output: needs `--input`. Add --input FILE, or use > FILE"),
        (["--input", "IN", "--output", "OUT", "a"], "TEXT and --input: cannot be used together. Choose one"),
        (
            ["--input", "IN", "--output", "OUT"],
            "IN:1: no such text field; expected an object with a text in 'text",
        ),
        (
            ["--input", "no", "--output", "OUT"],
            "no: there is no such file; expected a file with a text per line",
        ),
        (["--input", "IN", "--output", "IN"], "IN: the output is the input. Choose another file"),
        (["a", "--top-k", "3"], "--top-k: has no effect without sample. Add sample"),
    ],
)
def test_mistakes_are_one_line(folder, source, tmp_path, capsys, flags, message):
    places = {"IN": str(source), "OUT": str(tmp_path / "out.jsonl")}
    argv = ["generate", str(folder), *(places.get(flag, flag) for flag in flags)]
    assert main(argv) == 2
    assert message in capsys.readouterr().err.splitlines()[-1].replace(str(source), "IN")
