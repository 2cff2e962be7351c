"""What documents and docstrings refer to exists: files, headings, verbs, recipes, settings, names in code."""

import ast
import functools
import re
import shlex
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

import t5smith
from t5smith.cli.commands import RECIPE_VERBS
from t5smith.cli.main import main
from t5smith.cli.verbs import OTHER_VERBS
from t5smith.recipe.recipe import Recipe
from t5smith.recipe.toml import presets
from test_architecture import FILES, ORDER, SRC, name_of

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / ".github").rglob("*.md")])
SOURCES = [
    *FILES,
    *(file for name in ("tests", "benchmarks") for file in sorted((ROOT / name).rglob("*.py"))),
]
SOURCES.remove(Path(__file__).resolve())
TARGETS = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
VERBS = RECIPE_VERBS.keys() | OTHER_VERBS.keys()
FLAGS = {*re.findall(r"--[\w.-]+", (ROOT / "tests/data/cli-options.txt").read_text()), "--help-all"}
MODULES = {name_of(file): file for file in FILES}
ENDINGS = {"arrow", "gz", "html", "json", "jsonl", "md", "model", "npy", "png", "py", "toml", "txt", "xz"}

EXTERNAL = {"run_t5_mlm_flax.py"}
"""Scripts of other projects that the documents compare with."""

ROLE = re.compile(r":(?:func|class|mod|meth|attr|data|exc):`~?([^`]+)`")
TABLES = [name for name, field in Recipe.model_fields.items() if isinstance(field.default, BaseModel)]
DOTTED = re.compile(rf"(?<![\w./-])((?:t5smith|{'|'.join([*ORDER, *TABLES])})(?:\.\w+)+)")


# --- What there is to refer to.


def is_setting(dotted: str) -> bool:
    """Whether a dotted name is a setting of a recipe, or a table of them."""
    settings = Recipe
    for part in dotted.split("."):
        if typing.get_origin(settings) is dict:  # tables that the user names
            settings = typing.get_args(settings)[1]
            continue
        if not (isinstance(settings, type) and issubclass(settings, BaseModel)):
            return False
        if part not in settings.model_fields:
            return False
        settings = settings.model_fields[part].annotation
    return True


@functools.cache
def definitions(file: Path) -> dict[str, str]:
    """Names of a module and members of its classes as `Class.member`; for an imported name, its origin."""
    found: dict[str, str] = {}
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Module | ast.ClassDef):
            prefix = f"{node.name}." if isinstance(node, ast.ClassDef) else ""
            found |= dict.fromkeys((prefix + name for name in assigned_in(node)), "")
    return found


def assigned_in(scope: ast.Module | ast.ClassDef) -> Iterator[str]:
    """Functions, classes and values of a module or class, `self.x` among them."""
    for node in scope.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (name.id for t in targets for name in ast.walk(t) if isinstance(name, ast.Name))
    if isinstance(scope, ast.ClassDef):
        for node in ast.walk(scope):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                yield node.attr


def exists(dotted: str) -> bool:
    """Whether `t5smith.package.module.Class.member` does; imported names count where they are imported."""
    module = module_of(dotted)
    rest = dotted.removeprefix(module).lstrip(".")
    return bool(module) and (not rest or is_defined(rest, MODULES[module]))


def module_of(dotted: str) -> str:
    """The module that a dotted name begins with."""
    while dotted and dotted not in MODULES:
        dotted = dotted.rpartition(".")[0]
    return dotted


def is_defined(name: str, file: Path) -> bool:
    """Whether a module has a name; a member may be given without its class."""
    names = definitions(file)
    first, _, rest = name.partition(".")
    origin = names.get(first, "")
    if origin.startswith("t5smith"):
        return exists(f"{origin}.{rest}".rstrip("."))
    return name in names or any(known.endswith(f".{name}") for known in names)


def anchors(text: str) -> set[str]:
    """The headings of a document as links name them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


# --- What does not exist.


def missing_links(text: str, folder: Path) -> Iterator[str]:
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = folder / name
        found = file.exists() if name else True
        if found and anchor:
            found = anchor in anchors(file.read_text(encoding="utf-8") if name else text)
        if not found:
            yield f"link {target}"


def missing_files(text: str, *folders: Path) -> Iterator[str]:
    """Paths of Python files and documents that are in none of the folders; `NAME.py` stands for any."""
    for path in re.findall(r"(?<![\w./:*-])([\w/-]+\.(?:py|md))\b", text):
        if (
            "NAME" not in path
            and path not in EXTERNAL
            and not any((folder / path).is_file() for folder in folders)
        ):
            yield f"file {path}"


def missing_tests(code: str) -> Iterator[str]:
    """Folders that do not exist, and `pytest ... -k WORD` that selects no test."""
    for path in re.findall(r"(?<![\w./-])((?:src|docs|tests|benchmarks|tools)/[\w/-]*)(?![\w.*/-])", code):
        if not (ROOT / path).exists():
            yield f"folder {path}"
    for paths, word in re.findall(r"pytest ((?:tests[\w/.]* )+)-k (\w+)", code):
        found = [ROOT / path for path in paths.split()]
        files = [file for path in found for file in (path.rglob("*.py") if path.is_dir() else [path])]
        names = (
            name for file in files for name in re.findall(r"def (test_\w+)", file.read_text(encoding="utf-8"))
        )
        if not any(word in name for name in names):
            yield f"test -k {word}"


def missing_commands(code: str) -> Iterator[str]:
    for verb in re.findall(r"(?<![\w.-])t5smith ([a-z][a-z-]*)\b", code):
        if verb not in VERBS and verb != "import":
            yield f"verb {verb}"
    for target in re.findall(r"(?<![\w-])make ([a-z][a-z-]*)\b", code):
        if target not in TARGETS:
            yield f"target {target}"
    for recipe in re.findall(r"t5smith [a-z]+ ((?:norwegian|preset)-[a-z-]+)", code):
        if recipe not in presets():
            yield f"recipe {recipe}"
    for command in re.findall(r"(?<![\w.-])t5smith [a-z-]+ [^\n`#|]*", code):
        unknown = {flag for flag in re.findall(r"(?<!\S)--[\w.-]+", command) if flag not in FLAGS}
        yield from (f"flag {flag}" for flag in sorted(unknown))
    for flag in re.findall(r"(?<!\S)--([a-z]+(?:\.[\w-]+)+)", code):
        if not is_setting(flag.replace("-", "_")):
            yield f"setting --{flag}"


def missing_names(code: str) -> Iterator[str]:
    for dotted in DOTTED.findall(code):
        if dotted.rpartition(".")[2] in ENDINGS or is_setting(dotted):
            continue
        if not exists(f"t5smith.{dotted.removeprefix('t5smith.')}"):
            yield f"name {dotted}"


def complaints(text: str, folder: Path) -> list[str]:
    """What a document in a folder refers to that does not exist."""
    bad = [*missing_links(text, folder), *missing_files(text, folder, ROOT, SRC)]
    for code in re.findall(r"```.*?```|`[^`\n]+`", text, re.DOTALL):
        bad += [*missing_commands(code), *missing_names(code), *missing_tests(code)]
    return bad


def complaints_of_source(source: str, file: Path) -> list[str]:
    """What the docstrings and comments of a module refer to that does not exist."""
    bad = [
        f"name {name}"
        for name in ROLE.findall(source)
        if not (exists(name) if name.startswith("t5smith.") else is_defined(name, file))
    ]
    tree = ast.parse(source)
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    texts += re.findall(r"#.*", source)
    if file.is_relative_to(SRC):
        for text in texts:
            bad += missing_files(text, file.parent, ROOT, SRC) if isinstance(text, str) else []
    return bad


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_what_documents_refer_to_exists(document):
    assert complaints(document.read_text(encoding="utf-8"), document.parent) == []


@pytest.mark.parametrize("file", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_what_docstrings_refer_to_exists(file):
    assert complaints_of_source(file.read_text(encoding="utf-8"), file) == []


def test_the_readme_shows_what_inspect_prints(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```sh\n\S*t5smith (inspect \".*)\n```\n\n```\n(.*?)```", text, re.DOTALL)
    assert main(shlex.split(example[0])) == 0
    assert capsys.readouterr().out.strip() == example[1].strip()


def test_the_architecture_lists_the_packages_in_order():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    (tree,) = re.findall(r"```\nsrc/t5smith/\n(.*?)```", text, re.DOTALL)
    assert re.findall(r"^  (\w+)(?:/|\.py)  ", tree, re.MULTILINE) == list(ORDER)


def test_the_architecture_counts_the_modules_of_the_path():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    (rows,) = re.findall(r"\| # \| station.*?\n\n", text, re.DOTALL)

    def modules(table: str) -> str:
        return str(len({module_of(f"t5smith.{name}") for name in re.findall(r"`([\w.]+)`", table)}))

    before_the_step = rows[: rows.index("`training.step.")]
    count = modules(rows), modules(before_the_step)
    assert re.findall(r"the (\d+) modules to open, (\d+) of them", text) == [count]


def test_the_architecture_lists_the_public_names():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert {*re.findall(r"`t5smith\.(\w+)`", text)} == {*t5smith.__all__} - {"__version__"}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[a](none.md)", ["link none.md", "file none.md"]),
        ("[a](#none)", ["link #none"]),
        ("# A title, `b`\n[a](#a-title-b) [b](https://example.org/c) [c](LICENSE)", []),
        ("`t5smith trian`", ["verb trian"]),
        ("```sh\n.venv/bin/t5smith trian\nt5smith train a.toml --train.steps 5\n```", ["verb trian"]),
        ("`make dmeo` and `make demo`", ["target dmeo"]),
        ("`t5smith run norwegian-huge`", ["recipe norwegian-huge"]),
        ("we make text, and t5smith reads it", []),
        ("`--train.batch-size 8 --train.batchsize 8`", ["setting --train.batchsize"]),
        ("`t5smith inspect a.txt --los --seed 1`, `t5smith run a.toml --json`", ["flag --los"]),
        ("`train.steps`, `train.step`, `t5smith.run`", ["name train.step"]),
        ("`training.train.train`, `training.train.trian`", ["name training.train.trian"]),
        ("`t5smith.corpus.store`", ["name t5smith.corpus.store"]),
        ("`model.safetensors.index.json`, `store/figures.json`", []),
        ("`src/t5smith/base/`, `src/t5smith/corpus/`, `tests/base`", ["folder src/t5smith/corpus/"]),
        ("`pytest tests/test_docs.py -k xylophone`, `pytest tests/model -k t5x`", ["test -k xylophone"]),
        ("`lock.py`, `base/lock.py`, `src/t5smith/base/lock.py`, `formats/NAME.py`", ["file lock.py"]),
    ],
)
def test_the_check_of_documents_finds_what_does_not_exist(text, complaint):
    assert complaints(text, ROOT) == complaint


@pytest.mark.parametrize(
    ("docstring", "complaint"),
    [
        ("See :func:`exists`.", ["name exists"]),
        ("See :func:`did_you_mean`, :class:`T5smithError`, :attr:`model_config`.", []),
        ("See :mod:`t5smith.recipe.base` and :meth:`Settings.model_config`.", []),
        ("See :func:`t5smith.recipe.base.none`.", ["name t5smith.recipe.base.none"]),
        (
            "Read by `presets.py`, `toml.py` and `recipe/toml.py`; docs/none.md.",
            ["file presets.py", "file docs/none.md"],
        ),
    ],
)
def test_the_check_of_docstrings_finds_what_does_not_exist(docstring, complaint):
    assert complaints_of_source(f'"""{docstring}"""', SRC / "recipe" / "base.py") == complaint
