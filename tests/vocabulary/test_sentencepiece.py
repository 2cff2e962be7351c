"""SentencePiece models give the same ids as in the sentencepiece library."""

from __future__ import annotations

import io
import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sentencepiece import sentencepiece_model_pb2 as schema
from tokenizers import Tokenizer

from budget import examples
from t5smith.base.errors import T5smithError
from t5smith.vocabulary.sentencepiece import to_tokenizer_json
from t5smith.vocabulary.vocabulary import Vocabulary

GOLDEN = Path(__file__).parents[3] / "shared" / "golden" / "tokenizers"
NASTY = [
    *"abcdefgh  ABC012.,<>x\n\t▁é½ﬁ☃ß\0",
    *("\u0301", "\u00a0", "\u200b", "\u200d", "\u3000", "\u0085", "\x1c", "か\u3099", "\u1100\u1161\u11a8"),
    *("<0x41>", "</s>", "<unk>", "<pad>", "<br>", "▁▁", "   ", "aaaa", "´", "😀", "각"),
]
anything = st.lists(
    st.one_of(st.sampled_from(NASTY), st.characters(exclude_categories=["Cs"])), max_size=25
).map("".join)


def model_bytes(lines: list[str], **options: Any) -> bytes:
    """A model trained by sentencepiece on lines."""
    file = io.BytesIO()
    asked = {"vocab_size": 260, "model_type": "unigram", "pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=file,
        minloglevel=2,
        hard_vocab_limit=False,
        **asked | options,
    )
    return file.getvalue()


KINDS: dict[str, dict[str, Any]] = {
    "as T5": {},
    "bytes": {"byte_fallback": True, "vocab_size": 500, "character_coverage": 0.98},
    "identity": {"normalization_rule_name": "identity"},
    "nfkc_cf": {"normalization_rule_name": "nfkc_cf"},
    "no prefix": {"add_dummy_prefix": False},
    "all spaces": {"remove_extra_whitespaces": False, "normalization_rule_name": "identity"},
    "all spaces, no prefix": {"remove_extra_whitespaces": False, "add_dummy_prefix": False},
    "over spaces": {"split_by_whitespace": False},
    "symbols": {"user_defined_symbols": ["<br>", "aa", "☃"], "control_symbols": ["<sep>"]},
    "digits": {"split_digits": True, "allow_whitespace_only_pieces": True, "remove_extra_whitespaces": False},
}


@pytest.fixture(scope="module", params=KINDS)
def trained(request: pytest.FixtureRequest, declaration: list[str]) -> bytes:
    return model_bytes([*declaration, "aa bb <br> 12 ☃ ½"], **KINDS[request.param])


@pytest.fixture(scope="module")
def both(trained: bytes) -> tuple[sentencepiece.SentencePieceProcessor, Vocabulary]:
    return processor(trained), imported(trained)


@pytest.fixture(scope="module")
def plainly(trained: bytes) -> sentencepiece.SentencePieceProcessor:
    """Normalizes as the model does in text without symbols."""
    return without_symbols(processor(trained))


def processor(data: bytes) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_proto=data)


def imported(data: bytes) -> Vocabulary:
    from t5smith.vocabulary.tokenizer_json import with_sentinels

    return Vocabulary(json.dumps(with_sentinels(to_tokenizer_json(data, "a.model"))))


def without_symbols(theirs: sentencepiece.SentencePieceProcessor) -> sentencepiece.SentencePieceProcessor:
    """The same model with its symbols as normal pieces."""
    model: Any = schema.ModelProto.FromString(theirs.serialized_model_proto())
    for piece in model.pieces:
        piece.type = 1 if piece.type == 4 else piece.type
    return processor(model.SerializeToString())


def same(theirs: sentencepiece.SentencePieceProcessor, ours: Vocabulary, text: str) -> None:
    """The ids are equal, or two segmentations have the same score."""
    expected, ids = theirs.encode(text), ours.encode(text)
    if ids == expected:
        return
    pieces = [theirs.id_to_piece(expected), ours.pieces(ids)]
    assert "".join(pieces[0]) == "".join(pieces[1])
    scores = [math.fsum(theirs.get_score(number) for number in one) for one in (expected, ids)]
    assert scores[0] == pytest.approx(scores[1], rel=1e-6), pieces


@examples(300)
@given(text=anything)
@example(text="▁")
@example(text="▁a")
@example(text=" ▁a▁ ▁")
@example(text="</s> <0x41><0x4")
@example(text="aaaaaa<br>aa a<br")
@example(text="aaaa\u0301 a\u0301")
def test_ids_equal_those_of_sentencepiece(
    both: tuple[sentencepiece.SentencePieceProcessor, Vocabulary],
    plainly: sentencepiece.SentencePieceProcessor,
    text: str,
) -> None:
    theirs, ours = both
    if not theirs.normalize(text).strip("▁"):
        return  # of nothing but white space, which is nothing or as much as was typed
    if theirs.normalize(text) != plainly.normalize(text):
        return  # a symbol kept a mark behind it from being joined to its last letter
    same(theirs, ours, text)


@settings(max_examples=100)
@given(text=anything)
def test_the_word_cache_gives_the_ids_of_sentencepiece(
    both: tuple[sentencepiece.SentencePieceProcessor, Vocabulary], text: str
) -> None:
    _, ours = both
    assert np.frombuffer(ours.bulk_encoder(np.dtype("<u2")).encode(text), "<u2").tolist() == ours.encode(text)


@settings(max_examples=100)
@given(text=anything)
def test_decode_returns_the_normalized_text(
    both: tuple[sentencepiece.SentencePieceProcessor, Vocabulary],
    plainly: sentencepiece.SentencePieceProcessor,
    text: str,
) -> None:
    theirs, ours = both
    ids = ours.encode(text)
    if theirs.normalize(text) != plainly.normalize(text):
        return
    if ours.unk_id not in ids and theirs.normalize(text).strip("▁"):
        assert ours.decode(ids) == theirs.normalize(text).replace("▁", " ").removeprefix(" ")


def test_sentinels_come_after_the_pieces_and_the_first_has_the_highest_id(
    both: tuple[sentencepiece.SentencePieceProcessor, Vocabulary],
) -> None:
    theirs, ours = both
    size = theirs.vocab_size()
    assert ours.pieces(range(3)) == ["<pad>", "</s>", "<unk>"]
    assert ours.sentinel_ids.tolist() == list(range(size + 99, size - 1, -1))
    assert [theirs.id_to_piece(number) for number in range(size)] == ours.pieces(range(size))


def test_auto_tokenizer_gives_the_same_ids(
    both: tuple[sentencepiece.SentencePieceProcessor, Vocabulary], tmp_path: Path, declaration: list[str]
) -> None:
    from transformers import AutoTokenizer

    _, ours = both
    ours.save(tmp_path)
    auto = AutoTokenizer.from_pretrained(tmp_path)
    lines = [*declaration, "  to  ord ", "tab\there ½", "e\u0301 <0x41> ▁", "12 aa<br>aa"]
    assert auto(lines, add_special_tokens=False).input_ids == ours.encode_batch(lines)
    assert Vocabulary.load(tmp_path).encode_batch(lines) == ours.encode_batch(lines)
    assert (len(auto), auto.pad_token_id, auto.eos_token_id, auto.unk_token_id) == (ours.size, 0, 1, 2)


@pytest.mark.parametrize("kind", ["as T5", "bytes", "identity"])
def test_text_with_sentinels_is_encoded_as_in_training(
    kind: str, declaration: list[str], tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    ours = imported(model_bytes(declaration, **KINDS[kind]))
    ours.save(tmp_path)
    auto = AutoTokenizer.from_pretrained(tmp_path)
    for text in ("alle <extra_id_0> er født<extra_id_1>frie", "<extra_id_0> mennesker", "rett <extra_id_99>"):
        ids = ours.encode_with_sentinels(text)
        assert auto(text, add_special_tokens=False).input_ids == ids
        assert "".join(ours.pieces(ids)).replace("▁", " ").strip() == text.replace(" <extra", "<extra")


def test_spaces_after_a_sentinel_are_kept(declaration: list[str]) -> None:
    ours = imported(model_bytes(declaration, **KINDS["all spaces"]))
    whole = ours.encode("alle har rett")
    rest = ours.encode_with_sentinels("<extra_id_0> har rett")[1:]
    assert whole[-len(rest) :] == rest


# Hand-written models.

BASE: list[tuple[str, float, int]] = [("<pad>", 0, 3), ("</s>", 0, 3), ("<unk>", 0, 2)]
SOME: list[tuple[str, float, int]] = [("▁", -3.0, 1), ("a", -2.0, 1), ("b", -2.5, 1), ("▁a", -2.25, 1)]


def by_hand(pieces: list[tuple[str, float, int]], **changes: Any) -> bytes:
    model: Any = schema.ModelProto()
    for name, score, kind in pieces:
        model.pieces.add(piece=name, score=score, type=kind)
    model.trainer_spec.model_type = 1
    model.trainer_spec.unk_id, model.trainer_spec.bos_id = 2, -1
    model.trainer_spec.eos_id, model.trainer_spec.pad_id = 1, 0
    model.trainer_spec.byte_fallback = any(kind == 6 for _, _, kind in pieces)
    model.normalizer_spec.name = "identity"
    for dotted, value in changes.items():
        table, _, key = dotted.partition("__")
        setattr(getattr(model, table), key, value)
    return model.SerializeToString()


HEX = [(f"<0x{byte:02X}>", 0.0, 6) for byte in range(256)]
MADE: dict[str, list[tuple[str, float, int]]] = {
    "user-defined": [*SOME, ("ab", 0, 4), ("aab", -1.0, 1), ("☃☃", 0, 4)],
    # "a" and "ab" together are worth more than "aab" by what a symbol is worth alone.
    "user-defined by a hair": [SOME[0], ("a", -0.05, 1), SOME[2], ("ab", 0, 4), ("aab", -0.001, 1)],
    # An unknown ☃ before "ab" is worth more than "☃a" and "b", as long as bytes do not lower what it costs.
    "bytes and a near choice": [SOME[0], ("a", -1, 1), ("b", -15, 1), ("ab", -1, 1), ("☃a", -20, 1), *HEX],
    "unused": [*SOME, ("ab", -0.5, 5), ("bb", -3.0, 1)],
    "no piece for a space": SOME[1:],
    "bytes but few characters": [*SOME, *HEX],
    "bytes and all their characters": [*SOME, *((c, -9.0, 1) for c in "<0x123456789ABCDEF>"), *HEX],
    "over spaces": [*SOME, ("a▁a", -2.0, 1), ("▁▁", -2.0, 1)],
    "control": [*SOME, ("<sep>", 0, 3), ("ab", 0, 3)],
}


@pytest.mark.parametrize("kind", MADE)
@examples(150)
@given(text=st.text(st.sampled_from("aaab  ☃é<0x41>▁"), max_size=12))
@example(text="☃☃☃ab")
@example(text="aab ☃ab")
@example(text="☃ ☃☃  ☃")
@example(text="a<0x41>")
def test_every_type_of_piece_is_converted(kind: str, text: str) -> None:
    pieces = list({name: (name, score, of) for name, score, of in [*BASE, *MADE[kind]]}.values())
    data = by_hand(pieces)
    same(processor(data), imported(data), text)


def test_sentinels_in_a_model_keep_their_ids_and_get_t5s_names() -> None:
    named = [(f"▁<extra_id_{i}>", 0.0, 4) for i in (1, 0)]
    ours = imported(by_hand([*BASE, *SOME, *named]))
    assert ours.size == 9
    assert ours.sentinel_ids.tolist() == [8, 7]
    assert ours.encode_with_sentinels("a <extra_id_1>") == [6, 7]
    assert not ours.is_text[[7, 8]].any()
    assert ours.is_text[ours.encode("a <extra_id_1>")].all()
    auto = Tokenizer.from_str(ours._json)
    assert auto.encode("a <extra_id_1>").ids == [6, 7]


@pytest.mark.parametrize(
    ("pieces", "changes", "message"),
    [
        (
            SOME,
            {"trainer_spec__model_type": 2},
            "a SentencePiece model of type BPE; expected a SentencePiece",
        ),
        (SOME, {"trainer_spec__model_type": 3}, "type WORD"),
        (SOME, {"trainer_spec__model_type": 4}, "type CHAR"),
        (
            SOME,
            {"trainer_spec__treat_whitespace_as_suffix": True},
            "spaces are at the ends of pieces",
        ),
        (SOME, {"normalizer_spec__escape_whitespaces": False}, "pieces contain plain spaces"),
        (SOME, {"normalizer_spec__precompiled_charsmap": b"abc"}, "the character map is damaged"),
        ([*SOME, ("<unk2>", 0, 2)], {}, "there is not exactly one unknown piece"),
        ([*SOME, ("a", 0, 1)], {}, "two pieces have the same name"),
        ([*SOME, ("<0x>", 0, 6)], {}, "a byte is not named <0x00> to <0xFF>"),
        ([*SOME, ("<extra_id_1>", 0, 3)], {}, "<extra_id_0> is missing"),
    ],
)
def test_unusable_models_are_rejected(
    tmp_path: Path, pieces: list[tuple[str, float, int]], changes: dict[str, Any], message: str
) -> None:
    file = tmp_path / "spiece.model"
    file.write_bytes(by_hand([*BASE, *pieces], **changes))
    with pytest.raises(T5smithError, match=message) as caught:
        Vocabulary.load(tmp_path)
    assert str(caught.value).startswith(str(file))


@pytest.mark.parametrize(
    ("left_out", "message"), [(0, "no <pad>"), (1, "no </s>"), (2, "not exactly one unknown")]
)
def test_models_without_control_pieces_are_rejected(tmp_path: Path, left_out: int, message: str) -> None:
    file = tmp_path / "a.model"
    file.write_bytes(by_hand([*BASE[:left_out], *BASE[left_out + 1 :], *SOME]))
    with pytest.raises(T5smithError, match=message):
        Vocabulary.load(file)


def test_a_pad_id_other_than_0_is_rejected(tmp_path: Path) -> None:
    file = tmp_path / "a.model"
    file.write_bytes(by_hand([BASE[1], BASE[0], BASE[2], *SOME]))
    with pytest.raises(T5smithError, match="<pad> has the id 1; expected 0"):
        Vocabulary.load(file)


def test_a_symbol_that_normalization_changes_is_rejected(declaration: list[str]) -> None:
    data = model_bytes(declaration, user_defined_symbols=["½"])
    with pytest.raises(T5smithError, match="normalization changes the user-defined symbol '½'"):
        to_tokenizer_json(data, "a.model")


def test_a_bpe_model_is_rejected(declaration: list[str]) -> None:
    data = model_bytes(declaration, model_type="bpe")
    with pytest.raises(T5smithError, match=r"a\.model: a SentencePiece model of type BPE.*Use a Unigram"):
        to_tokenizer_json(data, "a.model")


def test_truncated_models_are_rejected(declaration: list[str]) -> None:
    data = model_bytes(declaration)
    draw = random.Random(0)
    for end in [0, 1, 100, *draw.sample(range(len(data) - 1), 40)]:
        with pytest.raises(
            T5smithError, match=r"a\.model: (not a complete SentencePiece model|the character map)"
        ):
            to_tokenizer_json(data[:end], "a.model")
    for junk in (b"{}", b"PK\x03\x04" * 50, bytes(1000), "bokmål".encode()):
        with pytest.raises(T5smithError, match="not a complete SentencePiece model"):
            to_tokenizer_json(junk, "a.model")


# The published vocabularies of T5 and mT5, if they are available.


def test_the_bundled_vocabulary_normalizes_as_sentencepiece_does(t5: Vocabulary) -> None:
    for text, expected in {
        "か\u3099 ｶﾞ": "が ガ",
        "\u1100\u1161\u11a8": "각",
        "½\u0301": "1⁄2\u0301",
        "e\u0301": "é",
    }.items():
        assert t5._text._map(text) == expected  # pyright: ignore[reportAttributeAccessIssue]


@pytest.fixture(scope="module", params=["t5", "mt5"])
def golden(request: pytest.FixtureRequest) -> tuple[sentencepiece.SentencePieceProcessor, Vocabulary]:
    file = GOLDEN / request.param / "spiece.model"
    if not file.is_file():
        pytest.skip(f"{file} is not at hand")
    return processor(file.read_bytes()), Vocabulary.load(file)


@examples(500)
@given(text=anything)
def test_published_vocabularies_give_the_ids_of_sentencepiece(
    golden: tuple[sentencepiece.SentencePieceProcessor, Vocabulary], text: str
) -> None:
    theirs, ours = golden
    if "<extra_id" not in text:
        same(theirs, ours, text)


def test_published_vocabularies_get_their_sentinels(
    golden: tuple[sentencepiece.SentencePieceProcessor, Vocabulary],
) -> None:
    theirs, ours = golden
    last = {32_000: 32_099, 250_100: 250_099}[theirs.vocab_size()]
    assert ours.sentinel_ids.tolist() == list(range(last, last - 100, -1))
    assert ours.size == last + 1


def test_t5s_model_is_converted_to_its_published_tokenizer_json(t5: Vocabulary) -> None:
    if not (file := GOLDEN / "t5" / "spiece.model").is_file():
        pytest.skip(f"{file} is not at hand")
    ours = Vocabulary.load(file)
    assert ours.pieces(range(ours.size)) == t5.pieces(range(t5.size))
    assert ours.sentinel_ids.tolist() == t5.sentinel_ids.tolist()
    tables = [json.loads(one._json)["model"]["vocab"] for one in (ours, t5)]
    assert tables[0] == tables[1]
