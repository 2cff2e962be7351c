from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from t5smith.base.artifact import read_manifest
from t5smith.base.errors import T5smithError
from t5smith.base.progress import Bar
from t5smith.recipe.corpus import CorpusSettings
from t5smith.recipe.recipe import Recipe
from t5smith.recipe.vocab import VocabSettings
from t5smith.text.corpus import CorpusFiles
from t5smith.text.documents import is_held_out
from t5smith.vocabulary import unigram
from t5smith.vocabulary.normalizers import normalizer
from t5smith.vocabulary.sample import MAX_CHUNK_CHARACTERS, TextSample, chunks
from t5smith.vocabulary.train import build, vocab, warn_of_rare_pieces
from t5smith.vocabulary.unigram import canonical, downsample_words, train_pieces, whole_words
from t5smith.vocabulary.vocabulary import Vocabulary

PROGRAM = """
import sys
from pathlib import Path
from t5smith.recipe.corpus import CorpusSettings
from t5smith.recipe.vocab import VocabSettings
from t5smith.recipe.recipe import Recipe
from t5smith.vocabulary.train import vocab
corpus = CorpusSettings(train=(sys.argv[2],), document="line", held_out_fraction=0.001)
vocab(Recipe(run_dir=Path(sys.argv[1]), vocab=VocabSettings(size=180), corpus=corpus))
"""


def recipe(run_dir: Path, size: int = 300, **corpus: object) -> Recipe:
    settings = {"train": ("bundled:norwegian/udhr-nob.txt.xz",), "document": "line"} | corpus
    return Recipe(
        run_dir=run_dir, corpus=CorpusSettings.model_validate(settings), vocab=VocabSettings(size=size)
    )


def test_vocab_writes_a_tokenizer_with_t5s_layout(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = vocab(recipe(tmp_path))
    assert folder == tmp_path / "vocab"
    vocabulary = Vocabulary.load(folder)
    assert vocabulary.size == 400
    assert vocabulary.pieces([0, 1, 2, 300, 399]) == [
        "<pad>",
        "</s>",
        "<unk>",
        "<extra_id_99>",
        "<extra_id_0>",
    ]
    assert "▁rettigheter" in vocabulary.pieces(range(3, 300))
    tree = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    sides = {(token["lstrip"], token["rstrip"]) for token in tree["added_tokens"] if token["id"] >= 300}
    assert sides == {(True, False)}
    table = tree["model"]["vocab"]
    scores = [score for _, score in table[3:300]]
    assert scores == sorted(scores, reverse=True)
    facts = read_manifest(folder, "vocab").facts
    assert facts["requested"] == facts["pieces"] == 300
    assert facts["ids"] == 400
    assert facts["sample_bytes"] == facts["text_bytes"] > 9_000
    assert facts["documents"] == 92
    err = capfd.readouterr().err
    assert err.count("warning") == 1
    assert "300 pieces from 10.3kB of text: each occurs 11 times on average" in err
    corpus = recipe(tmp_path).corpus
    sample = TextSample(recipe(tmp_path), CorpusFiles.find(corpus), Bar("vocab", None, "", 0))
    tokens = sum(len(vocabulary.encode(text)) for text in sample.chunks)
    assert facts["occurrences_per_piece"] == round(tokens / 300, 1)


def test_vocab_is_skipped_if_unchanged_and_redone_if_settings_change(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("en fin dag og en fin natt\n" * 5)
    first = recipe(tmp_path, 60, train=(str(text),), held_out_fraction=0.1)
    made = (vocab(first) / "manifest.json").stat().st_mtime_ns
    assert "warning" in capfd.readouterr().err
    for same in (first, first.replace(seed=5, **{"train.steps": 7})):
        assert (vocab(same) / "manifest.json").stat().st_mtime_ns == made
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 2
    assert "unchanged" in said[0]
    keys = {read_manifest(tmp_path / "vocab", "vocab").key}
    changes = {"vocab.max_piece_length": 8, "corpus.document": "file", "corpus.held_out_fraction": 0.2}
    for field, value in changes.items():
        keys.add(read_manifest(vocab(first.replace(**{field: value})), "vocab").key)
    text.write_text("en fin dag og en grå natt\n" * 5)
    keys.add(read_manifest(vocab(first), "vocab").key)
    assert len(keys) == 5


def test_held_out_documents_are_not_trained_on(tmp_path: Path) -> None:
    lines = [f"ord{i} {chr(0x3B1 + i)}" for i in range(20)]
    held = [line for line in lines if is_held_out(line, 0.3)]
    assert 0 < len(held) < 20
    text = tmp_path / "text.txt"
    text.write_text("\n".join(lines), encoding="utf-8")
    vocabulary = Vocabulary.load(vocab(recipe(tmp_path, 50, train=(str(text),), held_out_fraction=0.3)))
    for line in lines:
        assert (vocabulary.unk_id in vocabulary.encode(line[-1])) == (line in held)


def test_with_validation_files_all_training_documents_are_used(tmp_path: Path) -> None:
    for name, text in (("a.txt", "alfa beta\n" * 3), ("b.txt", "ω")):
        (tmp_path / name).write_text(text, encoding="utf-8")
    given_files = {"train": (str(tmp_path / "a.txt"),), "valid": (str(tmp_path / "b.txt"),)}
    folder = vocab(recipe(tmp_path, 12, held_out_fraction=0.999, **given_files))
    assert Vocabulary.load(folder).encode("ω").count(2) == 1
    manifest = read_manifest(folder, "vocab")
    assert manifest.facts["documents"] == 3
    (tmp_path / "b.txt").write_text("psi", encoding="utf-8")
    vocab(recipe(tmp_path, 12, held_out_fraction=0.5, **given_files))
    assert not (tmp_path / "previous").exists()


def test_a_vocabulary_smaller_than_requested_is_reported_with_the_reason(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    facts = read_manifest(vocab(recipe(tmp_path, 32_000)), "vocab").facts
    assert facts["requested"] == 32_000
    assert 300 < facts["pieces"] < 2_000
    assert facts["ids"] == facts["pieces"] + 100
    warning = capfd.readouterr().err
    assert f"{facts['pieces']:,} pieces (32,000 requested): " in warning
    assert "different words" in warning
    assert facts["why_smaller"] in warning


@pytest.mark.slow
def test_the_handbook_has_too_little_text_for_32_000_pieces(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    facts = read_manifest(
        vocab(recipe(tmp_path, 32_000, train=("bundled:norwegian/debian-handbook-nb.train*",))), "vocab"
    ).facts
    assert 10_000 < facts["pieces"] < 20_000
    err = capfd.readouterr().err
    assert f"{facts['pieces']:,} pieces (32,000 requested)" in err
    # A size that suits is one that gives no warning.
    suits = int(re.findall(r"vocab\.size = (\d+) suits this text", err)[0])
    assert suits > 1_000
    facts |= {
        "pieces": suits,
        "occurrences_per_piece": facts["occurrences_per_piece"] * facts["pieces"] / suits,
    }
    warn_of_rare_pieces(facts)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("pieces", "rate", "said"),
    [
        (
            32_000,
            17.2,
            "warning: 32,000 pieces from 2.2MB of text: each occurs 17 times on average, and a model needs "
            "about 50 or more to learn one; vocab.size = 11000 suits this text\n",
        ),
        (
            2_000,
            12.0,
            "warning: 2,000 pieces from 2.2MB of text: each occurs 12 times on average, and a model "
            "needs about 50 or more to learn one; add text\n",
        ),
        (32_000, 50.0, ""),
    ],
)
def test_pieces_that_are_too_rare_to_be_learned_give_a_warning(pieces, rate, said, capfd):
    warn_of_rare_pieces({"pieces": pieces, "text_bytes": 2_200_000, "occurrences_per_piece": rate})
    assert capfd.readouterr().err == said


def test_the_bar_of_vocab_ends_with_what_is_read_and_training_is_a_phase(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr("t5smith.base.progress.NOTICEABLE_SECONDS", 0.0)
    monkeypatch.setattr("t5smith.base.progress.TICK_SECONDS", 0.001)
    vocab(recipe(tmp_path))
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("vocab")]
    bars = [re.match(r"vocab     (\S+)/(\S+) bytes  ", line) for line in lines]
    done, total = [found for found in bars if found][-1].groups()
    assert done == total
    assert "vocab     training 300 pieces  0:00" in lines
    assert "vocab     300 pieces from 10.3kB of text" in lines


@pytest.mark.parametrize("size", [8, 20, 40, 78, 79])
def test_fewer_pieces_than_characters_are_rejected(declaration: list[str], size: int) -> None:
    """For sizes near the number of characters the library returns more pieces than requested."""
    characters = {c for line in declaration for c in normalizer().normalize_str(line)}
    text = [*declaration, "".join(chr(0x400 + i) for i in range(77 - len(characters)))]
    assert len({c for line in text for c in normalizer().normalize_str(line)}) == 77
    with pytest.raises(T5smithError) as caught:
        train_pieces(text, VocabSettings(size=size))
    assert str(caught.value).startswith(
        f"vocab.size: {size} pieces are too few: each different character of the text needs one; "
        "expected 80 or more: 77 different characters, 3 control pieces. Raise vocab.size, or"
    )
    assert len(train_pieces(text, VocabSettings(size=80))) == 77


SCRIPTS = {
    "Thai": "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ",
    "Chinese": "人人生而自由，在尊嚴和權利上一律平等。他們賦有理性和良心",
    "Arabic": "يولد جميع الناس أحرارًا متساوين في الكرامة والحقوق",
    "Korean in parts": unicodedata.normalize("NFD", "모든 인간은 태어날 때부터 자유로우며"),
    "emoji": "👨‍👩‍👧‍👦 👩🏽‍💻 🇳🇴🇸🇪 ❤️ ﬁ ½ 𝔘𝔫𝔦",
    "NUL": "a\0b \0 \0\0 aa\0bb c d e f g h",
}


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"byte_fallback": True, "user_symbols": ("<br>", "<hr>")},
        {"normalization": "none", "lowercase": True},
        {"normalization": "nmt_nfkc", "split_digits": True, "max_piece_length": 1},
        {"normalization": "nfc", "character_coverage": 0.97},
    ],
)
def test_the_error_names_the_smallest_size_that_works(script: str, changes: dict[str, object]) -> None:
    text = [SCRIPTS[script]] * 2
    least = 8 + (258 if "byte_fallback" in changes else 0)
    with pytest.raises(T5smithError, match=r"expected \d+ or more") as caught:
        train_pieces(text, VocabSettings.model_validate({"size": least} | changes))
    named = re.search(r"expected (\d+) or more: (.*?)\. Raise", str(caught.value))
    assert named is not None
    assert int(named[1]) == sum(map(int, re.findall(r"\d+", named[2])))
    with pytest.raises(T5smithError, match=f"expected {named[1]} or more"):
        train_pieces(text, VocabSettings.model_validate({"size": int(named[1]) - 1} | changes))
    settings = VocabSettings.model_validate({"size": int(named[1])} | changes)
    vocabulary = Vocabulary(build(train_pieces(text, settings), (), settings).to_str())
    assert vocabulary.size == int(named[1]) + 100
    if settings.character_coverage == 1:
        ids = vocabulary.encode(text[0])
        assert vocabulary.unk_id not in ids
        assert vocabulary.decode(ids) == normalizer(settings).normalize_str(text[0]).removeprefix(" ")


@pytest.mark.parametrize("word", ["<UNK>", "x<UNK>y <UNK>s", "＜UNK＞"])
def test_a_text_may_contain_the_trainers_own_unknown_piece(declaration: list[str], word: str) -> None:
    pieces = train_pieces([*declaration, *[word] * 3], VocabSettings(size=300))
    assert len(pieces) == 297
    assert not any("<UNK>" in piece for piece, _ in pieces)
    vocabulary = Vocabulary(build(pieces).to_str())
    assert vocabulary.unk_id not in vocabulary.encode(word)


def test_a_corpus_without_text_is_rejected(tmp_path: Path) -> None:
    empty = tmp_path / "empty.txt"
    empty.write_text("\n \n")
    with pytest.raises(T5smithError, match=r"corpus.train: the text is empty: .*empty.txt has no text"):
        vocab(recipe(tmp_path, train=(str(empty),)))
    assert not (tmp_path / "vocab").exists()


def test_every_process_writes_the_same_bytes(tmp_path: Path) -> None:
    """The library's hash seed and the work of its threads differ between processes."""
    text = tmp_path / "text.txt"
    # The trainer gives random scores to rare characters of words that are pieces themselves.
    words = [f"{chr(0x400 + i)}{chr(0x401 + i)}{chr(0x402 + i)}" for i in range(0, 90, 3)]
    text.write_text("\n".join(f"{word} {word}et {word}ene og en" for word in words), encoding="utf-8")
    made: set[bytes] = set()
    for threads in ("1", "2", "3"):
        run = tmp_path / threads
        environment = os.environ | {"RAYON_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "true"}
        subprocess.run([sys.executable, "-c", PROGRAM, run, text], env=environment, check=True)
        made.add((run / "vocab" / "tokenizer.json").read_bytes())
    assert len(made) == 1


def test_canonical_scores_do_not_depend_on_rounding_or_order() -> None:
    one = [
        ("ab", -1.00000000001),
        ("b", -3.0),
        ("</s>", -1.0),
        ("a", -2.0),
        ("y", -9.0),
        ("x", -8.9999),
        ("é", -8.9998),
    ]
    other = [("a", -2.0), ("é", -9.0), ("y", -8.9998), ("x", -8.9999), ("b", -3.00000000001), ("ab", -1.0)]
    expected = [("ab", -1.0), ("a", -2.0), ("b", -3.0), ("x", -9.0), ("y", -9.0), ("é", -9.0)]
    assert canonical(one) == canonical(other) == expected
    assert canonical([]) == []


def test_a_frequent_word_that_no_other_word_begins_with_becomes_a_piece(declaration: list[str]) -> None:
    """The library alone does not make such a word a candidate, and would split it."""
    text = [*declaration, *["hvordan skulle hva være"] * 60]
    assert not any(word.startswith(("hvordan", "skulle")) for line in declaration for word in line.split())
    pieces = {piece for piece, _ in train_pieces(text, VocabSettings(size=400))}
    assert {"▁hvordan", "▁skulle"} <= pieces
    characters = {c for line in text for c in normalizer().normalize_str(line)}
    assert {piece for piece in pieces if len(piece) == 1} == {c.replace(" ", "▁") for c in characters}


def test_whole_words_are_frequent_short_and_never_continued() -> None:
    settings = VocabSettings(size=8, max_piece_length=5)
    text = ["og også\nog ett ett ﬁn ﬁn en", "langtord langtord fem fem 12 12"]
    assert whole_words(text, settings) == ["12a", "ettd", "feme", "finf"]
    assert whole_words(["12 12"], settings) == ["12"]
    assert len(whole_words([" ".join(f"{c}x {c}x" for c in "abcdefghijkl")], settings)) == 8


@given(text=st.text(st.sampled_from("ab \n\tø"), max_size=30).map(lambda piece: piece * 700))
def test_chunks_are_short_and_lose_nothing(text: str) -> None:
    parts = list(chunks(text))
    assert all(0 < len(part) <= MAX_CHUNK_CHARACTERS for part in parts)
    assert "".join(parts) == text


def test_chunks_are_cut_between_words() -> None:
    words = ["ord"] * 5_000
    parts = list(chunks(" ".join(words)))
    assert len(parts) > 3
    assert [word for part in parts for word in part.split()] == words


def test_control_words_in_the_text_do_not_become_pieces() -> None:
    text = "<s>a</s> <s>bb</s> ＜pad＞ ＜extra_id_123＞ <pad> <extra_id_0> <extra_id_7>"
    table = train_pieces([chunk for _ in range(50) for chunk in chunks(text)], VocabSettings(size=200))
    pieces = {piece.strip("▁") for piece, _ in table}
    assert "<s>" in pieces
    assert not pieces & {"</s>", "<pad>", "<extra_id_0>", "<extra_id_7>", "<extra_id_123>"}
    assert Vocabulary(build(table).to_str()).sentinel_ids[0] == len(table) + 102


@pytest.mark.parametrize("text", ["a" * 200_000, "abcdefghij" * 20_000, "世界人权宣言" * 20_000])
def test_text_without_spaces_can_be_trained_on(text: str) -> None:
    pieces = train_pieces(chunks(text), VocabSettings(size=60))
    assert set(text) <= {piece for piece, _ in pieces}


def test_the_sample_respects_its_budget_and_is_even(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n".join(f"{i:09}" for i in range(2_000)))
    whole = recipe(tmp_path, train=(str(text),))
    few = whole.replace(**{"vocab.sample_bytes": 4_500})
    samples = [TextSample(few, CorpusFiles.find(few.corpus), Bar("vocab", None, "", 0)) for _ in range(2)]
    sample = samples[0]
    assert sample.chunks == samples[1].chunks == sorted(sample.chunks)
    assert sample.bytes == sum(map(len, sample.chunks)) == 4_500
    assert sample.documents == sum(not is_held_out(f"{i:09}", 0.01) for i in range(2_000))
    assert sample.text_bytes == 9 * sample.documents
    quarters = [sum(500 * q <= int(chunk) < 500 * (q + 1) for chunk in sample.chunks) for q in range(4)]
    assert min(quarters) > 90
    everything = TextSample(whole, CorpusFiles.find(whole.corpus), Bar("vocab", None, "", 0))
    assert everything.bytes == 9 * sample.documents


@given(text=st.text())
def test_the_normalizer_gives_nfkc_with_single_spaces(text: str) -> None:
    once = normalizer().normalize_str(text)
    assert normalizer().normalize_str(once) == once
    assert "  " not in once
    assert not once.endswith(" ")
    assert "▁" not in once


def test_the_normalizer_keeps_case_and_replaces_compatibility_forms() -> None:
    assert normalizer().normalize_str("  Blå\u00a0ﬁsk\r\n og\u3000ＢÅＴ²\t") == " Blå fisk og BÅT2"


def test_words_of_long_texts_are_downsampled_in_proportion(monkeypatch):
    text = ["det er en dag " * 300 + " ".join(f"ord{i}" for i in range(1_000))] * 3
    text[1] += " ☃ zebra"
    settings = VocabSettings()
    assert downsample_words(text, settings) is text
    monkeypatch.setattr(unigram, "MAX_TRAINING_CHARACTERS", sum(map(len, text)) // 10)
    less = downsample_words(text, settings)
    assert less == downsample_words(text, settings)
    words = " ".join(less).split()
    assert set("".join(words)) == set("".join(text)) - {" "}
    assert sum(map(len, less)) < sum(map(len, text)) / 8
    assert words.count("det") == pytest.approx(90, abs=1)
    assert 200 < len({word for word in words if word.startswith("ord")}) < 400


def test_downsampling_keeps_every_character_composed_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decomposed letters are composed: the parts may occur without the letter."""
    parts = unicodedata.normalize("NFD", "가 난 é ñ ")
    text = [parts * 300 + unicodedata.normalize("NFD", "간 ń ") + "ﬁ " * 9]
    for normalization in ("nfkc", "nfc", "nmt_nfkc", "none"):
        settings = VocabSettings(normalization=normalization)
        normal = normalizer(settings)
        expected = set(normal.normalize_str(text[0]))
        with monkeypatch.context() as patch:
            patch.setattr(unigram, "MAX_TRAINING_CHARACTERS", len(text[0]) // 50)
            less = downsample_words(text, settings)
        assert sum(map(len, less)) < len(text[0]) / 10
        assert set(normal.normalize_str(" ".join(less))) == expected, normalization


def test_only_cleaned_text_is_in_the_sample(tmp_path: Path) -> None:
    """Documents of which no chunk would be kept are not cleaned, and are not kept uncleaned either."""
    lines = [f"{i:09}" + " lang" * (i % 40) for i in range(300)] + [f"fy{i}" for i in range(1_000)]
    (tmp_path / "a.txt").write_text("\n".join(lines))
    made = recipe(tmp_path, train=(str(tmp_path / "a.txt"),)).replace(
        **{
            "vocab.sample_bytes": 2_000,
            "cleaning.steps": ["length"],
            "cleaning.length.min_characters": 9,
        }
    )
    sample = TextSample(made, CorpusFiles.find(made.corpus), Bar("vocab", None, "", 0))
    assert 0 < sample.bytes <= 2_000
    assert not [chunk for chunk in sample.chunks if chunk.startswith("fy")]
