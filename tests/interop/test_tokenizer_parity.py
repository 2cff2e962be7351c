"""One saved vocabulary gives the same ids here, in tokenizers, in transformers 5 and in transformers 4.57.

The last is in an environment of its own, which `make test-all` makes (.venv4).
"""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from t5smith.recipe.corpus import CorpusSettings
from t5smith.recipe.vocab import VocabSettings
from t5smith.text.corpus import find_files
from t5smith.text.documents import read_documents
from t5smith.vocabulary.normalizers import normalizer
from t5smith.vocabulary.train import build
from t5smith.vocabulary.unigram import train_pieces
from t5smith.vocabulary.vocabulary import Vocabulary

OTHER = Path(__file__).parents[2] / ".venv4" / "bin" / "python"
LINES = 10_000
CONTROL = ("</s>", "<pad>", "<unk>", "<extra_id_3>", "<extra_id_99>")
ODD = [
    "😀 👩‍👩‍👧 🇳🇴",
    "e\u0301 a\u030a \u0301x I\u0307",
    "שלום עולם (אבג) 123",
    "مرحبا بالعالم ﷺ",
    "\u202eabc\u202c \u200f",
    "NUL \0 her",
    "tab\tog\u00a0hardt mellomrom\u3000bredt",
    " først og sist ",
    "▁ tegnet ▁for▁mellomrom",
    "½ ² ﬁ Å Ǻ",
    "\x1c\x1d\x1e\x1f skilletegn",
    "你好，世界。",
    "<s> <mask> <0x41> [MASK]",
]
PROGRAM = """
import json, sys
from transformers import AutoTokenizer, __version__
assert __version__.startswith("4.57"), __version__
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
for line in sys.stdin:
    print(json.dumps(tokenizer(json.loads(line), add_special_tokens=False).input_ids))
"""


@pytest.fixture(scope="module")
def lines() -> list[str]:
    """Ten thousand lines, a fifth of them with something odd in their middle; a megabyte without a space."""
    corpus = CorpusSettings(document="line")
    real = [d.text for d in read_documents(corpus, find_files(["bundled:norwegian/ordbok*"], "f"))]
    draw = random.Random(0)
    made: list[str] = []
    for text in draw.sample(real, LINES - len(ODD) - 1):
        middle = draw.randrange(len(text) + 1)
        made.append(text[:middle] + draw.choice(ODD) + text[middle:] if draw.random() < 0.2 else text)
    return [*made, *ODD, "".join(draw.choices("abcdefgæøå0123456789-", k=1_000_000))]


@pytest.fixture(scope="module")
def saved(lines: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    asked = VocabSettings(size=2_000)
    Vocabulary(build(train_pieces(lines[:4_000], asked), (), asked).to_str()).save(folder)
    return folder


@pytest.fixture(scope="module")
def ours(saved: Path, lines: list[str]) -> list[list[int]]:
    return Vocabulary.load(saved).encode_batch(lines)


def test_our_code_and_the_table_of_words(saved: Path, lines: list[str], ours: list[list[int]]) -> None:
    words = Vocabulary.load(saved).bulk_encoder(np.dtype("<u2"))
    for line, ids in zip(lines, ours, strict=True):
        assert np.frombuffer(words.encode(line), "<u2").tolist() == ids


def test_tokenizers(saved: Path, lines: list[str], ours: list[list[int]]) -> None:
    tokenizer = Tokenizer.from_file(str(saved / "tokenizer.json"))
    encoded = tokenizer.encode_batch(lines, add_special_tokens=False)
    assert [encoding.ids for encoding in encoded] == ours


def test_transformers_5(saved: Path, lines: list[str], ours: list[list[int]]) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(saved)
    assert tokenizer(lines, add_special_tokens=False).input_ids == ours
    marked = ["rød<extra_id_0> og <extra_id_1>grønn", "<extra_id_0>", "a <extra_id_2> b<extra_id_99>"]
    vocabulary = Vocabulary.load(saved)
    for text in marked:
        with_sentinels = vocabulary.encode_with_sentinels(text)
        assert tokenizer(text, add_special_tokens=False).input_ids == with_sentinels
        assert tokenizer(text).input_ids == [*with_sentinels, vocabulary.eos_id]


@pytest.mark.slow
@pytest.mark.skipif(not OTHER.exists(), reason="make test-all makes the environment with transformers 4.57")
def test_transformers_4(saved: Path, lines: list[str], ours: list[list[int]]) -> None:
    done = subprocess.run(
        [OTHER, "-c", PROGRAM, saved],
        input="".join(json.dumps(line) + "\n" for line in lines),
        capture_output=True,
        text=True,
        check=True,
    )
    assert [json.loads(line) for line in done.stdout.splitlines()] == ours


def test_control_words_are_text_in_ours(saved: Path) -> None:
    vocabulary = Vocabulary.load(saved)
    words = vocabulary.bulk_encoder(np.dtype("<u2"))
    for word in CONTROL:
        for line in (word, f"et {word} her", f"et{word}her"):
            ids = vocabulary.encode(line)
            assert vocabulary.is_text[ids].all()
            assert vocabulary.unk_id in ids or vocabulary.decode(ids) == line
            assert np.frombuffer(words.encode(line), "<u2").tolist() == ids


def test_decoding_gives_the_normalised_text_back(
    saved: Path, lines: list[str], ours: list[list[int]]
) -> None:
    vocabulary, normal = Vocabulary.load(saved), normalizer()
    checked = 0
    for line, ids in zip(lines, ours, strict=True):
        if vocabulary.unk_id not in ids:
            assert vocabulary.decode(ids) == normal.normalize_str(line).removeprefix(" ")
            checked += 1
    assert checked > LINES / 2
