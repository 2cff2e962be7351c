import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from t5smith import __version__
from t5smith.cli import main as cli
from t5smith.cli.commands import BENCH_PARTS, RecipeCommand
from t5smith.cli.flags import names
from t5smith.cli.main import OTHER_VERBS, OVERVIEW, RECIPE_VERBS, main
from t5smith.recipe.recipe import Recipe
from t5smith.recipe.toml import presets

OPTIONS = Path(__file__).parents[1] / "data" / "cli-options.txt"
VERBS = [*RECIPE_VERBS, *OTHER_VERBS]
WITH_FLAGS = [
    *RECIPE_VERBS,
    *(verb for verb in OTHER_VERBS if verb != "bench"),
    *(f"bench {part}" for part in BENCH_PARTS),
]
TEXT = "\n\n".join(f"Dette er tekst nummer {n}, og den handler om {n * n} ting." for n in range(60))


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Commands run in an empty folder, on a terminal 80 columns wide."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """What is said on stderr of a command that a user got wrong."""
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    return err


def error(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The one line of our own about a command that a user got wrong."""
    line = refused(capsys, *argv)
    assert line.startswith("t5smith: error: ")
    assert line.count("\n") == 1
    return line.removeprefix("t5smith: error: ").rstrip("\n")


def options(capsys: pytest.CaptureFixture[str], verb: str) -> dict[str, str]:
    """A verb's --help: each option as it is written there -> what is said of it."""
    assert main([*verb.split(), "--help"]) == 0
    found: dict[str, str] = {}
    option = ""
    for line in capsys.readouterr().out.splitlines():
        inner = line.strip("│").rstrip()  # the frame is of spaces where the output is no terminal
        indent = len(inner) - len(inner.lstrip())
        if line.startswith("│"):
            indent += 1
        if indent == 2 and re.match(r"--?[a-z]|\[?[A-Z]{2}", inner.lstrip()):
            name, _, said = inner.lstrip().partition("  ")
            if option.endswith(","):
                # A long flag and the one that denies it stand on two lines.
                del found[option]
                name = f"{option} {name}"
            option = name
            found[option] = said.strip()
        elif indent > 2 and option:
            found[option] = f"{found[option]} {inner.strip()}".strip()
        else:
            option = ""
    return found


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"], ["help"]])
def test_the_overview_names_every_verb(argv, capsys):
    assert main(argv) == 0
    assert capsys.readouterr().out == OVERVIEW + "\n"
    assert re.findall(r"^  (\w+)  ", OVERVIEW, re.MULTILINE) == VERBS
    assert max(map(len, OVERVIEW.splitlines())) <= 80


def test_the_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"t5smith {__version__}\n"


def test_help_and_mistakes_do_not_wait_for_jax():
    code = (
        "import sys; from t5smith.cli.main import main\n"
        "assert main(['--help']) == 0 and main(['train', '--help']) == 0 and main(['recipes']) == 0\n"
        "assert main(['train', '--train.steps', '0']) == 2\n"
        "heavy = {'jax', 'numpy', 'tokenizers', 'optax', 'matplotlib'} & sys.modules.keys()\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("verb", WITH_FLAGS)
def test_every_flag_is_explained(verb, capsys):
    found = options(capsys, verb)
    assert "--json" in found
    for option, said in found.items():
        assert re.sub(r"\((default: .*|required)\)$", "", said).strip(), option


def test_recipe_flags_are_the_settings(capsys):
    found = options(capsys, "train")
    shown = {flag for option in found for flag in re.findall(r"--([a-z0-9.-]+)", option)}
    assert {name for name in names(RecipeCommand(Recipe())) if not name.startswith("model.tie")} <= shown
    for verb in RECIPE_VERBS:
        assert found.items() <= options(capsys, verb).items()


@pytest.mark.parametrize("verb", WITH_FLAGS)
def test_help_fits_the_terminal_and_breaks_between_words(verb, capsys, monkeypatch):
    def shown(width: int) -> str:
        monkeypatch.setenv("COLUMNS", str(width))
        assert main([*verb.split(), "--help"]) == 0
        return capsys.readouterr().out

    assert max(map(len, shown(80).splitlines())) <= 80
    # Boxes stand side by side where there is room; before them are the usage and what the verb is.
    heads = [re.split(r"[╭─]", shown(width))[0].split() for width in (80, 2_000)]
    assert heads[0] == heads[1]


def test_help_does_not_keep_the_lines_of_docstrings(capsys):
    assert main(["prepare", "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    at = next(i for i, line in enumerate(lines) if "--corpus.train " in line)
    said = [line.strip("│ ") for line in lines[at + 1 : at + 5]]
    assert said[1] == "the command is run in; `bundled:NAME` is text that comes with t5smith."


def test_names_and_what_is_said_of_them_stand_in_columns(capsys, monkeypatch):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    for argv in (["recipes"], ["bench"]):
        assert main(argv) == 0
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= 80
        below = [line for line in lines if line.startswith(" " * 8)]
        assert below
        assert len({len(line) - len(line.lstrip()) for line in below}) == 1


def test_a_change_of_the_options_is_seen(capsys):
    """To accept one: T5SMITH_ACCEPT=1 make test ARGS="tests/test_cli.py -n0"."""
    lines: list[str] = []
    for verb in ("run", *WITH_FLAGS[len(RECIPE_VERBS) :]):
        heading = "RECIPE-VERB" if verb == "run" else verb
        lines += [f"{heading} {option}" for option in options(capsys, verb)]
    shared = options(capsys, "run")
    for verb in RECIPE_VERBS:
        lines += [f"{verb} {option}" for option in options(capsys, verb) if option not in shared]
    text = "\n".join(lines) + "\n"
    if "T5SMITH_ACCEPT" in os.environ:
        OPTIONS.write_text(text, encoding="utf-8")
    assert text == OPTIONS.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["trian"], "trian: there is no such verb; expected one of run, vocab, .*Did you mean 'train'\\?"),
        (["--frob"], "--frob: there is no such verb"),
        (["run", "norwegan-tiny"], "norwegan-tiny: there is no preset .*mean 'norwegian-tiny'\\?"),
        (["run", "mine.toml"], r"mine\.toml: there is no such recipe file"),
        (
            ["train", "--train.steps", "0"],
            "train.steps: 0 cannot be used; expected greater than or equal to 1",
        ),
        (
            ["train", "--train.stps", "5"],
            "--train.stps: .*one of --train.steps, .*Did you mean --train.steps",
        ),
        (["train", "--train.stps=5"], "--train.stps: there is no such flag"),
        (["train", "--steps", "5"], "--steps: there is no such flag"),
        (["train", "--zzzzzzzz"], r"--zzzzzzzz: .*`t5smith train \[RECIPE\] --help` lists them all"),
        (["train", "--seed", "1", "norwegian-tiny"], "norwegian-tiny: there is no place for this"),
        (["train", "--corpus.train", "a", "--corpus.train=b"], "--corpus.train: given twice"),
        (["train", "--train.batch-size", "1", "--train.batch_size", "2"], "--train.batch-size: given twice"),
        (["train", "--train.z-loss", "nan"], "train.z_loss: nan cannot be used; expected a finite number"),
        (
            ["train", "norwegian-tiny", "--train.steps", "30"],
            "train.schedule.warmup_steps: 30 cannot be used",
        ),
        (["recipes", "--frob"], "--frob: there is no such flag"),
        (["recipes", "norwegian-tiny"], "norwegian-tiny: there is no place for this"),
        (
            ["generate", "m", "--max-new-tokens", "0"],
            "--max-new-tokens: 0 cannot be used; expected 1 or more",
        ),
        (["generate", "m", "a\udcff"], r"'a\\udcff': not UTF-8 text"),
        (["inspect", "a dog", "--noise", "cat"], "cat"),
        (["inspect", "a dog", "--html", "none/a.html"], r"none/a\.html: cannot be written \(no such file"),
        (["inspect", "a dog", "--html", "."], r"\.: cannot be written \(is a directory\)"),
        (["inspect", "a dog", "--noise-density", "2"], "noise_density: 2.0 cannot be used"),
    ],
)
def test_mistakes_are_one_line(argv, message, capsys):
    assert re.search(message, error(capsys, *argv))


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["train", "--train.steps", "many"], ["--train.steps INT", "'many'"]),
        (["train", "--train.precision", "half"], ["--train.precision", "'float32'", "'bfloat16'"]),
        (["train", "--train.steps"], ["--train.steps", "Missing value"]),
        (["generate"], ["MODEL", "run folder"]),
        (["inspect"], ["TEXT"]),
    ],
)
def test_wrong_types_say_what_is_allowed_and_fit_the_terminal(argv, words, capsys):
    said = refused(capsys, *argv)
    assert all(word in said for word in words)
    assert max(map(len, said.splitlines())) <= 80


def test_the_recipes(capsys):
    assert main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(presets())
    assert main(["recipes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out).keys() == presets().keys()


def test_a_recipe_verb_takes_a_file_and_flags_and_prints_its_folder(elsewhere, capsys):
    (elsewhere / "text.txt").write_text(TEXT)
    (elsewhere / "mine.toml").write_text("[corpus]\ntrain = ['text.txt']\n[vocab]\nsize = 70")
    assert main(["vocab", "mine.toml", "--vocab.size", "60", "--vocab.max_piece_length", "4"]) == 0
    out, err = capsys.readouterr()
    assert out == "runs/mine/vocab\n"
    assert err.startswith("vocab ")
    assert main(["vocab", "mine.toml", "--vocab.size", "60", "--vocab.max-piece-length=4", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (facts["folder"], facts["requested"]) == ("runs/mine/vocab", 60)


def test_inspect_prints_shows_and_writes(elsewhere, capsys):
    argv = ["inspect", "The bad dog ruined my sleep", "--noise", "bad dog"]
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert "The <extra_id_0> ruined my sleep" in out
    assert "<extra_id_0> bad dog <extra_id_1>" in out
    assert main([*argv, "--json", "--html", "a.html"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["targets"]
    assert "ruined" in (elsewhere / "a.html").read_text()


class Stdin:
    """Standard input at which the process gets a signal instead of a line."""

    def __init__(self, number: int) -> None:
        self.number = number

    def isatty(self) -> bool:
        return False

    def __iter__(self):
        os.kill(os.getpid(), self.number)
        yield "never read"


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        (signal.SIGINT, 130, "t5smith: stopped; the same command goes on from here\n"),
        (signal.SIGTERM, 143, "t5smith: stopped by SIGTERM; the same command goes on from here\n"),
    ],
)
def test_signals_end_a_command_with_one_line(number, code, said, monkeypatch, capsys):
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(sys, "stdin", Stdin(number))
    assert main(["generate", "model"]) == code
    assert capsys.readouterr() == ("", said)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_reader_that_has_enough_is_no_error():
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "t5smith", "recipes"]
    # Buffered, as it is by default: Python tries to write what is left once more when it ends.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with subprocess.Popen(
        command, stdout=write, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        os.close(write)
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert process.returncode == 141


def test_no_text_on_stdin_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert error(capsys, "generate", "model") == "stdin: there is no text; expected a text a line"


def test_text_that_is_no_text_on_stdin_is_refused():
    command = [sys.executable, "-m", "t5smith", "generate", "model"]
    environment = os.environ | {"PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run(command, input=b"a\xff\n", capture_output=True, env=environment)
    assert (done.returncode, done.stderr) == (2, b"t5smith: error: stdin: not UTF-8 text\n")


def test_programs_are_remembered_where_caches_go(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.delenv("JAX_COMPILATION_CACHE_MAX_SIZE", raising=False)
    cli._remember_programs()
    folder = Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
    assert folder.is_dir()
    assert folder.parent == tmp_path / "caches" / "t5smith"
    assert int(os.environ["JAX_COMPILATION_CACHE_MAX_SIZE"]) == cli.PROGRAMS
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "mine")
    cli._remember_programs()
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == "mine"


def test_where_caches_cannot_go_nothing_is_remembered(tmp_path, monkeypatch):
    (tmp_path / "caches").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    cli._remember_programs()
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ
