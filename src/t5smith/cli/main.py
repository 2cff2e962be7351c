"""The command `t5smith`: what its process does around a verb: help, errors, signals, exit codes.

Results go to stdout, everything else to stderr. Modules are imported when they are needed, so that
`--version` and `--help` answer at once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Generator, Sequence
from types import FrameType
from typing import NoReturn

from t5smith import __version__
from t5smith.base.errors import T5smithError

SEND_AGAIN_SECONDS = 0.01
"""After this time Python has left the callback in which it ignored a signal."""
OVERVIEW = f"""\
t5smith {__version__}: raw text of your language in, a Hugging Face T5 out

usage: t5smith COMMAND [RECIPE] [--flag VALUE ...]

the whole job
  run        every stage below, in order; finished stages are skipped

its stages
  vocab      text -> tokenizer; or import one, or --compare several
  prepare    text and tokenizer -> token store
  train      token store -> checkpoints and metrics
  evaluate   checkpoint -> held-out figures
  export     checkpoint and evaluation -> Hugging Face folder

what the model is for
  finetune   pairs of text -> fine-tuned model, its scores

other models
  import     a T5 of another project -> Hugging Face folder

a look inside
  generate   fill in the masked spans of a text
  inspect    show what the model sees, and the loss of each token
  recipes    list the bundled recipes
  bench      measure how fast this machine makes batches and trains

RECIPE is a bundled recipe, a .toml file or a run folder.
Start: t5smith run norwegian-tiny
t5smith COMMAND --help shows a command's flags, t5smith --version the version."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    The code is 0 when done, 2 for an error of the user, 128 + N if signal N stopped it.
    """
    if argv is None:
        from t5smith.cli.environment import restart_with_huge_pages, set_compilation_cache

        set_compilation_cache()
        restart_with_huge_pages(sys.argv[1:])
    args = list(sys.argv[1:] if argv is None else argv)
    try:
        with _signals_unwind():
            _dispatch(args)
            sys.stdout.flush()
            return 0
    except T5smithError as error:
        from t5smith.base.progress import info

        info(f"t5smith: error: {error}")
        return _exit_code(2)
    except _Terminated as stop:
        name = signal.Signals(stop.number).name
        print(f"t5smith: stopped by {name}; run the same command to resume{_without(args)}", file=sys.stderr)
        return _exit_code(128 + stop.number)
    except KeyboardInterrupt:
        print(f"t5smith: stopped; run the same command to resume{_without(args)}", file=sys.stderr)
        return _exit_code(130)
    except BrokenPipeError:
        # The reader closed the pipe. Python flushes stdout again on exit, which must not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 128 + signal.SIGPIPE
    except Exception as error:
        # A stopped training has saved its state and has an exit code; other exceptions are bugs.
        code = getattr(error, "exit_code", None)
        if not isinstance(code, int):
            return _exit_code(_reached_limit(error))
        print(f"t5smith: {error}{_without(args)}", file=sys.stderr)
        return code


def _reached_limit(error: Exception) -> int:
    """Report that the process has reached a limit of files or memory; any other exception is raised."""
    from t5smith.base.disk import limit_error
    from t5smith.base.progress import info

    if (found := limit_error(error)) is None:
        raise error
    info(f"t5smith: error: {found}")
    return 2


def _without(args: list[str]) -> str:
    """A flag that must not be repeated to resume: it would archive the steps trained since."""
    return " without --restart" if "--restart" in args else ""


def _dispatch(args: list[str]) -> None:
    if not args or args[0] in ("-h", "--help", "--help-all", "help"):
        print(OVERVIEW)
    elif args[0] in ("-V", "--version"):
        print(f"t5smith {__version__}")
    else:
        from t5smith.cli.verbs import run_verb

        run_verb(args[0], args[1:])


def _exit_code(code: int) -> int:
    """The code itself; if a call into C++ was left behind, end the process here, which would wait for it."""
    from t5smith.base.signals import work_left_behind

    if work_left_behind():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


class _Terminated(KeyboardInterrupt):
    """The process received SIGTERM or SIGUSR1. What lets Ctrl-C through, such as asyncio, lets it through."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextlib.contextmanager
def _signals_unwind() -> Generator[None]:
    """Make SIGTERM and SIGUSR1 end the body as Ctrl-C does: unfinished folders are removed, the terminal is
    restored. Schedulers send both; while training runs, it handles them itself.
    """

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise _Terminated(number)

    hook = sys.unraisablehook

    def ignored(args: sys.UnraisableHookArgs) -> None:
        """Send a signal again that arrived in a callback of the garbage collector: Python ignored it."""
        if not isinstance(args.exc_value, KeyboardInterrupt):
            hook(args)
            return
        number = getattr(args.exc_value, "number", signal.SIGINT)
        # A signal that this thread sent would end in this function.
        threading.Timer(SEND_AGAIN_SECONDS, os.kill, (os.getpid(), number)).start()

    try:
        before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGUSR1)}
    except ValueError:  # only the main thread may handle signals
        yield
        return
    sys.unraisablehook = ignored
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    sys.exit(main())
