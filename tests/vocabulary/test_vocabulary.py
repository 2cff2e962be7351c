from __future__ import annotations

import json
import lzma
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from t5smith.base.errors import T5smithError
from t5smith.recipe.corpus import CorpusSettings
from t5smith.text.corpus import find_files
from t5smith.text.documents import read_documents
from t5smith.vocabulary.normalizers import normalizer
from t5smith.vocabulary.vocabulary import BUNDLED, Vocabulary

CONTROL_WORDS = ("<pad>", "</s>", "<unk>", "<extra_id_0>", "<extra_id_3>", "<extra_id_99>", "▁<extra_id_1>")
LETTERS = "abdefghijklmnoprstuvyæøå,.  "


def small(sentinels: list[str], **model: Any) -> dict[str, Any]:
    """A tokenizer.json with a few pieces, and with these sentinels only in its table of pieces."""
    names = ["<pad>", "</s>", "<unk>", "▁", "a", "b", "▁a", *sentinels]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "Unigram",
            "unk_id": 2,
            "byte_fallback": False,
            "vocab": [[name, -float(i)] for i, name in enumerate(names)],
        }
        | model,
    }


def test_sentinels_have_t5s_names_and_ids(t5: Vocabulary) -> None:
    assert (t5.size, t5.pad_id, t5.eos_id, t5.unk_id) == (32_100, 0, 1, 2)
    assert t5.sentinel_ids.dtype == np.int32
    assert t5.sentinel_ids.tolist() == list(range(32_099, 31_999, -1))
    assert t5.pieces(t5.sentinel_ids[[0, 99]]) == ["<extra_id_0>", "<extra_id_99>"]
    assert [t5.sentinel_number(number) for number in (32_099, 32_000, 31_999, 0)] == [0, 99, None, None]


def test_sentinels_of_mt5_are_found_by_name_and_may_count_up() -> None:
    vocabulary = Vocabulary(json.dumps(small(["▁<extra_id_0>", "▁<extra_id_1>"])))
    assert vocabulary.sentinel_ids.tolist() == [7, 8]
    assert vocabulary.encode_with_sentinels("a<extra_id_1>") == [6, 8]
    assert vocabulary.encode("a <extra_id_1>")[-1] != 8
    assert not vocabulary.is_text[[7, 8]].any()


def test_t5s_name_of_a_sentinel_takes_precedence_over_mt5s() -> None:
    for names in (["▁<extra_id_0>", "<extra_id_0>"], ["<extra_id_0>", "▁<extra_id_0>"]):
        assert Vocabulary(json.dumps(small(names))).sentinel_ids.tolist() == [7 + names.index("<extra_id_0>")]


def test_white_space_before_a_sentinel_is_stripped_with_every_normalizer() -> None:
    vocabulary = Vocabulary(json.dumps(small(["<extra_id_0>"])))
    assert vocabulary.pieces(vocabulary.encode("a ")) == ["▁a", "▁"]
    assert vocabulary.pieces(vocabulary.encode_with_sentinels("a <extra_id_0> a")) == [
        "▁a",
        "<extra_id_0>",
        "▁a",
    ]


def test_piece_bytes_and_is_text_of_every_type_of_id(t5: Vocabulary) -> None:
    the, dog = t5.encode("The dog")
    assert (t5.piece_bytes[the], t5.piece_bytes[dog]) == (4, 4)
    assert t5.piece_bytes[[t5.pad_id, t5.eos_id, t5.unk_id, 32_099]].tolist() == [0, 0, 0, 0]
    assert t5.is_text[[0, 1, 2, the, 32_000, 32_099]].tolist() == [False, False, True, True, False, False]
    assert t5.is_text.sum() == t5.size - 102
    for array in (t5.sentinel_ids, t5.piece_bytes, t5.is_text):
        assert not array.flags.writeable


def test_piece_bytes_add_up_to_the_text(vocabulary: Vocabulary, declaration: list[str]) -> None:
    for line in declaration[:40]:
        text = vocabulary.decode(vocabulary.encode(line))
        assert vocabulary.piece_bytes[vocabulary.encode(line)].sum() == len(text.encode()) + 1  # the first ▁


@given(text=st.text(LETTERS))
def test_decode_returns_the_normalized_text(vocabulary: Vocabulary, text: str) -> None:
    assert vocabulary.decode(vocabulary.encode(text)) == " ".join(text.split())


@given(text=st.text())
def test_text_without_control_words_has_the_ids_of_the_plain_tokenizer(
    vocabulary: Vocabulary, text: str
) -> None:
    normal = normalizer().normalize_str(text)
    if not any(word in both for word in CONTROL_WORDS for both in (text, normal)):
        plain = Tokenizer.from_str(vocabulary._json)
        assert vocabulary.encode(text) == plain.encode(text, add_special_tokens=False).ids


@given(parts=st.lists(st.one_of(st.sampled_from(CONTROL_WORDS), st.text(LETTERS, max_size=5))))
@example(parts=["＜pad＞", "<", "/s>"])
def test_control_words_in_text_are_text(vocabulary: Vocabulary, t5: Vocabulary, parts: list[str]) -> None:
    text = "".join(parts)
    for one in (vocabulary, t5):
        ids = one.encode(text)
        assert one.is_text[ids].all()
        assert one.encode_batch([text, "a", text]) == [ids, one.encode("a"), ids]


def test_unknown_characters_are_unk(vocabulary: Vocabulary) -> None:
    ids = vocabulary.encode("snø ☃☃")
    assert ids.count(vocabulary.unk_id) == 1
    assert vocabulary.decode(ids) == "snø <unk>"


@pytest.mark.parametrize(
    ("whole", "masked"),
    [
        ("The bad dog ruined my sleep", "The <extra_id_0> ruined my sleep"),
        ("The bad dog ruined my sleep", "<extra_id_0> bad dog ruined my sleep"),
        ("The bad dog ruined my sleep", "The bad dog ruined my <extra_id_0>"),
        ("The bad dog ruined my sleep", "The <extra_id_0> ruined <extra_id_1> sleep"),
    ],
)
def test_typed_sentinels_are_encoded_as_in_training(t5: Vocabulary, whole: str, masked: str) -> None:
    """Ids around a masked span are the same as in the whole text."""
    words = whole.split()
    expected: list[int] = []
    for i, word in enumerate(words):
        if word in masked:
            expected += t5.encode(word)
        elif not i or words[i - 1] in masked:
            expected.append(int(t5.sentinel_ids[sum(int(x) >= 32_000 for x in expected)]))
    assert t5.encode_with_sentinels(masked) == expected
    assert t5.decode(expected) == masked


def test_a_word_starts_after_a_sentinel_only_with_white_space(vocabulary: Vocabulary, t5: Vocabulary) -> None:
    for one in (vocabulary, t5):
        glued = one.pieces(one.encode_with_sentinels("red<extra_id_0>green and"))
        apart = one.pieces(one.encode_with_sentinels("red \t<extra_id_0>\n green and"))
        place = glued.index("<extra_id_0>")
        assert apart[: place + 1] == glued[: place + 1]
        assert glued[place - 1] != "▁"
        assert not glued[place + 1].startswith("▁")
        assert apart[place + 1].startswith("▁")
        assert "".join(glued).count("▁") == 2
        assert (
            one.encode_with_sentinels("<extra_id_0>ab")[1:]
            == one.encode_with_sentinels("x<extra_id_0>ab")[-2:]
        )


def test_a_missing_sentinel_is_rejected(t5: Vocabulary) -> None:
    with pytest.raises(T5smithError, match=r"<extra_id_100> is not in .* <extra_id_0> to <extra_id_99>"):
        t5.encode_with_sentinels("a <extra_id_100>")


def test_decode_drops_pad_and_eos_and_on_request_sentinels(t5: Vocabulary) -> None:
    ids = [0, *t5.encode_with_sentinels("<extra_id_0> bad dog <extra_id_1>"), 1, 0]
    assert t5.decode(ids) == "<extra_id_0> bad dog <extra_id_1>"
    assert t5.decode(ids, keep_sentinels=False) == "bad dog"
    assert t5.decode(np.array([], np.int32)) == ""


@pytest.fixture(scope="session")
def saved(vocabulary: Vocabulary, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    vocabulary.save(folder, model_max_length=114)
    return folder


def test_auto_tokenizer_opens_a_saved_vocabulary(vocabulary: Vocabulary, saved: Path) -> None:
    from transformers import AutoTokenizer

    auto = AutoTokenizer.from_pretrained(saved)
    assert (
        json.loads((saved / "tokenizer_config.json").read_text())["tokenizer_class"]
        == "PreTrainedTokenizerFast"
    )
    assert (auto.pad_token_id, auto.eos_token_id, auto.unk_token_id) == (0, 1, 2)
    assert auto.model_max_length == 114
    assert len(auto) == vocabulary.size
    assert auto.convert_tokens_to_ids(auto.extra_special_tokens) == vocabulary.sentinel_ids.tolist()


def test_auto_tokenizer_gives_our_ids_on_a_thousand_lines(vocabulary: Vocabulary, saved: Path) -> None:
    from transformers import AutoTokenizer

    files = find_files(["bundled:norwegian/ordbok*", "bundled:norwegian/debian*valid*"], "corpus.train")
    documents = read_documents(CorpusSettings(document="line"), files)
    lines = [document.text for document in documents][::40][:1_000]
    assert len(lines) == 1_000
    ours = [[*ids, vocabulary.eos_id] for ids in vocabulary.encode_batch(lines)]
    assert AutoTokenizer.from_pretrained(saved)(lines).input_ids == ours


def test_the_bundled_vocabulary_is_the_same_after_saving(t5: Vocabulary, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    t5.save(tmp_path)
    text = ["The bad dog ruined my sleep", "  two  spaces\tand café ", "Hov <extra_id_0>"]
    auto = AutoTokenizer.from_pretrained(tmp_path)
    assert auto(text[:2]).input_ids == [[*ids, 1] for ids in t5.encode_batch(text[:2])]
    assert auto(text[2]).input_ids == [*t5.encode_with_sentinels(text[2]), 1]
    assert Vocabulary.load(tmp_path).sentinel_ids.tolist() == t5.sentinel_ids.tolist()


@given(
    parts=st.lists(
        st.one_of(st.sampled_from(["<extra_id_0>", "<extra_id_42>", " ", "\n"]), st.text(max_size=4))
    )
)
@example(parts=["rød", "<extra_id_0>", "grønn"])
@example(parts=["\x1c", "<extra_id_0>", "\x1c a"])
@example(parts=["<extra_id_0>", " ", "<extra_id_42>", " "])
def test_auto_tokenizer_encodes_text_with_sentinels_as_ours(vocabulary: Vocabulary, parts: list[str]) -> None:
    text = "".join(parts)
    if any(word in normalizer().normalize_str(text) for word in ("<pad>", "</s>", "<unk>")):
        return
    plain = Tokenizer.from_str(vocabulary._json)
    assert vocabulary.encode_with_sentinels(text) == plain.encode(text, add_special_tokens=False).ids


def test_load_reads_a_folder_or_a_file(saved: Path, vocabulary: Vocabulary, tmp_path: Path) -> None:
    squeezed = tmp_path / "tokenizer.json.xz"
    squeezed.write_bytes(lzma.compress((saved / "tokenizer.json").read_bytes()))
    for path in (saved, saved / "tokenizer.json", squeezed, str(saved)):
        assert Vocabulary.load(path).encode("alle mennesker") == vocabulary.encode("alle mennesker")


def without(tree: dict[str, Any], piece: str) -> dict[str, Any]:
    tree["model"]["vocab"] = [[p if p != piece else "-", score] for p, score in tree["model"]["vocab"]]
    return tree


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no tokenizer here; expected a folder with a tokenizer.json"),
        ("{", "not a tokenizer.json"),
        ("[]", "not a tokenizer.json"),
        ("{}", "not a tokenizer.json"),
        (small([]), "no sentinels; expected pieces <extra_id_0>"),
        (small(["<extra_id_0>", "<extra_id_2>"]), "<extra_id_1> is missing"),
        (small(["<extra_id_1>"]), "<extra_id_0> is missing"),
        (without(small(["<extra_id_0>"]), "</s>"), "no </s>"),
        (without(small(["<extra_id_0>"]), "<pad>"), "no <pad>"),
        (small(["<extra_id_0>"], unk_id=None), "no unknown piece"),
        (small(["<extra_id_0>"], unk_id=7), "<extra_id_0> is missing"),
        (small(["<extra_id_0>"], type="BPE"), "type BPE; expected Unigram"),
        (small(["<extra_id_0>"]) | {"pre_tokenizer": None}, "no Metaspace"),
        (small(["<extra_id_0>"]) | {"decoder": {"type": "Nonesuch"}}, "not a usable tokenizer.json"),
    ],
)
def test_unusable_tokenizers_are_rejected(tmp_path: Path, content: Any, message: str) -> None:
    file = tmp_path / "tokenizer.json"
    if content is not None:
        file.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(T5smithError, match=re.escape(message)) as caught:
        Vocabulary.load(tmp_path)
    assert str(caught.value).startswith(str(file))


def test_damaged_files_are_rejected(tmp_path: Path) -> None:
    cut = tmp_path / "tokenizer.json.xz"
    cut.write_bytes(BUNDLED.read_bytes()[:1000])
    latin = tmp_path / "latin.json"
    latin.write_bytes("bokmål".encode("latin-1"))
    for path in (cut, latin):
        with pytest.raises(T5smithError, match="damaged file"):
            Vocabulary.load(path)
