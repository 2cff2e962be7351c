"""What the documents point to is there: files, headings, verbs, recipes, make's targets."""

import re
from pathlib import Path

import pytest

from t5smith.cli.commands import RECIPE_VERBS
from t5smith.cli.verbs import OTHER_VERBS
from t5smith.recipe.toml import presets

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
TARGETS = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
VERBS = RECIPE_VERBS.keys() | OTHER_VERBS.keys()


def anchors(text: str) -> set[str]:
    """The headings of a document as links name them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def complaints(text: str, folder: Path) -> list[str]:
    """What a document in a folder names that is not there."""
    bad: list[str] = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = folder / name
        there = file.exists() if name else True
        if there and anchor:
            there = anchor in anchors(file.read_text() if name else text)
        bad += [] if there else [f"link {target}"]
    code = re.findall(r"```.*?```|`[^`\n]+`", text, re.DOTALL)
    for piece in code:
        bad += [
            f"verb {v}" for v in re.findall(r"(?<![\w.-])t5smith ([a-z][a-z-]*)\b", piece) if v not in VERBS
        ]
        bad += [
            f"target {t}" for t in re.findall(r"(?<![\w-])make ([a-z][a-z-]*)\b", piece) if t not in TARGETS
        ]
        named = re.findall(r"t5smith [a-z]+ ((?:norwegian|preset)-[a-z-]+)", piece)
        bad += [f"recipe {r}" for r in named if r not in presets()]
    return bad


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_what_documents_name_is_there(document):
    assert complaints(document.read_text(encoding="utf-8"), document.parent) == []


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[a](none.md)", ["link none.md"]),
        ("[a](#none)", ["link #none"]),
        ("# A title, `b`\n[a](#a-title-b) [b](https://example.org/c) [c](LICENSE)", []),
        ("`t5smith trian`", ["verb trian"]),
        ("```sh\n.venv/bin/t5smith trian\nt5smith train a.toml --train.steps 5\n```", ["verb trian"]),
        ("`make dmeo` and `make demo`", ["target dmeo"]),
        ("`t5smith run norwegian-huge`", ["recipe norwegian-huge"]),
        ("we make text, and t5smith reads it", []),
    ],
)
def test_the_check_finds_what_is_not_there(text, complaint):
    assert complaints(text, ROOT) == complaint
