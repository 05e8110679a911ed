"""Jobs with tables: a Parquet file on a store that is far or near, or on this machine, read by what users read it with.

Each run makes its client anew: a file system that has been used before would know sizes and have connections.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from rangeio_bench.jobs import lineitem, servers
from rangeio_bench.jobs.job import Job, Limit, Place, Way
from rangeio_bench.jobs.lineitem import COLUMNS, TWO_GROUPS

_REGION = "us-east-1"
PARQUET, FSSPEC, OURS_POLARS = "rangeio.parquet", "rangeio.fsspec", "rangeio.polars"
ARROW, OBSTORE, S3FS, POLARS = "pyarrow S3FileSystem", "obstore.fsspec", "s3fs", "polars"

# --- places --------------------------------------------------------------------------------------------------


@contextmanager
def _on(server: Callable[[Path], Any], folder: Path) -> Iterator[Place]:
    path = lineitem.made(folder)
    with server(folder) as url:
        yield {
            "path": str(path),
            "endpoint": url.rpartition("/")[0],
            "key": f"{servers.BUCKET}/{path.name}",
            "url": f"{url}/{path.name}",
        }


@contextmanager
def _here(folder: Path) -> Iterator[Place]:
    path = lineitem.made(folder)
    path.read_bytes()  # into the page cache
    yield {"path": str(path)}


_far, _near = partial(_on, servers.far), partial(_on, servers.near)

# --- clients -------------------------------------------------------------------------------------------------


def _our_options(place: Place) -> dict[str, Any]:
    return {
        "endpoint_url": place["endpoint"],
        "region": _REGION,
        "anonymous": True,
        "addressing": "path",
    }


def _our_storage_options(place: Place) -> dict[str, Any]:
    return {
        "endpoint_url": place["endpoint"],
        "region": _REGION,
        "anon": True,
        "addressing": "path",
        "skip_instance_cache": True,
    }


def _their_storage_options(place: Place) -> dict[str, Any]:
    return {"endpoint_url": place["endpoint"], "anon": True, "skip_instance_cache": True}


def _ours(place: Place) -> Any:
    from rangeio.fsspec import S3FileSystem

    return S3FileSystem(**_our_storage_options(place))


def _s3fs(place: Place) -> Any:
    import s3fs

    return s3fs.S3FileSystem(**_their_storage_options(place))


def _obstore(place: Place) -> Any:
    from obstore.fsspec import FsspecStore

    make: Any = FsspecStore  # its overloads do not know fsspec's own options
    return make(
        "s3",
        config={
            "endpoint": place["endpoint"],
            "region": _REGION,
            "skip_signature": True,
            "virtual_hosted_style_request": False,
        },
        client_options={"allow_http": True},
        skip_instance_cache=True,
    )


def _arrow(place: Place) -> Any:
    import pyarrow.fs

    return pyarrow.fs.S3FileSystem(
        endpoint_override=place["endpoint"], scheme="http", anonymous=True, region=_REGION
    )


def _lazy(place: Place) -> Any:
    import polars

    options = {
        "aws_endpoint_url": place["endpoint"],
        "aws_region": _REGION,
        "aws_skip_signature": "true",
        "aws_allow_http": "true",
    }
    return polars.scan_parquet(f"s3://{place['key']}", storage_options=options)


def _our_lazy(place: Place) -> Any:
    import rangeio.polars

    return rangeio.polars.scan_parquet(f"s3://{place['key']}", **_our_options(place))


# --- reads ---------------------------------------------------------------------------------------------------


def _planned(columns: list[str] | None, filters: Any, place: Place) -> Any:
    import rangeio.parquet

    return rangeio.parquet.read_table(f"s3://{place['key']}", columns, filters, **_our_options(place))


def _by(make: Callable[[Place], Any], columns: list[str] | None, filters: Any, place: Place) -> Any:
    import pyarrow.parquet

    return pyarrow.parquet.read_table(place["key"], columns=columns, filters=filters, filesystem=make(place))


def _by_polars(
    make: Callable[[Place], Any], columns: list[str] | None, groups: tuple[int, int] | None, place: Place
) -> Any:
    import polars

    frame = make(place)
    if groups:
        frame = frame.filter(polars.col("l_orderkey") >= groups[0], polars.col("l_orderkey") < groups[1])
    return (frame.select(columns) if columns else frame).collect()


def _by_pandas(protocol: str, options: Callable[[Place], dict[str, Any]], place: Place) -> Any:
    import pandas

    return pandas.read_parquet(
        f"{protocol}://{place['key']}", columns=COLUMNS, storage_options=options(place)
    )


def _by_duckdb(protocol: str, make: Callable[[Place], Any], place: Place) -> Any:
    import duckdb

    with duckdb.connect() as connection:
        connection.register_filesystem(make(place))
        query = "select sum(l_orderkey), sum(l_discount * 100)::bigint, max(l_shipdate) from read_parquet(?)"
        return connection.execute(query, [f"{protocol}://{place['key']}"]).fetchall()


def _http(make: Callable[[], Any], place: Place) -> Any:
    import pyarrow.parquet

    return pyarrow.parquet.read_table(place["url"], columns=COLUMNS, filesystem=make())


def _our_http() -> Any:
    from rangeio.fsspec import HttpFileSystem

    return HttpFileSystem(skip_instance_cache=True)


def _their_http() -> Any:
    from fsspec.implementations.http import HTTPFileSystem

    return HTTPFileSystem(skip_instance_cache=True)


def _local_planned(place: Place) -> Any:
    import rangeio.parquet

    return rangeio.parquet.read_table(place["path"], COLUMNS)


def _local_fsspec(place: Place) -> Any:
    import pyarrow.parquet

    from rangeio.fsspec import PosixFileSystem

    return pyarrow.parquet.read_table(place["path"], columns=COLUMNS, filesystem=PosixFileSystem())


def _local_arrow(place: Place) -> Any:
    import pyarrow.parquet

    return pyarrow.parquet.read_table(place["path"], columns=COLUMNS)


def _local_polars(place: Place) -> Any:
    import polars

    return polars.scan_parquet(place["path"]).select(COLUMNS).collect()


def _scanned(place: Place) -> int:
    import rangeio.parquet

    return sum(batch.num_rows for batch in rangeio.parquet.scan(place["path"]))


def _scanned_by_arrow(place: Place) -> int:
    import pyarrow.parquet

    file = pyarrow.parquet.ParquetFile(place["path"])
    return sum(batch.num_rows for batch in file.iter_batches())


# --- jobs ----------------------------------------------------------------------------------------------------


def _same(one: Any, other: Any) -> bool:
    return bool(_seen(one) == _seen(other))


def _seen(found: Any) -> Any:
    """What can be compared between tables of several libraries."""
    if isinstance(found, (int, list)):
        return found
    return len(found), len(found.columns), int(_total(found["l_orderkey"]))


def _total(column: Any) -> Any:
    import pyarrow.compute

    return column.sum() if hasattr(column, "sum") else pyarrow.compute.sum(column).as_py()


def _ways(
    columns: list[str] | None, groups: tuple[int, int] | None = None, *, native: bool = True
) -> tuple[Way, ...]:
    """Every way to read a table of a store. native: with those that are not fsspec's."""
    filters = groups and [("l_orderkey", ">=", groups[0]), ("l_orderkey", "<", groups[1])]
    own = (
        Way(OURS_POLARS, partial(_by_polars, _our_lazy, columns, groups), ("polars", "pyarrow")),
        Way(POLARS, partial(_by_polars, _lazy, columns, groups), ("polars",)),
    )
    return (
        Way(PARQUET, partial(_planned, columns, filters), ("pyarrow",)),
        Way(FSSPEC, partial(_by, _ours, columns, filters), ("pyarrow", "fsspec")),
        Way(ARROW, partial(_by, _arrow, columns, filters), ("pyarrow",)),
        Way(OBSTORE, partial(_by, _obstore, columns, filters), ("pyarrow", "obstore")),
        Way(S3FS, partial(_by, _s3fs, columns, filters), ("pyarrow", "s3fs")),
        *(own if native else ()),
    )


def _job(id: str, title: str, place: Any, ways: tuple[Way, ...], *limits: Limit) -> Job:
    far = place is _far
    counted = (lambda at: servers.counted(at["url"])) if far else None
    return Job(id, title, ways, place, limits, same=_same, counted=counted)


_DUCKDB = (
    Way("rangeio.fsspec in duckdb", partial(_by_duckdb, "rangeio+s3", _ours), ("duckdb", "fsspec")),
    Way("s3fs in duckdb", partial(_by_duckdb, "s3", _s3fs), ("duckdb", "s3fs")),
)

JOBS = (
    _job(
        "tables-far-3of16",
        "3 of 16 columns of 466 MB, from afar",
        _far,
        _ways(COLUMNS),
        Limit("time", 0.7, (ARROW, OBSTORE, S3FS)),
        Limit("bytes", 1.05, (ARROW,)),
        Limit("time", 0.2, (OBSTORE, S3FS), FSSPEC),
        Limit("time", 1.0, (ARROW,), FSSPEC),
        Limit("bytes", 1.05, (ARROW,), FSSPEC),
        Limit("time", 1.1, (POLARS,), OURS_POLARS),
    ),
    _job(
        "tables-far-3of16-http",
        "The same by HTTP",
        _far,
        (
            Way(FSSPEC, partial(_http, _our_http), ("pyarrow", "fsspec")),
            Way("HTTPFileSystem", partial(_http, _their_http), ("pyarrow", "fsspec", "aiohttp")),
        ),
        Limit("time", 0.2, ("HTTPFileSystem",)),
    ),
    _job(
        "tables-far-3of16-pandas",
        "The same by pandas.read_parquet",
        _far,
        (
            Way(
                "rangeio.fsspec in pandas",
                partial(_by_pandas, "rangeio+s3", _our_storage_options),
                ("pandas", "pyarrow", "fsspec"),
            ),
            Way(
                "s3fs in pandas",
                partial(_by_pandas, "s3", _their_storage_options),
                ("pandas", "pyarrow", "s3fs"),
            ),
        ),
        Limit("time", 0.06, ("s3fs in pandas",)),
    ),
    _job(
        "tables-far-3of16-duckdb",
        "Sums of 3 of 16 columns by duckdb, from afar",
        _far,
        _DUCKDB,
        Limit("time", 0.1, ("s3fs in duckdb",)),
    ),
    _job(
        "tables-near-3of16-duckdb",
        "The same from a server near by",
        _near,
        _DUCKDB,
        Limit("time", 0.05, ("s3fs in duckdb",)),
    ),
    _job(
        "tables-far-two-groups",
        "All columns of the two row groups that statistics leave, from afar",
        _far,
        _ways(None, TWO_GROUPS),
        Limit("time", 0.5, (POLARS, ARROW, S3FS)),
        Limit("time", 0.8, (POLARS,), OURS_POLARS),
    ),
    _job(
        "tables-far-all",
        "All of 466 MB, from afar",
        _far,
        _ways(None),
        Limit("time", 0.55, (ARROW,)),
        Limit("time", 0.3, (POLARS,)),
        Limit("time", 0.3, (S3FS,), FSSPEC),
        Limit("time", 0.8, (ARROW,), FSSPEC),
    ),
    _job(
        "tables-near-3of16",
        "3 of 16 columns from a server near by",
        _near,
        _ways(COLUMNS, native=False),
        Limit("time", 1.0, (ARROW,)),
        Limit("time", 0.95, (ARROW, OBSTORE, S3FS), FSSPEC),
        Limit("cpu", 0.8, (ARROW, OBSTORE, S3FS), FSSPEC),
    ),
    _job(
        "tables-local-3of16",
        "3 of 16 columns of a cached local file",
        _here,
        (
            Way(PARQUET, _local_planned, ("pyarrow",)),
            Way(FSSPEC, _local_fsspec, ("pyarrow", "fsspec")),
            Way("pyarrow", _local_arrow, ("pyarrow",)),
            Way(POLARS, _local_polars, ("polars",)),
        ),
        Limit("time", 1.0, ("pyarrow",)),
        Limit("time", 1.0, ("pyarrow",), FSSPEC),
    ),
    Job(
        "tables-scan-memory",
        "A scan of all of 466 MB: peak memory",
        (
            Way("rangeio.parquet.scan", _scanned, ("pyarrow",)),
            Way("pyarrow iter_batches", _scanned_by_arrow, ("pyarrow",)),
        ),
        _here,
        (Limit("memory", 350 << 20),),
        same=_same,
        child=True,
        warm_up=False,
    ),
)
