"""`t5smith prepare` writes the corpus report, and `t5smith run` includes it in its report."""

from __future__ import annotations

import html
import json
import subprocess
import sys
from pathlib import Path

import pytest

from t5smith.base.artifact import read_manifest
from t5smith.cli.main import main
from t5smith.pipeline import CORPUS_PAGE as PAGE
from t5smith.pipeline import prepare
from t5smith.recipe.recipe import Recipe
from t5smith.recipe.toml import dump
from t5smith.store.statistics import FIGURES, read_figures
from t5smith.vocabulary.train import vocab

MARKUP = "<script>alert(1)</script>"


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """Two corpora, the text of one of them markup, with their vocabulary."""
    (tmp_path / "nb.txt").write_text("\n\n".join(f"det er dag {i} og natt {i}" for i in range(40)))
    rows = [json.dumps({"text": f"{MARKUP} nr {i}"}) for i in range(40)]
    (tmp_path / "web.jsonl").write_text("\n".join([*rows, '{"text": ""}', '{"text": 7}']))
    made = Recipe.model_validate(
        {
            "name": "to-korpus",
            "run_dir": tmp_path / "run",
            "corpus": {
                "train": (f"nb={tmp_path}/nb.txt", f"web={tmp_path}/web.jsonl"),
                "held_out_fraction": 0.2,
            },
            "vocab": {"size": 60},
        }
    )
    vocab(made)
    return made


def test_preparing_writes_the_corpus_report(recipe: Recipe, capfd: pytest.CaptureFixture[str]) -> None:
    folder = prepare(recipe)
    page = (recipe.folder / PAGE).read_text(encoding="utf-8")
    lines = [line for line in capfd.readouterr().err.splitlines() if PAGE in line]
    assert lines == [f"prepare   corpus report: {recipe.folder / PAGE}"]
    facts = read_manifest(folder, "store").facts
    assert f">{facts['train']['tokens']:,}<" in page
    for name, own in facts["train"]["corpora"].items():
        assert f'scope="row">{name}</th><td class="number">{own["documents"]:,}</td>' in page
    windows = read_figures(folder)["windows"]
    assert {window["corpus"] for window in windows} == {"nb", "web"}
    for window in windows:
        for text in window["texts"]:
            assert html.escape(text) in page
    assert MARKUP not in page
    assert html.escape(MARKUP) in page
    assert "the field &#x27;text&#x27; is a number" in page


def test_the_page_is_rewritten_only_if_it_would_differ(
    recipe: Recipe, capfd: pytest.CaptureFixture[str]
) -> None:
    file = recipe.folder / PAGE
    prepare(recipe)
    page, made = file.read_text(encoding="utf-8"), file.stat().st_mtime_ns
    capfd.readouterr()
    prepare(recipe)
    assert file.stat().st_mtime_ns == made
    assert PAGE not in capfd.readouterr().err
    for damage in (lambda: file.write_text("old"), file.unlink):
        damage()
        prepare(recipe)
        assert file.read_text(encoding="utf-8") == page
        assert PAGE in capfd.readouterr().err


def test_preparing_needs_neither_jax_nor_matplotlib() -> None:
    """Importing them takes longer than preparing a small text."""
    program = "import sys, t5smith.pipeline as _; print({'jax', 'matplotlib', 'scipy'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_verifying_writes_nothing(recipe: Recipe) -> None:
    prepare(recipe)
    (recipe.folder / PAGE).unlink()
    prepare(recipe, verify=True)
    assert not (recipe.folder / PAGE).exists()


def test_the_command_writes_the_corpus_report(
    recipe: Recipe, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = tmp_path / "recipe.toml"
    settings.write_text(dump(recipe))
    assert main(["prepare", str(settings), "--json"]) == 0
    assert (recipe.folder / PAGE).is_file()
    facts = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert facts["folder"] == str(recipe.folder / "store")
    assert (recipe.folder / "store" / FIGURES).is_file()
