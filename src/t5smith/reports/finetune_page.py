"""The report of a fine-tuning, for page and terminal: scores, curves over steps, the worst errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from t5smith.base.progress import count
from t5smith.pages.curves import Series, curve
from t5smith.pages.markup import Html, document, join, stylesheet, tag
from t5smith.pages.parts import card, cards, table
from t5smith.training.metrics import HELD_OUT, STEPS, read_columns, read_rows

Facts = Mapping[str, Any]


def page(facts: Facts, folder: Path) -> str:
    """The report as a whole HTML page.

    Args:
      facts: what `t5smith finetune` returns.
      folder: of the fine-tuning, with the figures of its steps.
    """
    sections = [
        ("Scores on the test", _scores(facts)),
        ("Curves", _curves(folder / "train")),
        *((f"Worst errors: {name}", _worst(found)) for name, found in facts["worst"].items()),
        ("Examples", _examples(facts["examples"])),
    ]
    body = [
        tag("header", tag("h1", facts["name"]), tag("p", "A T5 fine-tuned with t5smith")),
        _cards(facts),
        *(tag("section", tag("h2", title), content) for title, content in sections if content),
    ]
    styles = [stylesheet("t5smith.pages", name) for name in ("theme.css", "page.css")]
    return document(f"{facts['name']}: fine-tuning", join(body), styles)


def show_scores(facts: Facts) -> None:
    """Print what `t5smith finetune` returned: a line for each score."""
    print(f"{facts['name']}: step {facts['step']:,}, {facts['model']}")
    for task, scores in facts["scores"].items():
        for name, value in scores.items():
            print(f"  {task}  {name} {value:.2f}{_beside(facts, task, name)}")


def _beside(facts: Facts, task: str, name: str) -> str:
    """The interval of a score, and the score of the copied inputs."""
    around, copied = facts["intervals"][task][name], facts["copied"][task].get(name)
    text = f" [{around[0]:.2f}, {around[1]:.2f}]" if around else ""
    return text + (f"; copying the input {copied:.2f}" if copied is not None else "")


def _cards(facts: Facts) -> Html | None:
    train = facts["train"]
    found = [
        card(f"{task}: {name}", value, "{:.2f}".format, _beside(facts, task, name).strip(" ;"))
        for task, scores in facts["scores"].items()
        for name, value in list(scores.items())[:1]
    ]
    found.append(card("Parameters", train["parameters"], count, f"of step {facts['step']:,}"))
    return cards(found)


def _scores(facts: Facts) -> Html | None:
    rows: list[list[str]] = []
    for task, scores in facts["scores"].items():
        for name, value in scores.items():
            around, copied = facts["intervals"][task][name], facts["copied"][task].get(name)
            rows.append(
                [
                    f"{task}: {name}",
                    f"{value:.2f}",
                    f"{around[0]:.2f} to {around[1]:.2f}" if around else "",
                    "" if copied is None else f"{copied:.2f}",
                    f"{facts['test_examples'][task]:,}",
                ]
            )
    head = ("score", "per cent", "95 % interval", "copying the input", "examples")
    return table(rows, head, numbers=True)


def _curves(train: Path) -> Html | None:
    metrics, rows = read_columns(train / STEPS, ("step", "nll")), read_rows(train / HELD_OUT)
    steps = [row["step"] for row in rows]
    loss = [
        Series("train", metrics["step"], metrics["nll"]),
        Series("dev", steps, [row["all"]["nll"] for row in rows], "points"),
    ]
    drawn = [curve(loss, "step", "nats per target token", "Loss")]
    names = [(task, name) for task, own in rows[-1]["scores"].items() for name in own] if rows else []
    for task, name in names:
        values = [row["scores"][task][name] for row in rows]
        drawn.append(curve([Series("dev", steps, values, "line")], "step", name, f"{task}: {name}"))
    figures = [tag("figure", Html(one)) for one in drawn if one]
    return tag("div", *figures, class_="figures") if figures else None


def _worst(found: Sequence[Facts]) -> Html | None:
    rows = [
        [one["place"], one["input"], one["targets"][0], one["text"], f"{one['score']:.1f}"] for one in found
    ]
    return table(rows, ("row", "input", "target", "the model wrote", "score"))


def _examples(tasks: Mapping[str, Facts]) -> Html | None:
    rows = [
        [
            name,
            f"{own['stop'] - own['start']:,}",
            f"{own['dev']:,}",
            f"{own['test']:,}",
            f"{own['cut_inputs']:,}",
            f"{own['cut_targets']:,}",
            "; ".join(f"{n:,} {why}" for split in own["skipped"].values() for why, n in split.items()),
        ]
        for name, own in tasks.items()
    ]
    head = ("task", "train", "dev", "test", "inputs cut", "targets cut", "rows skipped")
    return table(rows, head, numbers=True)
