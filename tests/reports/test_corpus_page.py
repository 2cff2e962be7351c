"""The corpus report: every part, exact figures, and all text escaped."""

from __future__ import annotations

import re
from typing import Any

import pytest
from test_run_page import HOSTILE, Reader

from t5smith.reports.corpus_page import corpus_page, corpus_section

STORE: dict[str, Any] = {
    "vocab_size": 2100,
    "skipped_records": {
        "counts": {"no text": 5, "not UTF-8": 10, "unreadable files": 1_001},
        "files": {"nn/a.parquet": "nn/a.parquet: this is a pointer of Git LFS"},
        "first": ["a.jsonl:2: the field 'text' is int", "a.jsonl:3: invalid UTF-8"],
    },
    "cut_stretches": 1_200,
    "input_files": {
        "formats": {"jsonl": 2, "text": 1},
        "empty": 1_200,
        "without_records": ["nb/empty.txt"],
        "not_read": {
            "counts": {"readme": 1, "split test": 1},
            "files": ["nn/README.md", "nn/test.jsonl"],
            "data_sets": {"nn": "its split train is read (1 file)"},
        },
    },
    "cleaning": [
        {
            "step": "language",
            "in": 985,
            "dropped": {"not nb": 100},
            "changed": 0,
            "examples": [{"place": "a.jsonl:7", "reason": "not nb", "text": "English\ntext"}],
        },
        {"step": "normalise", "in": 885, "dropped": {}, "changed": 204, "examples": []},
        {
            "step": "quality",
            "in": 885,
            "dropped": {"too short": 60, "symbols": 2},
            "changed": 3,
            "examples": [{"place": "b.txt:1", "reason": "symbols", "text": "###"}] * 2,
        },
    ],
    "train": {
        "documents": 800,
        "tokens": 12_000,
        "separators": 800,
        "text_bytes": 48_000,
        "unknown_rate": 0.0001,
        "empty_documents": 2,
        "bytes_per_token": 4.2,
        "corpora": {
            "nb": {"documents": 700, "tokens": 9_000, "text_bytes": 40_000},
            "nn": {"documents": 100, "tokens": 3_000, "text_bytes": 8_000},
        },
    },
    "valid": {
        "documents": 20,
        "tokens": 300,
        "separators": 20,
        "text_bytes": 1_200,
        "unknown_rate": 0.0493,
        "empty_documents": 1,
        "bytes_per_token": 4.0,
        "corpora": {"nb": {"documents": 20, "tokens": 300, "text_bytes": 1_200}},
    },
}
FIGURES: dict[str, Any] = {
    "came_in": [
        {"split": "", "corpus": "nb", "files": 2, "bytes": 50_000},
        {"split": "", "corpus": "nn", "files": 1, "bytes": 9_000},
    ],
    "lengths": {
        "train": {
            "shortest": 2,
            "median": 9,
            "ninth_decile": 20,
            "longest": 1_023,
            "powers": [[2, 300, 900], [4, 0, 0], [8, 500, 10_300]],
        },
        "valid": {
            "shortest": 5,
            "median": 15,
            "ninth_decile": 15,
            "longest": 15,
            "powers": [[4, 1, 5], [8, 19, 275]],
        },
    },
    "pieces": {"tokens": 11_200, "most_used": [["▁og", 1_120], ["</", 56]], "pieces": 2_000, "unused": 30},
    "windows": [
        {
            "corpus": "nb",
            "start": 1_500,
            "document": 12,
            "begins": False,
            "texts": ["og natt.", "Det er", "dag"],
            "ends": False,
        },
        {
            "corpus": "nn",
            "start": 9_100,
            "document": 701,
            "begins": False,
            "texts": ["Ei bok."],
            "ends": True,
        },
    ],
}
TITLES = [
    "From records to documents",
    "Formats and files not read",
    "Cleaning",
    "Tokens",
    "Lengths of documents",
    "Most frequent pieces",
    "Sample windows",
]


@pytest.fixture(scope="module")
def full() -> str:
    return corpus_page("norsk", STORE, FIGURES)


def lines(page: str, title: str) -> list[list[str]]:
    """The rows of the first table below a heading."""
    rows = re.findall(r"<tr.*?</tr>", page.split(f"<h2>{title}</h2>")[1].split("</tbody>")[0])
    return [[re.sub(r"<[^>]*>", "", cell) for cell in re.findall(r"<t[hd].*?</t[hd]>", row)] for row in rows]


def test_every_part_is_there_and_nothing_is_loaded(full: str) -> None:
    assert re.findall(r"<h2>([^<]*)</h2>", full) == TITLES
    Reader(full)
    assert not re.search(r"https?:|//[a-z]|@import|<script|<link|<iframe", full)


def test_the_section_has_the_same_parts_a_heading_lower(full: str) -> None:
    section = corpus_section(STORE, FIGURES)
    assert section is not None
    assert re.findall(r"<h3>([^<]*)</h3>", section) == TITLES
    for title in TITLES:
        assert full.split(f"<h2>{title}</h2>")[1].split("</section>")[0] in section


def test_records_less_removed_records_are_documents(full: str) -> None:
    rows = [row[:3] for row in lines(full, TITLES[0])[1:]]
    assert rows == [
        ["Records in 3 files of 59 kB", "1,000", "100.0 %"],
        ["unreadable", "−15", "1.5 %"],
        ["not UTF-8", "−10", "1.0 %"],
        ["no text", "−5", "0.50 %"],
        ["language: not nb", "−100", "10.0 %"],
        ["quality", "−62", "6.2 %"],
        ["too short", "−60", "6.0 %"],
        ["symbols", "−2", "0.20 %"],
        ["without text", "−3", "0.30 %"],
        ["Documents in the store", "820", "82.0 %"],
    ]
    assert 'Removed</div><div class="value">18.0 %</div><div class="about">180 of 1,000 records' in full
    assert "1,200 stretches of text without white space" in full
    assert "<li>a.jsonl:3: invalid UTF-8</li>" in full


def test_input_files_are_listed_by_format_and_by_why_they_are_not_read(full: str) -> None:
    assert lines(full, "Formats and files not read") == [
        ["", "files"],
        ["read as jsonl", "2"],
        ["read as text", "1"],
        ["not read: readme", "1"],
        ["not read: split test", "1"],
        ["cannot be read", "1,001"],
    ]
    text = Reader(full).text
    assert "nn is a data set: its split train is read (1 file)." in text
    assert "Files that are not read: 2 files" in text
    assert "nn/test.jsonl" in text
    assert "Files that cannot be read: 1,001 files" in text
    assert "nn/a.parquet: this is a pointer of Git LFS… and 1,000 more" in text.replace("\n", "")
    assert "nb/empty.txt… and 1,199 more" in text.replace("\n", "")
    plain = STORE | {"input_files": {"formats": {"text": 3}, "empty": 0, "without_records": []}}
    plain |= {"skipped_records": {}}
    assert "Formats and files not read" not in corpus_page("norsk", plain, FIGURES)


def test_bars_show_what_each_step_removed(full: str) -> None:
    bars = re.findall(r"--left:([\d.]+)%;--before:([\d.]+)%", full)
    left = [float(left) for left, _ in bars]
    before = [float(before) for _, before in bars]
    assert left == [100.0, 98.5, 88.5, 82.3, 82.0, 82.0]
    assert before == [100.0, *left[:-2], 82.0]


def test_a_damaged_archive_is_not_counted_as_a_record() -> None:
    skipped = {
        "counts": {"no text": 2, "damaged archive": 1},
        "first": ["a.jsonl:2: no text", "b.gz:9: the archive is cut short"],
        "kinds": {"no text": "a.jsonl:2: no text", "damaged archive": "b.gz:9: the archive is cut short"},
    }
    store = {"skipped_records": skipped, "train": {"documents": 7}, "valid": {"documents": 1}}
    page = corpus_page("norsk", store, {"came_in": [{"split": "", "corpus": "", "files": 2, "bytes": 10}]})
    assert lines(page, TITLES[0])[1][:2] == ["Records in 2 files of 10 B", "10"]
    assert "1 archive is truncated or damaged. What could not be unpacked is lost" in page
    assert page.index("b.gz:9") < page.index("a.jsonl:2")


def test_members_of_archives_that_are_left_out_are_listed() -> None:
    skipped = {"counts": {"side members": 2}, "first": [], "members": ["LICENSE", "<b>.md"]}
    store = {"skipped_records": skipped, "train": {"documents": 7}, "valid": {"documents": 1}}
    page = corpus_page("norsk", store, {"came_in": [{"split": "", "corpus": "", "files": 1, "bytes": 10}]})
    assert lines(page, TITLES[0])[2][:2] == ["dropped: side members", "−2"]
    assert page.index("Members of archives without text") < page.index("&lt;b&gt;.md")


def test_a_corpus_without_removed_records_has_a_table_too() -> None:
    store = {
        "skipped_records": {"counts": {}, "first": []},
        "cut_stretches": 0,
        "train": {"documents": 3},
        "valid": {"documents": 1},
    }
    page = corpus_page("norsk", store, {"came_in": [{"split": "", "corpus": "", "files": 1, "bytes": 10}]})
    assert [row[:2] for row in lines(page, TITLES[0])[1:]] == [
        ["Records in 1 file of 10 B", "4"],
        ["Documents in the store", "4"],
    ]
    assert "stretches" not in page
    assert "<details" not in page


def test_each_cleaning_step_is_listed_with_what_it_dropped(full: str) -> None:
    assert lines(full, "Cleaning") == [
        ["step", "in", "dropped", "share", "changed"],
        ["language", "985", "100", "10.2 %", "0"],
        ["normalise", "885", "0", "0 %", "204"],
        ["quality", "885", "62", "7.0 %", "3"],
    ]
    assert re.findall(r"<details><summary>([^<]*dropped documents)</summary>", full) == [
        "language: 1 of 100 dropped documents",
        "quality: 2 of 62 dropped documents",
    ]
    assert (
        '<strong>not nb</strong> <span class="muted">a.jsonl:7</span></p>'
        '<p class="passage">English\ntext</p></blockquote>' in full
    )


def test_without_cleaning_there_is_no_section_on_it() -> None:
    page = corpus_page("norsk", {key: STORE[key] for key in STORE if key != "cleaning"}, FIGURES)
    assert re.findall(r"<h2>([^<]*)</h2>", page) == [title for title in TITLES if title != "Cleaning"]


def test_each_corpus_has_its_tokens(full: str) -> None:
    assert lines(full, "Tokens") == [
        ["", "documents", "tokens", "", "unknown", "text", "tokens per document"],
        ["Training", "800", "12,000", "", "0.010 %", "48 kB", "14"],
        ["nb", "700", "9,000", "75.0 %", "", "40 kB", "12"],
        ["nn", "100", "3,000", "25.0 %", "", "8,000 B", "29"],
        ["Held out", "20", "300", "", "4.9 %", "1,200 B", "14"],
        ["nb", "20", "300", "100.0 %", "", "1,200 B", "14"],
    ]
    assert "tokens per document do not" in full
    files = full.split("Input files")[1]
    assert re.findall(r'scope="row">(\w+)</th><td[^>]*>([^<]*)</td><td[^>]*>([^<]*)</td>', files)[:2] == [
        ("nb", "2", "50 kB"),
        ("nn", "1", "9,000 B"),
    ]


def test_the_share_of_unknown_tokens_is_of_the_worse_split(full: str) -> None:
    assert (
        'Unknown tokens</div><div class="value">4.9 %</div>'
        '<div class="about">of the tokens of held-out text</div>'
    ) in full
    assert "4.9 % of the tokens of held-out text are &lt;unk&gt;" in full
    assert "tokens of training text are" not in full
    section = corpus_section(STORE, FIGURES)
    assert section is not None
    assert "tokens of held-out text are &lt;unk&gt;" in section
    fine = STORE | {"valid": STORE["valid"] | {"unknown_rate": 0.0001}}
    page = corpus_page("norsk", fine, FIGURES)
    assert 'class="about">of all tokens</div>' in page
    assert "&lt;unk&gt;" not in page


def test_tokens_per_document_are_the_mean_length(full: str) -> None:
    quantiles = full.split("90th percentile")[1].split("</tbody>")[0]
    means = re.findall(r">([\d,]+)</td></tr>", quantiles)
    assert means == [row[-1] for row in lines(full, "Tokens") if row[0] in ("Training", "Held out")]
    without = STORE | {"train": STORE["train"] | {"separators": 0}}
    assert lines(corpus_page("norsk", without, FIGURES), "Tokens")[1][-1] == "15"


def test_numbers_of_one_have_a_singular() -> None:
    store = {
        "cut_stretches": 1,
        "skipped_records": {"counts": {"no text": 1}},
        "train": {"documents": 1, "tokens": 5},
        "valid": {"documents": 0, "tokens": 0},
    }
    page = corpus_page("norsk", store, {})
    assert "tokens, in 1 document<" in page
    assert "1 of 2 records" in page
    assert "1 stretch of text without white space was too long" in page


def test_lengths_are_drawn_and_listed(full: str) -> None:
    assert re.findall(r'aria-label="([^"]*)"', full) == [
        "Training: tokens of a document",
        "Held out: tokens of a document",
    ]
    figure = full.split('aria-label="Training:')[1].split("</svg>")[0]
    assert set(re.findall(r">([^<>]+)</t", figure)) >= {"2", "4", "8", "documents", "tokens", "Training"}
    quantiles = full.split("90th percentile")[1].split("</tbody>")[0]
    assert re.findall(r">([\d,]+)</td>", quantiles) == [
        "2",
        "9",
        "20",
        "1,023",
        "14",
        "5",
        "15",
        "15",
        "15",
        "14",
    ]


def test_pieces_are_listed_with_their_shares(full: str) -> None:
    assert re.findall(
        r'<li style="--share:([\d.]+)%"><code>([^<]*)</code><span class="often">([\d,]+)</span>'
        r'<span class="share">([\d.]+ %)</span></li>',
        full,
    ) == [("100.0", "▁og", "1,120", "10.0 %"), ("5.0", "&lt;/", "56", "0.50 %")]
    assert "30 of 2,000 pieces (1.5 %) never occur." in full


def test_windows_show_where_documents_end(full: str) -> None:
    end = '<span class="end">end</span>'
    assert f'<p class="passage">… og natt.{end}Det er{end}dag …</p>' in full
    assert f'<p class="passage">… Ei bok.{end}</p>' in full
    begun = FIGURES["windows"][0] | {"begins": True}
    page = corpus_page("norsk", {}, {"windows": [begun]})
    assert f'<p class="passage">og natt.{end}Det er{end}dag …</p>' in page
    assert "nb · from token 1,500, in document 12" in full


def test_further_windows_are_folded_away() -> None:
    window = FIGURES["windows"][1]
    page = corpus_page("norsk", STORE, {"windows": [window] * 9})
    assert "<details><summary>3 more</summary>" in page
    assert page.count('class="window"') == 9


def hostile(value: Any) -> Any:
    """The same with every text, names of corpora too, turned into markup."""
    if isinstance(value, str):
        return HOSTILE
    if isinstance(value, list):
        return [hostile(one) for one in value]
    if isinstance(value, dict):
        names = {"counts", "dropped", "corpora"}
        return {
            key: {HOSTILE + name: hostile(one) for name, one in own.items()} if key in names else hostile(own)
            for key, own in value.items()
        }
    return value


def test_all_text_of_the_corpus_is_escaped() -> None:
    figures = hostile(FIGURES)
    figures["came_in"] = [own | {"split": ""} for own in figures["came_in"]]
    reader = Reader(corpus_page(HOSTILE, hostile(STORE), figures))
    assert not {"script", "img"} & set(reader.tags)
    # A name, kinds, steps, reasons, places, texts, corpora, pieces, windows: each where it is shown.
    assert reader.text.count(HOSTILE) > 30


def test_without_facts_nothing_is_shown() -> None:
    assert corpus_section({}, {}) is None
    assert "<section" not in corpus_page("norsk", {}, {})
