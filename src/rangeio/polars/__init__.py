"""Parquet files as a lazy frame of polars, read by `rangeio.parquet`.

    frame = rangeio.polars.scan_parquet("s3://bucket/lineitem.parquet")
    frame.filter(polars.col("l_shipdate") > date(1998, 1, 1)).select("l_orderkey").collect()

Needs polars and pyarrow (``pip install 'rangeio[polars]'``).
"""

from collections.abc import Iterator
from functools import cache
from time import monotonic
from typing import Any

try:
    import polars
    from polars.io.plugins import register_io_source
except ImportError as error:
    raise ImportError(f"polars is missing ({error}): pip install 'rangeio[polars]'") from error

from rangeio.parquet.footers import ParquetObject
from rangeio.parquet.reading import Reading, reading_of
from rangeio.parquet.sources import Parts, Source, listed
from rangeio.parquet.windows import SCAN, TABLE
from rangeio.polars.predicates import pushed

__all__ = ["scan_parquet"]

_SPARE_S = 5.0


def scan_parquet(source: Source, *, partitioning: str | None = None, **options: Any) -> polars.LazyFrame:
    """A lazy frame over Parquet files. source, partitioning and options: as for `rangeio.parquet.scan`.

    Only the columns that a query uses are fetched. Comparisons of columns with values exclude row groups and rows
    before polars sees them, where arrow compares as polars does; polars does the rest. Columns of directories are
    int32 or strings. Opens the first file when polars asks for the schema, and the files again for each query; over a
    network a query that follows within 5 s goes on with the file that is open.
    """

    sources, spare = listed(source), _Spare()  # an iterator would be empty for the second query

    def begun(columns: list[str] | None, condition: Any) -> Reading:
        if (kept := spare.take()) is not None:
            parts, first = kept
            return Reading(parts, columns, condition, use_threads=True, first=first)
        return reading_of(sources, columns, condition, True, partitioning, options, dictionaries=False)

    @cache
    def arrow_schema() -> Any:
        reading = begun(None, None)
        spare.put(*reading.kept_open())
        return reading.schema

    def schema() -> polars.Schema:
        return _frame(arrow_schema().empty_table()).schema

    def read(
        columns: list[str] | None, predicate: polars.Expr | None, rows: int | None, batch_rows: int | None
    ) -> Iterator[polars.DataFrame]:
        used, condition = columns, None
        if predicate is not None and columns is not None:
            used = [*dict.fromkeys([*columns, *predicate.meta.root_names()])]
        if predicate is not None and rows is None:
            condition = pushed(predicate, arrow_schema())
        reading = begun(used, condition)
        # The first rows only: the less is fetched the better. All rows: polars keeps them anyway.
        found = reading.tables(TABLE) if rows is None else reading.batches(SCAN, batch_rows)
        frames = map(_frame, found)
        yield from _finished(frames, _frame(reading.schema.empty_table()), columns, predicate, rows)

    return register_io_source(read, schema=schema, is_pure=True)


class _Spare:
    """The file whose schema polars has asked for: most often the query follows at once, and need not open it again.

    Only over a network, where that costs two round trips, and for a short time: a file that was replaced since then
    would fail. Any thread.
    """

    def __init__(self) -> None:
        self._kept: list[tuple[float, Parts, ParquetObject]] = []

    def put(self, parts: Parts, first: ParquetObject) -> None:
        """Keep it, or close it."""
        if first.reader.capability.positioned:
            first.close()
        else:
            self._kept.append((monotonic(), parts, first))

    def take(self) -> tuple[Parts, ParquetObject] | None:
        """What was put, once, if that is not long ago."""
        try:
            since, parts, first = self._kept.pop()
        except IndexError:
            return None
        if monotonic() - since < _SPARE_S:
            return parts, first
        first.close()
        return None


def _finished(
    frames: Iterator[polars.DataFrame],
    empty: polars.DataFrame,
    columns: list[str] | None,
    predicate: polars.Expr | None,
    rows: int | None,
) -> Iterator[polars.DataFrame]:
    """What polars asked for: the first `rows` rows, those that fulfil the predicate, and some columns of them."""
    left = rows
    yielded = False
    while left is None or left > 0:
        frame = next(frames, None)
        if frame is None:
            break
        if left is not None:
            frame = frame.head(left)
            left -= frame.height
        yield _selected(frame, columns, predicate)
        yielded = True
    if not yielded:
        yield _selected(empty, columns, predicate)


def _selected(
    frame: polars.DataFrame, columns: list[str] | None, predicate: polars.Expr | None
) -> polars.DataFrame:
    if predicate is not None:
        frame = frame.filter(predicate)
    return frame if columns is None else frame.select(columns)


def _frame(rows: Any) -> polars.DataFrame:
    found = polars.from_arrow(rows)
    assert isinstance(found, polars.DataFrame)
    return found
