"""Documents of Parquet and Arrow files, one per row."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import IO, Any

from t5smith.base.errors import T5smithError
from t5smith.recipe.corpus import CorpusSettings
from t5smith.text.document import BlockSelection, Document
from t5smith.text.formats.columns import named_column, shown, text_column
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
        return sum(batch.num_rows for batch in arrow_batches(stream)[1])


def arrow_batches(stream: IO[bytes]) -> tuple[Any, Iterator[Any]]:
    """The schema and the batches of an Arrow file, of either kind."""
    import pyarrow as pa

    head = stream.read(6)
    stream.seek(0)
    if head == b"ARROW1":
        reader: Any = pa.ipc.open_file(stream)
        return reader.schema, (reader.get_batch(number) for number in range(reader.num_record_batches))
    reader = pa.ipc.open_stream(stream)
    return reader.schema, _streamed(reader, stream)


def _streamed(reader: Any, stream: IO[bytes]) -> Iterator[Any]:
    """The batches of a stream, and of those that were joined to it, which must have its columns."""
    import pyarrow as pa

    schema = reader.schema
    yield from reader
    while stream.read(1):
        stream.seek(-1, io.SEEK_CUR)
        reader = pa.ipc.open_stream(stream)
        if not reader.schema.equals(schema):
            raise pa.ArrowInvalid("streams of different columns were joined")
        yield from reader


def arrow_rows(
    name: str, stream: IO[bytes], corpus: CorpusSettings, blocks: BlockSelection, records: FileRecords
) -> Iterator[Positioned]:
    """Rows of an Arrow file, of either kind: with a footer, or the stream that `datasets` saves."""
    with _arrow_errors(name):
        schema, batches = arrow_batches(stream)
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
    """The column with the text; `a.b` is the field `b` of the structs in `a`.

    Bytes are text if they are named: much is written so that is UTF-8.
    """
    field = corpus.text_field
    fields = list(schema)
    if field and field not in schema.names and "." in field:
        kind = _type_within(fields, field)
        if kind is not None and (_is_text(kind) or _is_binary(kind)):
            return field
        within = f", of the type {kind}, is not text" if kind is not None else " is missing"
        texts = shown([*schema.names, *_texts_within(fields)])
        fix = f"set corpus.text_field to the field with the text; there are {texts}"
        raise T5smithError(f"the field {field!r}{within}", where=name, fix=fix)
    named = named_column(schema.names, field)
    own = next((one.type for one in fields if one.name == named), None)
    texts = [one.name for one in fields if _is_text(one.type) or (one.name == named and _is_binary(one.type))]
    if own is not None and named not in texts:
        within = [address for address in _texts_within(fields) if address.startswith(f"{named}.")]
        fix = (
            f"set corpus.text_field to the field with the text, as {shown(within or texts) or 'none here is'}"
        )
        raise T5smithError(f"the field {named!r} is not text but of the type {own}", where=name, fix=fix)
    more = [*_texts_within(fields), *(f"{one.name} ({one.type})" for one in fields if _is_binary(one.type))]
    return text_column(schema.names, texts, field, name, more)


def _type_within(fields: Iterable[Any], address: str) -> Any:
    """The type of a field within structs; None: it is missing."""
    own, _, rest = address.partition(".")
    kind = next((one.type for one in fields if one.name == own), None)
    return _type_within(_children(kind), rest) if rest and kind is not None else kind


def _texts_within(fields: Iterable[Any], address: str = "") -> Iterator[str]:
    """The addresses of the texts within structs."""
    for one in fields:
        if address and (_is_text(one.type) or _is_binary(one.type)):
            yield address + one.name
        yield from _texts_within(_children(one.type), f"{address}{one.name}.")


def _children(kind: Any) -> list[Any]:
    import pyarrow as pa

    return [kind.field(number) for number in range(kind.num_fields)] if pa.types.is_struct(kind) else []


def _is_text(kind: Any) -> bool:
    """Whether a column of this type holds text, plain or dictionary-encoded."""
    import pyarrow as pa

    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _is_binary(kind: Any) -> bool:
    """Whether a column of this type holds bytes, plain or dictionary-encoded."""
    import pyarrow as pa

    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)


def _values(batch: Any, column: str) -> Any:
    """A column of a batch, or a field within its structs."""
    import pyarrow.compute as pc

    if column in batch.schema.names:
        return batch.column(column)
    own, *within = column.split(".")
    # Unlike the arrays' own method it heeds structs that are null.
    struct_field: Any = vars(pc)["struct_field"]
    return struct_field(batch.column(own), within)


def _texts(
    batch: Any, column: str, name: str, first: int, position: int, records: FileRecords
) -> Iterator[Positioned]:
    _validate(batch)
    for row, value in enumerate(_values(batch, column), first):
        try:
            text = value.as_py()
            if isinstance(text, bytes):
                text = text.decode("utf-8")
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
