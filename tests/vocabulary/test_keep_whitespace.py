"""`vocab.keep_whitespace`: text comes back as it was, and every reader gives the same ids."""

from __future__ import annotations

import json
import random
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer, normalizers

from budget import examples
from t5smith.base.errors import T5smithError
from t5smith.recipe.vocab import VocabSettings
from t5smith.vocabulary import unigram, word_cache
from t5smith.vocabulary.normalizers import normalizer
from t5smith.vocabulary.train import build
from t5smith.vocabulary.unigram import train_pieces
from t5smith.vocabulary.vocabulary import Vocabulary
from t5smith.vocabulary.white_space import MARKS

OTHER = Path(__file__).parents[2] / ".venv4" / "bin" / "python"
PROGRAM = """
import json, sys
from transformers import AutoTokenizer, __version__
assert __version__.startswith("4.57"), __version__
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
for line in sys.stdin:
    ids = tokenizer(json.loads(line), add_special_tokens=False).input_ids
    print(json.dumps([ids, tokenizer.decode(ids)]))
"""
U2 = np.dtype("<u2")
CASES: dict[str, dict[str, Any]] = {
    "default": {},
    "bytes": {"byte_fallback": True, "size": 900},
    "none": {"normalization": "none"},
    "nfc, lowercase, digits": {"normalization": "nfc", "lowercase": True, "split_digits": True},
    "symbols": {"user_symbols": ("@", "<br>", "```"), "control_symbols": ("[R]",)},
    "unknown words": {"unknown_words": ("<unk>", "[UNK]"), "user_symbols": ("[",)},
}
WHITE = " \t\n\r\v\f\x1c\x1f\x85\xa0\u1680\u2003\u2028\u2029\u202f\u3000\u200b\ufeff▁"
PARTS = (*WHITE, *"  \n\tabEΩé\u0301¨´ﹰﷺ½1٣", "e\u0301")
CONTROL = ("<unk>", "</s>", "<pad>", "<extra_id_0>", "[R]")
WORDS = (*CONTROL, "det", "er", "@", "<br>", "```", "[UNK]", "＜unk＞", "<0x0A>", "\r\n")
characters = st.sampled_from((*PARTS, *WORDS)) | st.characters(exclude_categories=["Cs"])
texts = st.lists(characters, max_size=30).map("".join)
TEXTS = [
    "",
    "\n",
    " ",
    "  ",
    "\t\t\n",
    "Ja, vi elsker dette landet,\nsom det stiger frem,\n\nfuret,  værbitt over vannet\n",
    "def f(x):\n    if x:\n\t\treturn  x  # nå\n\n\n    return None\r\n",
    "<user>\thei\n<br>@ ja@\n@nei\n",
    " først\n \n  og sist ",
    "a ¨b  ¨\n¨ c\u3000´d",
    "x <unk>  <unk>\n<unk>y [UNK]\n",
    "".join(f"{' ' * n}x{chr(10) * n}{chr(9) * n}" for n in range(40)),
]


def material(declaration: list[str]) -> list[str]:
    """Verse and code: lines of several words, some indented, with blank lines between them."""
    draw = random.Random(0)
    made: list[str] = []
    for text in declaration:
        words = text.split()
        lines = [" ".join(words[i : i + 6]) for i in range(0, len(words), 6)]
        indented = (draw.choice(("", "", "    ", "        ", "\t", "\t\t")) + line for line in lines)
        made.append("".join(line + draw.choice(("\n", "\n", "\n\n", "\n\n\n")) for line in indented))
    return made


def trained(text: list[str], **changes: Any) -> Vocabulary:
    asked = VocabSettings(**{"size": 500, "keep_whitespace": True, **changes})
    return Vocabulary(build(train_pieces(text, asked), asked.control_symbols, asked).to_str())


@pytest.fixture(scope="module")
def text(declaration: list[str]) -> list[str]:
    return material(declaration)


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, text: list[str]) -> tuple[Vocabulary, VocabSettings]:
    changes = CASES[request.param]
    return trained(text, **changes), VocabSettings(keep_whitespace=True, **changes)


def stated(text: str, asked: VocabSettings) -> str:
    """The normalization that docs/corpora.md states."""
    if asked.unknown_words:
        text = text.replace("[UNK]", "<unk>")
    form = {"nfkc": normalizers.NFKC(), "nfc": normalizers.NFC()}.get(asked.normalization)
    text = form.normalize_str(text) if form else text
    text = normalizers.Lowercase().normalize_str(text) if asked.lowercase else text
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = "".join(" " if is_other_space(character) else character for character in text)
    return text.removesuffix(" ")


def is_other_space(character: str) -> bool:
    """White space of Unicode (not the separators that only Python counts) but new line and tab, or `▁`."""
    return character == "▁" or (character.isspace() and character not in "\n\t\x1c\x1d\x1e\x1f")


@examples(300)
@given(line=texts)
@example(line=TEXTS[-1])
@example(line=TEXTS[-2])
def test_decoding_returns_the_text(case: tuple[Vocabulary, VocabSettings], line: str) -> None:
    vocabulary, asked = case
    assert normalizer(asked).normalize_str(line) == stated(line, asked)
    ids = vocabulary.encode(line)
    if vocabulary.unk_id in ids:
        assert not asked.byte_fallback
    else:
        assert vocabulary.decode(ids) == stated(line, asked)


@examples(300)
@given(line=texts)
def test_the_cache_and_the_file_give_the_same_ids(case: tuple[Vocabulary, VocabSettings], line: str) -> None:
    vocabulary, _ = case
    ids = vocabulary.encode(line)
    words = vocabulary.bulk_encoder(U2)
    assert words.caches_words
    for _ in "not cached", "cached":
        assert np.frombuffer(words.encode(line), U2).tolist() == ids
    if not any(name in normalizers.NFKC().normalize_str(line) for name in CONTROL):
        saved = Tokenizer.from_str(vocabulary._json)
        assert saved.encode(line, add_special_tokens=False).ids == ids
        assert vocabulary.unk_id in ids or saved.decode(ids) == vocabulary.decode(ids)


def test_long_texts_are_encoded_in_parts(
    case: tuple[Vocabulary, VocabSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    vocabulary, _ = case
    draw = random.Random(1)
    long = ["".join(draw.choices((*PARTS, *WORDS), k=400)) for _ in range(30)] + TEXTS
    expected = list(map(vocabulary.encode, long))
    monkeypatch.setattr(word_cache, "MAX_PART", 16)
    words = vocabulary.bulk_encoder(U2)
    for line, ids in zip(long, expected, strict=True):
        assert np.frombuffer(words.encode(line), U2).tolist() == ids, line
    assert words.cut == 0


def test_every_character_is_encoded_as_in_the_library(text: list[str]) -> None:
    """Characters that NFKC begins with a space are those that are listed, whatever the libraries' Unicode."""
    form = normalizers.NFKC()
    found = {
        character
        for character in map(chr, (*range(0xD800), *range(0xE000, 0x110000)))
        if not character.isspace() and form.normalize_str(character)[:1].isspace()
    }
    listed = re.compile(f"[{MARKS}]")
    assert len(found) >= 50
    assert all(listed.match(character) for character in found)
    assert not any(form.normalize_str(character)[-1:].isspace() for character in found)


def pieces_of(vocabulary: Vocabulary) -> set[str]:
    return {piece for piece in vocabulary.all_pieces if piece and not piece.strip("▁\n\t")}


def test_the_trainer_learns_indentation_and_blank_lines(text: list[str]) -> None:
    found = pieces_of(trained(text))
    # `    ord` is three spaces and a word with its space.
    assert found == {"▁", "\n", "\t", "▁" * 3, "▁" * 7, "\t\t", "\n\n", "\n\n\n"}
    assert pieces_of(trained([line.replace("\t", " ") for line in text])) > {"\t"}
    assert pieces_of(trained(text, max_piece_length=2)) == {"▁", "\n", "\t", "\t\t", "\n\n"}
    rare = [*(line.replace("\t", " ") for line in text), "\t\tdet", "\t\tder"]
    assert "\t\t" in pieces_of(trained(rare, character_coverage=0.9))
    assert len(pieces_of(trained(text, size=150))) == 3 + 150 // 50


def test_long_text_gives_the_same_runs(text: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = trained(text)
    monkeypatch.setattr(unigram, "MAX_TRAINING_CHARACTERS", int(0.8 * sum(map(len, text))))
    sampled = trained(text)
    assert pieces_of(sampled) == pieces_of(whole)
    assert len(set(sampled.all_pieces) & set(whole.all_pieces)) > 0.6 * whole.size
    assert sampled.all_pieces == trained(text).all_pieces


def test_text_takes_as_few_runs_as_possible(text: list[str]) -> None:
    vocabulary = trained(text)
    assert vocabulary.pieces(vocabulary.encode("det\n\n\n        det\n   \n")) == [
        *vocabulary.pieces(vocabulary.encode("det")),
        "\n\n\n",
        "▁" * 7,
        *vocabulary.pieces(vocabulary.encode(" det")),
        "\n",
        "▁" * 3,
        "\n",
    ]
    assert vocabulary.readable_pieces(vocabulary.encode("\n\n\t")) == [r"\n\n", r"\t"]
    assert vocabulary.piece_bytes[vocabulary.encode("\n\n\t    t")].sum() == 8


@pytest.fixture(scope="module")
def marked() -> list[str]:
    return [
        "a\n<extra_id_0>\nb<extra_id_1>",
        "\n\n<extra_id_0> b\t<extra_id_1>\tc",
        "def f():\n    <extra_id_0> x\n  \n<extra_id_1>",
        "<extra_id_0>\n<extra_id_1> <extra_id_2>  <extra_id_3>",
        "rød <extra_id_0>grønn <extra_id_1> blå",
    ]


def saved(vocabulary: Vocabulary, folder: Path) -> Path:
    vocabulary.save(folder)
    return folder


def test_transformers_5_gives_the_same_ids_and_text(
    case: tuple[Vocabulary, VocabSettings], tmp_path: Path, marked: list[str]
) -> None:
    from transformers import AutoTokenizer

    vocabulary, _ = case
    tokenizer = AutoTokenizer.from_pretrained(saved(vocabulary, tmp_path))
    draw = random.Random(2)
    made = ["".join(draw.choices((*PARTS, "det", "@", "<br>", "[UNK]", "\r\n"), k=20)) for _ in range(200)]
    for line in [*TEXTS, *made]:
        if "<unk>" in line and not vocabulary.unknown_words:
            continue
        ids = vocabulary.encode(line)
        assert tokenizer(line, add_special_tokens=False).input_ids == ids
        assert vocabulary.unk_id in ids or tokenizer.decode(ids) == vocabulary.decode(ids)
    for line in marked:
        ids = vocabulary.encode_with_sentinels(line)
        assert tokenizer(line).input_ids == [*ids, vocabulary.eos_id]
    again = Vocabulary.load(tmp_path)
    assert again.keeps_whitespace
    assert [again.encode(line) for line in TEXTS] == [vocabulary.encode(line) for line in TEXTS]


@pytest.mark.slow
@pytest.mark.skipif(not OTHER.exists(), reason="make test-all makes the environment with transformers 4.57")
def test_transformers_4_gives_the_same_ids_and_text(
    case: tuple[Vocabulary, VocabSettings], tmp_path: Path, marked: list[str]
) -> None:
    vocabulary, _ = case
    lines = [line for line in TEXTS if vocabulary.unknown_words or "<unk>" not in line]
    done = subprocess.run(
        [OTHER, "-c", PROGRAM, saved(vocabulary, tmp_path)],
        input="".join(json.dumps(line) + "\n" for line in [*lines, *marked]),
        capture_output=True,
        text=True,
        check=True,
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    for line, (ids, decoded) in zip([*lines, *marked], found, strict=True):
        assert ids == vocabulary.encode_with_sentinels(line)
        if line in lines and vocabulary.unk_id not in ids:
            assert decoded == vocabulary.decode(ids)


@examples(200)
@given(data=st.data())
def test_any_ids_of_text_and_sentinels_can_be_typed(
    case: tuple[Vocabulary, VocabSettings], data: st.DataObject
) -> None:
    vocabulary, _ = case
    draw = data.draw
    parts = draw(st.lists(texts.map(lambda text: re.sub("<[^ ]*>|\\[", "", text)), min_size=1, max_size=5))
    ids: list[int] = []
    for number, part in enumerate(parts):
        ids += [int(vocabulary.sentinel_ids[number]), *vocabulary.encode(part)]
    ids = ids[draw(st.booleans()) :]
    typed = vocabulary.decode(ids)
    if vocabulary.unk_id not in ids and not typed.endswith(" "):
        assert vocabulary.encode_with_sentinels(typed) == ids


def test_one_space_is_dropped_before_a_sentinel_and_no_new_line(text: list[str]) -> None:
    vocabulary = trained(text)
    first = int(vocabulary.sentinel_ids[0])
    for typed, meant in (
        ("det <extra_id_0>", "det"),
        ("det  <extra_id_0>", "det "),
        ("det\n<extra_id_0>", "det\n"),
        ("det\n <extra_id_0>", "det\n"),
        ("det\n    <extra_id_0>", "det\n   "),
    ):
        before = vocabulary.encode(f"{meant} ")  # whose last space is dropped
        assert vocabulary.encode_with_sentinels(f"{typed}det") == [*before, first, *vocabulary.encode("det")]
        assert vocabulary.encode_with_sentinels(f"{typed}\n det") == [
            *before,
            first,
            *vocabulary.encode("\n det"),
        ]


def test_sentinels_are_written_as_they_are_typed(text: list[str]) -> None:
    vocabulary = trained(text)
    for typed in ("<extra_id_0> det\n<extra_id_1>\t<extra_id_2>", "det <extra_id_0>\n\n<extra_id_1>er"):
        assert vocabulary.decode(vocabulary.encode_with_sentinels(typed)) == typed


def test_symbols_are_pieces_beside_new_lines(text: list[str]) -> None:
    vocabulary = trained(text, **CASES["symbols"])
    for before in ("", "\n", "\t", "det", "\n\n"):
        for after in ("", "\n", "\t", "det", "\n    det"):
            pieces = vocabulary.pieces(vocabulary.encode(f"{before}@{after}"))
            assert "@" in pieces
            assert "".join(pieces).replace("▁", " ") == f"{before}@{after}"
    assert not [piece for piece in vocabulary.all_pieces if "@" in piece[1:] or "```" in piece[:-3]]


def test_the_default_is_as_before() -> None:
    assert "keep_whitespace" not in VocabSettings().inputs()
    assert VocabSettings(keep_whitespace=True).inputs()["keep_whitespace"] is True
    with pytest.raises(T5smithError, match="nmt_nfkc cannot be used with keep_whitespace"):
        VocabSettings(keep_whitespace=True, normalization="nmt_nfkc")
