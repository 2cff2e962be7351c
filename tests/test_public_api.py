"""`import t5smith` is light, and each public name is where an editor is shown it."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import t5smith


def seen_by_an_editor() -> dict[str, str]:
    """The imports under TYPE_CHECKING: name -> module."""
    tree = ast.parse(Path(t5smith.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    return {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_an_editor_sees_what_python_finds():
    assert {name: f"t5smith.{home}" for name, home in t5smith._HOMES.items()} == seen_by_an_editor()
    assert {*t5smith._HOMES, "__version__"} == set(t5smith.__all__)


@pytest.mark.parametrize("name", sorted(set(t5smith.__all__) - {"__version__"}))
def test_each_public_name_is_there_and_documented(name):
    value = getattr(t5smith, name)
    assert value.__name__ == name
    assert inspect.getdoc(value)
    assert f"`{name}`" in t5smith.__doc__


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'pretrain'"):
        t5smith.pretrain  # noqa: B018


def test_importing_it_imports_nothing_heavy():
    program = "import sys, t5smith; print({'jax', 'pydantic', 'rich', 'numpy'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_no_package_hides_a_public_function():
    """A submodule becomes an attribute of its package when it is imported, whatever stood there."""
    folder = Path(t5smith.__file__).parent
    assert not {path.stem for path in folder.iterdir()} & set(t5smith.__all__)
