"""Texts that must not be trained on: exact and near matches are dropped and counted."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from t5smith.base.artifact import read_manifest
from t5smith.base.errors import T5smithError
from t5smith.pipeline import prepare as prepare_with_page
from t5smith.recipe.recipe import Recipe
from t5smith.store import plan
from t5smith.store import prepare as module
from t5smith.store.prepare import prepare
from t5smith.store.token_store import TokenStore
from t5smith.vocabulary.train import vocab
from t5smith.vocabulary.vocabulary import Vocabulary

WORDS = [
    f"{first}{last}" for first in ("ber", "dal", "fjell", "hus", "sjø") for last in ("et", "en", "a", "ene")
]
Make = Callable[..., Recipe]


def story(seed: int, words: int = 40) -> str:
    draw = random.Random(seed)
    return " ".join(draw.choice(WORDS) for _ in range(words))


def digest(text: str) -> str:
    return hashlib.sha256(" ".join(text.split()).encode()).hexdigest()


TEXTS = [f"{story(number)} nummer {number}" for number in range(60)]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes recipes on sixty documents, with a vocabulary; `exclude` are contents of files by name."""
    (tmp_path / "text.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))

    def made(name: str = "run", *, exclude: dict[str, str] | None = None, **changes: Any) -> Recipe:
        for file, content in (exclude or {}).items():
            (tmp_path / file).write_text(content, encoding="utf-8")
        recipe = Recipe.model_validate(
            {
                "run_dir": tmp_path / name,
                "corpus": {
                    "train": (str(tmp_path / "text.jsonl"),),
                    "exclude": tuple(str(tmp_path / file) for file in exclude or {}),
                    "held_out_fraction": 0.2,
                },
                "vocab": {"size": 90},
            }
        ).replace(**changes)
        vocab(recipe)
        return recipe

    return made


def stored(recipe: Recipe) -> list[str]:
    """The documents of a store, in both splits, sorted."""
    store = TokenStore.open(recipe.folder / "store")
    vocabulary = Vocabulary.load(recipe.folder / "vocab")
    found: list[str] = []
    for split in (store.train, store.valid):
        start = 0
        for end in split.ends:
            found.append(vocabulary.decode(split.windows_at(np.array([start]), int(end) - start)[0][:-1]))
            start = int(end)
    return sorted(found)


def facts(recipe: Recipe) -> dict[str, Any]:
    return read_manifest(recipe.folder / "store", "store").facts


def test_hashes_and_texts_are_dropped_and_counted_by_file(
    make: Make, capfd: pytest.CaptureFixture[str]
) -> None:
    near = TEXTS[4].replace("nummer 4", "nummer fire")
    hashes = [digest(TEXTS[1]), digest("not there"), digest(TEXTS[2]).upper() + "  second.txt"]
    recipe = make(
        exclude={
            "takedown.txt": "# asked for\n" + "\n".join(hashes) + "\n",
            "test.txt": "\n\n".join([TEXTS[3].replace(" ", "\n  "), near, story(900)]),
            "again.jsonl": json.dumps({"text": TEXTS[1]}) + "\n" + json.dumps({"text": " "}) + "\n",
        }
    )
    prepare(recipe)
    gone = {1, 2, 3, 4}
    assert stored(recipe) == sorted(text for number, text in enumerate(TEXTS) if number not in gone)
    excluded = facts(recipe)["excluded"]
    assert excluded == {
        "takedown.txt": {"entries": 3, "found": 2, "documents": 2, "near_matches": 0},
        "test.txt": {"entries": 3, "found": 2, "documents": 1, "near_matches": 1},
        # The document is counted for the first file that has it.
        "again.jsonl": {"entries": 1, "found": 1, "documents": 0, "near_matches": 0},
    }
    (step,) = facts(recipe)["cleaning"]
    assert (step["step"], step["in"], sum(step["dropped"].values())) == ("exclude", 60, 4)
    assert TEXTS[1] not in json.dumps(facts(recipe))
    error = capfd.readouterr().err
    assert "prepare   takedown.txt: found 2 of its 3 texts; 2 documents excluded" in error
    assert "test.txt: found 2 of its 3 texts; 2 documents excluded (1 as near matches)" in error


def test_near_matches_can_be_kept_and_follow_the_settings_of_near_duplicates(make: Make) -> None:
    near = TEXTS[4].replace("nummer 4", "nummer fire")
    exclude = {"test.txt": f"{TEXTS[3]}\n\n{near}"}
    exact = make("exact", exclude=exclude, **{"corpus.exclude_near_matches": False})
    prepare(exact)
    assert len(stored(exact)) == 59
    # Hashes of one long n-gram: nothing but the same text has it.
    strict = make("strict", exclude=exclude, **{"cleaning.near_duplicates.n_grams": 42})
    prepare(strict)
    assert len(stored(strict)) == 59
    default = make("default", exclude=exclude)
    prepare(default)
    assert len(stored(default)) == 58


def test_a_document_is_excluded_as_it_was_and_as_it_was_cleaned(make: Make, tmp_path: Path) -> None:
    changed = TEXTS[5] + " dag &amp; natt"
    with (tmp_path / "text.jsonl").open("a") as file:
        file.write(
            json.dumps({"text": changed}) + "\n" + json.dumps({"text": TEXTS[6] + " dag &amp; natt"}) + "\n"
        )
    hashes = f"{digest(changed)}\n{digest(TEXTS[6] + ' dag & natt')}\n"
    recipe = make(exclude={"list.txt": hashes}, **{"cleaning.steps": ("unicode", "exact_duplicates")})
    prepare(recipe)
    assert facts(recipe)["excluded"]["list.txt"]["found"] == 2
    assert [step["step"] for step in facts(recipe)["cleaning"]] == ["unicode", "exclude", "exact_duplicates"]
    assert len(stored(recipe)) == 60


def test_the_vocabulary_is_not_learned_from_them(make: Make, tmp_path: Path) -> None:
    with (tmp_path / "text.jsonl").open("a") as file:
        file.write(json.dumps({"text": "ξξξ ωωω ξξξ ωωω"}) + "\n")
    with_it = make("with", **{"vocab.byte_fallback": False})
    without = make("without", exclude={"list.txt": digest("ξξξ ωωω ξξξ ωωω")})
    pieces = [(recipe.folder / "vocab" / "tokenizer.json").read_text() for recipe in (with_it, without)]
    assert "ξ" in pieces[0]
    assert "ξ" not in pieces[1]
    facts_of_vocab = read_manifest(without.folder / "vocab", "vocab").facts
    assert (facts_of_vocab["dropped"], read_manifest(with_it.folder / "vocab", "vocab").facts["dropped"]) == (
        1,
        0,
    )


def test_the_store_is_the_same_for_one_and_eight_tasks_and_after_a_kill(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "MIN_BLOCK_BYTES", 2_000)
    monkeypatch.setattr(plan, "MAX_BLOCK_BYTES", 2_000)
    monkeypatch.setattr(module, "IN_PROCESS_BYTES", 1)
    exclude = {"list.txt": "\n".join(map(digest, TEXTS[:20])), "test.txt": "\n\n".join(TEXTS[40:45])}
    stores = []
    for name, tasks in (("one", 1), ("eight", 8)):
        recipe = make(name, exclude=exclude, **{"prepare.tasks": tasks})
        stores.append(
            {p.relative_to(recipe.folder): p.read_bytes() for p in prepare(recipe).rglob("*") if p.is_file()}
        )
    stopped = make("stopped", exclude=exclude, **{"prepare.tasks": 1})

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "finish_store", stop)
        with pytest.raises(KeyboardInterrupt):
            prepare(stopped)
    stores.append(
        {p.relative_to(stopped.folder): p.read_bytes() for p in prepare(stopped).rglob("*") if p.is_file()}
    )
    assert stores[0] == stores[1] == stores[2]
    assert facts(stopped)["excluded"]["list.txt"]["found"] == 20


def test_the_fingerprint_has_the_content_of_the_files_only_if_there_are_any(
    make: Make, tmp_path: Path
) -> None:
    inputs = read_manifest(prepare(make("none")), "store").inputs
    assert "exclude" not in inputs
    assert "exclude" not in inputs["corpus"]
    recipe = make(exclude={"list.txt": digest(TEXTS[1])})
    before = read_manifest(prepare(recipe), "store")
    (tmp_path / "list.txt").write_text(digest(TEXTS[2]))
    vocabulary = read_manifest(recipe.folder / "vocab", "vocab")
    vocab(recipe)
    assert read_manifest(recipe.folder / "vocab", "vocab") == vocabulary
    assert read_manifest(prepare(recipe), "store").key != before.key
    assert TEXTS[1] in stored(recipe)
    assert TEXTS[2] not in stored(recipe)


def test_named_held_out_text_stays(make: Make, tmp_path: Path) -> None:
    (tmp_path / "valid.txt").write_text("\n\n".join(TEXTS[:5]))
    (tmp_path / "copy.txt").write_text("\n\n".join(TEXTS[:5]))
    recipe = make(exclude={}, **{"corpus.valid": (str(tmp_path / "valid.txt"),)})
    recipe = recipe.replace(**{"corpus.exclude": (str(tmp_path / "valid.txt"),)})
    prepare(recipe)
    assert facts(recipe)["valid"]["documents"] == 5
    assert facts(recipe)["train"]["documents"] == 55
    inside = recipe.replace(**{"corpus.train": (str(tmp_path),), "corpus.valid": ()})
    with pytest.raises(T5smithError, match=r"corpus.exclude: .*is in corpus.train too"):
        prepare(inside)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f"{digest('a')}\nnothing\n", "list.txt:2: 'nothing' is no hash"),
        ("\n \n", "list.txt: it has no text and no hash"),
    ],
)
def test_a_list_that_cannot_be_used_is_an_error(make: Make, content: str, message: str) -> None:
    recipe = make()
    (recipe.folder.parent / "list.txt").write_text(content)
    with pytest.raises(T5smithError) as raised:
        prepare(recipe.replace(**{"corpus.exclude": (str(recipe.folder.parent / "list.txt"),)}))
    assert message in str(raised.value)


def test_records_that_cannot_be_read_are_counted(make: Make, capfd: pytest.CaptureFixture[str]) -> None:
    lines = [json.dumps({"text": TEXTS[1]}), "{broken", json.dumps({"text": TEXTS[2]})]
    recipe = make(exclude={"test.jsonl": "\n".join(lines) + "\n"})
    prepare(recipe)
    own = facts(recipe)["excluded"]["test.jsonl"]
    assert (own["entries"], own["found"], own["skipped"]) == (2, 2, {"not JSON": 1})
    assert "test.jsonl:2" in capfd.readouterr().err


def test_of_a_damaged_list_all_that_can_be_unpacked_is_used(make: Make) -> None:
    """Lists are looked into before they are read: neither look is ended by the damage."""
    recipe = make()
    hashes = gzip.compress("".join(f"{digest(text)}\n" for text in TEXTS[:30]).encode())
    texts = gzip.compress("\n\n".join(TEXTS[40:]).encode())
    names = [str(recipe.folder.parent / name) for name in ("list.gz", "texts.gz")]
    Path(names[0]).write_bytes(hashes[:-500])
    Path(names[1]).write_bytes(texts[:-10])
    prepare(recipe.replace(**{"corpus.exclude": tuple(names)}))
    for name, most in (("list.gz", 30), ("texts.gz", 20)):
        own = facts(recipe)["excluded"][name]
        assert 10 < own["found"] == own["entries"] < most
        assert own["skipped"] == {"damaged archive": 1}
    Path(names[0]).write_bytes(hashes[:8])
    with pytest.raises(T5smithError, match=r"list.gz:1: the archive is cut short or damaged"):
        prepare(recipe.replace(**{"corpus.exclude": tuple(names)}))


def test_the_page_shows_what_was_excluded(make: Make) -> None:
    recipe = make(exclude={"list.txt": f"{digest(TEXTS[1])}\n{digest('none')}"})
    prepare_with_page(recipe)
    page = (recipe.folder / "corpus.html").read_text()
    assert "Excluded texts" in page
    assert "list.txt" in page


def test_the_documented_command_prints_the_hash() -> None:
    docs = (Path(__file__).parents[2] / "docs" / "corpora.md").read_text()
    (line,) = [line for line in docs.splitlines() if line.startswith("python3 -c") and "sha256" in line]
    program = line.split('"')[1]
    found = subprocess.run(
        [sys.executable, "-c", program],
        input="en  dag\n og natt\n",
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == digest("en dag og natt")
