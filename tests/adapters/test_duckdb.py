"""duckdb reads files of our fsspec file systems, from many threads at once."""

import io
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from faults.machine import need_module
from servers.s3 import BUCKET, S3Server
from servers.scripted import scripted, with_suffixes

need_module("urllib3")
need_module("fsspec")
duckdb = need_module("duckdb")
pa = need_module("pyarrow")
pq = need_module("pyarrow.parquet")
rf = need_module("rangeio.fsspec")

ROWS = 200_000


@cache
def parquet() -> bytes:
    sink = io.BytesIO()
    table = pa.table({"a": range(ROWS), "b": [n % 7 for n in range(ROWS)]})
    pq.write_table(table, sink, row_group_size=5_000)
    return sink.getvalue()


@pytest.fixture
def connection() -> Iterator[Any]:
    with duckdb.connect() as connection:
        connection.sql("set threads to 9")
        yield connection


SUM = ROWS * (ROWS - 1) // 2


def test_urls(connection: Any) -> None:
    with scripted(lambda asked: with_suffixes(parquet(), asked)) as server:
        connection.register_filesystem(rf.HttpFileSystem())
        for url in (server.url + "/x.parquet", f"rangeio+{server.url}/x.parquet"):
            found = connection.sql(f"select sum(a), count(*) from read_parquet('{url}')").fetchall()
            assert found == [(SUM, ROWS)]
    rf.HttpFileSystem.clear_instance_cache()


def test_objects_by_a_pattern(connection: Any, seaweedfs: S3Server) -> None:
    for number in range(3):
        seaweedfs.put(f"duckdb/{number}.parquet", parquet())
    connection.register_filesystem(rf.S3FileSystem(**seaweedfs.options))
    query = f"select sum(a), count(distinct b) from read_parquet('rangeio+s3://{BUCKET}/duckdb/*.parquet')"
    assert connection.sql(query).fetchall() == [(3 * SUM, 7)]
    rf.S3FileSystem.clear_instance_cache()


def test_files(connection: Any, tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(parquet())
    (tmp_path / "x.csv").write_text("a,b\n1,2\n3,4\n")
    connection.register_filesystem(rf.PosixFileSystem())
    query = f"select sum(a) from read_parquet('rangeio+file://{tmp_path}/x.parquet')"
    assert connection.sql(query).fetchall() == [(SUM,)]
    assert connection.sql(f"select sum(b) from read_csv('rangeio+file://{tmp_path}/*.csv')").fetchall() == [
        (6,)
    ]
    rf.PosixFileSystem.clear_instance_cache()
