"""A small file that expands to a large table is refused before it fills the memory."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from redifu.data import tables
from redifu.data.tables import read_parquet


def write(path: Path, *, rows: int) -> Path:
    column = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int8()), pa.array(["Ana"]))
    pq.write_table(pa.table({"speaker": column}), path)
    return path


def test_a_table_has_not_too_many_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MOST_ROWS", 1000)
    assert len(read_parquet(write(tmp_path / "out.parquet", rows=1000))) == 1000
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", None)  # nothing is read
    complaint = r"out\.parquet: expected at most 1,000 rows, got 1,001: split the file"
    with pytest.raises(ValueError, match=complaint):
        read_parquet(write(tmp_path / "out.parquet", rows=1001))


def test_cells_do_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out.parquet"
    pq.write_table(pa.table({"text": ["x" * 1000] * 100_000}), path)
    assert path.stat().st_size < 100_000
    monkeypatch.setattr(tables, "MOST_BYTES", 70_000_000)
    with pytest.raises(ValueError, match="expected at most 70,000,000 bytes of cells, got more"):
        read_parquet(path)
    monkeypatch.setattr(tables, "MOST_BYTES", 110_000_000)
    assert read_parquet(path).num_rows == 100_000
