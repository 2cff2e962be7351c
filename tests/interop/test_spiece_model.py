"""`spiece.model`: its readers give the ids of the `tokenizer.json` beside it, and that is read as before."""

from __future__ import annotations

import functools
import json
import random
import re
import shutil
import struct
import subprocess
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st
from sentencepiece import sentencepiece_model_pb2
from tokenizers import normalizers

from budget import ALL, examples
from t5smith.interop.spiece.charsmap import charsmap, entries
from t5smith.interop.spiece.double_array import serialized
from t5smith.interop.spiece.model_file import spiece_model, why_no_spiece, write_spiece
from t5smith.recipe.corpus import CorpusSettings
from t5smith.recipe.vocab import VocabSettings
from t5smith.text.corpus import find_files
from t5smith.text.documents import read_documents
from t5smith.vocabulary.import_tokenizer import import_tokenizer
from t5smith.vocabulary.normalizers import normalizer
from t5smith.vocabulary.sentencepiece_charsmap import character_map
from t5smith.vocabulary.train import build
from t5smith.vocabulary.unigram import train_pieces
from t5smith.vocabulary.vocabulary import Vocabulary

OTHER = Path(__file__).parents[2] / ".venv4" / "bin" / "python"
PROGRAM = """
import json, sys
from transformers import AutoTokenizer, T5Tokenizer, __version__
assert __version__.startswith("4.57"), __version__
slow, auto = T5Tokenizer.from_pretrained(sys.argv[1]), AutoTokenizer.from_pretrained(sys.argv[1])
assert not slow.is_fast and auto.is_fast
for line in sys.stdin:
    text = json.loads(line)
    print(json.dumps([one(text).input_ids for one in (slow, auto)]))
"""
CASES: dict[str, dict[str, Any]] = {
    "default": {},
    "bytes": {"byte_fallback": True},
    "symbols": {"user_symbols": ("@", "<br>", "er"), "control_symbols": ("[R]",), "split_digits": True},
    "nmt_nfkc": {"normalization": "nmt_nfkc"},
    "nfc, lowercase": {"normalization": "nfc", "lowercase": True},
    "none": {"normalization": "none"},
}
FORMS = [
    ("nfkc", False),
    ("none", True),
    *(pytest.param(one, marks=pytest.mark.slow) for one in (("nfkc", True), ("nfc", False))),
]
ODD = [
    "\tog\u00a0hardt\u3000bredt \v\u2028\u0085",
    "½ ² ﬁ Å Ǻ ① ™ … ㌕ ｶﾞ ﾊﾟ",
    unicodedata.normalize("NFD", "Blåbærsyltetøy, één Việt Nam: ặ ế ự"),
    unicodedata.normalize("NFD", "한국어 문장"),
    "ㅎㅏㄴ ﷺ بِسْمِ ٱللَّٰهِ שָׁלוֹם",
    "İstanbul ΣΑΣ ẞ Ǆ",
    "▁ tegnet ▁for▁mellomrom ▁",
    "@ <br>@ a@b 12 345 ٣",
    "你好，世界。 😀 👩‍👩‍👧",
    "\x1c\x1d\x7f\u200b\u00ad\ufeff",
    "<s> <0x41> [R] <mask>",
]


@pytest.fixture(scope="module")
def lines() -> list[str]:
    """Ten thousand lines, or a twentieth, some of them with something odd in their middle."""
    corpus = CorpusSettings(document="line")
    real = [d.text for d in read_documents(corpus, find_files(["bundled:norwegian/ordbok*"], "f"))]
    draw = random.Random(0)
    made: list[str] = []
    for text in draw.sample(real, (10_000 if ALL else 500) - len(ODD)):
        middle = draw.randrange(len(text) + 1)
        made.append(text[:middle] + draw.choice(ODD) + text[middle:] if draw.random() < 0.2 else text)
    return [*made, *ODD]


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, lines: list[str]) -> Vocabulary:
    asked = VocabSettings(size=1_200, **CASES[request.param])
    return Vocabulary(build(train_pieces(lines[:500], asked), asked.control_symbols, asked).to_str())


@pytest.fixture(scope="module")
def folder(case: Vocabulary, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both files."""
    folder = tmp_path_factory.mktemp("tokenizer")
    case.save(folder)
    write_spiece(folder, case)
    return folder


@functools.cache
def tree_of(vocabulary: Vocabulary) -> dict[str, Any]:
    return vocabulary.tree()


def assert_same(vocabulary: Vocabulary, line: str, ids: list[int]) -> None:
    """SentencePiece chose these ids, or others of an equal score: `s` `es` instead of `es` `s`.

    Where each digit is a piece of its own, several unknown ones are one `<unk>` to SentencePiece.
    """
    ours = vocabulary.encode_with_sentinels(line)
    cut = str(tree_of(vocabulary)["pre_tokenizer"])
    if "Digits" in cut or "p{N}" in cut:
        unknown = vocabulary.unk_id
        ours = [one for i, one in enumerate(ours) if one != unknown or not i or ours[i - 1] != unknown]
    if ids != ours:
        scores = [score for _, score in tree_of(vocabulary)["model"]["vocab"]]
        assert vocabulary.decode(ids) == vocabulary.decode(ours), line
        assert sum(scores[number] for number in ids) == pytest.approx(sum(scores[n] for n in ours)), line


def test_sentencepiece_gives_the_same_ids(case: Vocabulary, folder: Path, lines: list[str]) -> None:
    processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spiece.model"))
    assert processor.vocab_size() == case.size - 100
    for line, ids in zip(lines, processor.encode(lines), strict=True):
        assert_same(case, line, ids)
    for number, piece in enumerate(case.all_pieces[:-100]):
        assert processor.id_to_piece(number) == piece
    assert [processor.is_control(i) for i in range(3)] == [True, True, False]
    assert processor.is_unknown(2)
    assert (processor.pad_id(), processor.eos_id(), processor.unk_id(), processor.bos_id()) == (0, 1, 2, -1)
    for name in ("</s>", "<pad>", "[R]", "<0x41>"):
        assert processor.encode(f"a {name}b") == case.encode(f"a {name}b")


def test_what_llama_cpp_reads(case: Vocabulary, folder: Path) -> None:
    """The fields that its converter of T5 models asks for, in its words (convert_hf_to_gguf.py, T5Model)."""
    schema: Any = sentencepiece_model_pb2
    model = schema.ModelProto.FromString((folder / "spiece.model").read_bytes())
    assert model.trainer_spec.model_type == 1
    assert model.normalizer_spec.add_dummy_prefix
    assert model.normalizer_spec.remove_extra_whitespaces
    size = struct.unpack("<I", model.normalizer_spec.precompiled_charsmap[:4])[0]
    assert size % 1024 == 0
    added = json.loads((folder / "added_tokens.json").read_text(encoding="utf-8"))
    assert added == {f"<extra_id_{i}>": case.size - 1 - i for i in range(100)}
    assert list(added.values()) == sorted(added.values())


def test_the_model_is_imported_with_the_same_ids(
    case: Vocabulary, folder: Path, lines: list[str], tmp_path: Path
) -> None:
    shutil.copy(folder / "spiece.model", tmp_path)
    again = import_tokenizer(str(tmp_path)).vocabulary
    assert again.all_pieces == case.all_pieces
    for line, ids in zip(lines, again.encode_batch(lines), strict=True):
        assert_same(case, line, ids)
    assert spiece_model(again) == (folder / "spiece.model").read_bytes()


def test_transformers_5_reads_the_json_file_as_before(case: Vocabulary, folder: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    case.save(tmp_path)
    before, now = (AutoTokenizer.from_pretrained(one) for one in (tmp_path, folder))
    assert now.backend_tokenizer.to_str() == before.backend_tokenizer.to_str()
    assert type(now) is type(before)
    assert now.get_added_vocab() == before.get_added_vocab()
    assert now.all_special_tokens == before.all_special_tokens
    for line in (*ODD, "rød<extra_id_0> og <extra_id_1>grønn", "a <extra_id_99> </s>"):
        assert now(line).input_ids == before(line).input_ids


def test_t5tokenizer_of_transformers_5(
    case: Vocabulary, folder: Path, lines: list[str], tmp_path: Path
) -> None:
    """With both files it leaves out the normalization. From the model alone it gives the same ids.

    But it applies the map to clusters of fewer than six bytes, and knows neither bytes nor user symbols.
    """
    from transformers import T5Tokenizer

    tree = case.tree()
    shutil.copy(folder / "spiece.model", tmp_path)
    schema: Any = sentencepiece_model_pb2
    model = schema.ModelProto.FromString((folder / "spiece.model").read_bytes())
    table = model.normalizer_spec.precompiled_charsmap
    library, exact = normalizers.Precompiled(table).normalize_str, character_map(table)
    normal = Vocabulary.load(folder)._text.tokenizer.normalizer.normalize_str  # type: ignore[union-attr]
    unchanged = [line for line in lines if normal(line) == line and not re.search(r"\u2581|\[R\]", line)]
    both = T5Tokenizer.from_pretrained(folder)
    assert len(unchanged) > len(lines) / 10
    assert any(both(line, add_special_tokens=False).input_ids != case.encode(line) for line in ODD)
    if tree["model"]["byte_fallback"]:
        return
    for line, ids in zip(unchanged, both(unchanged, add_special_tokens=False).input_ids, strict=True):
        assert_same(case, line, ids)
    if case.id_of("<br>") is None:
        same = [line for line in lines if library(line) == exact(line) and "[R]" not in line]
        assert len(same) > 0.8 * len(lines)
        alone = T5Tokenizer.from_pretrained(tmp_path)
        for line, ids in zip(same, alone(same, add_special_tokens=False).input_ids, strict=True):
            assert_same(case, line, ids)


@pytest.mark.slow
@pytest.mark.skipif(not OTHER.exists(), reason="make test-all makes the environment with transformers 4.57")
def test_transformers_4(case: Vocabulary, folder: Path, lines: list[str]) -> None:
    marked = ["rød <extra_id_0> og <extra_id_1> grønn", "<extra_id_0> a"]
    # What the slow tokenizer reads as control pieces is text to ours.
    texts = [line for line in lines if not any(name in line for name in ("[R]", "<unk>"))]
    done = subprocess.run(
        [OTHER, "-c", PROGRAM, folder],
        input="".join(json.dumps(line) + "\n" for line in [*texts, *marked]),
        capture_output=True,
        text=True,
        check=True,
    )
    for line, (slow, auto) in zip([*texts, *marked], map(json.loads, done.stdout.splitlines()), strict=True):
        assert auto == [*case.encode_with_sentinels(line), case.eos_id]
        assert_same(case, line, slow[:-1])


def other(name: str, **changes: Any) -> Vocabulary:
    asked = VocabSettings(size=300, **changes)
    return Vocabulary(build(train_pieces([name * 3] * 2, asked), (), asked).to_str())


def test_a_vocabulary_that_no_model_can_express_has_none(tmp_path: Path) -> None:
    made = {
        "it keeps white space": other("a b\n", keep_whitespace=True),
        "it makes words of the text unknown": other("a b ", unknown_words=("[UNK]",)),
        "its tokens are bytes": import_tokenizer("bytes").vocabulary,
    }
    tree = other("a b ").tree()
    changed = json.loads(json.dumps(tree))
    changed["normalizer"]["normalizers"].append(
        {"type": "Replace", "pattern": {"String": "a"}, "content": "b"}
    )
    made["its normalizer is not known"] = Vocabulary(json.dumps(changed))
    changed = json.loads(json.dumps(tree))
    changed["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [tree["pre_tokenizer"], {"type": "Digits", "individual_digits": True}],
    }
    changed["model"]["vocab"][3][0] = "12"
    made["it makes each digit a piece of its own, but has pieces with several"] = Vocabulary(
        json.dumps(changed)
    )
    changed = json.loads(json.dumps(tree))
    changed["model"]["vocab"][3][0] = "a▁a"
    made["it has pieces with a space in them, which no text is encoded as"] = Vocabulary(json.dumps(changed))
    changed = json.loads(json.dumps(tree))
    changed["pre_tokenizer"]["prepend_scheme"] = "never"
    made["it puts no space before a text"] = Vocabulary(json.dumps(changed))
    for why, vocabulary in made.items():
        assert why_no_spiece(vocabulary) == why
        write_spiece(tmp_path, vocabulary)
    assert not list(tmp_path.iterdir())


def test_t5s_own_vocabulary_has_its_own_map(lines: list[str], tmp_path: Path) -> None:
    t5 = Vocabulary.bundled()
    processor = sentencepiece.SentencePieceProcessor(model_proto=spiece_model(t5))
    for line in lines:
        if "\v" not in line:  # which is white space only to T5's tokenizer.json
            assert_same(t5, line, processor.encode(line))


def test_another_number_of_sentinels_is_named(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tree = other("a b ").tree()
    tree["model"]["vocab"] = [
        one for one in tree["model"]["vocab"] if "_9" not in one[0] or one[0] == "<extra_id_9>"
    ]
    tree["added_tokens"] = [one for one in tree["added_tokens"] if one["id"] < len(tree["model"]["vocab"])]
    for token in tree["added_tokens"]:
        token["content"] = tree["model"]["vocab"][token["id"]][0]
    vocabulary = Vocabulary(json.dumps(tree))
    assert len(vocabulary.sentinel_ids) == 90
    vocabulary.save(tmp_path)
    write_spiece(tmp_path, vocabulary)
    assert json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))["extra_ids"] == 90
    assert AutoTokenizer.from_pretrained(tmp_path)("a<extra_id_89>").input_ids[-2] == vocabulary.size - 90


def walk(data: bytes) -> dict[str, str]:
    """All entries of a character map, read by the definition of Darts-clone's units."""
    size = struct.unpack("<I", data[:4])[0]
    units, texts = np.frombuffer(data[4 : 4 + size], "<u4").tolist(), data[4 + size :]
    found: dict[str, str] = {}
    waiting = [(b"", (units[0] >> 10) << ((units[0] & 512) >> 6))]
    while waiting:
        key, position = waiting.pop()
        for label in range(1, 256):
            child = position ^ label
            if child < len(units) and units[child] & (1 << 31 | 255) == label:
                base = child ^ ((units[child] >> 10) << ((units[child] & 512) >> 6))
                name = key + bytes([label])
                waiting.append((name, base))
                if units[child] >> 8 & 1:
                    start = units[base] & ((1 << 31) - 1)
                    found[name.decode()] = texts[start : texts.index(b"\0", start)].decode()
    return found


@examples(100)
@given(
    table=st.dictionaries(
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=4),
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=4),
        min_size=1,
        max_size=60,
    )
)
def test_a_map_has_its_entries_and_no_others(table: dict[str, str]) -> None:
    data = serialized(table)
    assert walk(data) == table
    apply = character_map(data)
    assert [apply(key) for key in table] == list(table.values())


@pytest.mark.slow
def test_a_large_map_has_its_entries_and_no_others() -> None:
    table = entries(VocabSettings())
    assert walk(charsmap("nfkc", False)) == table
    assert charsmap("nfkc", False) == serialized(table)
    assert table["e\u0301"] == "é"
    assert table["\t"] == " "


def with_map(form: tuple[str, bool], text: str) -> str:
    """A text as SentencePiece normalizes it with one of our maps."""
    return " ".join(part for part in character_map(charsmap(*form))(text).split(" ") if part)


def with_normalizer(form: tuple[str, bool], text: str) -> str:
    settings = VocabSettings.model_validate({"normalization": form[0], "lowercase": form[1]})
    return normalizer(settings).normalize_str(text).removeprefix(" ")


@pytest.mark.parametrize("form", FORMS)
def test_a_map_does_what_the_normalizer_does(form: tuple[str, bool]) -> None:
    every = [chr(n) for n in (*range(1, 0xD800), *range(0xE000, 0x30000))]
    # A letter that is composed with what stands before it would not be seen alone.
    joined = "".join(f"☃{one}" for one in every)
    assert with_map(form, joined) == with_normalizer(form, joined)
    letters = "".join(chr(n) for n in (*range(0xC0, 0x530), *range(0x1E00, 0x2000), *range(0xAC00, 0xD7A4)))
    apart = unicodedata.normalize("NFD", letters)
    assert with_map(form, apart) == with_normalizer(form, apart)
    draw = random.Random(3)
    points = [*map(chr, range(0x5B0, 0x5C3))], [*map(chr, range(0x64B, 0x656)), "\u0670"]
    for _ in range(300):
        kind = draw.randrange(2)
        typed = "שב"[kind] + "".join(draw.sample(points[kind], draw.randint(1, 3)))
        assert with_map(form, typed) == with_normalizer(form, typed)
        viet = "".join(draw.choices("aeouyAEOUY") + draw.sample("\u0323\u0301\u0302", 2))
        assert with_map(form, viet) == with_normalizer(form, viet)


@pytest.mark.parametrize("form", FORMS)
def test_the_tokenizers_library_reads_the_same_map(form: tuple[str, bool]) -> None:
    """It applies a map to grapheme clusters of fewer than six bytes: characters alone are enough here."""
    library = normalizers.Precompiled(charsmap(*form))
    for key, value in entries(VocabSettings(normalization=form[0], lowercase=form[1])).items():
        if len(key) == 1:
            assert library.normalize_str(key) == value
