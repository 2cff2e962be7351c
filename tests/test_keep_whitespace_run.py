"""The whole job with `vocab.keep_whitespace`: every stage and verb keeps the new lines of the text."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from t5smith import compare_vocabularies, generate, inspect
from t5smith.cli.main import main
from t5smith.generation.completion import completion
from t5smith.generation.decoding import Decoder, Output
from t5smith.generation.modes import Mode
from t5smith.pipeline import run
from t5smith.recipe.recipe import Recipe
from t5smith.store.token_store import TokenStore
from t5smith.text.corpus import find_files
from t5smith.text.documents import read_documents
from t5smith.vocabulary.import_tokenizer import import_tokenizer
from t5smith.vocabulary.train import vocab
from t5smith.vocabulary.vocabulary import Vocabulary
from tiny import TEXT, tiny_recipe

TYPED = "Alle mennesker\n\n    <extra_id_0>\ter født\n<extra_id_1>"


def verses(recipe: Recipe) -> list[str]:
    """Documents of short lines, some indented, with blank lines between them."""
    draw = random.Random(0)
    made: list[str] = []
    for document in read_documents(recipe.corpus, find_files(list(TEXT), "corpus.train")):
        words = document.text.split()
        lines = (" ".join(words[i : i + 5]) for i in range(0, len(words), 5))
        made.append(
            "".join(draw.choice(("", "    ", "\t")) + line + draw.choice(("\n", "\n\n")) for line in lines)
        )
    return made


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory):
    """The recipe, its documents and what `run` returned."""
    folder = tmp_path_factory.mktemp("verse")
    recipe = tiny_recipe(folder / "run", **{"vocab.keep_whitespace": True})
    texts = verses(recipe)
    file = folder / "verse.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    recipe = recipe.replace(**{"corpus.train": [str(file)]})
    return recipe, texts, run(recipe)


def test_the_store_has_every_new_line(done) -> None:
    recipe, texts, summary = done
    vocabulary = Vocabulary.load(recipe.folder)
    store = TokenStore.open(recipe.folder / "store")
    found = [
        vocabulary.decode(part)
        for split in (store.train, store.valid)
        for start, end in zip((0, *split.ends), split.ends, strict=False)
        for part in [split.tokens[start:end]]
    ]
    # A held-out character that the training text does not have is unknown.
    assert len(found) == len(texts)
    assert len(set(found) & set(texts)) > 0.95 * len(texts)
    assert summary["store"]["train"]["unknown"] == 0
    figures = json.loads((recipe.folder / "store" / "figures.json").read_text(encoding="utf-8"))
    most = [piece for piece, _ in figures["pieces"]["most_used"]]
    assert {r"\n", r"\n\n"} < set(most)
    for example in summary["evaluation"]["examples"]:
        assert "\n" not in "".join((*example["kept"], *example["truth"], *example["fills"]))


def test_the_exported_model_reads_and_writes_new_lines(done, monkeypatch, capsys) -> None:
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    recipe, _, summary = done
    vocabulary = Vocabulary.load(summary["model"])
    auto = AutoTokenizer.from_pretrained(summary["model"])
    ids = auto(TYPED).input_ids
    assert ids == [*vocabulary.encode_with_sentinels(TYPED), vocabulary.eos_id]
    answer = generate(recipe.folder, [TYPED], max_new_tokens=6, constrain=False, min_new_tokens=0)[0]
    model = AutoModelForSeq2SeqLM.from_pretrained(summary["model"])
    theirs = model.generate(
        **auto(TYPED, return_tensors="pt"), max_new_tokens=6, do_sample=False, num_beams=1
    )
    assert list(answer.ids) == [number for number in theirs[0].tolist()[1:] if number]
    card = Path(summary["model"], "README.md").read_text(encoding="utf-8")
    assert "keeps new lines, tabs and every space" in card
    assert "single spaces" not in card

    # What a trained model would write: a line of its own for the first span, an indented word for the second.
    first, second = vocabulary.sentinel_ids[:2].tolist()
    written = [first, *vocabulary.encode(" har\n\n  fri"), second, *vocabulary.encode("    alle"), 1]
    monkeypatch.setattr(Decoder, "decode", lambda *_: [[Output(tuple(written))]])
    assert main(["generate", str(recipe.folder), TYPED]) == 0
    assert capsys.readouterr().out == "Alle mennesker\n\n    har\n\n  fri\ter født\n    alle\n"
    assert generate(recipe.folder, [TYPED])[0].fills == (" har\n\n  fri", "    alle")


def test_a_text_that_is_continued_keeps_its_white_space(done) -> None:
    vocabulary = Vocabulary.load(done[2]["model"])
    ids = vocabulary.encode("alle\n    fri\n\n")
    for end in range(1, len(ids)):
        continued = completion(vocabulary, ids[:end], [Output(tuple(ids[end:]))], Mode("[S]", (), True, True))
        assert continued.filled == vocabulary.decode(ids)


def test_inspect_shows_new_lines(done, capsys) -> None:
    recipe, _, _ = done
    trace = inspect("Alle\n\n    født fri\n", noise=("født", "fri\n"), tokenizer=recipe.folder)
    assert trace.text == r"Alle\n\n    født fri\n"
    assert [span.text for span in trace.spans] == [r"født fri\n"]
    assert trace.inputs_text == r"Alle\n\n    <extra_id_0>"
    assert [token.piece for token in trace.tokens if token.piece.startswith((r"\n", "▁▁"))] == [
        r"\n\n",
        "▁▁▁",
        r"\n",
    ]
    assert main(["inspect", "--tokenizer", str(recipe.folder), "a\n\tb"]) == 0
    shown = capsys.readouterr().out
    assert r"\n" in shown
    assert r"\t" in shown


def test_the_vocabulary_is_imported_and_compared_as_it_is(done, tmp_path) -> None:
    recipe, texts, summary = done
    own = Vocabulary.load(recipe.folder)
    for source in (recipe.folder, summary["model"]):
        assert import_tokenizer(str(source)).vocabulary.encode(texts[0]) == own.encode(texts[0])
    copy = recipe.replace(run_dir=tmp_path, vocab={"tokenizer": str(summary["model"])})
    assert Vocabulary.load(vocab(copy)).encode(texts[0]) == own.encode(texts[0])
    compared = compare_vocabularies(recipe, [str(recipe.folder)]).vocabularies[0]
    held_out = summary["store"]["valid"]
    assert compared.tokens == held_out["tokens"] - held_out["documents"]
    assert not any("\n" in piece for piece in compared.longest)


def test_a_cleaning_step_that_strips_lines_gives_a_warning(done, tmp_path, capfd) -> None:
    recipe, _, _ = done
    cleaned = recipe.replace(
        run_dir=tmp_path, **{"cleaning.steps": ["c4"], "cleaning.c4.min_num_sentences": 0}
    )
    vocab(cleaned)
    assert "c4 strips lines" in capfd.readouterr().err
