"""HDF5: a walk through a file and slabs of an array, far away; slabs of a local file. The peers are file objects.

A file of 1 GiB: two arrays in chunks of 256 KiB, between them 400 small datasets with attributes. h5py reads with each
file object in the same way, so the time is that of what it fetches.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rangeio_bench.jobs import servers
from rangeio_bench.jobs.job import Job, Limit, Place, Way

_NAME = "walk.h5"
_SHAPE, _CHUNK = (16384, 8192), (256, 256)
_READAHEAD = 5 << 20
"""The default block of fsspec."""

Task = Callable[[Any], object]


def _make(folder: Path) -> Path:
    path = folder / _NAME
    if path.exists():
        return path
    import h5py
    import numpy as np

    numbers = np.random.default_rng(7)
    part = path.with_suffix(".part")
    rows = numbers.random((_CHUNK[0] * 4, _SHAPE[1]), np.float32)
    with h5py.File(part, "w") as file:
        for name in ("a", "b"):
            array = file.create_dataset(name, _SHAPE, "f4", chunks=_CHUNK)
            array.attrs["units"] = "m"
            for first in range(0, _SHAPE[0], len(rows)):
                array[first : first + len(rows)] = rows
            for group in range(10):
                for number in range(20):
                    values = numbers.random(200)
                    small = file.create_dataset(f"{name}_runs/{group:02}/{number:02}", data=values)
                    small.attrs["scale"] = number / 8
    part.rename(path)
    return path


@contextmanager
def _far(folder: Path) -> Iterator[Place]:
    _make(folder)
    with servers.far(folder) as url:
        for source in (_as_file, _remfile, _fsspec("blockcache")):  # imports are not measured
            with suppress(ImportError):
                source(f"{url}/{_NAME}").read(1)
        yield {"file": f"{url}/{_NAME}", "url": url}


@contextmanager
def _local(folder: Path) -> Iterator[Place]:
    yield {"file": str(_make(folder))}


def _counted(place: Place) -> tuple[int, int]:
    return servers.counted(place["url"])


# --- what is done with a file --------------------------------------------------------------------------------


def _walk(file: Any) -> object:
    import h5py

    found = []

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found.append((name, item.shape, str(item.dtype), item.chunks, sorted(item.attrs.items())))

    file.visititems(visit)
    assert len(found) == 402
    return found


def _slabs(
    count: int, size: int, read: Callable[[Any, Any], Any] = lambda dataset, part: dataset[part]
) -> Task:
    def run(file: Any) -> object:
        dice, array = random.Random(3), file["a"]
        total = 0.0
        for _ in range(count):
            top, left = (dice.randrange(length - size) for length in _SHAPE)
            total += float(read(array, (slice(top, top + size), slice(left, left + size))).sum(dtype="f8"))
        return total

    return run


def _read(dataset: Any, part: Any) -> Any:
    from rangeio.adapters import hdf5

    return hdf5.read(dataset, part)


# --- ways to open it -----------------------------------------------------------------------------------------


def _with(source: Callable[[str], Any], task: Task) -> Callable[[Place], object]:
    """The task on an h5py.File over a file object, or a path."""

    def run(place: Place) -> object:
        import h5py

        opened = source(place["file"])
        with h5py.File(opened, "r") as file:
            result = task(file)
        if hasattr(opened, "close"):
            opened.close()
        return result

    return run


def _with_ours(task: Task) -> Callable[[Place], object]:
    def run(place: Place) -> object:
        from rangeio.adapters import hdf5

        with hdf5.open(place["file"]) as file:
            return task(file)

    return run


def _as_file(where: str) -> Any:
    import rangeio

    return rangeio.open(where).as_file(cache=64 << 20)


def _remfile(where: str) -> Any:
    import remfile

    return remfile.File(where)


def _fsspec(cache_type: str) -> Callable[[str], Any]:
    def opened(where: str) -> Any:
        import fsspec

        protocol = "http" if where.startswith("http") else "file"
        options = {"cache_type": cache_type, "block_size": _READAHEAD} if protocol == "http" else {}
        return fsspec.filesystem(protocol, skip_instance_cache=True).open(where, "rb", **options)

    return opened


_REMFILE = ("h5py", "remfile")
_FSSPEC = ("h5py", "fsspec", "aiohttp")
_PEERS = ("remfile", "fsspec block")


def _remfile_way(task: Task) -> Way:
    return Way("remfile", _with(_remfile, task), _REMFILE)


def _block_way(task: Task) -> Way:
    return Way("fsspec block", _with(_fsspec("blockcache"), task), _FSSPEC)


def _read_job(count: int, size: int) -> Job:
    return Job(
        f"hdf5-read-{size}",
        f"HDF5 far: {count} slabs of {size}x{size} by hdf5.read; the peers index",
        (
            Way("rangeio read", _with_ours(_slabs(count, size, _read)), ("h5py",)),
            Way("rangeio index", _with_ours(_slabs(count, size)), ("h5py",)),
            _remfile_way(_slabs(count, size)),
            _block_way(_slabs(count, size)),
        ),
        _far,
        (Limit("time", 0.35, _PEERS),),
        same=lambda one, other: one == other,
        counted=_counted,
        warm_up=False,
    )


JOBS = (
    Job(
        "hdf5-walk",
        "HDF5 far: shapes, types and attributes of the 402 datasets of a 1 GiB file",
        (
            Way("rangeio", _with(_as_file, _walk), ("h5py",)),
            _remfile_way(_walk),
            _block_way(_walk),
        ),
        _far,
        (Limit("time", 0.50, _PEERS),),
        same=lambda one, other: one == other,
        counted=_counted,
        warm_up=False,
    ),
    Job(
        "hdf5-slabs",
        "HDF5 far: 40 slabs of 300x300 by a file object",
        (
            Way("rangeio", _with(_as_file, _slabs(40, 300)), ("h5py",)),
            _remfile_way(_slabs(40, 300)),
        ),
        _far,
        (Limit("time", 0.90, ("remfile",)),),
        same=lambda one, other: one == other,
        counted=_counted,
        warm_up=False,
    ),
    _read_job(20, 300),
    _read_job(6, 1000),
    Job(
        "hdf5-local",
        "HDF5 local: 40 slabs of 300x300 (a path given to h5py is faster)",
        (
            Way("rangeio", _with(_as_file, _slabs(40, 300)), ("h5py",)),
            Way("rangeio open", _with_ours(_slabs(40, 300)), ("h5py",)),
            Way("fsspec", _with(_fsspec("readahead"), _slabs(40, 300)), ("h5py", "fsspec")),
            Way("path", _with(lambda where: where, _slabs(40, 300)), ("h5py",)),
        ),
        _local,
        (Limit("time", 1.0, ("fsspec",)),),
        same=lambda one, other: one == other,
    ),
)
