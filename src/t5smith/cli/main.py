"""The command `t5smith`: each verb is a thin wrapper of one public function of the same name.

A recipe verb reads `t5smith VERB [RECIPE] [--dotted.setting VALUE ...]`: the preset or file is loaded
first, and flags change single settings of it. Results go to stdout, all else to stderr.
What a verb needs is imported when that verb runs, so that help and mistakes answer at once.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib
import json
import os
import platform
import signal
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn, cast

from t5smith import __version__
from t5smith.base.errors import T5smithError
from t5smith.cli.commands import (
    BENCH_PARTS,
    OVERVIEW,
    RECIPE_VERBS,
    GenerateCommand,
    InspectCommand,
    RecipesCommand,
    VocabCommand,
)
from t5smith.cli.flags import parse
from t5smith.recipe.toml import headline, load_recipe, presets

if TYPE_CHECKING:
    from t5smith.generation.fill import Completion


PROGRAMS = 4 << 30
"""Bytes of compiled programs that are kept; the longest unused go first."""
TUNABLES = "GLIBC_TUNABLES"
MALLOC = ":".join(
    f"glibc.malloc.{name}={value}"
    for name, value in {
        "hugetlb": 1,
        # One arena, which keeps what it has: a step's memory is not handed back and fetched anew each time.
        "arena_max": 1,
        "mmap_threshold": 1 << 36,
        "trim_threshold": 1 << 36,
    }.items()
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code. 0: done; 2: the user's mistake; 130 or 143: stopped."""
    if argv is None:
        _remember_programs()
        _with_huge_pages(sys.argv[1:])
    args = list(sys.argv[1:] if argv is None else argv)
    try:
        with _sigterm_unwinds():
            code = _dispatch(args)
            sys.stdout.flush()
            return code
    except T5smithError as error:
        from t5smith.base.progress import info

        info(f"t5smith: error: {error}")
        return 2
    except KeyboardInterrupt:
        print("t5smith: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    except _Terminated:
        print("t5smith: stopped by SIGTERM; the same command goes on from here", file=sys.stderr)
        return 128 + signal.SIGTERM
    except BrokenPipeError:
        # Whoever read our output has enough. Python flushes stdout once more on exit: let that succeed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 128 + signal.SIGPIPE
    except Exception as error:
        # Training that was asked to stop has saved its state and brings its own code; the rest are bugs.
        code = getattr(error, "exit_code", None)
        if not isinstance(code, int):
            raise
        print(f"t5smith: {error}", file=sys.stderr)
        return code
    except SystemExit as exit_:  # tyro: 0 after --help, 2 after a refusal
        return exit_.code if isinstance(exit_.code, int) else 2


def _with_huge_pages(args: list[str]) -> None:
    """Start over with huge pages for malloc, which are kept: else XLA on CPU spends much on page faults.

    The C library reads the setting only when a process starts. Whoever has set it keeps theirs.
    """
    trains = args[:1] in (["run"], ["train"]) or args[:2] == ["bench", "train"]
    trains = trains and not {"-h", "--help"} & set(args)
    if sys.platform == "linux" and trains and TUNABLES not in os.environ:
        os.execve(sys.executable, sys.orig_argv, os.environ | {TUNABLES: MALLOC})


def _remember_programs() -> None:
    """Let JAX keep what it compiles for the next start with the same shapes. Whoever says where has it there.

    A program made for one processor may not run on another, and home folders are shared: each has its own.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    with contextlib.suppress(OSError):
        cpuinfo = Path("/proc/cpuinfo")
        lines = cpuinfo.read_text(errors="replace").splitlines() if cpuinfo.exists() else []
        known = "".join({line for line in lines if line.startswith("flags")}) + platform.platform()
        folder = base / "t5smith" / f"programs-{hashlib.sha256(known.encode()).hexdigest()[:12]}"
        folder.mkdir(parents=True, exist_ok=True)
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
        os.environ.setdefault("JAX_COMPILATION_CACHE_MAX_SIZE", str(PROGRAMS))


def _dispatch(args: list[str]) -> int:
    if not args or args[0] in ("-h", "--help", "help"):
        print(OVERVIEW)
    elif args[0] in ("-V", "--version"):
        print(f"t5smith {__version__}")
    elif args[0] in RECIPE_VERBS:
        _recipe_verb(args[0], args[1:])
    elif args[0] in OTHER_VERBS:
        OTHER_VERBS[args[0]](args[1:])
    else:
        known = [*RECIPE_VERBS, *OTHER_VERBS]
        near = difflib.get_close_matches(args[0], known, n=1)
        raise T5smithError(
            "there is no such verb",
            where=args[0],
            expected=f"one of {', '.join(known)}",
            fix=f"did you mean {near[0]!r}?" if near else None,
        )
    return 0


def _recipe_verb(verb: str, args: list[str]) -> None:
    named = bool(args) and not args[0].startswith("-")
    recipe = load_recipe(args[0] if named else None)
    spec = RECIPE_VERBS[verb]
    command = parse(
        spec.command,
        args[1:] if named else args,
        prog=f"t5smith {verb} {args[0] if named else '[RECIPE]'}",
        description=f"{spec.help} RECIPE is a preset or a .toml file; the defaults below are its settings.",
        default=spec.command(recipe),
    )
    if isinstance(command, VocabCommand) and "--compare" in args and not command.compare:
        raise T5smithError(
            "there is nothing to compare", where="--compare", expected="at least one tokenizer"
        )
    if isinstance(command, VocabCommand) and command.measures:
        _function("t5smith.reports.vocab_comparison", "compare")(
            command.recipe, command.compare, command.max_bytes, plot=command.plot, as_json=command.json
        )
        return
    recipe, more = command.asked
    result = _function(spec.module, verb)(recipe, **more)
    if isinstance(result, Path):
        _print_folder(result, spec.kind, command.json)
    elif command.json:
        print(json.dumps(result, ensure_ascii=False, default=str))
    else:
        _function("t5smith.reports.terminal", "show")(result)


def _generate(args: list[str]) -> None:
    command = parse(GenerateCommand, args, prog="t5smith generate")
    if command.max_new_tokens < 1:
        raise T5smithError(
            f"{command.max_new_tokens} cannot be used", where="--max-new-tokens", expected="1 or more"
        )
    texts = _utf8(command.text or _lines_of_stdin())
    asked = [text for text in texts if text.strip()]
    if not asked:
        raise T5smithError("there is no text", where="stdin", expected="a text a line")
    done: list[Completion] = _function("t5smith.generation.fill", "generate")(
        command.model, asked, max_new_tokens=command.max_new_tokens, mode=command.mode
    )
    _tell_unmasked([text for text, completion in zip(asked, done, strict=True) if not completion.fills])
    # A line without text is answered by one, so that answers stay beside their texts.
    left = iter(done)
    completions = [next(left) if text.strip() else None for text in texts]
    if command.json:
        answers = [
            {"text": text, "filled": one.filled, "fills": one.fills, "answer": one.text}
            if one
            else {"text": text, "filled": "", "fills": [], "answer": ""}
            for text, one in zip(texts, completions, strict=True)
        ]
        print(json.dumps({"model": str(command.model), "answers": answers}, ensure_ascii=False))
    else:
        print("\n".join(one.filled if one else "" for one in completions))


def _tell_unmasked(texts: list[str]) -> None:
    """Say of texts that there is nothing to fill in."""
    from t5smith.base.progress import warn
    from t5smith.base.wrapping import pluralize

    if texts:
        which = "a text has" if len(texts) == 1 else f"{pluralize(len(texts), 'text')} have"
        warn(f"{which} no <extra_id_0> where something is to be filled in: {texts[0][:60]!r}")


def _inspect(args: list[str]) -> None:
    command = parse(InspectCommand, args, prog="t5smith inspect")
    _utf8([*command.noise, command.text or ""])
    _function("t5smith.cli.inspect", "inspect")(command)


def _recipes(args: list[str]) -> None:
    command = parse(RecipesCommand, args, prog="t5smith recipes")
    known = {name: headline(path) for name, path in presets().items()}
    if command.json:
        print(json.dumps(known, ensure_ascii=False))
    else:
        _print_named(known)


def _bench(args: list[str]) -> None:
    if not args or args[0] in ("-h", "--help"):
        print("usage: t5smith bench PART [--flag VALUE ...] [--json] [--help]\n")
        _print_named({f"  {name}": part.command.__doc__ or "" for name, part in BENCH_PARTS.items()})
        return
    if args[0] not in BENCH_PARTS:
        raise T5smithError(
            "there is no such part", where=f"bench {args[0]}", expected=f"one of {', '.join(BENCH_PARTS)}"
        )
    part = BENCH_PARTS[args[0]]
    command = parse(part.command, args[1:], prog=f"t5smith bench {args[0]}")
    flags = {name: value for name, value in vars(command).items() if name != "json"}
    facts = _function(part.module, part.function)(**flags)
    if command.json:
        print(json.dumps(facts))
    else:
        for name, value in _figures(facts):
            print(f"{name:<32} {value:>16,}")


OTHER_VERBS: dict[str, Callable[[list[str]], None]] = {
    "generate": _generate,
    "inspect": _inspect,
    "recipes": _recipes,
    "bench": _bench,
}


def _print_named(said: Mapping[str, str]) -> None:
    """What is said of each name, in a column of its own."""
    from rich.console import Console
    from rich.text import Text

    from t5smith.base.wrapping import hanging_indent

    console = Console()
    width = max(map(len, said))
    for name, about in said.items():
        print(hanging_indent(Text(f"{name:<{width}}  {about}"), console, width + 2))


def _lines_of_stdin() -> list[str]:
    if sys.stdin.isatty():
        print("a text a line, then Ctrl-D", file=sys.stderr)
    try:
        return [line.rstrip("\n") for line in sys.stdin]
    except UnicodeDecodeError:
        raise T5smithError("not UTF-8 text", where="stdin") from None


def _utf8(texts: Iterable[str]) -> list[str]:
    """The texts, unless they came as bytes that are no characters: Python hides those in surrogates."""
    for text in texts:
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise T5smithError("not UTF-8 text", where=ascii(text))
    return list(texts)


def _function(module: str, name: str) -> Callable[..., Any]:
    return getattr(importlib.import_module(module), name)


def _print_folder(folder: Path, kind: str | None, as_json: bool) -> None:
    from t5smith.base.artifact import read_manifest
    from t5smith.base.progress import info

    facts = read_manifest(folder, kind, check_hashes=False).facts if kind else {}
    if not as_json:
        if kind == "evaluation":  # its figures are what one asks for
            for name, value in _figures(facts):
                info(f"{name:<28} {value:,}" if isinstance(value, int) else f"{name:<28} {value:.4f}")
        print(folder)
        return
    print(json.dumps({"folder": str(folder), **facts}, ensure_ascii=False))


def _figures(facts: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, int | float]]:
    """The numbers among facts, those in tables by their dotted names."""
    for name, value in facts.items():
        if isinstance(value, Mapping):
            yield from _figures(cast("Mapping[str, Any]", value), f"{prefix}{name}.")
        elif isinstance(value, int | float):
            yield prefix + name, value


class _Terminated(BaseException):
    """SIGTERM came."""


@contextlib.contextmanager
def _sigterm_unwinds() -> Generator[None]:
    """Let SIGTERM end the body as Ctrl-C does: half-built folders are removed, the terminal is restored."""

    def stop(signum: int, frame: FrameType | None) -> NoReturn:
        raise _Terminated

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not in the main thread, where only the main thread may ask for signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    sys.exit(main())
