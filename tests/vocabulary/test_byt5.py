"""The byte-level vocabulary gives ByT5's ids for any text, as does AutoTokenizer with the saved folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from t5smith.vocabulary.import_tokenizer import import_tokenizer
from t5smith.vocabulary.vocabulary import Vocabulary

anything = st.text(
    st.one_of(st.sampled_from(" \n\t▁é☃\0<0x41>"), st.characters(exclude_categories=["Cs"])), max_size=25
)


@pytest.fixture(scope="module")
def bytes_() -> Vocabulary:
    return import_tokenizer("bytes").vocabulary


@pytest.fixture(scope="module")
def saved(bytes_: Vocabulary, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bytes")
    bytes_.save(folder)
    return folder


@given(text=anything)
@example(text="")
@example(text="<0x41> </s> <pad><extra_id_3>")
@example(text="  a  ")
def test_a_text_is_encoded_as_its_bytes(bytes_: Vocabulary, saved: Path, text: str) -> None:
    expected = [byte + 3 for byte in text.encode()]
    assert bytes_.encode(text) == expected
    assert bytes_.encode_batch([text, "a"]) == [expected, [100]]
    assert bytes_.decode(expected) == text
    assert bytes_.is_text[expected].all()
    for kind in ("<u2", "<u4"):
        assert np.frombuffer(bytes_.bulk_encoder(np.dtype(kind)).encode(text), kind).tolist() == expected
    assert [encoding.ids for encoding in bytes_.encode_batch_with_library([text])] == [expected]
    assert Vocabulary.load(saved).encode(text) == expected
    assert int(bytes_.piece_bytes[expected].sum()) == len(text.encode())


@given(text=anything)
def test_the_saved_tokenizer_gives_the_same_ids(saved: Path, text: str) -> None:
    if any(word in text for word in ("</s>", "<pad>", "<unk>")):
        return
    tokenizer = Tokenizer.from_file(str(saved / "tokenizer.json"))
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert ids == [byte + 3 for byte in text.encode()]
    assert tokenizer.decode(ids) == text


def test_ids_equal_those_of_transformers(bytes_: Vocabulary, saved: Path) -> None:
    from transformers import AutoTokenizer, ByT5Tokenizer

    theirs, auto = ByT5Tokenizer(), AutoTokenizer.from_pretrained(saved)
    names = ["<pad>", "</s>", "<unk>", *(f"<extra_id_{i}>" for i in range(125))]
    assert [bytes_.id_of(name) for name in names] == theirs.convert_tokens_to_ids(names)
    assert auto.convert_tokens_to_ids(names) == theirs.convert_tokens_to_ids(names)
    assert bytes_.sentinel_ids.tolist() == list(range(259, 384))
    assert bytes_.size == len(auto) == 384
    for text in ("Blåbær  og\nfløte ", "rød<extra_id_0> og <extra_id_1>grønn<extra_id_124>", "▁x"):
        ids = theirs(text).input_ids
        assert auto(text).input_ids == ids == [*bytes_.encode_with_sentinels(text), 1]
        assert bytes_.decode(ids) == text
        assert auto.decode(ids, skip_special_tokens=True) == bytes_.decode(ids, keep_sentinels=False)


def test_an_incomplete_character_is_decoded_as_the_replacement_character(bytes_: Vocabulary) -> None:
    ids = bytes_.encode("aå b")
    assert bytes_.decode_each(ids) == ["a", "", "å", " ", "b"]
    assert bytes_.readable_pieces(ids) == ["a", "<0xC3>", "<0xA5>", "▁", "b"]
    assert bytes_.decode(ids[:2]) == "a\ufffd"
    assert bytes_.decode([*ids[:2], 259, *ids[2:]]) == "a\ufffd<extra_id_0>\ufffd b"


def test_inspect_extends_spans_to_whole_characters(bytes_: Vocabulary) -> None:
    from t5smith.inspection.text import inspect_text
    from t5smith.recipe.objective import ObjectiveSettings

    traces = inspect_text("Blåbær og", ObjectiveSettings(), bytes_, ("æ",))
    trace = traces[0]
    assert [token.piece for token in trace.tokens if token.span == 0] == ["<0xC3>", "<0xA6>"]
