"""docs/scale.md: its recipes on clusters of processes, with objects on SeaweedFS and keys in the environment."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from faults.machine import need_module
from servers.s3 import S3Server

pa = need_module("pyarrow")
pq = need_module("pyarrow.parquet")
np = need_module("numpy")
need_module("rangeio.fsspec")

RECORDS = bytes(range(250)) * 40
PARTS, ROWS = 3, 1_000
TOTAL = sum(range(PARTS * ROWS))

DASK = """
def main(method, place, out):
    import dask, dask.distributed
    dask.config.set({"distributed.worker.multiprocessing-method": method})
    with dask.distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=True, dashboard_address=None
    ) as cluster, dask.distributed.Client(cluster) as client:
        found = [by_fsspec(place), by_arrow(place), by_parts(place, 3), by_readers(client, place)]
        if HAS_ZARR:
            found.append(by_chunks(place))
    print("found", *map(int, found))
"""
RAY = """
def main(method, place, out):
    import ray
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=80 << 20, _temp_dir=out, log_to_driver=False)
    print("found", int(by_ray(place)))
    ray.shutdown()
"""
END = """
if __name__ == "__main__":
    import sys
    main(*sys.argv[1:])
"""


def recipes(*names: str) -> str:
    """The programs of the sections with these names."""
    text = (Path(__file__).parents[2] / "docs" / "scale.md").read_text()
    sections = {part.partition("\n")[0]: part for part in text.split("\n## ")}
    return "\n".join(
        re.findall(r"```python\n(.*?)```", "\n".join(map(sections.__getitem__, names)), re.DOTALL)
    )


@pytest.fixture(scope="module")
def place(seaweedfs: S3Server) -> str:
    """A prefix with a table of three files, an array and records."""
    for number in range(PARTS):
        sink = pa.BufferOutputStream()
        column = np.arange(number * ROWS, (number + 1) * ROWS)
        pq.write_table(pa.table({"x": column, "y": column / 2}), sink)
        seaweedfs.put(f"scale/table/{number}.parquet", bytes(sink.getvalue()))
    uri: str = seaweedfs.put("scale/records", RECORDS)
    return uri.removesuffix("/records")


def run(server: S3Server, folder: Path, program: str, *arguments: str) -> list[int]:
    file = folder / "program.py"
    file.write_text(program + END)
    keys = {
        "AWS_ACCESS_KEY_ID": server.access_key_id,
        "AWS_SECRET_ACCESS_KEY": server.secret_access_key,
        "AWS_ENDPOINT_URL": server.url,
        "AWS_REGION": server.region,
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    done = subprocess.run(
        [sys.executable, str(file), *arguments],
        env={**os.environ, **keys},
        capture_output=True,
        text=True,
        timeout=120,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("found ")]
    assert done.returncode == 0, done.stderr[-3000:]
    assert lines, done.stderr[-3000:]
    return [int(word) for word in lines[0].split()[1:]]


def has(module: str) -> Any:
    try:
        __import__(module)
    except ImportError:
        return False
    return True


@pytest.mark.frameworks
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_dask(seaweedfs: S3Server, place: str, tmp_path: Path, method: str) -> None:
    need_module("distributed", "test-frameworks")
    need_module("dask.dataframe", "test-frameworks")
    with_zarr = has("zarr")
    if with_zarr:
        put_array(seaweedfs, tmp_path)
    sections = ["Tables", "Readers as arguments of tasks", *(["Arrays"] if with_zarr else [])]
    program = f"HAS_ZARR = {with_zarr}\n" + recipes(*sections) + DASK
    found = run(seaweedfs, tmp_path, program, method, place, str(tmp_path))
    assert found[:4] == [TOTAL, TOTAL, TOTAL, sum(RECORDS)]
    assert found[4:] == ([sum(range(20_000))] if with_zarr else [])


def put_array(server: S3Server, folder: Path) -> None:
    """200 rows of 100 numbers, in chunks of 25 rows."""
    zarr = need_module("zarr")
    array = zarr.create_array(str(folder / "array.zarr"), shape=(200, 100), chunks=(25, 100), dtype="i8")
    array[:] = np.arange(20_000).reshape(200, 100)
    for file in (folder / "array.zarr").rglob("*"):
        if file.is_file():
            server.put(f"scale/{file.relative_to(folder)}", file.read_bytes())


@pytest.mark.frameworks
def test_ray(seaweedfs: S3Server, place: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    need_module("ray", "test-frameworks")
    folder = tmp_path_factory.mktemp("r")
    program = recipes("Ray") + RAY
    assert run(seaweedfs, folder, program, "", place, str(folder)) == [sum(RECORDS)]
