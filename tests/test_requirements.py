"""The lock files satisfy pyproject.toml, and agree with each other. `make lock` updates them."""

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from test_architecture import FILES, imports

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def locked(name: str) -> dict[str, str]:
    """A lock file as package -> version."""
    lines = (ROOT / "requirements" / name).read_text().splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


RUNTIME, TESTS = locked("lock.txt"), locked("test.lock.txt")


@pytest.mark.parametrize(
    ("requested", "lock"),
    [
        (PROJECT["dependencies"], RUNTIME),
        ([*PROJECT["dependencies"], *EXTRAS["test"], *EXTRAS["dev"]], TESTS),
    ],
    ids=["runtime", "tests"],
)
def test_the_lock_holds_what_is_requested(requested, lock):
    for text in requested:
        requirement = Requirement(text)
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        assert requirement.specifier.contains(lock[name]), text


def test_the_locks_agree_and_are_plain():
    assert RUNTIME.items() <= TESTS.items()
    assert not {"torch", "transformers"} & RUNTIME.keys()
    for name, version in TESTS.items():
        assert re.fullmatch(r"[0-9][0-9a-z.]*", version), name
        assert not name.startswith(("nvidia-", "cuda-", "triton")), name


INDIRECT = {
    "ftfy": "datatrove repairs text with it",
    "tensorboard": "the logger of that name writes for it",
}
"""Dependencies that t5smith does not import itself, and why it needs them."""


def test_every_dependency_is_imported():
    found = {module.split(".")[0] for file in FILES for module in imports(file.read_text(encoding="utf-8"))}
    modules: dict[str, set[str]] = {}
    for module, packages in metadata.packages_distributions().items():
        for package in packages:
            modules.setdefault(re.sub(r"[-_.]+", "-", package).lower(), set()).add(module)
    names = {Requirement(text).name for text in PROJECT["dependencies"]}
    assert {name for name in names if not modules.get(name, set()) & found} == INDIRECT.keys()
