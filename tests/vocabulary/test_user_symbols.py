"""User symbols: the ids of SentencePiece for the same pieces, whatever stands around a symbol."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
from hypothesis import example, given
from hypothesis import strategies as st
from test_sentencepiece import BASE, SOME, by_hand, imported, model_bytes, processor, same
from tokenizers import Tokenizer

from budget import examples
from t5smith.base.artifact import read_manifest
from t5smith.base.errors import T5smithError
from t5smith.recipe.recipe import Recipe
from t5smith.recipe.vocab import VocabSettings
from t5smith.vocabulary.tokenizer_json import BYTE
from t5smith.vocabulary.train import build, vocab
from t5smith.vocabulary.unigram import train_pieces
from t5smith.vocabulary.vocabulary import Vocabulary

OTHER = Path(__file__).parents[2] / ".venv4" / "bin" / "python"
PROGRAM = """
import json, sys
from transformers import AutoTokenizer, __version__
assert __version__.startswith("4.57"), __version__
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
for line in sys.stdin:
    print(json.dumps(tokenizer(json.loads(line), add_special_tokens=False).input_ids))
"""
CASES: dict[str, dict[str, Any]] = {
    "one character": {"user_symbols": ("@",)},
    "several": {"user_symbols": ("@", "@@", "<br>", "☃☃", "<h1>"), "normalization": "none"},
    "letters": {"user_symbols": ("er", "og", "s", "frihet"), "normalization": "nfc"},
    "digits": {"user_symbols": ("<h1>", "12"), "split_digits": True, "normalization": "none"},
    "bytes": {"user_symbols": ("<br>", "☃"), "byte_fallback": True, "size": 700},
    "beside control symbols": {"user_symbols": ("[", "<br>"), "control_symbols": ("[R]", "<sep>")},
}


@dataclass(frozen=True)
class Case:
    """A vocabulary in all its readers.

    Attributes:
      symbols, control: user symbols and control symbols.
      ours: the vocabulary.
      theirs: the same pieces and scores in the sentencepiece library.
      folder: the saved tokenizer.
      library, auto: the saved tokenizer in tokenizers, and in transformers 5.
    """

    symbols: tuple[str, ...]
    control: tuple[str, ...]
    ours: Vocabulary
    theirs: sentencepiece.SentencePieceProcessor
    folder: Path
    library: Tokenizer
    auto: Any


def with_symbols(lines: list[str], symbols: Sequence[str]) -> list[str]:
    """The lines with symbols before, after and between words."""
    draw = random.Random(0)
    made: list[str] = []
    for line in lines:
        words = line.split(" ")
        for _ in range(len(words) // 6 + 1):
            words.insert(draw.randrange(len(words) + 1), draw.choice(symbols))
        spaces = [draw.choice(("", " ", " ", " ")) for _ in words]
        made.append("".join(word + space for word, space in zip(words, spaces, strict=True)))
    return made


def as_model(vocabulary: Vocabulary, symbols: Sequence[str], control: Sequence[str]) -> bytes:
    """The pieces and scores of a vocabulary as a SentencePiece model that does not normalize letters."""
    pieces: list[tuple[str, float, int]] = []
    for number, (name, score) in enumerate(json.loads(vocabulary._json)["model"]["vocab"]):
        kind = (
            2 if number == 2 else 3 if number < 2 or name in control or name.startswith("<extra_id_") else 1
        )
        kind = 4 if name in symbols else 6 if BYTE.fullmatch(name) else kind
        pieces.append((name, score if kind == 1 else 0.0, kind))
    return by_hand(pieces)


@pytest.fixture(scope="module", params=CASES)
def case(
    request: pytest.FixtureRequest, declaration: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Case:
    from transformers import AutoTokenizer

    options = {"size": 400} | CASES[request.param]
    settings = VocabSettings.model_validate(options)
    symbols, control = settings.user_symbols, settings.control_symbols
    lines = with_symbols([*declaration, "artikkel 12 og 1948"], symbols)
    ours = Vocabulary(build(train_pieces(lines, settings), control, settings).to_str())
    folder = tmp_path_factory.mktemp("tokenizer")
    ours.save(folder)
    library = Tokenizer.from_file(str(folder / "tokenizer.json"))
    theirs = processor(as_model(ours, symbols, control))
    return Case(symbols, control, ours, theirs, folder, library, AutoTokenizer.from_pretrained(folder))


WORDS = ("rett", "en", "er", "x", "Æ", "12", "雪", "frihetene", "oger", "<b", "r>")


def lines(case: Case) -> st.SearchStrategy[str]:
    """Symbols with and without spaces around them, among words, parts of symbols and control words."""
    parts = (*case.symbols, *case.symbols, *WORDS, *case.control, "</s>", "<0x41>", " ", " ", "  ")
    return st.lists(st.sampled_from(parts), max_size=14).map("".join)


def cached(vocabulary: Vocabulary, line: str) -> list[int]:
    words = vocabulary.bulk_encoder(np.dtype("<u2"))
    return np.frombuffer(words.encode(line), words.dtype).tolist()  # type: ignore[attr-defined]


@examples(400)
@given(data=st.data())
def test_ids_equal_those_of_sentencepiece(case: Case, data: st.DataObject) -> None:
    line = data.draw(lines(case))
    same(case.theirs, case.ours, line)
    assert cached(case.ours, line) == case.ours.encode(line)
    if not any(word in line for word in ("</s>", *case.control)):
        assert case.library.encode(line, add_special_tokens=False).ids == case.ours.encode(line)
        assert case.auto(line, add_special_tokens=False).input_ids == case.ours.encode(line)


def test_spaces_before_after_both_and_none(case: Case) -> None:
    vocabulary = case.ours
    words = vocabulary.bulk_encoder(np.dtype("<u2"))
    assert words.caches_words
    for symbol in case.symbols:
        forms = [f"rett{before}{symbol}{after}rett" for before in (" ", "") for after in (" ", "")]
        found = [vocabulary.encode(form) for form in forms]
        assert len({tuple(ids) for ids in found}) == 4
        for form, ids in zip(forms, found, strict=True):
            assert vocabulary.decode(ids) == form
            assert case.theirs.encode(form) == ids
        space = vocabulary.id_of("▁")
        assert found[0][found[0].index(vocabulary.id_of(symbol)) - 1] == space


def test_text_with_sentinels_is_encoded_as_by_auto_tokenizer(case: Case) -> None:
    for symbol in case.symbols:
        for form in (
            f"rett {symbol} <extra_id_0> {symbol} en",
            f"rett{symbol}<extra_id_0>{symbol}en",
            f"{symbol} <extra_id_0>",
            f"<extra_id_0>{symbol}",
            f"<extra_id_0> {symbol}",
        ):
            ids = case.ours.encode_with_sentinels(form)
            assert case.auto(form, add_special_tokens=False).input_ids == ids
            assert ids.count(case.ours.id_of(symbol)) == form.count(symbol)


@pytest.mark.slow
@pytest.mark.skipif(not OTHER.exists(), reason="make test-all makes the environment with transformers 4.57")
def test_transformers_4(case: Case) -> None:
    draw = random.Random(0)
    parts = (*case.symbols, *case.symbols, *WORDS, " ", " ")
    made = ["".join(draw.choices(parts, k=draw.randrange(12))) for _ in range(500)]
    done = subprocess.run(
        [OTHER, "-c", PROGRAM, case.folder],
        input="".join(json.dumps(line) + "\n" for line in made),
        capture_output=True,
        text=True,
        check=True,
    )
    assert [json.loads(line) for line in done.stdout.splitlines()] == case.ours.encode_batch(made)


def test_no_piece_is_learned_across_a_symbol(case: Case) -> None:
    names = case.ours.pieces(np.flatnonzero(case.ours.is_text))
    for symbol in case.symbols:
        found = [name for name in names if symbol in name and name not in case.symbols]
        assert not found


def test_what_follows_a_symbol_without_a_space_is_learned_without_one() -> None:
    text = ["et @setning og et @setning her", "to @ord til", "et @ord"] * 30
    names = dict(train_pieces(text, VocabSettings(size=40, user_symbols=("@",))))
    assert "setning" in names
    assert "▁setning" not in names
    plain = dict(train_pieces([line.replace("@", "") for line in text], VocabSettings(size=40)))
    assert "▁setning" in plain


def test_a_symbols_characters_need_no_piece_and_are_not_dropped() -> None:
    settings = VocabSettings(size=20, user_symbols=("<q>",), character_coverage=0.9)
    vocabulary = Vocabulary(
        build(train_pieces(["abab<q>baba <q> abba z " * 10], settings), (), settings).to_str()
    )
    assert {"<", "q", ">", "z"}.isdisjoint(vocabulary.pieces(range(20)))
    assert vocabulary.pieces(vocabulary.encode("ab <q>a"))[-3:] == ["▁", "<q>", "a"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"user_symbols": ("½",)},
            "vocab.user_symbols: '½' cannot be used: normalization turns it into '1⁄2'",
        ),
        (
            {"user_symbols": ("<BR>",), "lowercase": True},
            "'<BR>' cannot be used.*Write it as '<br>', or change",
        ),
    ],
)
def test_a_symbol_that_normalization_changes_is_rejected(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    recipe = Recipe.model_validate({"run_dir": tmp_path, "vocab": changes})
    with pytest.raises(T5smithError, match=message):
        vocab(recipe)
    assert vocab_settings_survive({"user_symbols": ("½", "<BR>"), "normalization": "none"})


def vocab_settings_survive(options: dict[str, Any]) -> bool:
    settings = VocabSettings.model_validate({"size": 60} | options)
    vocabulary = Vocabulary(build(train_pieces(["en ½ <BR> to"] * 3, settings), (), settings).to_str())
    return all(vocabulary.id_of(name) in vocabulary.encode(f"en {name} to") for name in settings.user_symbols)


def test_the_sample_keeps_symbols_and_a_vocabulary_with_them_is_trained_again(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n\n".join(f"dag {i} @setning og @ setning" for i in range(60)))
    recipe = Recipe.model_validate(
        {
            "run_dir": tmp_path / "run",
            "corpus": {"train": (str(tmp_path / "a.txt"),)},
            "vocab": {"size": 40, "user_symbols": ("@",)},
        }
    )
    manifest = read_manifest(vocab(recipe), "vocab")
    assert manifest.inputs["method"] == 5
    plain = read_manifest(vocab(recipe.replace(**{"vocab.user_symbols": ()})), "vocab")
    assert plain.inputs["method"] == 4
    assert manifest.facts["sample_bytes"] == plain.facts["sample_bytes"]


# Imported models.

MADE: dict[str, list[tuple[str, float, int]]] = {
    "one character": [*SOME, ("@", 0, 4), ("aa", -1.5, 1)],
    "letters": [*SOME, ("ab", 0, 4), ("bb", 0, 4), ("aab", -1.0, 1)],
    "with spaces": [*SOME, ("a▁b", 0, 4), ("▁▁", 0, 4), ("▁@", 0, 4), ("@▁", 0, 4)],
    "beside control": [*SOME, ("@", 0, 4), ("<sep>", 0, 3), ("<", -4.0, 1)],
}


@pytest.mark.parametrize("kind", MADE)
@examples(300)
@given(
    text=st.lists(st.sampled_from(["a", "b", "@", "ab", " ", " ", "▁", "<sep>", "☃"]), max_size=12).map(
        "".join
    )
)
@example(text="a @ b a@ b a @b a@b")
@example(text="a▁b a b▁▁a @▁a")
def test_imported_symbols_have_the_ids_of_sentencepiece(kind: str, text: str) -> None:
    data = by_hand([*BASE, *MADE[kind]])
    ours = imported(data)
    same(processor(data), ours, text)
    assert cached(ours, text) == ours.encode(text)


def test_imported_symbols_in_auto_tokenizer(declaration: list[str], tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    data = model_bytes(with_symbols(declaration, ("@", "er")), user_defined_symbols=["@", "er"])
    ours = imported(data)
    ours.save(tmp_path)
    auto = AutoTokenizer.from_pretrained(tmp_path)
    for line in (*with_symbols(declaration, ("@", "er"))[:60], "a @ b", "a@ b", "a @b", "a@b", "@", " @ er"):
        assert auto(line, add_special_tokens=False).input_ids == ours.encode(line)
        same(processor(data), ours, line)
