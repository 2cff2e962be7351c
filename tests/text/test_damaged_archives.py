"""Damaged archives of every compression, against what the usual command-line programs get out of them."""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
import shutil
import subprocess
from pathlib import Path

import pytest
import zstandard

from t5smith.recipe.corpus import CorpusSettings
from t5smith.text.compression import open_stream
from t5smith.text.decompression import is_archive_damage
from t5smith.text.documents import read_documents
from t5smith.text.skipped_records import SkippedRecords

PROGRAMS = {".gz": "gzip", ".xz": "xz", ".bz2": "bzip2", ".zst": "zstd"}
PACK = {
    ".gz": lambda data: gzip.compress(data, mtime=0),
    ".xz": lzma.compress,
    ".bz2": lambda data: bz2.compress(data, 1),
    ".zst": zstandard.ZstdCompressor(write_checksum=True).compress,
}
DAMAGE = ("none", "cut", "flip", "zeroed", "inserted", "junk after the end", "zeros after the end")


def damaged(packed: bytes, kind: str, place: int) -> bytes:
    """An archive with one damage at a place behind its first bytes, which show what it is."""
    place = 11 + place % (len(packed) - 11)
    before, after = packed[:place], packed[place:]
    return {
        "none": packed,
        "cut": before,
        "flip": before + bytes([after[0] ^ 1 << place % 8]) + after[1:],
        "zeroed": before + bytes(min(30, len(after))) + after[30:],
        "inserted": before + b"xyz" + after,
        "junk after the end": packed + b"junk at the end of the file",
        "zeros after the end": packed + bytes(4 + place % 600),
    }[kind]


def unpacked(path: Path) -> tuple[bytes, Exception | None]:
    out = b""
    with open_stream(str(path)) as (_, stream):
        try:
            while more := stream.read1(1 << 18):  # type: ignore[attr-defined]
                out += more
        except Exception as error:
            if not is_archive_damage(error):
                raise
            return out, error
    return out, None


def common_length(one: bytes, other: bytes) -> int:
    size = min(len(one), len(other))
    return next((n for n in range(size) if one[n] != other[n]), size)


def lines_of(random_: random.Random, number: int) -> bytes:
    return b"".join(b"dag %d og natt %d\n" % (random_.getrandbits(20), n) for n in range(number))


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("ending", PROGRAMS)
def test_no_text_before_the_damage_is_lost(tmp_path: Path, ending: str, kind: str) -> None:
    """What a program unpacks correctly is unpacked here too, but for the byte at which the damage is noticed.

    Behind the damage, until it is noticed, programs and libraries may differ: it is not the text any more.
    """
    if not shutil.which(PROGRAMS[ending]):
        pytest.skip(f"{PROGRAMS[ending]} is not installed")
    path = tmp_path / f"a.txt{ending}"
    for seed in range(8):
        random_ = random.Random(f"{ending} {kind} {seed}")
        parts = [lines_of(random_, random_.choice((1, 30, 4_000))) for _ in range(1 + seed % 3)]
        whole = b"".join(parts)
        packed = b"".join(PACK[ending](part) for part in parts)
        path.write_bytes(damaged(packed, kind, random_.randrange(len(packed))))
        with path.open("rb") as file:
            theirs = subprocess.run([PROGRAMS[ending], "-dc"], stdin=file, capture_output=True, check=False)
        ours, error = unpacked(path)
        assert common_length(ours, whole) >= common_length(theirs.stdout, whole) - 1
        if kind in ("none", "junk after the end", "zeros after the end"):
            assert ours == whole
        if ours != whole or kind.startswith("junk"):
            assert error is not None


@pytest.mark.parametrize("ending", PROGRAMS)
def test_a_damaged_second_stream_takes_nothing_of_the_first(tmp_path: Path, ending: str) -> None:
    random_ = random.Random(0)
    parts = [lines_of(random_, 400), lines_of(random_, 400)]
    first, second = (PACK[ending](part) for part in parts)
    path = tmp_path / f"a.txt{ending}"
    corpus = CorpusSettings(document="line")
    for place in (0, 3, len(second) // 2, len(second) - 3):
        path.write_bytes(first + second[:place] + bytes([second[place] ^ 255]) + second[place + 1 :])
        skipped = SkippedRecords()
        texts = [document.text for document in read_documents(corpus, [path], skipped=skipped)]
        assert texts[:400] == parts[0].decode().splitlines()
        assert skipped.counts["damaged archive"] == 1


@pytest.mark.parametrize("ending", PROGRAMS)
def test_the_last_step_before_damage_is_used(tmp_path: Path, ending: str) -> None:
    """The check sum at the end is wrong: everything but the last record, which may be cut, is a document."""
    whole = lines_of(random.Random(0), 3_000)
    packed = bytearray(PACK[ending](whole))
    # bzip2 and xz have an index or a check sum of all blocks at the end.
    packed[-12 if ending == ".xz" else -2] ^= 255
    path = tmp_path / f"a.txt{ending}"
    path.write_bytes(packed)
    skipped = SkippedRecords()
    texts = [d.text for d in read_documents(CorpusSettings(document="line"), [path], skipped=skipped)]
    assert texts == whole.decode().splitlines()[: len(texts)]
    assert len(texts) >= 2_999
    assert skipped.counts == {"damaged archive": 1}


def test_what_follows_an_archive_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(b"en\n") + b"junk")
    assert "what follows the end of a stream is not another one" in str(unpacked(path)[1])
