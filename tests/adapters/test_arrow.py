"""`rangeio.arrow`, and pyarrow over it."""

import io
import pickle
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from faults.machine import need_module
from servers.s3 import BUCKET, S3Server
from servers.scripted import scripted, with_suffixes

import rangeio

need_module("urllib3")
need_module("fsspec")
pa = need_module("pyarrow")
pq = need_module("pyarrow.parquet")
ds = need_module("pyarrow.dataset")
arrow_fs = need_module("pyarrow.fs")
ra = need_module("rangeio.arrow")
need_module("rangeio.fsspec")


@cache
def table() -> Any:
    return pa.table({"a": list(range(20_000)), "b": [str(n) for n in range(20_000)], "c": [0.5] * 20_000})


@cache
def parquet() -> bytes:
    sink = io.BytesIO()
    pq.write_table(table(), sink, row_group_size=2_000)
    return sink.getvalue()


def test_a_dataset_without_heads_before_open() -> None:
    with scripted(lambda asked: with_suffixes(parquet(), asked)) as server:
        fs = ra.filesystem("http")
        url = server.url + "/x"
        with fs.open_input_file(url) as file:
            assert not server.asked
            assert file.size() == len(parquet())
        assert [asked.method for asked in server.asked] == ["GET"]
        server.asked.clear()
        assert ds.dataset(url, filesystem=fs).to_table(columns=["a"]).equals(table().select(["a"]))
        assert [asked.method for asked in server.asked].count("HEAD") == 1
        assert pq.read_table(url, filesystem=fs).equals(table())


def test_pyarrow_takes_what_was_read_without_a_copy() -> None:
    addresses = []

    class Told(rangeio.fsspec.ObjectFile):
        def read_buffer(self, size: int | None = -1, /) -> Any:
            found = super().read_buffer(size)
            addresses.append(pa.py_buffer(found).address)
            return found

    with Told(rangeio.from_bytes(parquet()), "x") as file:
        found = pa.PythonFile(file, mode="r").read_buffer(1_000)
        assert [found.address] == addresses
        assert found.to_pybytes() == parquet()[:1_000]


def test_open_input_file(tmp_path: Path) -> None:
    with scripted(lambda asked: with_suffixes(parquet(), asked)) as server:
        with ra.open_input_file(server.url + "/x", retry=1) as file:
            assert pq.read_table(file, columns=["b"]).equals(table().select(["b"]))
        assert "HEAD" not in {asked.method for asked in server.asked}
    (tmp_path / "x").write_bytes(parquet())
    for source in (tmp_path / "x", str(tmp_path / "x"), f"file://{tmp_path}/x"):
        with ra.open_input_file(source) as file:
            assert file.size() == len(parquet())
    reader = rangeio.from_bytes(parquet())
    with ra.open_input_file(reader) as file:
        assert file.read_buffer(4).to_pybytes() == b"PAR1"
        assert pq.ParquetFile(file).metadata.num_rows == 20_000
    assert reader.closed


def test_directories_of_s3(seaweedfs: S3Server) -> None:
    for year in (2023, 2024):
        seaweedfs.put(f"arrow/year={year}/x.parquet", parquet())
    fs = ra.filesystem("s3", **seaweedfs.options)
    top = f"{BUCKET}/arrow"
    assert ds.dataset(top, filesystem=fs, partitioning="hive").count_rows() == 40_000
    selector = arrow_fs.FileSelector(top)
    assert {info.path: info.type.name for info in fs.get_file_info(selector)} == {
        f"{top}/year=2023": "Directory",
        f"{top}/year=2024": "Directory",
    }
    found = fs.get_file_info(arrow_fs.FileSelector(top, recursive=True))
    assert sorted(info.size for info in found if info.is_file) == [len(parquet())] * 2
    missing, folder, one = fs.get_file_info([f"{top}/none", top, f"{top}/year=2023/x.parquet"])
    assert (missing.type.name, folder.type.name, one.type.name) == ("NotFound", "Directory", "File")
    assert one.mtime is not None
    again = pickle.loads(pickle.dumps(fs))
    assert again == fs
    assert again.open_input_stream(one.path).read(4) == b"PAR1"
    with pytest.raises(FileNotFoundError):
        fs.get_file_info(arrow_fs.FileSelector(f"{top}/none"))
    with pytest.raises(NotADirectoryError):
        fs.get_file_info(arrow_fs.FileSelector(one.path))
    assert fs.get_file_info(arrow_fs.FileSelector(f"{top}/none", allow_not_found=True)) == []


def test_nothing_is_written(tmp_path: Path) -> None:
    fs = ra.filesystem(f"file://{tmp_path}")
    path = str(tmp_path / "x")
    calls = [
        lambda: fs.open_output_stream(path),
        lambda: fs.open_append_stream(path),
        lambda: fs.create_dir(path),
        lambda: fs.delete_dir(path),
        lambda: fs.delete_dir_contents(path),
        lambda: fs.delete_dir_contents("/", accept_root_dir=True),
        lambda: fs.delete_file(path),
        lambda: fs.move(path, path),
        lambda: fs.copy_file(path, path),
    ]
    for call in calls:
        with pytest.raises(NotImplementedError, match="only reads"):
            call()
    with pytest.raises(FileNotFoundError):
        fs.open_input_file(path)


def test_names() -> None:
    assert ra.filesystem("s3").type_name == "py::rangeio+s3"
    assert ra.filesystem("rangeio+https://host/x") == ra.filesystem("http")
    assert ra.filesystem("http", gap=1) != ra.filesystem("http")
    assert ra.filesystem("s3").normalize_path("s3://bucket/key") == "bucket/key"
    with pytest.raises(rangeio.ConfigInvalidError, match="'ftp'"):
        ra.filesystem("ftp")


def test_a_dataset_of_another_service() -> None:
    fs = ra.filesystem("memory", objects={"folder/part.parquet": parquet()})
    assert ds.dataset("folder", filesystem=fs, format="parquet").to_table() == table()
    names = [ra.filesystem("gs"), ra.filesystem("abfs", account_name="one"), ra.filesystem("hf")]
    assert [fs.type_name for fs in names] == ["py::rangeio+gs", "py::rangeio+az", "py::rangeio+hf"]
