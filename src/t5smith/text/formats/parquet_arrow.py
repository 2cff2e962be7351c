"""Documents of Parquet and Arrow files, one per row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any

from t5smith.base.errors import T5smithError
from t5smith.recipe.corpus import CorpusSettings
from t5smith.text.document import BlockSelection, Document
from t5smith.text.formats.columns import text_column
from t5smith.text.formats.plain import Positioned
from t5smith.text.skipped_records import FileRecords

ROWS = 512
"""Rows of a Parquet file that are in memory at once."""


def parquet_rows(
    name: str, stream: IO[bytes], corpus: CorpusSettings, blocks: BlockSelection, records: FileRecords
) -> Iterator[Positioned]:
    """Rows of a Parquet file. A row group belongs to the block in which it begins, by uncompressed bytes."""
    from pyarrow import parquet

    with _arrow_errors(name):
        file = parquet.ParquetFile(stream)
        schema, metadata = file.schema_arrow, file.metadata
    records.of = metadata.num_rows
    with _arrow_errors(name):
        column = _text_column(schema, corpus, name)
    position, row = 0, 1
    for group in range(metadata.num_row_groups):
        size, rows = metadata.row_group(group).total_byte_size, metadata.row_group(group).num_rows
        if blocks.stop is not None and position >= blocks.stop:
            return
        yield position, None
        if position >= blocks.start and blocks.includes(blocks.block_of(position)):
            first = row
            with _arrow_errors(name):
                for batch in file.iter_batches(ROWS, [group], [column]):
                    yield from _texts(batch, column, name, first, position, records)
                    first += batch.num_rows
        position, row = position + size, row + rows


def parquet_bytes(stream: IO[bytes], name: str) -> int:
    """Uncompressed bytes of a Parquet file, by its metadata.

    Raises:
      T5smithError: it is damaged.
    """
    from pyarrow import parquet

    with _arrow_errors(name):
        metadata = parquet.ParquetFile(stream).metadata
    return sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))


def parquet_row_count(stream: IO[bytes], name: str) -> int:
    """The number of rows of a Parquet file, by its metadata.

    Raises:
      T5smithError: it is damaged.
    """
    from pyarrow import parquet

    with _arrow_errors(name):
        return parquet.ParquetFile(stream).metadata.num_rows


def arrow_row_count(stream: IO[bytes], name: str) -> int:
    """The number of rows of an Arrow file of either kind.

    Raises:
      T5smithError: it is damaged.
    """
    with _arrow_errors(name):
        return sum(batch.num_rows for batch in _arrow_batches(stream)[1])


def _arrow_batches(stream: IO[bytes]) -> tuple[Any, Iterator[Any]]:
    """The schema and the batches of an Arrow file, of either kind."""
    import pyarrow as pa

    head = stream.read(6)
    stream.seek(0)
    if head == b"ARROW1":
        reader: Any = pa.ipc.open_file(stream)
        return reader.schema, (reader.get_batch(number) for number in range(reader.num_record_batches))
    reader = pa.ipc.open_stream(stream)
    return reader.schema, iter(reader)


def arrow_rows(
    name: str, stream: IO[bytes], corpus: CorpusSettings, blocks: BlockSelection, records: FileRecords
) -> Iterator[Positioned]:
    """Rows of an Arrow file, of either kind: with a footer, or the stream that `datasets` saves."""
    with _arrow_errors(name):
        schema, batches = _arrow_batches(stream)
    with _arrow_errors(name):
        column = _text_column(schema, corpus, name)
    position, row = 0, 1
    with _arrow_errors(name):
        for batch in batches:
            yield position, None
            if blocks.includes(blocks.block_of(position)):
                yield from _texts(batch, column, name, row, position, records)
            position, row = position + batch.nbytes, row + batch.num_rows
    yield max(position - 1, 0), None


def _text_column(schema: Any, corpus: CorpusSettings, name: str) -> str:
    texts = [field.name for field in schema if _is_text(field.type)]
    return text_column(schema.names, texts, corpus.text_field, name)


def _is_text(kind: Any) -> bool:
    """Whether a column of this type holds text, plain or dictionary-encoded."""
    import pyarrow as pa

    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _texts(
    batch: Any, column: str, name: str, first: int, position: int, records: FileRecords
) -> Iterator[Positioned]:
    _validate(batch)
    for row, value in enumerate(batch.column(column), first):
        try:
            text = value.as_py()
        except UnicodeDecodeError:
            records.skip(
                "not UTF-8", T5smithError("invalid UTF-8", where=f"{name}:{row}", expected="text in UTF-8")
            )
            continue
        if text is None:
            records.skip("no text", T5smithError(f"the field {column!r} is empty", where=f"{name}:{row}"))
            continue
        yield position, Document(text, name, row)


def _validate(batch: Any) -> None:
    """Reject offsets that point out of the buffers: following them would crash the process."""
    import pyarrow as pa

    try:
        batch.validate(full=True)
    except pa.ArrowInvalid as error:
        if "UTF8" not in str(error):
            raise
        # Invalid UTF-8 is reported later, with its row; here only the offsets are checked.
        for values in batch.columns:
            if _is_text(values.type):
                _as_bytes(values).validate(full=True)


def _as_bytes(values: Any) -> Any:
    import pyarrow as pa

    if pa.types.is_dictionary(values.type):
        return pa.DictionaryArray.from_arrays(values.indices, _as_bytes(values.dictionary))
    if pa.types.is_string_view(values.type):
        return values.view(pa.binary_view())
    return values.view(pa.large_binary() if pa.types.is_large_string(values.type) else pa.binary())


class _arrow_errors:
    """Turns Arrow's errors on damaged files into one-line errors."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        import pyarrow as pa

        # The names of columns may be damaged too, or a length, for which there is not enough memory.
        damage = isinstance(error, pa.ArrowException | UnicodeDecodeError | MemoryError)
        if damage or (isinstance(error, OSError) and error.errno is None):
            why = str(error) or "it asks for more memory than there is"
            raise T5smithError(
                f"damaged, or not what its name says ({why})", where=self.name, fix="fetch the file again"
            ) from None
