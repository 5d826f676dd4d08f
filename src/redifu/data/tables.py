"""Read CSV and Parquet files, and folders of Parquet shards, as Arrow tables."""

import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from redifu.data.csv_rows import csv_rows
from redifu.data.turn_lines import LineError, read_text

# Far more than any corpus of conversations, and no more than a machine can hold.
MOST_ROWS, MOST_BYTES = 10_000_000, 4 * 1024**3
MANIFEST = "manifest.json"  # lists the shards in a folder of extracted features


def read_csv_table(path: Path) -> pa.Table:
    """Read the cells of a CSV file as strings, and empty cells as null; see `csv_rows`.

    Raises:
        ValueError: the file is not a table; names the line.
    """
    try:
        header, rows = csv_rows(read_text(path))
    except LineError as error:
        raise ValueError(f"{path}: line {error.line}: {error}") from None
    if not header:
        raise ValueError(f"{path}: not a CSV table: No columns to parse from file")
    # pandas leaves the name of its index empty.
    names = [name or f"Unnamed: {place}" for place, name in enumerate(header)]
    columns = zip(*(cells for _, cells in rows), strict=True) if rows else ([] for _ in names)
    # Strings only: a speaker may be named "None" and a dialogue "007".
    arrays = [pa.array([cell or None for cell in column], pa.string()) for column in columns]
    return pa.table(arrays, names=names)


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


def file_digest(path: Path) -> str:
    """Return the SHA-256 of the content of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_shards(folder: Path) -> pa.Table:
    """Read the shards that the manifest of a folder lists, as one table.

    Raises:
        ValueError: the manifest or a shard is broken, or a shard is of another extraction.
    """
    place = folder / MANIFEST
    try:
        # Older manifests have no digests.
        shards = [(each["file"], each.get("sha256")) for each in json.loads(place.read_bytes())["shards"]]
        if not shards or any(Path(name).name != name for name, _ in shards):
            raise ValueError("expected the names of files beside it")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{place}: not a manifest of extracted features: {error}") from None
    tables = []
    for name, digest in shards:
        tables.append(read_parquet(folder / name))
        if digest not in (None, file_digest(folder / name)):
            raise ValueError(f"{folder / name}: changed since {MANIFEST} was written: repeat the extraction")
    try:
        return pa.concat_tables(tables)
    except pa.ArrowInvalid as error:
        raise ValueError(
            f"{place}: its files have different columns: {' '.join(str(error).split())}"
        ) from None
