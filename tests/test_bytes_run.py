"""The whole job without a trained vocabulary: bytes, and somebody's tokenizer."""

from __future__ import annotations

import json

import numpy as np
import pytest

from t5smith import generate, inspect
from t5smith.cli.main import main
from t5smith.pipeline import run
from t5smith.reports.terminal import show
from t5smith.vocabulary.vocabulary import Vocabulary
from tiny import tiny_recipe


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    recipe = tiny_recipe(tmp_path_factory.mktemp("bytes") / "run", **{"vocab.tokenizer": "bytes"})
    return recipe, run(recipe)


@pytest.mark.slow
def test_a_run_on_bytes(done, capfd):
    recipe, summary = done
    assert summary["vocab"]["tokenizer"] == "bytes"
    assert summary["store"]["train"]["bytes_per_token"] == pytest.approx(1)
    assert summary["store"]["valid"]["unknown"] == 0
    assert summary["evaluation"]["examples"]
    for example in summary["evaluation"]["examples"]:
        assert example["text"] == example["kept"][0] + "".join(
            truth + kept for truth, kept in zip(example["truth"], example["kept"][1:], strict=True)
        )
    page = (recipe.folder / "report.html").read_text(encoding="utf-8")
    assert "vocabulary of 259 pieces" in page
    capfd.readouterr()
    assert run(recipe)["evaluation"] == summary["evaluation"]
    assert "unchanged: 259 pieces" in capfd.readouterr().err


def test_the_exported_model_of_bytes_loads_and_fills_in(done):
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    recipe, summary = done
    auto = AutoTokenizer.from_pretrained(summary["model"])
    model = AutoModelForSeq2SeqLM.from_pretrained(summary["model"])
    text = "Alle <extra_id_0> er født"
    ids = auto(text).input_ids
    assert ids == [*Vocabulary.load(recipe.folder).encode_with_sentinels(text), 1]
    assert model.config.vocab_size == 384
    answer = generate(recipe.folder, [text], max_new_tokens=8, min_new_tokens=0, constrain=False)[0]
    theirs = model.generate(**auto(text, return_tensors="pt"), max_new_tokens=8, do_sample=False, num_beams=1)
    assert list(answer.ids) == [number for number in theirs[0].tolist()[1:] if number]


def test_what_bytes_look_like_to_the_model(done):
    recipe, _ = done
    trace = inspect("Blå bær", noise=("bær",), tokenizer=recipe.folder)
    assert [token.piece for token in trace.tokens][:5] == ["B", "l", "<0xC3>", "<0xA5>", "▁"]
    assert trace.text == "Blå bær"


@pytest.mark.slow
def test_a_run_with_t5s_own_vocabulary(tmp_path, capsys):
    Vocabulary.bundled().save(tmp_path / "t5")
    settings = {"vocab.tokenizer": str(tmp_path / "t5"), "vocab.control_symbols": ["[R]"]}
    summary = run(tiny_recipe(tmp_path / "run", **settings))
    assert (summary["vocab"]["pieces"], summary["vocab"]["ids"]) == (32_000, 32_101)
    assert Vocabulary.load(summary["model"]).id_of("[R]") == 32_100
    show(summary)
    said = " ".join(capsys.readouterr().out.split())
    assert "vocabulary 32,000 pieces of " in said
    assert "100 sentinels, 1 control symbol" in said


def test_the_command_without_any_text(tmp_path, capsys):
    assert main(["vocab", "--run-dir", str(tmp_path / "x"), "--vocab.tokenizer", "bytes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["ids"] == 384
    ids = Vocabulary.load(tmp_path / "x").bulk_encoder(np.dtype("<u2")).encode("æ")
    assert np.frombuffer(ids, "<u2").tolist() == [198, 169]
