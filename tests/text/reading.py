"""Writing small files and reading their documents, for the tests of readers."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from t5smith.recipe.corpus import CorpusSettings
from t5smith.text.documents import read_documents
from t5smith.text.skipped_records import SkippedRecords


def read(path: Path, **more: object) -> tuple[list[str], SkippedRecords]:
    """The texts of a file's documents, and what was skipped; `more`: settings of the corpus."""
    skipped = SkippedRecords()
    corpus = CorpusSettings.model_validate(more)
    return [document.text for document in read_documents(corpus, [path], skipped=skipped)], skipped


def write(path: Path, data: bytes | str) -> Path:
    """A file with this content."""
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def write_table(path: Path, table: pa.Table, rows: int | None = None) -> Path:
    """A Parquet file, or by the name an Arrow file (a…) or stream; its record batches have so many rows."""
    if path.suffix == ".parquet":
        parquet.write_table(table, path, row_group_size=3)
    else:
        new = pa.ipc.new_file if path.name.startswith("a") else pa.ipc.new_stream
        with new(str(path), table.schema) as writer:
            writer.write_table(table, max_chunksize=rows)
    return path


def replace_trafilatura(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replace trafilatura: the text of a page is what stands in its paragraphs. Gives the pages it got."""
    pages: list[str] = []

    def extract(page: str, **_: object) -> str | None:
        pages.append(page)
        return "\n".join(part.partition("</p>")[0] for part in page.split("<p>")[1:]) or None

    module = types.ModuleType("trafilatura")
    module.extract = extract  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "trafilatura", module)
    return pages
