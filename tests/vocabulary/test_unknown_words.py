"""`vocab.unknown_words`: words of the text that become the unknown id, also in the saved tokenizer."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from test_sentencepiece import BASE, SOME, by_hand, model_bytes
from tokenizers import Tokenizer

from budget import examples
from t5smith.base.artifact import read_manifest
from t5smith.base.errors import T5smithError
from t5smith.recipe.recipe import Recipe
from t5smith.recipe.vocab import VocabSettings
from t5smith.vocabulary.import_tokenizer import import_tokenizer
from t5smith.vocabulary.train import build, vocab
from t5smith.vocabulary.unigram import train_pieces
from t5smith.vocabulary.vocabulary import Vocabulary

OTHER = Path(__file__).parents[2] / ".venv4" / "bin" / "python"
PROGRAM = """
import json, sys
from transformers import AutoTokenizer, __version__
assert __version__.startswith("4.57"), __version__
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
assert (tokenizer.unk_token, tokenizer.unk_token_id) == ("<unk>", 2)
for line in sys.stdin:
    print(json.dumps(tokenizer(json.loads(line), add_special_tokens=False).input_ids))
"""
WORDS = ("<unk>", "[UNK]", "UNKjent")
KINDS: dict[str, dict[str, Any]] = {
    "trained": {},
    "everything": {
        "size": 700,
        "normalization": "nmt_nfkc",
        "lowercase": True,
        "split_digits": True,
        "byte_fallback": True,
        "user_symbols": ("@", "<br>"),
    },
    "imported": {"tokenizer": "a.model"},
    "imported with T5's table": {"tokenizer": "b.model"},
}


@pytest.fixture(scope="module", params=KINDS)
def saved(
    request: pytest.FixtureRequest, declaration: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    options = {"size": 400, "unknown_words": WORDS[1:]} | KINDS[request.param]
    if file := options.get("tokenizer"):
        rule = "identity" if file == "a.model" else "nmt_nfkc"
        (folder / file).write_bytes(model_bytes(declaration, normalization_rule_name=rule))
        vocabulary = import_tokenizer(str(folder / file), unknown_words=options["unknown_words"]).vocabulary
    else:
        settings = VocabSettings.model_validate(options)
        vocabulary = Vocabulary(build(train_pieces(declaration, settings), (), settings).to_str())
    vocabulary.save(folder / "saved")
    return folder / "saved"


PARTS = (*WORDS, *WORDS, "rett", "en", "Frihet", "<", "unk", "[", " ", " ", " ", "  ", "\n", "☃", "</s>", "▁")
line = st.lists(st.sampled_from(PARTS), max_size=12).map("".join)


@examples(300)
@given(text=line)
@example(text="<unk>")
@example(text=" <unk> rett")
@example(text="[UNK] rett")
@example(text="rett <unk>")
@example(text="rett<unk>rett [UNK][UNK] <unk>")
def test_training_and_the_saved_tokenizer_agree(saved: Path, text: str) -> None:
    vocabulary = Vocabulary.load(saved)
    assert vocabulary.unknown_words == WORDS
    words = vocabulary.bulk_encoder(np.dtype("<u4"))
    ids = vocabulary.encode(text)
    assert np.frombuffer(words.encode(text), "<u4").tolist() == ids
    if "</s>" not in text:
        library = Tokenizer.from_file(str(saved / "tokenizer.json"))
        assert library.encode(text, add_special_tokens=False).ids == ids


def test_each_word_is_one_unknown_id_and_the_space_before_it_stays(saved: Path) -> None:
    vocabulary = Vocabulary.load(saved)
    assert vocabulary.bulk_encoder(np.dtype("<u4")).caches_words
    space = vocabulary.id_of("▁")
    rett = vocabulary.encode("rett")
    for word in WORDS:
        assert vocabulary.encode(f"rett {word} rett") == [*rett, space, 2, *rett]
        assert vocabulary.encode(f"rett{word}")[len(rett) :] == [2]
        assert vocabulary.encode_with_sentinels(f"rett <extra_id_0> {word}")[-2:] == [space, 2]
    assert vocabulary.decode(vocabulary.encode("rett <unk> rett")) == "rett <unk> rett"
    # Other control words are text.
    assert vocabulary.is_text[vocabulary.encode("rett </s> <pad> <extra_id_0>")].all()


def test_transformers_5(saved: Path) -> None:
    from transformers import AutoTokenizer

    auto, vocabulary = AutoTokenizer.from_pretrained(saved), Vocabulary.load(saved)
    assert (auto.unk_token, auto.unk_token_id) == ("<unk>", 2)
    for text in made():
        assert auto(text, add_special_tokens=False).input_ids == vocabulary.encode(text)
    for text in ("rett <extra_id_0> <unk>", "<unk><extra_id_0>[UNK] <unk>", "<extra_id_0> <unk>"):
        assert auto(text, add_special_tokens=False).input_ids == vocabulary.encode_with_sentinels(text)


@pytest.mark.slow
@pytest.mark.skipif(not OTHER.exists(), reason="make test-all makes the environment with transformers 4.57")
def test_transformers_4(saved: Path) -> None:
    done = subprocess.run(
        [OTHER, "-c", PROGRAM, saved],
        input="".join(json.dumps(text) + "\n" for text in made()),
        capture_output=True,
        text=True,
        check=True,
    )
    assert [json.loads(ids) for ids in done.stdout.splitlines()] == Vocabulary.load(saved).encode_batch(
        made()
    )


def made() -> list[str]:
    draw = random.Random(0)
    return [
        "".join(draw.choices([part for part in PARTS if part != "</s>"], k=draw.randrange(12)))
        for _ in range(300)
    ]


def test_no_piece_is_learned_across_an_unknown_word() -> None:
    lines = ["et <unk>setning og [UNK]setning her", "to <unk> ord"] * 30
    settings = VocabSettings(size=40, unknown_words=("[UNK]",))
    pieces = dict(train_pieces(lines, settings))
    assert "setning" in pieces
    assert not {"<", "[", "U", "k"} & set("".join(pieces))


def test_without_the_setting_nothing_changes(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n\n".join(f"dag {i} <unk> og natt" for i in range(60)))
    recipe = Recipe.model_validate(
        {"run_dir": tmp_path / "run", "corpus": {"train": (str(tmp_path / "a.txt"),)}, "vocab": {"size": 40}}
    )
    folder = vocab(recipe)
    assert "unknown_words" not in read_manifest(folder, "vocab").inputs["vocab"]
    assert 2 not in Vocabulary.load(folder).encode("natt og <unk>")[:3]
    other = vocab(recipe.replace(**{"vocab.unknown_words": ("<unk>",)}))
    assert read_manifest(other, "vocab").inputs["vocab"]["unknown_words"] == ["<unk>"]
    assert Vocabulary.load(other).encode("natt og <unk>")[-1] == 2


def test_an_import_with_unknown_words_is_another_vocabulary(tmp_path: Path) -> None:
    file = tmp_path / "a.model"
    file.write_bytes(by_hand([*BASE, *SOME]))
    recipe = Recipe.model_validate({"run_dir": tmp_path / "run", "vocab": {"tokenizer": str(file)}})
    keys = {read_manifest(vocab(recipe), "vocab").key}
    keys.add(read_manifest(vocab(recipe.replace(**{"vocab.unknown_words": ("<unk>",)})), "vocab").key)
    assert len(keys) == 2
    with pytest.raises(
        T5smithError, match=r"vocab\.unknown_words: a vocabulary of bytes has nothing unknown"
    ):
        vocab(recipe.replace(**{"vocab.unknown_words": ("<unk>",), "vocab.tokenizer": "bytes"}))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"unknown_words": ("</s>",)}, "a name other than </s>"),
        ({"unknown_words": ("a b",)}, "text without spaces"),
        ({"unknown_words": ("[UNK]", "[UNK]")}, "each word once"),
        ({"unknown_words": ("@",), "user_symbols": ("@",)}, "a word that is neither a control symbol nor"),
    ],
)
def test_unusable_words_are_rejected(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(T5smithError, match=f"vocab.unknown_words: .* cannot be used; expected {expected}"):
        VocabSettings.model_validate(changes)
