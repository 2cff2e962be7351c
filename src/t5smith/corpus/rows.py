"""How many rows a file of a data set has."""

from __future__ import annotations

from pathlib import Path

from t5smith.corpus.opening import is_damage, opened, reading
from t5smith.corpus.places import Remote
from t5smith.errors import T5smithError


def count_rows(file: Path | Remote) -> int:
    """Rows of a Parquet or Arrow file by its own account; of others the lines that are not blank.

    Raises:
      T5smithError: it cannot be read.
    """
    name = str(file)
    if name.endswith(".parquet"):
        from pyarrow import parquet

        with opened(name) as stream:
            return parquet.ParquetFile(stream).metadata.num_rows
    if name.endswith(".arrow"):
        import pyarrow as pa

        with opened(name) as stream:
            return sum(batch.num_rows for batch in pa.ipc.open_stream(stream))
    try:
        with reading(name) as (_, lines):
            rows = sum(1 for line in lines if not line.isspace())
    except Exception as error:
        if not is_damage(error):
            raise
        raise T5smithError(f"the archive is cut short or damaged ({error})", where=name) from None
    return rows - (".csv" in name or ".tsv" in name)
