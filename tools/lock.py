"""Make the lock files: exact versions of all that t5smith and its tests stand on.

    python tools/lock.py

pip resolves pyproject.toml in an empty virtual environment and reports what it would install. The tests'
set is resolved first and then bounds the runtime set, so the two files agree on every version.
"""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / "requirements"
# Where PyTorch's own wheels are not to be had, pip takes those that bring a GPU's libraries. No test
# uses them, and they would triple the download.
LEFT_OUT = re.compile(r"(nvidia|cuda)-|triton$")
# tyro and others name them, but every virtual environment that needs them has them.
TOOLS = {"pip", "setuptools", "wheel"}


def resolve(python: Path, requirements: list[str], bounds: Path | None) -> dict[str, str]:
    """What pip would install: normalised name -> version, without a local tag such as `+cpu`."""
    command = [str(python), "-m", "pip", "install", "--dry-run", "--ignore-installed", "-q", "--report", "-"]
    if bounds is not None:
        command += ["-c", str(bounds)]
    answer = subprocess.run([*command, *requirements], check=True, stdout=subprocess.PIPE, text=True).stdout
    packages = (item["metadata"] for item in json.loads(answer)["install"])
    versions = {re.sub(r"[-_.]+", "-", p["name"]).lower(): p["version"].split("+")[0] for p in packages}
    return {n: v for n, v in sorted(versions.items()) if n not in TOOLS and not LEFT_OUT.match(n)}


def write(path: Path, purpose: str, versions: dict[str, str]) -> None:
    """One lock file."""
    head = (
        f"# {purpose}: exact versions, resolved from pyproject.toml with Python {platform.python_version()}\n"
        f"# on {platform.system()} {platform.machine()}. Made by `make lock` (tools/lock.py); do not edit.\n"
    )
    path.write_text(head + "".join(f"{name}=={version}\n" for name, version in versions.items()))
    print(f"{path.relative_to(ROOT)}: {len(versions)} packages")


def main() -> None:
    """Resolve both sets and write both files."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project, build = settings["project"], settings["build-system"]["requires"]
    extras = project["optional-dependencies"]
    # `make install` builds t5smith in the environment itself: with what builds it, and editables for -e.
    runtime = [*project["dependencies"], *build, "editables"]
    LOCKS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = Path(folder) / "bin" / "python"
        tests = LOCKS / "test.lock.txt"
        everything = resolve(python, [*runtime, *extras["test"], *extras["dev"]], None)
        write(tests, "Runtime, tests and checks", everything)
        write(LOCKS / "lock.txt", "Runtime", resolve(python, runtime, tests))


if __name__ == "__main__":
    sys.exit(main())
