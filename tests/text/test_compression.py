"""Archives of several streams, padded, damaged between them, or compressed beyond what is usual."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from t5smith.base.errors import T5smithError
from t5smith.text.compression import open_file, open_stream
from t5smith.text.decompression import DAMAGE

Squeeze = Callable[[bytes], bytes]
SQUEEZE: dict[str, Squeeze] = {
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
    ".zst": zstandard.compress,
}
EACH = pytest.mark.parametrize(("ending", "squeeze"), SQUEEZE.items(), ids=SQUEEZE)


def read(path: Path, data: bytes) -> bytes:
    path.write_bytes(data)
    with open_stream(str(path)) as (_, stream):
        return stream.read()


@EACH
@settings(max_examples=30)
@given(parts=st.lists(st.binary(max_size=2_000).map(lambda part: part * 300), min_size=1, max_size=4))
def test_several_streams_are_one_file(
    tmp_path_factory: pytest.TempPathFactory, ending: str, squeeze: Squeeze, parts: list[bytes]
) -> None:
    path = tmp_path_factory.mktemp("streams") / f"a{ending}"
    assert read(path, b"".join(map(squeeze, parts))) == b"".join(parts)


@pytest.mark.parametrize("ending", [".gz", ".xz"])
def test_zeros_may_stand_between_streams_and_at_the_end(tmp_path: Path, ending: str) -> None:
    one, two = SQUEEZE[ending](b"en\n"), SQUEEZE[ending](b"to\n")
    assert read(tmp_path / f"a{ending}", one + bytes(1 << 20) + two + bytes(8)) == b"en\nto\n"


@EACH
def test_what_follows_a_stream_and_is_none_is_damage(tmp_path: Path, ending: str, squeeze: Squeeze) -> None:
    second = squeeze(b"to\n")
    path = tmp_path / f"a{ending}"
    path.write_bytes(squeeze(b"en\n") + bytes([second[0] ^ 1]) + second[1:])
    lines: list[bytes] = []
    with pytest.raises((*DAMAGE, OSError)), open_stream(str(path)) as (_, stream):
        lines += iter(stream.readline, b"")
    assert lines == [b"en\n"]


@EACH
def test_an_archive_may_end_at_any_byte(tmp_path: Path, ending: str, squeeze: Squeeze) -> None:
    whole = squeeze(b"en dag\n" * 40)
    for cut in range(1, len(whole)):
        with pytest.raises(EOFError, match="ends in the middle"):
            read(tmp_path / f"a{ending}", whole[:cut])
    assert read(tmp_path / f"a{ending}", b"") == b""


def test_a_window_that_is_larger_than_usual(tmp_path: Path) -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=28, enable_ldm=True)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    data = packer.compress(b"hei") + packer.flush()
    with pytest.raises(zstandard.ZstdError, match="too much memory"):
        zstandard.ZstdDecompressor().decompressobj().decompress(data)
    assert read(tmp_path / "a.zst", data) == b"hei"


def test_what_is_no_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with socket.socket(socket.AF_UNIX) as one:
        # A socket's path may not be long.
        place = os.getcwd()
        os.chdir(tmp_path)
        try:
            one.bind("socket")
        finally:
            os.chdir(place)
        for name in ("loop", "socket"):
            with (
                pytest.raises(T5smithError, match=f"{name}: cannot be opened"),
                open_file(str(tmp_path / name)),
            ):
                pass


def test_what_the_reader_does_with_a_file_is_not_taken_for_its_opening(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(FileNotFoundError), open_file(str(tmp_path / "a.txt")):
        raise FileNotFoundError
