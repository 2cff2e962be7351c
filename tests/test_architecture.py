"""The packages depend on each other one way only, as docs say; read from the imports, run by nobody."""

import ast
import graphlib
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parent.parent / "src" / "t5smith"
MAX_LINES = 350

BASE = {
    "errors",
    "artefact",
    "lock",
    "printing",
    "progress",
    "settings",
    "training_settings",
    "cleaning_settings",
    "symbols",
    "recipe",
    "presets",
}
# What each package may build on, besides the base and what those build on in turn.
STANDS_ON = {
    # Reading text comes before vocab, which trains on it; the rest of corpus comes after.
    "reading": set[str](),
    "vocab": {"reading"},
    "corpus": {"vocab"},
    "objective": {"corpus"},
    "model": set[str](),
    "train": {"objective", "model"},
    "evaluate": {"train"},
    "interop": {"evaluate"},
    "inspect": {"interop", "commands"},
    "report": {"inspect"},
    "run": {"report"},
    "bench": {"evaluate"},
    "api": {"run", "bench"},
    "flags": set[str](),
    "commands": set[str](),
    "cli": {"run", "api", "bench", "flags", "commands"},
}
READING = {
    "files",
    "sources",
    "lines",
    "jsonlines",
    "tables",
    "csvfile",
    "webarchive",
    "columns",
    "document",
    "faults",
    "opening",
    "places",
    "hub",
    "rows",
    "slices",
    "globs",
    "cleaning",
    "filters",
    "reasons",
    "wording",
}
MODEL_MAY_IMPORT = {"jax", "numpy", "jaxtyping", "t5smith"} | sys.stdlib_module_names
NEVER = {"torch", "transformers", "tensorflow", "flax"}


def imports(source: str) -> set[str]:
    """Every module that a source names in an import, wherever it stands: `t5smith.vocab.train`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            module = node.module or ""
            # `from t5smith.vocab import train` may name a module; one name too deep does no harm.
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return found


def part(module: str) -> str:
    """The package of ours that a module's name begins with; nothing for t5smith itself."""
    names = module.removeprefix("t5smith").removeprefix(".").split(".")
    if names[0] == "corpus" and READING & set(names[1:2]):
        return "reading"
    name = names[0]
    return name if name in BASE | STANDS_ON.keys() else ""


def allowed(package: str) -> set[str]:
    """All that a package may import of ours."""
    if package in BASE:
        return BASE
    above = {package}
    for name in STANDS_ON[package]:
        above |= allowed(name)
    return above | BASE


def complaints(package: str, source: str) -> list[str]:
    """Imports in a source of a package that should not be there."""
    found = imports(source)
    ours = {part(module) for module in found if module.split(".")[0] == "t5smith"} - {""}
    outside = {module.split(".")[0] for module in found} - {"t5smith"}
    bad = {f"{package} imports {name}" for name in ours - allowed(package) | outside & NEVER}
    if package == "model":
        bad |= {f"model imports {name}" for name in outside - MODEL_MAY_IMPORT}
    return sorted(bad)


FILES = sorted(SRC.rglob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(SRC).as_posix())
def test_imports_go_one_way(file):
    package = part(".".join(("t5smith", *file.relative_to(SRC).with_suffix("").parts)))
    if file == SRC / "__init__.py":
        assert {part(module) for module in imports(file.read_text())} <= {"errors", ""}
        return
    assert package, f"{file.name} has no place in the layers above"
    assert complaints(package, file.read_text()) == []


def test_no_module_needs_itself():
    names = {}
    for file in FILES:
        name = ".".join(("t5smith", *file.relative_to(SRC).with_suffix("").parts)).removesuffix(".__init__")
        names[name] = imports(file.read_text())
    graph = {}
    for name, found in names.items():
        known = {m if m in names else m.rpartition(".")[0] for m in found}
        graph[name] = (known & names.keys()) - {name, "t5smith"}
    list(graphlib.TopologicalSorter(graph).static_order())


@pytest.mark.parametrize(
    ("package", "source", "complaint"),
    [
        ("vocab", "from t5smith.train.loop import train", ["vocab imports train"]),
        ("vocab", "def f():\n  import t5smith.corpus.prepare", ["vocab imports corpus"]),
        ("vocab", "from t5smith.corpus.sources import resolve", []),
        ("reading", "from t5smith.vocab import train", ["reading imports vocab"]),
        ("objective", "from t5smith import model", ["objective imports model"]),
        ("model", "import optax", ["model imports optax"]),
        ("model", "from t5smith.objective import lengths", ["model imports objective"]),
        ("recipe", "from t5smith.vocab import train", ["recipe imports vocab"]),
        ("interop", "import torch.nn", ["interop imports torch"]),
        ("inspect", "from t5smith.report import page", ["inspect imports report"]),
        ("cli", "import t5smith.vocab.train, t5smith.run", []),
        ("train", "from t5smith.model.t5 import apply\nimport optax", []),
    ],
)
def test_the_rules_find_what_breaks_them(package, source, complaint):
    assert complaints(package, source) == complaint


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(SRC).as_posix())
def test_files_have_one_idea_and_say_it_first(file):
    text = file.read_text()
    assert text.count("\n") <= MAX_LINES
    assert ast.get_docstring(ast.parse(text))
