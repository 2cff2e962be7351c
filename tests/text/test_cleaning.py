"""The steps of cleaning that look at one document: what they drop, change, count and show."""

from __future__ import annotations

import gzip
import inspect
import json
import random
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from hypothesis import given
from hypothesis import strategies as st

from t5smith.base.artifact import read_manifest
from t5smith.base.errors import T5smithError
from t5smith.recipe.base import Settings
from t5smith.recipe.cleaning import (
    DOCUMENT_STEPS,
    C4Settings,
    FineWebSettings,
    GopherQualitySettings,
    GopherRepetitionSettings,
)
from t5smith.recipe.recipe import Recipe
from t5smith.store import plan
from t5smith.store.prepare import prepare
from t5smith.store.token_store import TokenStore
from t5smith.text.cleaning.filters import reason_of
from t5smith.text.cleaning.pipeline import EXAMPLES, SHOWN, Cleaner, Tally, cleaning_inputs
from t5smith.text.cleaning.word_tokenizer import UnicodeWords, word_tokenizer
from t5smith.text.corpus import CorpusFiles
from t5smith.text.document import Document
from t5smith.text.documents import split_documents
from t5smith.vocabulary.train import vocab
from t5smith.vocabulary.vocabulary import Vocabulary

PROSE = (
    "Det var en gang en konge som bodde i et slott ved havet, og han var ikke glad. "
    "Hver dag gikk han ned til stranden for å se etter skipene som aldri kom tilbake til ham. "
    "En morgen så han et hvitt seil langt ute, og da løp han ned alle trappene i slottet. "
    "Men det var bare en måke som hadde fått vind under vingene sine. "
    "Kongen satte seg på en stein og lo høyt, for første gang på mange år."
)
STOP_WORDS = ("og", "det", "en", "som", "i")


def cleaner(*steps: str, language: str = "nb", **settings: Any) -> Cleaner:
    settings.setdefault("gopher_quality", {"stop_words": STOP_WORDS})
    tree = {"language": language, "cleaning": {"steps": steps, **settings}}
    return Cleaner(Recipe.model_validate(tree))


def judged(made: Cleaner, text: str) -> tuple[str | None, dict[str, int]]:
    """What is left of a text, and why it was dropped."""
    tallies = made.tallies()
    left = made.clean(Document(text, "a.txt", 1), tallies)
    return left, {reason: number for tally in tallies for reason, number in tally.dropped.items()}


@pytest.mark.parametrize("step", ["unicode", "gopher_repetition", "gopher_quality", "c4", "fineweb"])
def test_prose_passes_as_it_is(step: str) -> None:
    assert judged(cleaner(step), PROSE) == (PROSE, {})


@pytest.mark.parametrize(
    ("step", "settings", "text", "reason"),
    [
        ("length", {"min_characters": 9}, "åtte her", "under 9 characters"),
        ("length", {"max_characters": 7}, "åtte her", "over 7 characters"),
        ("gopher_quality", {"min_doc_words": 999}, PROSE, "gopher_short_doc"),
        ("gopher_quality", {"max_doc_words": 9}, PROSE, "gopher_long_doc"),
        ("gopher_quality", {"min_avg_word_length": 9}, PROSE, "gopher_below_avg_threshold"),
        ("gopher_quality", {"max_avg_word_length": 2}, PROSE, "gopher_above_avg_threshold"),
        ("gopher_quality", {"max_symbol_word_ratio": 0.01}, f"# {PROSE} #", "gopher_too_many_hashes"),
        ("gopher_quality", {}, "\n".join(["- " + PROSE] * 3), "gopher_too_many_bullets"),
        ("gopher_quality", {}, f"{PROSE}...", "gopher_too_many_end_ellipsis"),
        ("gopher_quality", {"max_non_alpha_words_ratio": 0.99}, PROSE, "gopher_below_alpha_threshold"),
        ("gopher_quality", {"stop_words": ("the", "of")}, PROSE, "gopher_enough_stop_words"),
        ("gopher_repetition", {}, "\n".join([PROSE] * 2), "dup_line_frac"),
        ("gopher_repetition", {"dup_line_frac": 0.0}, "\n".join([PROSE] * 2), "dup_line_char_frac"),
        ("gopher_repetition", {}, "\n\n".join([PROSE] * 2), "dup_para_frac"),
        ("gopher_repetition", {"dup_para_frac": 0.0}, "\n\n".join([PROSE] * 2), "dup_para_char_frac"),
        ("gopher_repetition", {}, f"{'ja nei ' * 40}{PROSE}", "top_2_gram"),
        ("gopher_repetition", {"top_n_grams": (0.0, 0.1)}, f"{'ja nei ' * 40}{PROSE}", "top_3_gram"),
        ("gopher_repetition", {}, f"{PROSE} {PROSE}", "duplicated_5_n_grams"),
        ("gopher_repetition", {"dup_n_grams": (0.0, 0.1)}, f"{PROSE} {PROSE}", "duplicated_6_n_grams"),
        ("c4", {"min_num_sentences": 6}, PROSE, "too_few_sentences"),
        ("c4", {}, f"{PROSE} Og {{ her.", "curly_bracket"),
        ("c4", {}, f"{PROSE} Lorem ipsum her.", "lorem_ipsum"),
        ("fineweb", {}, PROSE[:-1], "line_punct_ratio"),
        ("fineweb", {"short_line_length": 999}, PROSE, "short_line_ratio"),
        ("fineweb", {}, f"{PROSE}\n{PROSE}", "char_dup_ratio"),
        ("fineweb", {"new_line_ratio": 0.001}, PROSE.replace(". ", ".\n"), "list_ratio"),
    ],
)
def test_each_limit_drops_what_is_beyond_it(
    step: str, settings: dict[str, Any], text: str, reason: str
) -> None:
    own = {"stop_words": STOP_WORDS, **settings} if step == "gopher_quality" else settings
    assert judged(cleaner(step, **{step: own}), text) == (None, {reason_of(reason): 1})


def codes(block: type) -> list[str]:
    """Every reason in the source of a filter of datatrove's; numbers in them are 4."""
    found = re.findall(r'return False, f?"([^"]+)"', inspect.getsource(block.filter))  # pyright: ignore
    return [re.sub(r"\{\w+\}", "4", code) for code in found]


@pytest.mark.parametrize(
    ("block", "settings"),
    [
        (GopherQualityFilter, GopherQualitySettings),
        (GopherRepetitionFilter, GopherRepetitionSettings),
        (C4QualityFilter, C4Settings),
        (FineWebQualityFilter, FineWebSettings),
    ],
)
def test_every_code_of_datatroves_is_translated_and_names_its_setting(
    block: type, settings: type[Settings]
) -> None:
    found = [code for code in codes(block) if code != "empty"]
    assert len(found) >= 3
    for code in found:
        setting = re.fullmatch(r"[a-z\d ]+ \((\w+)\)", reason_of(code))
        assert setting, code
        assert setting[1] in settings.model_fields


def test_a_code_that_is_not_known_stays_as_it_is() -> None:
    assert reason_of("top_x_gram") == "top_x_gram"
    assert reason_of("top_4_gram") == "the same 4 words too often (top_n_grams)"


def test_examples_that_are_cut_say_so() -> None:
    made = cleaner("length", length={"max_characters": 1})
    (tally,) = tallies = made.tallies()
    for text in ("a" * SHOWN, "b" * (SHOWN + 1), f"{'c' * (SHOWN - 1)} d"):
        made.clean(Document(text, "a.txt", 1), tallies)
    shown = {one["text"][0]: one["text"] for one in tally.examples}
    assert shown == {"a": "a" * SHOWN, "b": f"{'b' * SHOWN}…", "c": f"{'c' * (SHOWN - 1)}…"}


def test_text_is_repaired() -> None:
    assert judged(cleaner("unicode"), "blÃ¥bÃ¦r &amp; rÃ¸dt") == ("blåbær & rødt", {})


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({}, "Denne linjen har ikke noe punktum"),
        ({}, "To ord."),
        ({}, f"Et langt ord {'a' * 1001}."),
        ({}, "Slå på Javascript i nettleseren din."),
        ({"policy_phrases": ("informasjonskapsler",)}, "Vi bruker Informasjonskapsler på denne siden."),
    ],
)
def test_lines_are_taken_out(settings: dict[str, Any], line: str) -> None:
    assert judged(cleaner("c4", c4=settings), f"{line}\n{PROSE}") == (PROSE, {})
    assert (
        judged(cleaner("c4", c4={"filter_javascript": False}), f"Liker du javascript nå?\n{PROSE}")[0]
        != PROSE
    )


def test_policies_are_taken_out_of_english_alone() -> None:
    text = f"See our privacy policy on this page.\n{PROSE}"
    assert judged(cleaner("c4", language="en"), text)[0] == PROSE
    assert judged(cleaner("c4"), text)[0] == text


def test_bad_words_come_from_settings_and_files(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("fy\n\n søren \n", encoding="utf-8")
    made = cleaner("bad_words", bad_words=(f"file:{tmp_path / 'words.txt'}", "Huff"))
    for bad in ("Fy deg", "å søren!", "huff"):
        assert judged(made, bad) == (None, {"a bad word": 1})
    for good in ("fysikk", "sørensen", "huffer"):
        assert judged(made, good) == (good, {})


def test_steps_follow_each_other_and_count_what_comes_to_them() -> None:
    made = cleaner(
        "c4",
        "length",
        "bad_words",
        length={"min_characters": 100},
        bad_words=("måke",),
        c4={"min_num_sentences": 1},
    )
    tallies = made.tallies()
    for line, text in enumerate(
        ("Kort linje her.", f"Uten punktum\n{PROSE}", PROSE.replace("måke", "terne"), " \n")
    ):
        made.clean(Document(text, "a.txt", line), tallies)
    came = [(tally.step, tally.came, tally.changed, dict(tally.dropped)) for tally in tallies]
    assert came == [
        ("c4", 4, 1, {"empty": 1}),
        ("length", 3, 0, {"under 100 characters": 1}),
        ("bad_words", 2, 0, {"a bad word": 1}),
    ]
    # What is shown is what came to the step.
    assert tallies[2].examples[0]["text"] == f"{PROSE[:300].rstrip()}…"


@given(st.lists(st.text(max_size=80), max_size=20), st.sampled_from([" ", "\n", "\n\n", ". "]))
def test_no_text_is_too_odd_for_a_step(parts: list[str], between: str) -> None:
    made = EVERY_STEP
    made.clean(Document(between.join(parts), "a.txt", 1), made.tallies())


EVERY_STEP = cleaner(
    *(step for step in DOCUMENT_STEPS if step != "language"),
    length={"max_characters": 10**6},
    bad_words=("fy",),
    gopher_quality={"min_doc_words": 1, "min_avg_word_length": 0.0, "min_stop_words": 0},
    c4={"min_num_sentences": 0, "min_words_per_line": 0, "filter_no_terminal_punct": False},
    gopher_repetition={"top_n_grams": (1.0,), "dup_n_grams": (1.0,)},
)


def test_words_and_sentences_in_many_scripts() -> None:
    words = UnicodeWords("")
    assert words.word_tokenize("Han sa «Hei!!!» til e-posten 3,14 -- … don't") == [
        *("Han", "sa", "«", "Hei", "!!!", "»", "til", "e-posten", "3,14", "--", "…", "don't")
    ]
    assert words.word_tokenize("a今日b ははは") == ["a", "今", "日", "b", "は", "は", "は"]
    assert words.word_tokenize("हिन्दी में 今日は") == ["हिन्दी", "में", "今", "日", "は"]
    assert words.sent_tokenize("Hei. Han sa: «Nei!» Og 3.14?\nuten slutt\n\n今日は。明日。") == [
        *("Hei.", "Han sa: «Nei!»", "Og 3.14?", "uten slutt", "今日は。", "明日。")
    ]


@given(st.text())
def test_no_character_is_lost_between_words(text: str) -> None:
    assert "".join(UnicodeWords("").word_tokenize(text)) == "".join(
        character for character in text if not character.isspace() or character in "\x1c\x1d\x1e\x1f"
    )


@pytest.mark.parametrize(
    ("cleaning", "message"),
    [
        ({"steps": ["gopher"]}, "cleaning.steps: 'gopher' cannot be used"),
        ({"steps": ["unicod"]}, r"'unicod' cannot be used \(did you mean 'unicode'\?\); expected some of"),
        ({"steps": ["c4", "c4"]}, "c4 is listed twice"),
        ({"steps": ["exact_duplicates", "c4"]}, "duplicates are removed before the last step"),
        ({"steps": ["near_duplicates", "exact_duplicates"]}, "before the last step"),
        ({"steps": ["language"]}, r"needs a model and languages.* Lid\.176\.bin is at"),
        ({"steps": ["bad_words"]}, "cleaning.bad_words: the step `bad_words` needs words"),
        ({"bad_words": ["fy", ""]}, "cleaning.bad_words: a word is empty; expected words, or file:NAME"),
        ({"bad_words": [" "]}, "cleaning.bad_words: a word is empty"),
        ({"gopher_quality": {"stop_words": [""]}}, "cleaning.gopher_quality.stop_words: a word is empty"),
        ({"c4": {"policy_phrases": ["", "a"]}}, "cleaning.c4.policy_phrases: a word is empty"),
        ({"steps": ["length"]}, "cleaning.length: the step `length` needs a limit"),
        ({"c4": {"min_words": 1}}, "cleaning.c4.min_words: unknown key"),
        ({"fineweb": {"line_punct_thr": 2.0}}, "cleaning.fineweb.line_punct_thr"),
    ],
)
def test_settings_that_cannot_be(cleaning: dict[str, Any], message: str) -> None:
    with pytest.raises(T5smithError, match=message):
        Recipe.model_validate({"cleaning": cleaning})


@pytest.mark.parametrize(
    ("steps", "settings", "message"),
    [
        ("gopher_quality", {"gopher_quality": {}}, "no stop words are given, and the language"),
        ("bad_words", {"bad_words": ("file:none.txt",)}, "none.txt cannot be read"),
        ("bad_words", {"bad_words": ("file:empty.txt",)}, "empty.txt has no words in it"),
        ("bad_words", {"bad_words": ("file:binary.txt",)}, "binary.txt cannot be read"),
        ("fineweb", {"words": "language", "language": "xq"}, "datatrove has no words for 'xq'"),
        ("fineweb", {"words": "language", "language": "ko"}, "a package is missing .*kiwipiepy"),
        ("language", {"model": "none.bin"}, "there is no file none.bin"),
        ("language", {"model": "binary.txt"}, "not a fastText model"),
    ],
)
def test_what_a_step_needs_and_does_not_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: str, settings: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "binary.txt").write_bytes(bytes(range(256)))
    language = settings.pop("language", "nb")
    if model := settings.pop("model", ""):
        pytest.importorskip("fasttext")
        settings["language"] = {"model": model, "languages": ("nb",)}
    tree = {"language": language, "cleaning": {"steps": (steps,), **settings}}
    with pytest.raises(T5smithError, match=message):
        Cleaner(Recipe.model_validate(tree))


def test_words_by_the_language() -> None:
    pytest.importorskip("spacy")
    words = word_tokenizer("language", "nb")
    assert words.word_tokenize("Det er bl.a. dag.") == ["Det", "er", "bl.a.", "dag", "."]
    assert judged(cleaner("gopher_quality", "c4", "fineweb", words="language"), PROSE) == (PROSE, {})


def test_spaces_are_asked_for_where_there_are_none(capsys: pytest.CaptureFixture[str]) -> None:
    word_tokenizer("unicode", "th")
    assert "th has no spaces between words" in " ".join(capsys.readouterr().err.split())


@pytest.fixture
def languages(tmp_path: Path) -> Path:
    """A fastText model that tells words of the prose from numbers, as its own code would write it."""
    pytest.importorskip("fasttext")
    words = [*dict.fromkeys(PROSE.split()), *map(str, range(100))]
    labels = ["__label__nb", "__label__zz"]
    entries = [*((word, 0) for word in words), *((label, 1) for label in labels)]
    inputs = np.array([[0, 4] if word.isdigit() else [4, 0] for word in words], np.float32)
    outputs = np.eye(2, dtype=np.float32)
    # dim, ws, epoch, minCount, neg, wordNgrams, loss: softmax, model: supervised, bucket, minn, maxn, …
    data = struct.pack("<ii12id", 793712314, 12, 2, 5, 5, 1, 5, 1, 3, 3, 0, 0, 0, 100, 1e-4)
    data += struct.pack("<3iqq", len(entries), len(words), len(labels), len(entries), -1)
    for entry, kind in entries:
        data += entry.encode() + b"\0" + struct.pack("<qb", 1, kind)
    for matrix in (inputs, outputs):
        data += struct.pack("<?qq", False, *matrix.shape) + matrix.tobytes()
    (tmp_path / "lid.bin").write_bytes(data)
    return tmp_path / "lid.bin"


def test_documents_in_other_languages_are_dropped(languages: Path) -> None:
    own = {"model": str(languages), "languages": ("nb",)}
    tree: dict[str, Any] = {"steps": ("language",), "language": own}
    made = Cleaner(Recipe.model_validate({"cleaning": tree}))
    assert judged(made, PROSE) == (PROSE, {})
    assert judged(made, "12 13 14 15 16 17 18 19") == (None, {"in zz": 1})
    assert judged(made, "12 13 14\n15 16 17 18 19")[1] == {"in zz": 1}
    # Each label's chance is compared with the threshold, not the order of the labels.
    own["threshold"] = 1e-7
    assert judged(Cleaner(Recipe.model_validate({"cleaning": tree})), "12 13 14")[0] == "12 13 14"
    own["languages"] = ("nb", "sv")
    with pytest.raises(T5smithError, match="the model does not know sv") as error:
        Cleaner(Recipe.model_validate({"cleaning": tree}))
    assert "nb, zz" in str(error.value)


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """Three hundred documents in many blocks; every third is short, every seventh has a bad word."""
    monkeypatch.setattr(plan, "MIN_BLOCK_BYTES", 2_000)
    monkeypatch.setattr(plan, "MAX_BLOCK_BYTES", 2_000)
    draw = random.Random(0)
    with (tmp_path / "text.jsonl").open("w", encoding="utf-8") as file:
        for i in range(300):
            words = draw.choices(PROSE.split(), k=3 if i % 3 == 0 else 20)
            words += ["huff"] * (i % 7 == 0) + ["søppelord"] * (i % 3 == 0)
            file.write(json.dumps({"text": f"{i} " + " ".join(words)}, ensure_ascii=False) + "\n")
    tree = {
        "run_dir": tmp_path / "run",
        "corpus": {"train": (str(tmp_path / "text.jsonl"),), "held_out_fraction": 0.1},
        "vocab": {"size": 120},
        "cleaning": {
            "steps": ("length", "bad_words"),
            "length": {"min_characters": 60},
            "bad_words": ("huff",),
        },
    }
    return Recipe.model_validate(tree)


def test_counts_and_examples_are_in_the_manifest_and_told(
    recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vocab(recipe)
    store = prepare(recipe)
    facts = read_manifest(store, "store").facts
    length, bad = facts["cleaning"]
    assert (length["step"], length["in"], length["dropped"]) == ("length", 300, {"under 60 characters": 100})
    assert (bad["step"], bad["in"], bad["dropped"]) == ("bad_words", 200, {"a bad word": 28})
    assert facts["train"]["documents"] + facts["valid"]["documents"] == 172
    lines = (tmp_path / "text.jsonl").read_text(encoding="utf-8").splitlines()
    for step, remainder in ((length, 3), (bad, 7)):
        assert len(step["examples"]) == EXAMPLES
        for example in step["examples"]:
            file, _, line = example["place"].rpartition(":")
            assert file == str(tmp_path / "text.jsonl")
            assert (int(line) - 1) % remainder == 0
            assert json.loads(lines[int(line) - 1])["text"] == example["text"]
    # Drawn over the whole text, not its beginning.
    assert max(int(one["place"].rpartition(":")[2]) for one in length["examples"]) > 150
    said = " ".join(capsys.readouterr().err.split())
    assert "length: dropped 100 of 300 documents" in said
    assert "bad_words: dropped 28 of 200 documents" in said
    vocabulary = Vocabulary.load(recipe.folder / "vocab")
    opened = TokenStore.open(store)
    for split in (opened.train, opened.valid):
        assert "huff" not in vocabulary.decode(split.tokens.tolist())
    # Pieces are not learned from what is dropped.
    assert not any("ppelord" in piece for piece in vocabulary.pieces(range(vocabulary.size)))


@pytest.mark.parametrize("squeeze", [bytes, gzip.compress])
def test_what_is_changed_is_counted_and_measured(
    recipe: Recipe, tmp_path: Path, squeeze: Callable[[bytes], bytes]
) -> None:
    """In many blocks, which of a compressed file one task goes through."""
    draw = random.Random(1)
    texts = [
        f"{i} &amp; {draw.getrandbits(2000):x}" if i % 4 == 0 else f"{i} {draw.getrandbits(2000):x}"
        for i in range(200)
    ]
    file = tmp_path / ("a.jsonl" if squeeze is bytes else "a.jsonl.gz")
    file.write_bytes(squeeze("".join(json.dumps({"text": text}) + "\n" for text in texts).encode()))
    own = recipe.replace(**{"corpus.train": (str(file),), "cleaning.steps": ("unicode",), "prepare.tasks": 1})
    vocab(own)
    facts = read_manifest(prepare(own), "store").facts
    assert [(one["in"], one["changed"]) for one in facts["cleaning"]] == [(200, 50)]
    size = sum(len(text.replace("&amp;", "&")) for text in texts)
    assert facts["train"]["text_bytes"] + facts["valid"]["text_bytes"] == size


def test_the_store_does_not_depend_on_tasks(recipe: Recipe) -> None:
    vocab(recipe)
    one = prepare(recipe.replace(**{"prepare.tasks": 1}))
    found = {path.name: path.read_bytes() for path in one.rglob("*") if path.is_file()}
    one.rename(one.with_name("one"))
    many = prepare(recipe.replace(**{"prepare.tasks": 7}))
    assert found == {path.name: path.read_bytes() for path in many.rglob("*") if path.is_file()}


def test_what_is_held_out_goes_by_the_raw_text(recipe: Recipe) -> None:
    vocab(recipe)
    opened = TokenStore.open(prepare(recipe))
    vocabulary = Vocabulary.load(recipe.folder / "vocab")
    kept = {"valid": vocabulary.decode(opened.valid.tokens.tolist())}
    before = TokenStore.open(prepare(recipe.replace(**{"cleaning.steps": ()})))
    for text in vocabulary.decode(before.valid.tokens.tolist()).split("</s>"):
        assert len(text) < 60 or "huff" in text or text in kept["valid"]
    assert opened.valid.text_bytes < before.valid.text_bytes


def test_the_split_of_a_changed_document_is_that_of_its_raw_text(recipe: Recipe, tmp_path: Path) -> None:
    """So the vocabulary, whose documents are split before they are cleaned, sees no held-out one."""
    file = tmp_path / "changed.txt"
    file.write_text("\n\n".join(f"{i} &amp; dag" for i in range(60)))
    own = recipe.replace(**{"corpus.train": (str(file),), "cleaning.steps": ("unicode",), "vocab.size": 30})
    vocab(own)
    valid = TokenStore.open(prepare(own)).valid
    held_out = split_documents(CorpusFiles.find(own.corpus), "valid")
    expected = " ".join(document.text.replace("&amp;", "&") for document in held_out)
    assert Vocabulary.load(own.folder / "vocab").decode(valid.tokens.tolist()) == expected


def test_a_list_that_changed_is_another_key(tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("huff")
    plain = {"steps": ("bad_words", "exact_duplicates"), "bad_words": (f"file:{words}",)}
    made = Recipe.model_validate({"cleaning": plain})
    before = cleaning_inputs(made)
    words.write_text("fy")
    assert cleaning_inputs(made) != before
    assert cleaning_inputs(made, duplicates=False)["cleaning"]["steps"] == ["bad_words"]
    assert cleaning_inputs(Recipe()) == {}
    # Limits of steps that are not done do not count.
    assert cleaning_inputs(made.replace(**{"cleaning.c4.min_num_sentences": 3})) == cleaning_inputs(made)
    words.unlink()
    with pytest.raises(T5smithError, match=r"words\.txt: cannot be read"):
        cleaning_inputs(made)


def test_everything_dropped_is_refused(recipe: Recipe) -> None:
    vocab(recipe)
    strict = recipe.replace(**{"cleaning.length.min_characters": 10_000, "corpus.train": recipe.corpus.train})
    (recipe.folder.parent / "other").mkdir()
    strict = strict.replace(run_dir=recipe.folder.parent / "other")
    (strict.folder / "vocab").symlink_to(recipe.folder / "vocab")
    with pytest.raises(T5smithError, match="the train split has no text") as error:
        prepare(strict)
    assert "remove cleaning steps" in str(error.value)


def test_a_file_of_which_cleaning_drops_every_document_is_usable(recipe: Recipe, tmp_path: Path) -> None:
    """Also if one of its records is skipped, and no task reads all of its blocks."""
    short = tmp_path / "short.jsonl"
    short.write_text('{"text": "kort"}\n' * 200 + "{\n" + '{"text": "kort"}\n' * 100)
    own = recipe.replace(**{"corpus.train": (*recipe.corpus.train, str(short))})
    vocab(own)
    facts = read_manifest(prepare(own), "store").facts
    assert facts["skipped_records"]["counts"] == {"not JSON": 1}
    assert facts["cleaning"][0]["dropped"] == {"under 60 characters": 400}


@given(st.lists(st.tuples(st.text(min_size=1, max_size=9), st.integers(0, 3)), max_size=60))
def test_examples_do_not_depend_on_who_counts(documents: list[tuple[str, int]]) -> None:
    parts = [Tally("length") for _ in range(4)]
    whole = Tally("length")
    for line, (text, part) in enumerate(documents):
        for tally in (parts[part], whole):
            tally.drop("short", Document(text, "a.txt", line), text)
    merged = Tally("length")
    for tally in parts:
        merged.merge(json.loads(json.dumps(tally.facts())))
    assert merged.facts() == whole.facts()
    lines = {
        text: [line for line, (other, _) in enumerate(documents) if other == text] for text, _ in documents
    }
    assert all(one["line"] == lines[one["text"]][0] for one in whole.examples)
    assert len(whole.examples) == min(EXAMPLES, len({text for text, _ in documents}))
