import html
import math
import re
from dataclasses import fields, replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t5smith.inspection.text import inspect
from t5smith.reports.contents import Example, Report
from t5smith.reports.run_page import page


def columns(rows: list[dict[str, float]]) -> dict[str, np.ndarray]:
    return {name: np.array([row[name] for row in rows], float) for name in (rows[0] if rows else ())}


ROWS = [
    {
        "step": step,
        "loss": 8.8 - step / 100,
        "learning_rate": 1e-3,
        "grad_norm": 0.5,
        "tokens_per_second": 2000.0,
    }
    for step in range(1, 60)
]
METRICS = columns(ROWS)
FULL = Report(
    name="norwegian-tiny",
    created="1 May 2026",
    recipe='name = "norwegian-tiny"\n[train]\nsteps = 600\n',
    vocab={"requested": 32_000, "pieces": 3_812, "ids": 3_912},
    store={"train": {"documents": 10_234, "tokens": 512_344, "unknown_rate": 0.000123}},
    corpus={"pieces": {"tokens": 512_000, "most_used": [["▁er", 9_216]], "pieces": 3_709, "unused": 12}},
    train={
        "parameters": 2_534_912,
        "steps": 600,
        "tokens": 3_072_000,
        "tokens_per_second": 11_873.4,
        "first_loss": 8.81,
        "ln_vocab": 8.31,
    },
    evaluation={
        "text": {"nll": 6.412, "accuracy": 0.1133, "tokens": 20_412},
        "sentinels": {"nll": 0.31, "accuracy": 0.97, "tokens": 6_000},
        "eos": {"nll": 0.2, "accuracy": 0.98, "tokens": 800},
        "total": {"nll": 5.125, "accuracy": 0.33, "tokens": 27_212},
        "unigram_nll": 6.662,
        "bits_per_byte": 2.233,
    },
    export={"folder": "runs/norwegian-tiny/model"},
    metrics=METRICS,
    held_out=columns(
        [
            {"step": 30, "loss": 8.6, "text": 7.0, "unigram": math.nan},
            {"step": 59, "loss": 8.3, "text": 6.412, "unigram": 6.51},
        ]
    ),
    examples=[Example(["Et", " er et ", "."], ["system ", "sett"], ["system", "ord"])],
    trace=inspect("The bad dog ruined my sleep", ["bad dog"]),
    warnings=["the text supports 3,812 pieces only"],
    versions={"jax": "0.10.2"},
    seconds=291.4,
    model="runs/norwegian-tiny/model",
    prompt="Et <extra_id_0> er et sett.",
)
VOID = {"meta", "br"}


class Reader(HTMLParser):
    """The text of a page, its elements and attributes; fails on elements that do not nest."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data


@pytest.fixture(scope="module")
def full() -> str:
    return page(FULL)


def test_loads_nothing(full: str) -> None:
    reader = Reader(full)
    assert not re.search(r"https?:|//[a-z]|@import|<script|<link|<iframe", full)
    assert not [a for a in reader.attributes if a[0] in {"src", "srcset"}]
    assert all((value or "").startswith("#") for name, value in reader.attributes if name == "href")
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", full))


def test_shows_the_headline_figures(full: str) -> None:
    text = Reader(full).text
    for shown in (
        "6.41",
        "0.25 below the unigram baseline of 6.66",
        "11.3 %",
        "2.23",
        "2.53M",
        "3.07M",
        "4:51 min",
    ):
        assert shown in text
    assert "vocabulary of 3,812 pieces" in text
    assert "tokens, in 600 steps, 11.9k per second" in text


def test_shows_that_the_model_is_worse_than_the_baseline() -> None:
    worse = page(replace(FULL, evaluation={"text": {"nll": 7.0}, "unigram_nll": 6.5}))
    assert '<span class="bad">0.50 above</span> the unigram baseline of 6.50' in worse


def test_shows_every_section(full: str) -> None:
    titles = re.findall(r"<h2>([^<]*)</h2>", full)
    assert titles == [
        "Curves",
        "Filled-in spans",
        "Held-out loss by class of token",
        "What the encoder and decoder see",
        "Corpus",
        "Data and model",
        "Settings",
        "Load the model",
        "Versions",
    ]


def test_draws_the_four_curves_with_their_levels(full: str) -> None:
    targets = re.findall(r'aria-label="([^"]*)"', full)
    loss, text = "Loss of all targets", "Held-out NLL of text tokens"
    assert targets == [loss, loss, text, text, "Learning rate", "Gradient norm", "Tokens per second"]
    assert ">2,000<" in full.split('aria-label="Tokens per second"')[1]
    figures = full.split('aria-label="')
    for figure in figures[1:3]:  # like is drawn beside like
        assert "ln V 8.31" in figure
        assert "train 8.21" in figure
        assert "held out 8.3<" in figure
        assert "unigram" not in figure
    for figure in figures[3:5]:
        assert "held out 6.41" in figure
        assert "unigram 6.51" in figure  # of the curve's windows, not of all that are scored after training
        assert "train" not in figure.split("</svg>")[0]
    assert "The first loss was 8.81. Uniform guessing costs ln V = 8.31" in full


def test_the_last_row_of_a_repeated_step_counts() -> None:
    again = columns([*ROWS[:40], ROWS[39] | {"loss": 3.0}, *ROWS[20:]])
    assert page(replace(FULL, metrics=again)) == page(FULL)
    twice = columns([{"step": 1, "loss": 9.0}, {"step": 1, "loss": 3.0}])
    assert "train 3" in page(replace(FULL, metrics=twice))


def test_rows_are_drawn_in_the_order_of_their_steps() -> None:
    held_out = {name: column[::-1] for name, column in FULL.held_out.items()}
    assert page(replace(FULL, metrics=columns(ROWS[::-1]), held_out=held_out)) == page(FULL)


def test_examples_show_the_original_the_input_and_the_filled_in_spans(full: str) -> None:
    rows = re.findall(r"<dd>(.*?)</dd>", full)
    plain = [html.unescape(re.sub(r"<sup>.*?</sup>|<[^>]+>", "", row)) for row in rows]
    assert plain == [
        "Et system er et sett.",
        "Et <extra_id_0> er et <extra_id_1>.",
        "Et system er et ord sett.",
    ]
    assert '<mark class="s0 right">system<sup>0</sup></mark>' in rows[2]
    assert '<mark class="s1">ord<sup>1</sup></mark> <del>sett</del>' in rows[2]


def test_an_empty_span_is_called_nothing() -> None:
    assert "(nothing)" in page(replace(FULL, examples=[Example(["a ", ""], ["b"], [" "])]))


def test_an_example_has_one_part_more_than_spans() -> None:
    with pytest.raises(AssertionError):
        Example(["a"], ["b"], ["c"])


def test_text_and_sentinels_are_reported_apart(full: str) -> None:
    assert "6.412" in full
    rows = re.findall(
        r'<th scope="row">([^<]*)</th><td[^>]*>([0-9.]*)</td><td[^>]*>[^<]*</td><td[^>]*>[^<]*</td>', full
    )
    assert rows == [
        ("Text", "6.412"),
        ("Sentinels", "0.310"),
        ("&lt;/s&gt;", "0.200"),
        ("All", "5.125"),
        ("Text, unigram baseline", "6.662"),
    ]
    assert "Text, unigram baseline" in full
    assert full.count("Sentinels") == 1, "listed a second time among the other facts"


def test_facts_settings_warnings_and_versions_are_listed(full: str) -> None:
    text = Reader(full).text
    for shown in ("32,000", "3,812", "0.012 %", "train.steps", "65536", "[train]", "0.10.2"):
        assert shown in text
    assert "Warning: the text supports 3,812 pieces only" in text


def test_facts_of_the_corpus_report_are_not_listed_again() -> None:
    skipped = {"counts": {"no text": 3}, "first": ["a.jsonl:2: the field is empty"]}
    corpora = {"nb": {"documents": 5, "tokens": 50}}
    store = {"skipped_records": skipped, "train": {"documents": 5, "tokens": 50, "corpora": corpora}}
    text = Reader(page(Report("one", vocab={"skipped_records": skipped, "requested": 7}, store=store))).text
    assert text.count("a.jsonl:2") == 1
    facts = text.split("Data and model")[1]
    assert "Requested" in facts
    assert "Train, documents" in facts
    assert "corpora" not in facts
    assert "Skipped" not in facts


def test_the_snippet_is_python_that_names_the_folder(full: str) -> None:
    code = html.unescape(re.findall(r"<pre>(from .*?)</pre>", full, re.DOTALL)[0])
    compile(code, "snippet", "exec")
    assert "AutoTokenizer.from_pretrained('runs/norwegian-tiny/model')" in code
    assert "tokenizer('Et <extra_id_0> er et sett.'" in code


HOSTILE = "<script>alert(1)</script>\"'&<img src=x onerror=y>"


def test_all_text_is_escaped() -> None:
    facts: dict[str, Any] = {HOSTILE: HOSTILE, "got": 5, "text": {"nll": 6.0}}
    report = Report(
        name=HOSTILE,
        created=HOSTILE,
        recipe=f"name = '''{HOSTILE}'''",
        vocab=facts,
        store=facts,
        corpus={"pieces": {"tokens": 9, "most_used": [[HOSTILE, 9]], "pieces": 1, "unused": 0}},
        train=facts,
        evaluation=facts,
        export=facts,
        metrics=METRICS,
        examples=[
            Example([HOSTILE, HOSTILE], [HOSTILE], [HOSTILE]),
            Example([HOSTILE, HOSTILE], [HOSTILE], ["x"]),
        ],
        trace=inspect(HOSTILE, ["alert"]),
        warnings=[HOSTILE],
        versions={HOSTILE: HOSTILE},
        model=HOSTILE,
        prompt=HOSTILE,
    )
    assert {field.name for field in fields(report)} - {"held_out", "seconds"} == {
        name for name in vars(report) if getattr(report, name) != getattr(Report(""), name)
    }, "a new field: give it hostile text too"
    reader = Reader(page(report))
    assert "script" not in reader.tags
    assert "img" not in reader.tags
    assert reader.text.count(HOSTILE) > 20


def test_a_report_with_only_a_name_is_a_page() -> None:
    bare = page(Report("bare"))
    assert "<h1>bare</h1>" in bare
    assert "<h2>" not in bare
    assert 'class="cards"' not in bare


NUMBERS = st.one_of(st.none(), st.floats(width=32), st.integers(0, 10**9), st.just("text"), st.booleans())


def some(*keys: str) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=dict.fromkeys(keys, NUMBERS))


def every(*keys: str) -> st.SearchStrategy[dict[str, np.ndarray]]:
    rows = st.lists(st.fixed_dictionaries(dict.fromkeys(keys, st.floats(width=32))), max_size=3)
    return rows.map(columns)


@settings(max_examples=30)
@given(
    vocab=some("pieces"),
    train=some("parameters", "steps", "tokens", "tokens_per_second", "first_loss", "ln_vocab"),
    text=some("nll", "accuracy", "tokens"),
    evaluation=some("unigram_nll", "bits_per_byte", "sentinels"),
    metrics=every("step", "loss", "learning_rate", "grad_norm", "tokens_per_second"),
    held_out=every("step", "loss", "text", "unigram"),
    seconds=st.one_of(st.none(), st.floats()),
)
def test_missing_and_impossible_values_are_not_shown(
    vocab: dict[str, Any],
    train: dict[str, Any],
    text: dict[str, Any],
    evaluation: dict[str, Any],
    metrics: dict[str, np.ndarray],
    held_out: dict[str, np.ndarray],
    seconds: float | None,
) -> None:
    report = Report(
        "partial",
        vocab=vocab,
        train=train,
        evaluation=evaluation | {"text": text},
        metrics=metrics,
        held_out=held_out,
        seconds=seconds,
    )
    shown = page(report)
    reader = Reader(shown)
    drawn = " ".join(value or "" for name, value in reader.attributes if name in {"d", "x", "y", "transform"})
    assert not re.search(r"\b(nan|inf|None)\b", reader.text + drawn, re.IGNORECASE)


def test_a_loss_that_was_never_finite_is_not_drawn() -> None:
    shown = page(replace(FULL, metrics=columns([{"step": 1, "loss": math.nan}]), held_out={}))
    assert "<svg" not in shown


def test_the_same_report_gives_the_same_bytes(full: str) -> None:
    assert page(FULL) == full
