from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from t5smith.base.errors import T5smithError
from t5smith.inspection.text import inspect
from t5smith.inspection.trace import Trace
from t5smith.objective.lengths import Masking, span_lengths
from t5smith.objective.rng import TRAINING, uniforms
from t5smith.objective.spans import draw_spans, draws_needed
from t5smith.vocabulary.vocabulary import Vocabulary

SENTENCE = "The bad dog ruined my sleep"
WORDS = ["the", "a", "dog", "night", "bad", "sleep", "international", "of", "bark", "ruin", "7", ",", "å"]


def masked(trace: Trace) -> list[str]:
    return [span.text for span in trace.spans]


def test_the_example_of_the_paper() -> None:
    trace = inspect(SENTENCE, ["bad dog"])
    assert trace.inputs_text == "The <extra_id_0> ruined my sleep"
    assert trace.targets_text == "<extra_id_0> bad dog <extra_id_1>"
    assert [t.piece for t in trace.targets] == ["<extra_id_0>", "▁bad", "▁dog", "<extra_id_1>", "</s>"]
    assert [t.piece for t in trace.decoder_inputs] == [
        "<pad>",
        "<extra_id_0>",
        "▁bad",
        "▁dog",
        "<extra_id_1>",
    ]
    assert [t.id for t in trace.targets] == [32099, 1282, 1782, 32098, 1]
    assert trace.decoder_inputs[0].id == 0
    assert trace.inputs[-1].piece == "</s>"
    assert trace.notes == ()


def test_a_mask_that_ends_the_text_has_no_closing_sentinel() -> None:
    trace = inspect(SENTENCE, ["my sleep"])
    assert trace.inputs_text == "The bad dog ruined <extra_id_0>"
    assert trace.targets_text == "<extra_id_0> my sleep"
    assert trace.lengths.targets == len(trace.targets) == 4


def test_a_mask_may_begin_the_text_or_be_all_of_it() -> None:
    assert inspect(SENTENCE, ["The"]).inputs_text == "<extra_id_0> bad dog ruined my sleep"
    whole = inspect(SENTENCE, [SENTENCE])
    assert (whole.inputs_text, whole.targets_text) == ("<extra_id_0>", f"<extra_id_0> {SENTENCE}")


def test_positions_know_their_span() -> None:
    trace = inspect(SENTENCE, ["bad dog", "my"])
    assert [t.span for t in trace.targets] == [0, 0, 0, 1, 1, None, None]
    assert [t.span for t in trace.decoder_inputs] == [None, 0, 0, 0, 1, 1, None]
    assert [t.span for t in trace.inputs if t.piece.startswith("<extra")] == [0, 1]
    assert [t.piece for t in trace.tokens if t.span is not None] == ["▁bad", "▁dog", "▁my"]
    assert [(span.sentinel, span.sentinel_id) for span in trace.spans] == [
        ("<extra_id_0>", 32099),
        ("<extra_id_1>", 32098),
    ]


def test_a_single_part_needs_no_list() -> None:
    assert inspect(SENTENCE, "bad dog") == inspect(SENTENCE, ["bad dog"])


def test_a_part_is_extended_to_whole_tokens_with_a_note() -> None:
    trace = inspect("An international call", ["national"])
    assert masked(trace) == ["international"]
    assert trace.notes == ("'national' is only part of a token: 'international' is masked",)


def test_a_text_may_end_within_a_word_if_a_token_does() -> None:
    trace = inspect("He is unapologetically early", ["un"])
    assert masked(trace) == ["un"]
    assert trace.notes == ()


def test_white_space_is_normalised_on_both_sides() -> None:
    trace = inspect("The  bad\n dog ruined\tmy sleep", [" bad \t dog "])
    assert trace.text == SENTENCE
    assert trace.inputs_text == "The <extra_id_0> ruined my sleep"
    assert trace.notes == ()


def test_characters_are_normalised_as_the_tokenizer_does() -> None:
    trace = inspect("The ﬁnal ｄog", ["final", "ｄog"])
    assert trace.text == "The final dog"
    assert masked(trace) == ["final dog"]


@pytest.mark.parametrize(
    ("noise", "mask"),
    [
        (["dog"], "0 0 1 0 0 0 0 0"),
        (["dog", "dog"], "0 0 1 0 0 1 0 0"),
        (["dog", "dog", "dog"], "0 0 1 0 0 1 0 1"),
        # The first `dog` is inside a text that is masked already.
        (["bad dog", "dog"], "0 1 1 0 0 1 0 0"),
    ],
)
def test_a_repeated_part_is_masked_at_its_next_occurrence(noise: list[str], mask: str) -> None:
    trace = inspect("The bad dog and the dog and dog", noise)
    assert [int(m) for m in trace.mask] == [int(m) for m in mask.split()]


def test_whole_words_are_preferred_to_parts_of_words() -> None:
    trace = inspect("It was a bad day, and a dog", ["and", "a"])
    assert [t.piece for t in trace.tokens if t.span is not None] == ["a", "▁and"]


@pytest.mark.parametrize("noise", [["bad", "dog"], ["dog", "bad"]])
def test_spans_that_touch_become_one_with_a_note(noise: list[str]) -> None:
    trace = inspect(SENTENCE, noise)
    assert masked(trace) == ["bad dog"]
    assert trace.notes == ("'bad' and 'dog' touch or overlap: they become one span, 'bad dog'",)


def test_spans_that_overlap_become_one_with_a_note() -> None:
    trace = inspect(SENTENCE, ["bad dog", "dog ruined"])
    assert masked(trace) == ["bad dog ruined"]
    assert trace.notes == (
        "'bad dog' and 'dog ruined' touch or overlap: they become one span, 'bad dog ruined'",
    )


@pytest.mark.parametrize(
    ("text", "noise", "complaint"),
    [
        (SENTENCE, ["cat"], f"noise: 'cat' does not occur in '{SENTENCE}'"),
        (SENTENCE, [""], "noise: '' does not occur"),
        (SENTENCE, ["  "], "does not occur"),
        (
            SENTENCE,
            ["dog", "dog"],
            "dog' is listed more often than it occurs in .*; expected at most 1 time$",
        ),
        ("dog dog", ["dog"] * 3, "expected at most 2 times"),
        ("", [], "the text is empty"),
        (" \n", ["x"], "the text is empty"),
        ("dog", [], "1 tokens cannot be masked"),
        (" ".join(["a b"] * 120), ["a"] * 101, "sentinels"),
    ],
)
def test_text_that_cannot_be_masked_is_rejected(text: str, noise: list[str], complaint: str) -> None:
    with pytest.raises(T5smithError, match=complaint):
        inspect(text, noise)


def test_more_spans_than_sentinels_are_rejected() -> None:
    with pytest.raises(T5smithError, match="masked spans but the vocabulary has 100 sentinels"):
        inspect("dog " * 1000, mean_noise_span_length=1.0)


@pytest.mark.parametrize(("density", "mean"), [(0.0, 3.0), (1.0, 3.0), (0.15, 0.5)])
def test_an_impossible_density_or_span_is_rejected(density: float, mean: float) -> None:
    with pytest.raises(T5smithError, match="cannot be used"):
        inspect(SENTENCE, noise_density=density, mean_noise_span_length=mean)


def test_a_missing_tokenizer_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(T5smithError, match="no tokenizer here"):
        inspect(SENTENCE, tokenizer=tmp_path)


def test_reads_another_tokenizer(tmp_path: Path) -> None:
    Vocabulary.bundled().save(tmp_path)
    assert inspect(SENTENCE, ["dog"], tokenizer=tmp_path) == inspect(SENTENCE, ["dog"])


def test_control_words_in_a_text_are_text() -> None:
    trace = inspect("write <extra_id_0> or </s> here", ["or"])
    # T5's own vocabulary has no `<`.
    assert trace.inputs_text == "write <unk>extra_id_0> <extra_id_0> <unk>/s> here"
    assert len(trace.spans) == 1
    assert [t.span for t in trace.inputs if t.span is not None] == [0]
    assert [t.id for t in trace.inputs].count(1) == 1


def test_unknown_characters_are_counted_in_a_note() -> None:
    trace = inspect("på en gård", ["gård"])
    assert trace.notes == ("the vocabulary lacks some characters of the text: 2 <unk>",)
    assert masked(trace) == ["g<unk>rd"]


@given(st.lists(st.sampled_from(WORDS), min_size=2, max_size=40), st.integers(0, 50))
def test_a_drawn_mask_is_the_one_training_draws(words: list[str], seed: int) -> None:
    trace = inspect(" ".join(words), seed=seed, noise_density=0.3, mean_noise_span_length=2.0)
    lengths = span_lengths(len(trace.tokens), Masking(0.3, 2.0))
    numbers = uniforms(seed, TRAINING, 0, 1, 1 + draws_needed(lengths))
    expected = draw_spans(numbers[:, 1:], lengths).masks(lengths.window)[0]
    assert trace.mask == tuple(expected.tolist())
    assert trace.lengths == lengths
    assert trace.drawn


@given(st.lists(st.sampled_from(WORDS), min_size=2, max_size=30), st.data())
def test_inputs_and_targets_contain_the_whole_text(words: list[str], data: st.DataObject) -> None:
    text = " ".join(words)
    start = data.draw(st.integers(0, len(words) - 1))
    stop = data.draw(st.integers(start + 1, len(words)))
    wanted = " ".join(words[start:stop])
    other = data.draw(st.sampled_from(words))
    try:
        trace = inspect(text, [wanted, other])
    except T5smithError:
        assume(False)
        raise
    by_span: dict[int | None, list[int]] = {}
    for token in trace.targets[:-1]:
        by_span.setdefault(token.span, []).append(token.id)
    rebuilt: list[int] = []
    for token in trace.inputs[:-1]:
        rebuilt += [token.id] if token.span is None else by_span[token.span][1:]
    assert rebuilt == [token.id for token in trace.tokens] == Vocabulary.bundled().encode(text)
    assert [t.id for t in trace.decoder_inputs] == [0, *(t.id for t in trace.targets[:-1])]
    assert (len(trace.inputs), len(trace.targets)) == (trace.lengths.inputs, trace.lengths.targets)
    assert any(wanted.replace("å", "<unk>") in span.text for span in trace.spans)


@given(st.lists(st.sampled_from(WORDS), min_size=3, max_size=20), st.integers(0, 9))
def test_spans_are_the_runs_of_the_mask(words: list[str], seed: int) -> None:
    trace = inspect(" ".join(words), seed=seed, noise_density=0.5, mean_noise_span_length=1.0)
    mask = np.zeros(len(trace.tokens), bool)
    for span in trace.spans:
        assert not mask[max(0, span.start - 1)]
        mask[span.start : span.stop] = True
    assert tuple(mask.tolist()) == trace.mask
    assert len(trace.spans) == trace.lengths.spans


def test_the_tokenizer_of_a_run_folder_is_found(finished):
    from_run = inspect("Alle mennesker er født frie", tokenizer=finished.folder)
    assert from_run == inspect("Alle mennesker er født frie", tokenizer=finished.folder / "vocab")
    assert from_run == inspect("Alle mennesker er født frie", tokenizer=finished.folder / "model")
