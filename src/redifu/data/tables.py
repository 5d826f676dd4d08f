"""Read CSV and Parquet files, and folders of Parquet shards, as Arrow tables."""

import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

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
        ValueError: the file is not Parquet.
    """
    try:
        return pq.ParquetFile(path).read()
    except (ValueError, OSError) as error:
        raise ValueError(f"{path}: not a Parquet file: {' '.join(str(error).split())}") from error


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
