"""The process around a verb: output, errors, signals, pipes."""

import gc
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading

import pytest

from t5smith.cli import main as command
from t5smith.cli.main import main
from t5smith.recipe.toml import presets

TEXT = "\n\n".join(f"Dette er tekst nummer {n}, og den handler om {n * n} ting." for n in range(60))


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Commands run in an empty folder, on a terminal 80 columns wide."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path


def error(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The one line about a command that a user got wrong."""
    assert main(argv) == 2
    out, line = capsys.readouterr()
    assert out == ""
    assert line.startswith("t5smith: error: ")
    assert line.count("\n") == 1
    return line.removeprefix("t5smith: error: ").rstrip("\n")


def test_names_and_their_descriptions_are_in_columns(capsys, monkeypatch):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    for argv in (["recipes"], ["bench"]):
        assert main(argv) == 0
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= 80
        below = [line for line in lines if line.startswith(" " * 8)]
        assert below
        assert len({len(line) - len(line.lstrip()) for line in below}) == 1


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["trian"], r"^trian: unknown command \(did you mean 'train'\?\); expected one of run, vocab, "),
        (["--frob"], "^--frob: unknown command"),
        (
            ["bench", "imput"],
            r"^bench imput: unknown part \(did you mean 'input'\?\); expected one of corrupt, ",
        ),
        (["bench", "speed"], "^bench speed: unknown part; expected one of corrupt, input, prepare, train"),
        (
            ["run", "norwegan-tiny"],
            r"^norwegan-tiny: unknown recipe \(did you mean 'norwegian-tiny'\?\); expected ",
        ),
        (["run", "mine.toml"], r"^mine\.toml: no such recipe file"),
        (
            ["run", "runs/none"],
            r"^runs/none: there is no such folder; expected a run folder, or a file whose",
        ),
        (["run", ""], "^'': unknown recipe; expected "),
        (["run", "norwegian-tiny", "--run-dir", ""], "^--run-dir: it is empty; expected a path"),
        (["generate", "", "a"], "^MODEL: it is empty; expected a path"),
        (["inspect", "a", "--tokenizer", " "], "^--tokenizer: it is empty; expected a path"),
        (["bench", "input", "--store="], "^--store: it is empty; expected a path"),
        (["generate", "runs/none", "a"], r"^runs/none: there is no such folder; expected a run folder or an"),
        (["inspect", "a", "--model", "runs/none"], r"^runs/none: there is no such folder; expected a run"),
        (["vocab", "--compare"], "^--compare: nothing to compare; expected one or more tokenizers"),
        (
            ["train", "norwegian-tiny", "--train.steps", "30", "--train.schedule.warmup_steps", "30"],
            "train.schedule.warmup_steps: 30 cannot be used",
        ),
        (["generate", "m", "a\udcff"], r"'a\\udcff': not UTF-8 text"),
        (["inspect", "a dog", "--noise", "cat"], "cat"),
        (["inspect", "a dog", "--html", "none/a.html"], r"none/a\.html: cannot be written \(no such file"),
        (["inspect", "a dog", "--html", "."], r"^--html: \. has no ending; expected \.html or \.htm"),
        (["inspect", "a dog", "--noise-density", "2"], "noise_density: 2.0 cannot be used"),
    ],
)
def test_mistakes_are_one_line(argv, message, capsys):
    assert re.search(message, error(capsys, *argv))


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
    ("number", "by"), [(signal.SIGINT, ""), (signal.SIGTERM, " by SIGTERM"), (signal.SIGUSR1, " by SIGUSR1")]
)
def test_signals_end_a_command_with_one_line(number, by, monkeypatch, capsys):
    before = [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGUSR1)]
    monkeypatch.setattr(sys, "stdin", Stdin(number))
    assert main(["generate", "model"]) == 128 + number
    assert capsys.readouterr() == ("", f"t5smith: stopped{by}; run the same command to resume\n")
    assert [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGUSR1)] == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_is_not_lost_in_a_callback_of_the_garbage_collector(number, monkeypatch, capsys):
    """Python ignores what is raised there, and JAX has such a callback."""
    sent = []

    def collected(*_):
        if not sent:
            sent.append(number)
            signal.raise_signal(number)

    def work(_):
        gc.collect()
        # Without the timeout a failure would never end.
        threading.Event().wait(timeout=60)

    monkeypatch.setattr(command, "_dispatch", work)
    gc.callbacks.append(collected)
    try:
        assert main(["train"]) == 128 + number
    finally:
        gc.callbacks.remove(collected)
    assert "stopped" in capsys.readouterr().err


COMPILES = """
import os, signal, sys, threading
from t5smith.base.signals import interruptible
from t5smith.cli import main as module

def compile(args):
    begun = threading.Event()
    def endless():
        begun.set()
        threading.Event().wait()
    threading.Thread(
        target=lambda: (begun.wait(), os.kill(os.getpid(), int(args[0]))), daemon=True
    ).start()
    interruptible(endless)

module._dispatch = compile
print(module.main(sys.argv[1:]), "is never printed: the process ends before what it left behind")
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_process_while_it_compiles(number, code):
    """What cannot be interrupted, such as XLA's compiler, is not waited for."""
    # Without the timeout a failure would never end.
    done = subprocess.run(
        [sys.executable, "-c", COMPILES, str(int(number))],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == code
    assert done.stderr.startswith("t5smith: stopped")
    assert done.stdout == ""


def test_a_reader_that_closes_the_pipe_is_no_error():
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


def test_no_text_on_stdin_is_an_error(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert error(capsys, "generate", "model") == "stdin: no text; expected one text per line"
    assert error(capsys, "generate", "model", "").startswith(
        "TEXT: no text. Mark missing words by <extra_id_0>"
    )


def test_invalid_utf8_on_stdin_is_an_error():
    command = [sys.executable, "-m", "t5smith", "generate", "model"]
    environment = os.environ | {"PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run(command, input=b"a\xff\n", capture_output=True, env=environment)
    assert done.returncode == 2
    assert done.stderr.startswith(b"t5smith: error: stdin: not UTF-8 text. Convert it to UTF-8")
