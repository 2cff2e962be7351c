"""Hostile corpora, made from a seed: documents in = documents out + counted, and no traceback.

Formats, encodings, names, sizes, compressions and damage vary. The maker knows how many
records each file has.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import html
import io
import json
import random
import signal
from collections.abc import Generator
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet
from reading import replace_trafilatura

from archives import PACK, TAR_FORMATS, ZIP_METHODS, tarred, zipped
from t5smith.base.errors import T5smithError
from t5smith.recipe.corpus import CorpusSettings
from t5smith.text.corpus import find_files
from t5smith.text.documents import read_documents
from t5smith.text.skipped_records import DAMAGED_ARCHIVE, SkippedRecords

LONGEST = 2_000
NAMES = ("a", "part-00000", "æ ø", "a.b.c", "--x", "a=b", "'quote\"", "[x]", "名前", "x" * 80)


def text_of(random_: random.Random) -> str:
    letters = random_.choice(("abc de", 'a,b;"c"\t', "æøå 名前😀", "\u2028\u0085\x0b\x0c a", "\ufeffa b"))
    return "".join(random_.choice(letters) for _ in range(random_.choice((0, 1, 9, 90, 90, 90, 3_000))))


def json_file(random_: random.Random) -> tuple[bytes, int]:
    odd = ["{", "[1]", "7", '{"text": null}', '{"text": ["a"]}', '{"id": 1}', r'{"text": "\ud83d"}']
    rows = ['{"text": "en"}']
    for _ in range(random_.randrange(60)):
        row = json.dumps({"text": text_of(random_)}, ensure_ascii=random_.random() < 0.5)
        rows.append(random_.choice(odd) if random_.random() < 0.2 else row)
    data = random_.choice(("\n", "\r\n", "\n\n")).join(rows).encode()
    return (data + b'\n{"text": "bl\xe5"}', len(rows) + 1) if random_.random() < 0.3 else (data, len(rows))


def table(random_: random.Random) -> tuple[bytes, int]:
    out = io.StringIO()
    writer = csv.writer(
        out, lineterminator="\r\n", quoting=random_.choice((csv.QUOTE_MINIMAL, csv.QUOTE_ALL))
    )
    rows = [
        [str(n), text_of(random_)][: random_.choice((1, 2, 2, 2, 2))] for n in range(random_.randrange(60))
    ]
    writer.writerows([["id", "text"], ["0", "en"], *rows])
    return out.getvalue().encode(), len(rows) + 1


def plain(random_: random.Random) -> tuple[bytes, int]:
    blocks = [b"en"]
    for _ in range(random_.randrange(40)):
        block = text_of(random_).replace("\ufeff", "").strip()
        blocks.append(b"bl\xe5" if random_.random() < 0.1 else block.encode() or b"to")
    return random_.choice((b"\n\n", b"\r\n\r\n", b"\n \n")).join(blocks), len(blocks)


def columns(random_: random.Random) -> tuple[bytes, int]:
    texts = ["en", *(random_.choice((None, text_of(random_))) for _ in range(random_.randrange(60)))]
    rows = pa.table({"text": pa.array(texts, random_.choice((pa.string(), pa.large_string(), pa.binary())))})
    out = pa.BufferOutputStream()
    if random_.random() < 0.5:
        parquet.write_table(rows, out, row_group_size=7)
    else:
        with random_.choice((pa.ipc.new_file, pa.ipc.new_stream))(out, rows.schema) as writer:
            writer.write_table(rows, max_chunksize=7)
    return out.getvalue().to_pybytes(), len(texts)


def wiki_docs(random_: random.Random) -> tuple[bytes, int]:
    """WikiExtractor's files, with documents that do not end and text between documents."""
    parts, records = [b'<doc id="0" url="a" title="b">\nb\n\nen\n\n</doc>\n'], 1
    for number in range(random_.randrange(40)):
        text = html.escape(text_of(random_), quote=False).encode()
        text = b"bl\xe5" if random_.random() < 0.1 else text
        end = b"" if random_.random() < 0.1 else b"\n</doc>\n"
        parts.append(b'<doc id="%d" url="a?b" title="c">\nc\n\n%s\n%s' % (number, text, end))
        records += 1
        if end and random_.random() < 0.1:
            parts.append(b"utenfor\n\ni to linjer\n")
            records += 1
    return b"".join(parts), records


def web_page(random_: random.Random) -> tuple[bytes, int]:
    """A page, which may have no text, be too long or be in another encoding than UTF-8."""
    text = random_.choice(("", "<p>bl\xe5</p>", f"<p>{html.escape(text_of(random_))}</p>"))
    page = f"<!doctype html>\n<html><head><title>x</title></head><body>{text}</body></html>"
    return page.encode("latin-1" if "\xe5" in text and random_.random() < 0.5 else "utf-8", "replace"), 1


def pointer(random_: random.Random) -> tuple[bytes, int]:
    """A pointer of Git LFS instead of a file."""
    size = random_.randrange(10**9)
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{size:064x}\nsize {size}\n".encode(), 1


MAKERS = ((json_file, ".jsonl"), (table, ".csv"), (plain, ".txt"), (columns, ".parquet"))


def archive(random_: random.Random) -> tuple[dict[str, bytes], int]:
    """The members of an archive, some of them compressed, beside some without text, each of which counts."""
    members: dict[str, bytes] = {}
    total = 0
    for number in range(random_.randrange(1, 5)):
        maker, suffix = random_.choice(MAKERS)
        data, records = maker(random_)
        ending = random_.choice(("", "", *PACK))
        folder = random_.choice(("", "../", "/", "a/b/", "./", "\u540d/"))
        members[f"{folder}{number}{random_.choice(NAMES)}{suffix}{ending}"] = PACK[ending](data)
        total += records
    others = {
        "README.md": b"x",
        "__MACOSX/._a": b"\0",
        "a/.b": b"x",
        "empty.txt": b"",
        "inner.zip": zipped({"a.txt": b"x"}),
        "inner.tgz": gzip.compress(tarred({"a.txt": b"x"})),
        "a.pdf": b"%PDF-1.7",
        "a.bin": bytes(range(256)) * 9,
    }
    chosen = random_.sample(sorted(others), random_.randrange(4))
    names = [*members, *chosen]
    random_.shuffle(names)
    return {name: (members | others)[name] for name in names}, total + len(chosen)


def zip_file(random_: random.Random) -> tuple[bytes, int]:
    members, records = archive(random_)
    return zipped(members, random_.choice(list(ZIP_METHODS)), random_.random() < 0.3), records


def tar_file(random_: random.Random) -> tuple[bytes, int]:
    members, records = archive(random_)
    return tarred(members, random_.choice(list(TAR_FORMATS))), records


FILES = (
    *MAKERS,
    (zip_file, ".zip"),
    (tar_file, ".tar"),
    (wiki_docs, ""),
    (web_page, ".html"),
    (pointer, ".parquet"),
    (pointer, ".txt"),
)
SECONDS = 60
"""A corpus that takes longer hangs: each takes a fraction of a second."""


@contextlib.contextmanager
def watchdog(seed: int) -> Generator[None]:
    """Ends what hangs, with the seed."""

    def bark(*_: object) -> None:
        raise TimeoutError(f"seed {seed} takes longer than {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, bark)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def make(random_: random.Random, folder: Path) -> int | None:
    """Write a corpus; the number of its records, or None if it is damaged, so that nobody knows."""
    total: int | None = 0
    for number in range(random_.randrange(1, 4)):
        maker, suffix = random_.choice(FILES)
        data, records = maker(random_)
        ending = random_.choice(list(PACK))
        stored = bytearray(PACK[ending](data))
        if random_.random() < 0.25:
            total = None
            place = random_.randrange(len(stored))
            for _ in range(random_.randrange(1, 4)):
                stored[random_.randrange(len(stored))] ^= random_.randrange(1, 256)
            stored = random_.choice((stored, stored[:place], stored + bytes(40), stored + b"junk"))
        elif total is not None:
            total += records
        name = f"{number}{random_.choice(NAMES)}{suffix}{random_.choice(('', ending))}"
        (folder / name).write_bytes(stored)
    # Beside it, a page or a pointer that cannot be read is counted; alone it is an error.
    (folder / "z.txt").write_bytes(b"en")
    return None if total is None else total + 1


def read(corpus: CorpusSettings, folder: Path, skipped: SkippedRecords) -> tuple[list[str], str]:
    """The documents, and the message if the corpus is rejected."""
    try:
        files = find_files([str(folder)], "corpus.train")
        return [document.text for document in read_documents(corpus, files, None, skipped)], ""
    except T5smithError as error:
        return [], str(error)


def check(seed: int, folder: Path) -> None:
    folder.mkdir()
    records = make(random.Random(seed), folder)
    corpus = CorpusSettings(longest_document=LONGEST)
    skipped = SkippedRecords()
    with watchdog(seed):
        texts, refusal = read(corpus, folder, skipped)
    if refusal:
        # Of damaged files it is said in one line what is wrong, and with which.
        assert records is None, f"seed {seed}: {refusal}"
        assert str(folder) in refusal
        assert "\n" not in refusal
        return
    assert all(len(text.encode()) <= LONGEST for text in texts)
    "".join(texts).encode()
    if records is not None:
        assert len(texts) + skipped.counts.total() == records, f"seed {seed}: {skipped.counts}"
        assert DAMAGED_ARCHIVE not in skipped.counts


@pytest.fixture(autouse=True)
def extracted(monkeypatch: pytest.MonkeyPatch) -> None:
    replace_trafilatura(monkeypatch)


@pytest.mark.parametrize("seed", range(30))
def test_some_hostile_corpora(tmp_path: Path, seed: int) -> None:
    check(seed, tmp_path / "corpus")


@pytest.mark.slow
def test_three_hundred_hostile_corpora(tmp_path: Path) -> None:
    for seed in range(1_000, 1_300):
        check(seed, tmp_path / str(seed))
