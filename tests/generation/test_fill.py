"""Cached decoding equals decoding without a cache; fills replace the right sentinels."""

from __future__ import annotations

import io
import json

import pytest

import t5smith
from t5smith.base.errors import T5smithError
from t5smith.cli.main import main
from t5smith.cli.warnings import warn_of_completions
from t5smith.generation.completion import Completion, completion, spans_of
from t5smith.generation.decoding import Output
from t5smith.parallel import hardware
from t5smith.recipe.evaluate import GenerateSettings
from t5smith.vocabulary.vocabulary import Vocabulary

BATCH_SIZE = GenerateSettings().batch_size


def test_spans_are_read_from_targets():
    vocabulary = Vocabulary.bundled()
    zero, one, two = (int(i) for i in vocabulary.sentinel_ids[:3])
    read = list(spans_of(vocabulary, [zero, 10, 11, one, 12, two, vocabulary.eos_id, 13]))
    assert read == [(0, [10, 11]), (1, [12]), (2, [])]
    assert list(spans_of(vocabulary, [10, 11])) == []


def test_generate_from_a_run_folder_and_from_its_model_folder(finished):
    texts = ["Alle mennesker <extra_id_0> født frie", "Ingen må <extra_id_0> eller <extra_id_1>."]
    one = t5smith.generate(finished.folder, texts, max_new_tokens=6)
    assert one == t5smith.generate(finished.folder / "model", texts, max_new_tokens=6)
    assert [len(answer.fills) for answer in one] == [1, 2]
    assert one[0].filled.startswith("Alle mennesker")
    assert one[0].filled.endswith("født frie")


def test_texts_of_any_number_and_length_keep_their_order(finished):
    texts = [f"{'ord ' * n}<extra_id_0>" for n in (1, 40, 3, 20)] * 5
    together = t5smith.generate(finished.folder, texts, max_new_tokens=4)
    alone = [t5smith.generate(finished.folder, [text], max_new_tokens=4)[0] for text in texts[:4]]
    assert together[:4] == alone
    assert together[4:8] == alone


def test_empty_lines_give_empty_lines(finished, capsys, monkeypatch):
    texts = ["Alle mennesker <extra_id_0> født frie", "", " ", "Ingen må <extra_id_0>."]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(texts) + "\n"))
    argv = ["generate", str(finished.folder), "--max-new-tokens", "4"]
    assert main(argv) == 0
    out, err = capsys.readouterr()
    first, *empty, last = out.splitlines()
    assert first.startswith("Alle mennesker")
    assert empty == ["", ""]
    assert last.startswith("Ingen må")
    assert "text 2" not in err
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(texts) + "\n"))
    assert main([*argv, "--json"]) == 0
    answers = json.loads(capsys.readouterr().out)["answers"]
    assert [one["text"] for one in answers] == texts
    assert [one["filled"] for one in answers] == [first, "", "", last]
    assert [(one["cut"], one["unanswered"]) for one in answers[1:3]] == [(False, [])] * 2
    monkeypatch.setattr("sys.stdin", io.StringIO("\n\n"))
    assert main(argv) == 2
    assert "no text; expected one text per line" in capsys.readouterr().err


def test_a_text_without_sentinels_triggers_a_warning(finished, capsys):
    argv = ["generate", str(finished.folder), "--max-new-tokens", "4"]
    assert main([*argv, "Alle mennesker", "Ingen <extra_id_0>"]) == 0
    out, err = capsys.readouterr()
    # It is no text to fill in: the output is what the model wrote.
    assert len(out.splitlines()) == 2
    assert out.splitlines()[0] != "Alle mennesker"
    assert err.splitlines()[0] == (
        "warning: 1 text has no <extra_id_0> to mark missing words: 'Alle mennesker'"
    )


def test_an_empty_argument_is_named(finished, capsys):
    argv = ["generate", str(finished.folder)]
    for texts, where in ((["a <extra_id_0>", " ", "b"], "TEXT 2: it is empty"), ([""], "TEXT: no text")):
        assert main([*argv, *texts]) == 2
        assert capsys.readouterr().err.startswith(
            f"t5smith: error: {where}. Mark missing words by <extra_id_0>"
        )


def test_a_completion_says_whether_it_was_cut_and_what_was_not_answered():
    vocabulary = Vocabulary.bundled()
    zero, one, two = (int(i) for i in vocabulary.sentinel_ids[:3])
    text = vocabulary.encode_with_sentinels("Oslo er <extra_id_0> i <extra_id_1>.")
    word = vocabulary.encode("stor")
    done = completion(vocabulary, text, [Output((zero, *word, one, vocabulary.eos_id))])
    assert (done.filled, done.unanswered, done.cut) == ("Oslo er stor i.", (), False)
    done = completion(vocabulary, text, [Output((zero, *word, two, *word))])
    assert (done.filled, done.fills) == ("Oslo er stor i <extra_id_1>.", ("stor", ""))
    assert (done.unanswered, done.cut) == (("<extra_id_1>",), True)


@pytest.mark.parametrize(
    ("completions", "said"),
    [
        ([Completion((5,), "a", ("a",), "a")], []),
        (
            [Completion((5,), "a", ("a", ""), "a", ("<extra_id_1>", "<extra_id_2>"), cut=True)],
            [
                "the output was cut at 1,024 tokens (--max-new-tokens)",
                "the model did not fill in <extra_id_1>, <extra_id_2>, left as it is",
            ],
        ),
        (
            [None, *[Completion((5,), "a", ("a",), "a", ("<extra_id_0>",), cut=True)] * 2],
            [
                "2 of 2 outputs were cut at 1,024 tokens (--max-new-tokens), the first of text 2",
                "the model left sentinels of 2 of 2 texts as they are, the first: <extra_id_0> of text 2",
            ],
        ),
        ([Completion((5,), "a", (), "b a", continued=True)], []),
    ],
)
def test_what_a_model_did_not_do_gives_a_warning(completions, said, capsys):
    warn_of_completions(["a"] * len(completions), completions, 1024)
    assert capsys.readouterr().err.splitlines() == [f"warning: {line}" for line in said]


def test_cut_output_is_reported_in_json_too(finished, capsys):
    argv = ["generate", str(finished.folder), "a <extra_id_0> b", "--json", "--max-new-tokens", "1"]
    assert main(argv) == 2
    assert capsys.readouterr().err == (
        "t5smith: error: --max-new-tokens: 1 token cannot hold 1 span; expected a sentinel and a token for "
        "each. Set it to 2 or more, or add --no-constrain\n"
    )
    argv.append("--no-constrain")
    assert main(argv) == 0
    out, err = capsys.readouterr()
    answer = json.loads(out)["answers"][0]
    assert (answer["cut"], answer["unanswered"]) == (True, ["<extra_id_0>"])
    assert answer["filled"] == "a <extra_id_0> b"
    assert "the output was cut at 1 token (--max-new-tokens)" in err
    assert "the model did not fill in <extra_id_0>" in err
    assert json.loads(out)["mode"] == ""


def test_many_texts_have_a_bar(finished, capsys):
    t5smith.generate(finished.folder, ["a <extra_id_0>"] * (BATCH_SIZE + 1), max_new_tokens=4)
    assert f"generate  {BATCH_SIZE + 1}/{BATCH_SIZE + 1} texts" in capsys.readouterr().err


def test_a_run_without_a_model_is_rejected(prepared):
    with pytest.raises(T5smithError, match=r"run: this run has no exported model yet\. .*`t5smith run REC"):
        t5smith.generate(prepared, ["a <extra_id_0>"])


def test_what_cannot_be_completed_is_rejected(finished, tmp_path):
    with pytest.raises(T5smithError, match=r"^text 2 is empty \(' '\); expected"):
        t5smith.generate(finished.folder, ["a", " "])
    with pytest.raises(T5smithError, match="extra_id_100"):
        t5smith.generate(finished.folder, ["a <extra_id_100>"])
    with pytest.raises(T5smithError, match=r"config\.json"):
        t5smith.generate(tmp_path, ["a <extra_id_0>"])
    with pytest.raises(T5smithError, match=r"none: there is no such folder; expected a run folder or an exp"):
        t5smith.generate(tmp_path / "none", ["a <extra_id_0>"])
    with pytest.raises(T5smithError, match=r"--mode \[R\]: the model was trained without mode tokens"):
        t5smith.generate(finished.folder, ["a <extra_id_0>"], mode="[R]")


def test_what_does_not_fit_into_memory_is_refused_with_its_size(finished, monkeypatch):
    monkeypatch.setattr(hardware, "memory_limit", lambda: 1_000)
    with pytest.raises(T5smithError) as caught:
        t5smith.generate(finished.folder, ["Alle mennesker <extra_id_0> født frie"], max_new_tokens=6)
    message = str(caught.value)
    assert message.startswith("--max-new-tokens: generating 6 tokens for 1 text of up to 32 takes ")
    assert "but 1,000B are " in message
