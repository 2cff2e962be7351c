"""Packages stand in the order of the pipeline, and import only what stands before them.

Read from the source's imports; nothing is run.
"""

import ast
import graphlib
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parent.parent / "src" / "t5smith"
ORDER = (
    "base",
    "recipe",
    "text",
    "vocabulary",
    "store",
    "objective",
    "model",
    "interop",
    "parallel",
    "training",
    "generation",
    "evaluation",
    "exporting",
    "finetuning",
    "pages",
    "inspection",
    "reports",
    "benchmarking",
    "pipeline",
    "cli",
)
"""The way of the data, from raw text to what a user reads. `pipeline` is a module, the rest are packages."""

MAX_LINES, MAX_MODULES, MAX_FUNCTION_LINES = 300, 15, 60
MODEL_MAY_IMPORT = {"jax", "numpy", "jaxtyping", "t5smith"} | sys.stdlib_module_names
NEVER = {"torch", "transformers", "tensorflow", "flax"}
FILES = sorted(SRC.rglob("*.py"))


def imports(source: str) -> set[str]:
    """Every module that a source imports, also inside functions: `t5smith.vocabulary.train`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            module = node.module or ""
            # `from t5smith.vocabulary import train` may name a module; one name too deep does no harm.
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return found


def package_of(module: str) -> str:
    """The package of ours that a module's name begins with; empty for names of t5smith itself."""
    name = module.removeprefix("t5smith").removeprefix(".").split(".")[0]
    return name if name in ORDER else ""


def complaints(package: str, source: str) -> list[str]:
    """Imports in a source of a package that break the order, or that no package may have."""
    found = imports(source)
    ours = {package_of(module) for module in found if module.split(".")[0] == "t5smith"} - {""}
    outside = {module.split(".")[0] for module in found} - {"t5smith"}
    later = {name for name in ours if ORDER.index(name) > ORDER.index(package)}
    bad = {f"{package} imports {name}" for name in later | outside & NEVER}
    if package == "model":
        bad |= {f"model imports {name}" for name in outside - MODEL_MAY_IMPORT}
    return sorted(bad)


def name_of(file: Path) -> str:
    return ".".join(("t5smith", *file.relative_to(SRC).with_suffix("").parts)).removesuffix(".__init__")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(SRC).as_posix())
def test_imports_follow_the_order(file):
    package = package_of(name_of(file))
    if file.parent == SRC and file.name in ("__init__.py", "__main__.py"):
        return
    assert package, f"{file.name} is in no package of the order"
    assert complaints(package, file.read_text()) == []


def test_no_module_imports_itself_in_a_circle():
    names = {name_of(file): imports(file.read_text()) for file in FILES}
    graph = {}
    for name, found in names.items():
        known = {m if m in names else m.rpartition(".")[0] for m in found}
        graph[name] = (known & names.keys()) - {name, "t5smith"}
    list(graphlib.TopologicalSorter(graph).static_order())


@pytest.mark.parametrize(
    ("package", "source", "complaint"),
    [
        ("vocabulary", "from t5smith.training.train import train", ["vocabulary imports training"]),
        ("vocabulary", "def f():\n  import t5smith.store.prepare", ["vocabulary imports store"]),
        ("vocabulary", "from t5smith.text.corpus import find_files", []),
        ("text", "from t5smith.vocabulary import train", ["text imports vocabulary"]),
        ("objective", "from t5smith import model", ["objective imports model"]),
        ("model", "import optax", ["model imports optax"]),
        ("model", "from t5smith.objective import lengths", []),
        ("recipe", "from t5smith.vocabulary import train", ["recipe imports vocabulary"]),
        ("interop", "import torch.nn", ["interop imports torch"]),
        ("inspection", "from t5smith.reports import page", ["inspection imports reports"]),
        ("cli", "import t5smith.vocabulary.train, t5smith.pipeline", []),
        ("training", "from t5smith.model.t5 import apply\nimport optax", []),
    ],
)
def test_the_rules_find_what_breaks_them(package, source, complaint):
    assert complaints(package, source) == complaint


def test_every_package_of_the_order_is_there():
    found = {path.name for path in SRC.iterdir() if (path / "__init__.py").is_file()} | {"pipeline"}
    assert found == set(ORDER)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(SRC).as_posix())
def test_a_module_has_one_idea_stated_first_and_stays_short(file):
    text = file.read_text()
    tree = ast.parse(text)
    assert ast.get_docstring(tree)
    assert text.count("\n") <= MAX_LINES
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < MAX_FUNCTION_LINES, f"{node.name} is too long"


def test_programs_get_their_backend_as_an_argument():
    """A look at the machine within a traced function would be compiled in, whatever the devices are."""
    for file in FILES:
        if package_of(name_of(file)) in ("objective", "model", "interop", "generation", "inspection"):
            assert "jax.devices" not in file.read_text(), file
        if package_of(name_of(file)) != "parallel" and file.name not in ("compile.py", "summary.py"):
            assert "default_backend" not in file.read_text(), file


@pytest.mark.parametrize("folder", [SRC, *(path.parent for path in SRC.rglob("__init__.py"))], ids=str)
def test_a_folder_can_be_taken_in_at_a_glance(folder):
    modules = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
    assert len(modules) <= MAX_MODULES
