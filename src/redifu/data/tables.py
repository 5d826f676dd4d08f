"""Read CSV and Parquet files, and folders of Parquet shards, as Arrow tables."""

import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

# Far more than any corpus of conversations, and no more than a machine can hold.
MOST_ROWS, MOST_BYTES = 10_000_000, 4 * 1024**3
MANIFEST = "manifest.json"  # lists the shards in a folder of extracted features


def read_csv_table(path: Path) -> pa.Table:
    """Read the cells of a CSV file as strings, and empty cells as null.

    Raises:
        ValueError: the file is not a table.
    """
    try:
        # Strings only: pandas would read a speaker named "None" as missing and "007" as 7.
        frame = pd.read_csv(path, dtype=str, keep_default_na=False, na_values=[""], encoding="utf-8-sig")
    except ValueError as error:
        raise ValueError(f"{path}: not a CSV table: {' '.join(str(error).split())}") from error
    if not isinstance(frame.index, pd.RangeIndex):
        raise ValueError(f"{path}: not a CSV table: expected {len(frame.columns)} cells per row, got more")
    return pa.Table.from_pandas(frame, preserve_index=False)


def read_parquet(path: Path) -> pa.Table:
    """Read a Parquet file.

    Raises:
        ValueError: the file is not Parquet, or is too large once it is expanded.
    """
    try:
        return _bounded(pq.ParquetFile(path))
    except _TooLargeError as error:
        raise ValueError(f"{path}: {error}: split the file") from None
    except (ValueError, OSError) as error:
        raise ValueError(f"{path}: not a Parquet file: {' '.join(str(error).split())}") from error


class _TooLargeError(Exception):
    pass


def _bounded(file: pq.ParquetFile) -> pa.Table:
    """Read a file in parts; a file of some kilobytes can expand to more than the memory holds."""
    if (rows := file.metadata.num_rows) > MOST_ROWS:
        raise _TooLargeError(f"expected at most {MOST_ROWS:,} rows, got {rows:,}")
    parts, size = [], 0
    for part in file.iter_batches():
        parts.append(part)
        if (size := size + part.nbytes) > MOST_BYTES:
            raise _TooLargeError(f"expected at most {MOST_BYTES:,} bytes of cells, got more")
    return pa.Table.from_batches(parts, schema=file.schema_arrow)


def read_shards(folder: Path) -> pa.Table:
    """Read the shards that the manifest of a folder lists, as one table.

    Raises:
        ValueError: the manifest or a shard is broken.
    """
    try:
        shards = [shard["file"] for shard in json.loads((folder / MANIFEST).read_bytes())["shards"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / MANIFEST}: not a manifest of extracted features: {error}") from None
    return pa.concat_tables([read_parquet(folder / name) for name in shards])
