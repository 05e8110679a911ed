"""Parquet files, read through rangeio: only the footers and the column chunks that are needed, in few requests.

    table = rangeio.parquet.read_table("s3://bucket/lineitem.parquet", ["l_orderkey", "l_discount"])
    for batch in rangeio.parquet.scan("s3://bucket/sales/", filters=[("year", "=", 2026)], partitioning="hive"):
        ...

Needs pyarrow (``pip install 'rangeio[parquet]'``), which decodes.
"""

from contextlib import closing
from typing import Any

try:
    import pyarrow as pa
    import pyarrow.parquet
except ImportError as error:
    raise ImportError(f"pyarrow is missing ({error}): pip install 'rangeio[parquet]'") from error

from rangeio.parquet.footers import ParquetObject
from rangeio.parquet.reading import reading_of
from rangeio.parquet.sources import Parts, Source
from rangeio.parquet.windows import SCAN, TABLE, Window, requests_of, windows
from rangeio.ranges import Plan

__all__ = ["metadata", "plan", "read_table", "scan"]


def read_table(
    source: Source,
    columns: list[str] | None = None,
    filters: Any = None,
    *,
    use_threads: bool = True,
    partitioning: str | None = None,
    **options: Any,
) -> Any:
    """Read a table into memory, as a pyarrow.Table.

    source: a URI or path of a file, of a directory (ending in a slash, unless it is local) or with a pattern (``*``,
    ``**``); a Reader; or several of these. columns: in this order; ``"a.b"`` is a field of a struct; KeyError for what
    the first file does not have. filters: as for `pyarrow.parquet.read_table`: tuples, lists of tuples, lists of lists,
    or an expression. Row groups whose statistics exclude it are not fetched. partitioning: ``"hive"`` takes columns
    from directories like ``year=2026``. options: those of `rangeio.open`.

    Cost: a request for each footer (a second if it is longer than 64 KiB), then the column chunks, of which 64 MiB are
    in flight or in use. Several row groups are decoded at once. Errors name the file; ObjectChangedError if it is
    replaced meanwhile.
    """
    reading = reading_of(source, columns, filters, use_threads, partitioning, options)
    with closing(reading), closing(reading.tables(TABLE)) as tables:
        found = [*tables]
    if not len(reading.schema):  # a table can have rows without columns, which pyarrow does not concatenate
        rows = pa.nulls(sum(table.num_rows for table in found))
        return pa.table({"": rows}, metadata=reading.schema.metadata).select([])
    return pa.concat_tables(found) if found else reading.schema.empty_table()


def scan(
    source: Source,
    columns: list[str] | None = None,
    filters: Any = None,
    *,
    use_threads: bool = True,
    partitioning: str | None = None,
    batch_size: int | None = None,
    **options: Any,
) -> Any:
    """Read a table piece by piece, as a pyarrow.RecordBatchReader. The arguments are those of `read_table`.

    batch_size: most rows of a batch, 65,536 by default. The windows are 4 MiB, later 16 MiB, or one row group if that
    is larger. Deleting the reader stops its requests.
    """
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    reading = reading_of(source, columns, filters, use_threads, partitioning, options)
    return pa.RecordBatchReader.from_batches(reading.schema, reading.batches(SCAN, batch_size))


def plan(
    source: Source,
    columns: list[str] | None = None,
    filters: Any = None,
    *,
    partitioning: str | None = None,
    **options: Any,
) -> Plan:
    """The requests for column chunks that `read_table` would send. Requests the footers."""
    reading = reading_of(source, columns, filters, True, partitioning, options)
    plans = []
    with closing(reading):
        for window in windows(reading.pieces(TABLE.most), TABLE):
            plans += _plans(window)
    return _joined(plans)


def metadata(source: Any, **options: Any) -> Any:
    """The footer of one file, as a pyarrow.parquet.FileMetaData. One request; a second if it is longer than 64 KiB."""
    parts = Parts(source, None, options, dictionaries=True).parts
    if len(parts) != 1:
        raise ValueError(f"metadata() is of one file, not of {len(parts)}")
    with parts[0].opening(), closing(ParquetObject(parts[0].open(), None)) as object:
        return object.metadata


def _plans(window: Window) -> list[Plan]:
    return [
        request.object.reader.plan(request.ranges, **request.options)  # type: ignore[arg-type]
        for request in requests_of(window)
    ]


def _joined(plans: list[Plan]) -> Plan:
    """Several plans as one."""
    requests: list[tuple[str, int, int | None]] = []
    assigned: list[int | None] = []
    for plan in plans:
        assigned += [None if index is None else len(requests) + index for index in plan.assigned]
        requests += plan.requests
    return Plan(
        requests,
        assigned,
        sum(plan.bytes_requested for plan in plans),
        sum(plan.bytes_fetched for plan in plans),
        max((plan.largest_request for plan in plans), default=0),
        max((plan.parallel for plan in plans), default=0),
        plans[0].gap if plans else None,
    )
