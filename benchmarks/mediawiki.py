"""A synthetic MediaWiki dump to plain text, in MB of XML per second: the reader, and what others need for it.

    .venv/bin/python benchmarks/mediawiki.py
    .venv/bin/python benchmarks/mediawiki.py nowiki-latest-pages-articles.xml.bz2

A turn reads the whole dump in one process. Beside it: decompressing alone, and mwparserfromhell alone on the
text of a part of the articles, without XML. A file of your own is measured instead of the synthetic one.
"""

from __future__ import annotations

import argparse
import bz2
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from xml.sax.saxutils import escape

import mwparserfromhell

from t5smith.recipe.corpus import CorpusSettings
from t5smith.text.compression import open_stream
from t5smith.text.documents import read_documents
from t5smith.text.skipped_records import SkippedRecords

LETTERS = "eeeeeeeerrrrnnnttttaaaasssiiillldddoookkggmmvvffuupphhåøybjcæ"


def article(draw: random.Random, words: list[str]) -> str:
    """Wikitext in about the shares of markup that Wikipedia has."""

    def prose(least: int, most: int) -> str:
        return " ".join(draw.choices(words, k=draw.randint(least, most)))

    def sentence() -> str:
        links = f"[[{prose(1, 3)}|{prose(1, 2)}]] {prose(3, 9)} [[{prose(1, 2)}]]"
        cite = f"{{{{Kilde www|url=https://a.no/{prose(1, 1)}|tittel={prose(3, 9)}|dato={{{{dato|2020}}}}}}}}"
        ref = f'<ref name="{prose(1, 1)}">{cite}</ref>' if draw.random() < 0.3 else ""
        more = "<br />" if draw.random() < 0.02 else "&nbsp;%" if draw.random() < 0.1 else ""
        return f"{prose(4, 12)} {links}, ''{prose(1, 3)}''{more} {prose(2, 9)}.{ref}"

    box = "".join(f"| {prose(1, 1)} = [[{prose(1, 2)}]] {prose(1, 4)}\n" for _ in range(draw.randint(3, 20)))
    parts = [
        f"{{{{Infoboks\n{box}}}}}\n[[Fil:{prose(1, 2)}.jpg|miniatyr|{prose(3, 9)} [[{prose(1, 1)}]].]]\n"
    ]
    for _ in range(draw.randint(1, 8)):
        parts.append(f"== {prose(1, 3)} ==\n")
        for _ in range(draw.randint(1, 4)):
            parts.append(" ".join(sentence() for _ in range(draw.randint(1, 6))) + "\n\n")
        if draw.random() < 0.2:
            rows = "".join(f"|-\n| {prose(1, 3)} || [[{prose(1, 2)}]]\n" for _ in range(draw.randint(2, 20)))
            parts.append(f'{{| class="wikitable"\n! A !! B\n{rows}|}}\n')
    return "".join(parts) + f"\n[[Kategori:{prose(1, 2)}]]\n"


def write_dump(path: Path, megabytes: int) -> list[str]:
    """Write a dump, every third page of which is a redirect; some of its articles."""
    draw = random.Random(0)
    words = ["".join(draw.choices(LETTERS, k=draw.randint(2, 11))) for _ in range(30_000)]
    articles: list[str] = []
    with path.open("w", encoding="utf-8") as file:
        file.write("<mediawiki>\n  <siteinfo><sitename>Wikipedia</sitename></siteinfo>\n")
        number = 0
        while file.tell() < megabytes * 1_000_000:
            number += 1
            text, redirect = article(draw, words), ""
            if number % 3 == 0:
                text, redirect = "#OMDIRIGERING [[a]]", '    <redirect title="a" />\n'
            elif len(articles) < 300:
                articles.append(text)
            file.write(
                f"  <page>\n    <title>Side {number}</title>\n    <ns>0</ns>\n{redirect}"
                f"    <revision>\n      <id>{number}</id>\n      <model>wikitext</model>\n"
                f'      <text bytes="{len(text)}" xml:space="preserve">{escape(text)}</text>\n'
                "    </revision>\n  </page>\n"
            )
        file.write("</mediawiki>\n")
    return articles


def compress(source: Path, target: Path) -> None:
    """As multistream dumps are: about a megabyte to a stream."""
    with source.open("rb") as plain, target.open("wb") as packed:
        while data := plain.read(1 << 20):
            packed.write(bz2.compress(data))


def unpack(path: Path) -> int:
    size = 0
    with open_stream(str(path)) as (_, stream):
        while data := stream.read(1 << 18):
            size += len(data)
    return size


def read(path: Path) -> int:
    skipped = SkippedRecords()
    documents = sum(1 for _ in read_documents(CorpusSettings(), [path], skipped=skipped))
    return documents + sum(skipped.counts.values())


def measure(name: str, size: int, turns: int, work: Callable[[], object]) -> None:
    rates: list[float] = []
    for _ in range(turns):
        begun = time.perf_counter()
        work()
        rates.append(size / 1e6 / (time.perf_counter() - begun))
    print(f"{name:40} {statistics.median(rates):8.1f} MB/s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--megabytes", type=int, default=40)
    parser.add_argument("--turns", type=int, default=3)
    settings = parser.parse_args()
    if settings.file:
        size = unpack(settings.file)
        print(f"{size / 1e6:,.0f} MB of XML, {read(settings.file):,} pages")
        measure("decompressing alone", size, settings.turns, lambda: unpack(settings.file))
        measure("t5smith", size, settings.turns, lambda: read(settings.file))
        return
    with tempfile.TemporaryDirectory() as folder:
        plain, packed = Path(folder) / "wiki.xml", Path(folder) / "wiki.xml.bz2"
        articles = write_dump(plain, settings.megabytes)
        compress(plain, packed)
        size = plain.stat().st_size
        print(f"{size / 1e6:,.0f} MB of XML, {read(plain):,} pages")
        measure("t5smith, plain", size, settings.turns, lambda: read(plain))
        measure("decompressing bzip2 alone", size, settings.turns, lambda: unpack(packed))
        measure("t5smith, bzip2", size, settings.turns, lambda: read(packed))
        own = sum(len(text.encode()) for text in articles)

        def strip() -> None:
            for text in articles:
                mwparserfromhell.parse(text).strip_code()

        measure("mwparserfromhell, texts in memory", own, settings.turns, strip)


if __name__ == "__main__":
    main()
