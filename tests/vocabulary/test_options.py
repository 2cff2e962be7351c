"""The options of `[vocab]`, each by its effect."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from t5smith.base.artifact import read_manifest
from t5smith.base.errors import T5smithError
from t5smith.recipe.recipe import Recipe
from t5smith.recipe.vocab import VocabSettings
from t5smith.text.corpus import CorpusFiles
from t5smith.vocabulary.normalizers import normalizer
from t5smith.vocabulary.train import build, vocab
from t5smith.vocabulary.unigram import train_pieces
from t5smith.vocabulary.vocabulary import Vocabulary

NASTY = "aAbBcC \n\u00a0éÉﬁ½²0123456789<x>▁☃ø\u0301각가ß\0"
anything = st.text(st.one_of(st.sampled_from(NASTY), st.characters(exclude_categories=["Cs"])), max_size=30)


def trained(text: list[str], **changes: object) -> Vocabulary:
    asked = VocabSettings.model_validate({"size": 400} | changes)
    return Vocabulary(build(train_pieces(text, asked), (), asked).to_str())


@pytest.fixture(scope="module")
def text(declaration: list[str]) -> list[str]:
    return [*declaration, "I 1948 og 2020, <br> 12 % av ½ ﬁ É\u0301 Å", "Dette ER STORT"]


ALL = {
    "nmt_nfkc": {"normalization": "nmt_nfkc"},
    "nfc": {"normalization": "nfc"},
    "none": {"normalization": "none"},
    "lowercase": {"lowercase": True},
    "split_digits": {"split_digits": True},
    "byte_fallback": {"size": 600, "byte_fallback": True},
    "user_symbols": {"user_symbols": ("<br>", "☃")},
    "coverage": {"character_coverage": 0.98},
    "everything": {
        "size": 700,
        "normalization": "nmt_nfkc",
        "lowercase": True,
        "split_digits": True,
        "byte_fallback": True,
        "user_symbols": ("<br>",),
        "character_coverage": 0.99,
    },
}


@pytest.fixture(scope="module", params=ALL)
def chosen(request: pytest.FixtureRequest, text: list[str]) -> tuple[Vocabulary, VocabSettings]:
    asked = {"size": 400} | ALL[request.param]
    return trained(text, **asked), VocabSettings.model_validate(asked)


@settings(max_examples=150)
@given(line=anything)
def test_the_word_cache_gives_the_ids_of_the_library(
    chosen: tuple[Vocabulary, VocabSettings], line: str
) -> None:
    vocabulary, _ = chosen
    words = vocabulary.bulk_encoder(np.dtype("<u2"))
    assert words.caches_words
    assert np.frombuffer(words.encode(line), "<u2").tolist() == vocabulary.encode(line)


@settings(max_examples=150)
@given(line=anything)
def test_decode_returns_the_normalized_text(chosen: tuple[Vocabulary, VocabSettings], line: str) -> None:
    vocabulary, asked = chosen
    ids = vocabulary.encode(line)
    if vocabulary.unk_id in ids:
        assert not asked.byte_fallback
        return
    if any(symbol in line for symbol in asked.user_symbols):
        return  # which stand apart from the text around them
    assert vocabulary.decode(ids) == normalizer(asked).normalize_str(line).removeprefix(" ")


def test_the_saved_tokenizer_gives_the_same_ids(
    chosen: tuple[Vocabulary, VocabSettings], tmp_path: Path, text: list[str]
) -> None:
    vocabulary, _ = chosen
    vocabulary.save(tmp_path)
    again = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for line in (*text[:40], "ÆØÅ 123 <br>☃ ½", "det<br>er"):
        assert again.encode(line, add_special_tokens=False).ids == vocabulary.encode(line)
        assert Vocabulary.load(tmp_path).encode(line) == vocabulary.encode(line)
    assert (vocabulary.size, len(vocabulary.sentinel_ids)) == (Vocabulary.load(tmp_path).size, 100)


PARTS = "aeEcнか각ᄀ\u0301\u0308\u030a\u0327\u3099\u1161\u11a8½ﬁ \u200d"


@settings(max_examples=150)
@given(line=st.text(st.sampled_from(PARTS), max_size=20))
def test_decomposed_letters_have_the_ids_of_the_saved_tokenizer(
    chosen: tuple[Vocabulary, VocabSettings], line: str
) -> None:
    vocabulary, _ = chosen
    saved = Tokenizer.from_str(vocabulary._json)
    assert saved.encode(line, add_special_tokens=False).ids == vocabulary.encode(line)


def test_nmt_nfkc_normalizes_as_t5_does(text: list[str], t5: Vocabulary) -> None:
    ours = trained(text, normalization="nmt_nfkc")
    for line in ("a\u200bb ﬁ ½ \u00a0x", "１２３ ｶﾞ", "tab\there"):
        expected = t5.decode(t5.encode(line))
        if t5.unk_id not in t5.encode(line) and ours.unk_id not in ours.encode(line):
            assert ours.decode(ours.encode(line)) == expected


def test_lowercase(text: list[str]) -> None:
    vocabulary = trained(text, lowercase=True)
    assert vocabulary.encode("DETTE er Stort") == vocabulary.encode("dette er stort")
    assert not any(piece != piece.lower() for piece in vocabulary.pieces(np.flatnonzero(vocabulary.is_text)))


def test_split_digits_makes_each_digit_a_piece(text: list[str]) -> None:
    vocabulary = trained(text, split_digits=True)
    pieces = vocabulary.pieces(np.flatnonzero(vocabulary.is_text))
    assert not any(len(piece) > 1 and any(c.isdigit() for c in piece) for piece in pieces)
    assert vocabulary.pieces(vocabulary.encode("i 1948"))[-5:] == ["▁", "1", "9", "4", "8"]
    assert vocabulary.decode(vocabulary.encode("i 1948")) == "i 1948"


def test_byte_fallback_encodes_unknown_characters_as_bytes(text: list[str]) -> None:
    vocabulary = trained(text, size=600, byte_fallback=True)
    ids = vocabulary.encode("☃ i 雪")
    assert vocabulary.unk_id not in ids
    assert vocabulary.pieces(ids)[:4] == ["▁", "<0xE2>", "<0x98>", "<0x83>"]
    assert vocabulary.decode(ids) == "☃ i 雪"
    assert vocabulary.decode(ids[:2]) == "\ufffd"
    assert int(vocabulary.piece_bytes[ids].sum()) == len(" ☃ i 雪".encode())
    # The name of a byte typed in a text is text.
    named = vocabulary.encode("<0x41>")
    assert vocabulary.decode(named) == "<0x41>"
    assert "<0x41>" not in vocabulary.pieces(named)


def test_a_user_symbol_is_one_piece_anywhere_in_a_text(text: list[str]) -> None:
    vocabulary = trained(text, user_symbols=("<br>", "<b"))
    for line in ("det <br> er", "det<br>er", "<br>", "x<br><br>y"):
        assert vocabulary.pieces(vocabulary.encode(line)).count("<br>") == line.count("<br>")
    assert vocabulary.is_text[vocabulary.id_of("<br>")]
    assert not any("<br" in piece for piece in vocabulary.pieces(range(vocabulary.size)) if piece != "<br>")


def test_character_coverage_drops_rare_characters() -> None:
    lines = ["abab baba abba " * 40, "q"]
    assert trained(lines, size=20).id_of("q") is not None
    without = trained(lines, size=20, character_coverage=0.99)
    assert without.id_of("q") is None
    assert without.unk_id in without.encode("q")
    assert without.id_of("a") is not None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 200, "byte_fallback": True}, "vocab.size: 200 cannot be used; expected 264 or more"),
        (
            {"user_symbols": ("a b",)},
            "vocab.user_symbols: 'a b' cannot be used; expected text without spaces",
        ),
        ({"character_coverage": 0.5}, "vocab.character_coverage: 0.5 cannot be used"),
    ],
)
def test_impossible_options_are_rejected(changes: dict[str, object], message: str) -> None:
    with pytest.raises(T5smithError, match=message):
        VocabSettings.model_validate(changes)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("", "text without spaces"),
        ("[ R]", "text without spaces"),
        ("[R]\u3000", "text without spaces"),
        ("▁a", "text without spaces"),
        ("</s>", "a name other than </s>"),
        ("<pad>", "a name other than </s>"),
        ("<unk>", "a name other than </s>"),
        ("<extra_id_0>", "a name other than </s>"),
        ("<extra_id_150>", "a name other than </s>"),
        ("<0x41>", "a name other than that of a byte"),
        ("<0xe2>", "a name other than that of a byte"),
    ],
)
@pytest.mark.parametrize("setting", ["control_symbols", "user_symbols"])
def test_invalid_names_of_symbols_are_rejected(setting: str, name: str, expected: str) -> None:
    with pytest.raises(T5smithError) as caught:
        VocabSettings.model_validate({setting: ("[R]", name)})
    assert str(caught.value).startswith(f"vocab.{setting}: {name!r} cannot be used; expected {expected}")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"control_symbols": ("a",)},
            "vocab.control_symbols: 'a' cannot be used; expected more than one character, such as [R]",
        ),
        ({"control_symbols": ("☃",)}, "vocab.control_symbols: '☃' cannot be used"),
        (
            {"control_symbols": ("[R]", "[S]", "[R]")},
            "vocab.control_symbols: '[R]' is listed twice; expected each name once",
        ),
        ({"user_symbols": ("a", "a")}, "vocab.user_symbols: 'a' is listed twice; expected each name once"),
        (
            {"control_symbols": ("[R]", "[S]"), "user_symbols": ("<br>", "[S]")},
            "vocab.user_symbols: '[S]' is also in vocab.control_symbols",
        ),
        # Control symbols also apply to an imported tokenizer.
        ({"tokenizer": "bytes", "control_symbols": ("<0x41>",)}, "vocab.control_symbols: '<0x41>' cannot"),
        ({"tokenizer": "a.model", "control_symbols": ("<extra_id_99>",)}, "vocab.control_symbols: '<extra"),
    ],
)
def test_symbols_that_clash_with_text_or_each_other_are_rejected(
    changes: dict[str, object], message: str
) -> None:
    with pytest.raises(T5smithError) as caught:
        VocabSettings.model_validate(changes)
    assert str(caught.value).startswith(message)


def test_ul2_mode_tokens_and_one_character_user_symbols_are_accepted() -> None:
    taken = VocabSettings(control_symbols=("[R]", "[S]", "[X]", "og"), user_symbols=("☃", "<br>", "<UNK>"))
    assert taken.control_symbols == ("[R]", "[S]", "[X]", "og")


def drawn(folder: Path, **changes: object) -> tuple[dict[str, int], int]:
    """Bytes of the sample from each of two corpora, told apart by their only words, and in total."""
    for name, word, count in (("x", "xxx ", 200_000), ("y", "yyy ", 20_000)):
        (folder / f"{name}.txt").write_text("\n".join(word * 20 for _ in range(count // 20)))
    from t5smith.base.progress import progress
    from t5smith.vocabulary.sample import TextSample

    recipe = Recipe.model_validate(
        {
            "run_dir": folder / "run",
            "corpus": {
                "train": (f"x={folder}/x.txt", f"y={folder}/y.txt"),
                "document": "line",
                "held_out_fraction": 0.001,
            },
            "vocab": {"size": 20, "sample_bytes": 8_000} | changes,
        }
    )
    with progress("vocab") as bar:
        chunks = TextSample(recipe, CorpusFiles.find(recipe.corpus), bar).chunks
    whole = "".join(chunks)
    return {name: 4 * whole.count(word) for name, word in (("x", "xxx"), ("y", "yyy"))}, len(whole)


def test_the_sample_respects_its_budget_seed_and_temperature(tmp_path: Path) -> None:
    plain, size = drawn(tmp_path)
    assert size <= 8_000
    assert 5 < plain["x"] / plain["y"] < 20
    assert drawn(tmp_path) == (plain, size)
    flat, _ = drawn(tmp_path, temperature=1000.0)
    assert 0.6 < flat["x"] / flat["y"] < 1.7
    between, _ = drawn(tmp_path, temperature=2.0)
    assert 2 < between["x"] / between["y"] < 5


def test_the_saved_vocabulary_applies_the_options(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n\n".join(f"Dag {i} er en ny dag ☃" for i in range(200)))
    recipe = Recipe.model_validate(
        {
            "run_dir": tmp_path / "run",
            "corpus": {"train": (str(tmp_path / "a.txt"),), "held_out_fraction": 0.1},
            "vocab": {"size": 320, "byte_fallback": True, "lowercase": True, "user_symbols": ("<br>",)},
        }
    )
    folder = vocab(recipe)
    facts = read_manifest(folder, "vocab").facts
    tree = json.loads((folder / "tokenizer.json").read_text())
    assert facts["pieces"] == facts["ids"] - 100 == len(tree["model"]["vocab"]) - 100
    assert facts["pieces"] <= 320
    assert tree["model"]["byte_fallback"] is True


def test_a_piece_with_the_name_of_a_symbol_is_counted_once(tmp_path: Path) -> None:
    recipe = Recipe.model_validate(
        {
            "run_dir": tmp_path,
            "corpus": {"train": ("bundled:norwegian/udhr-nob.txt.xz",), "document": "line"},
            "vocab": {"size": 300},
        }
    )
    plain = Vocabulary.load(vocab(recipe))
    name = next(piece for piece in plain.pieces(range(3, 300)) if len(piece) > 1 and "▁" not in piece)
    folder = vocab(recipe.replace(**{"vocab.control_symbols": ("[R]", name)}))
    facts = read_manifest(folder, "vocab").facts
    assert facts["control_symbols"] == 2
    assert facts["pieces"] == facts["ids"] - 102 == 299
    assert Vocabulary.load(folder).id_of(name) == 300
