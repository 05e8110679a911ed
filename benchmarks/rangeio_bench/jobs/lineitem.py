"""The table that the jobs read: 16 columns like those of TPC-H, 8.3 million rows in 17 row groups, some 466 MB."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROWS, GROUP = 8_300_000, 500_000
COLUMNS = ["l_orderkey", "l_discount", "l_shipdate"]
"""The three that are read where not all are."""
TWO_GROUPS = (2_100_000, 2_900_000)
"""Order keys of which statistics say that they are in two row groups."""
_COMMENT = 27


def made(folder: Path, rows: int = ROWS, group: int = GROUP) -> Path:
    """The file, which is written if it is not there."""
    path = folder / f"lineitem-{rows}-{group}.parquet"
    if path.exists():
        return path
    part = path.with_suffix(".part")
    random = np.random.default_rng(1)
    with pq.ParquetWriter(part, _group(random, 0, 0).schema) as writer:
        for start in range(0, rows, group):
            writer.write_table(_group(random, start, min(group, rows - start)))
    part.rename(path)
    return path


def _group(random: Any, start: int, rows: int) -> Any:
    def days() -> Any:
        return pa.array(random.integers(8036, 10592, rows).astype("i4")).cast(pa.date32())

    def one_of(*words: str) -> Any:
        return pa.array(words).take(pa.array(random.integers(0, len(words), rows)))

    letters = (random.integers(97, 123, rows * _COMMENT, dtype="u1")).tobytes()
    offsets = np.arange(rows + 1, dtype="i4") * _COMMENT
    comment = pa.StringArray.from_buffers(rows, pa.py_buffer(offsets), pa.py_buffer(letters))
    return pa.table(
        {
            "l_orderkey": np.arange(start, start + rows),
            "l_partkey": random.integers(0, 2_000_000, rows),
            "l_suppkey": random.integers(0, 100_000, rows),
            "l_linenumber": random.integers(1, 8, rows).astype("i4"),
            "l_quantity": random.integers(1, 51, rows).astype("f8"),
            "l_extendedprice": random.integers(90_000, 10_500_000, rows) / 100,
            "l_discount": random.integers(0, 11, rows) / 100,
            "l_tax": random.integers(0, 9, rows) / 100,
            "l_returnflag": one_of("A", "N", "R"),
            "l_linestatus": one_of("F", "O"),
            "l_shipdate": days(),
            "l_commitdate": days(),
            "l_receiptdate": days(),
            "l_shipinstruct": one_of("COLLECT COD", "DELIVER IN PERSON", "NONE", "TAKE BACK RETURN"),
            "l_shipmode": one_of("AIR", "FOB", "MAIL", "RAIL", "REG AIR", "SHIP", "TRUCK"),
            "l_comment": comment,
        }
    )
