"""Jobs of PyTorch: batches of records by a DataLoader, and distributed checkpoints."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from rangeio_bench.jobs import page_cache, servers
from rangeio_bench.jobs.job import Job, Limit, Place, Way

_RECORD = 4096
_RECORDS = 131_072
_BATCH = 256
_WORKERS = 4
_LAYERS = 32
"""Of 32 MiB each, in tensors as of a transformer: 1 GiB."""


# --- records -------------------------------------------------------------------------------------------------


@contextmanager
def _records(folder: Path) -> Iterator[Place]:
    path = folder / "records.bin"
    if not path.exists():
        data = np.random.default_rng(1).integers(0, 256, (_RECORDS, _RECORD), np.uint8)
        data.tofile(path)
        _settled(path)
    yield {"path": str(path)}


class _OneByOne:
    """A dataset as it is usually written."""

    def __init__(self, read: Callable[[int], Any]) -> None:
        self._read = read

    def __len__(self) -> int:
        return _RECORDS

    def __getitem__(self, index: int) -> Any:
        return self._read(index)


class _Fancy(_OneByOne):
    """One that indexes a mapping by all indices of a batch."""

    def __getitems__(self, indices: list[int]) -> Any:
        return self._read(indices)  # type: ignore[arg-type]


def _mapped(place: Place) -> Any:
    return np.memmap(place["path"], np.uint8, "r", shape=(_RECORDS, _RECORD))


def _loaded(dataset: Any, collate: Any, count: int) -> int:
    """Read `count` records in an order that is the same for all; a sum of some of their bytes."""
    import torch
    from torch.utils.data import DataLoader

    order = torch.randperm(_RECORDS, generator=torch.Generator().manual_seed(1))[:count].tolist()
    loader = DataLoader(dataset, _BATCH, sampler=order, num_workers=_WORKERS, collate_fn=collate)
    return sum(int(batch[:, 17].sum()) for batch in loader)


def _by_rangeio(count: int, place: Place) -> int:
    import torch

    from rangeio.adapters.torch import RecordDataset, collate

    return _loaded(RecordDataset(place["path"], dtype=torch.uint8, shape=(_RECORD,)), collate, count)


def _by_rangeio_items(count: int, place: Place) -> int:
    import torch

    from rangeio.adapters.torch import RecordDataset

    return _loaded(RecordDataset(place["path"], dtype=torch.uint8, shape=(_RECORD,)), None, count)


def _by_memmap(count: int, place: Place) -> int:
    import torch

    rows = _mapped(place)
    return _loaded(_OneByOne(lambda index: torch.from_numpy(np.array(rows[index]))), None, count)


def _by_fancy_memmap(count: int, place: Place) -> int:
    import torch

    rows = _mapped(place)
    return _loaded(_Fancy(lambda indices: torch.from_numpy(rows[indices])), lambda batch: batch, count)


def _by_pread(count: int, place: Place) -> int:
    import torch

    fd = os.open(place["path"], os.O_RDONLY)
    try:

        def read(index: int) -> Any:
            return torch.frombuffer(bytearray(os.pread(fd, _RECORD, index * _RECORD)), dtype=torch.uint8)

        return _loaded(_OneByOne(read), None, count)
    finally:
        os.close(fd)


def _settled(path: Path) -> None:
    """Pages that are not written yet cannot be dropped."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _loader_ways(count: int) -> tuple[Way, ...]:
    ways = {
        "rangeio collate": _by_rangeio,
        "rangeio": _by_rangeio_items,
        "np.memmap": _by_memmap,
        "np.memmap, fancy": _by_fancy_memmap,
        "os.pread": _by_pread,
    }
    return tuple(Way(name, partial(way, count), ("torch",)) for name, way in ways.items())


_MAPPED = ("np.memmap", "np.memmap, fancy", "os.pread")


# --- checkpoints ---------------------------------------------------------------------------------------------


def _layer(make: Callable[..., Any], layers: int) -> dict[str, Any]:
    """32 MiB each: matrices of 8 and 4 MiB, and vectors."""
    found = {}
    for layer in range(layers):
        for name, rows in {"up": 2048, "down": 2048, "gate": 1024, "q": 1024, "k": 1000, "v": 1000}.items():
            found[f"layers.{layer}.{name}"] = make(rows, 1024)
        for name in ("norm", "bias"):
            found[f"layers.{layer}.{name}"] = make(1024)
    return found


@contextmanager
def _checkpoint(layers: int, folder: Path) -> Iterator[Place]:
    import torch
    import torch.distributed.checkpoint as dcp

    path = folder / f"checkpoint-{layers}"
    if not (path / ".metadata").exists():
        random = torch.Generator().manual_seed(1)
        dcp.save(
            _layer(lambda *shape: torch.rand(shape, generator=random), layers),
            checkpoint_id=path,
            no_dist=True,
        )
        for file in path.iterdir():
            _settled(file)
    yield {"path": str(path), "layers": str(layers), "name": path.name}


@contextmanager
def _served(server: Any, layers: int, folder: Path) -> Iterator[Place]:
    with _checkpoint(layers, folder) as place, server(folder) as url:
        yield {**place, "endpoint": url.rpartition("/")[0], "url": url}


@cache
def _model(layers: int) -> dict[str, Any]:
    """What is loaded into: the memory of a model that exists, the same for all."""
    import torch

    return _layer(lambda *shape: torch.zeros(shape), layers)


def _filled(place: Place, reader: Any) -> float:
    import torch.distributed.checkpoint as dcp

    state = _model(int(place["layers"]))
    dcp.load(state, storage_reader=reader, no_dist=True)
    return float(sum(tensor.view(-1)[-1] for tensor in state.values()))


def _dcp_by_rangeio(place: Place) -> float:
    from rangeio.adapters.torch import DcpReader

    return _filled(place, DcpReader(place["path"]))


def _dcp_by_torch(place: Place) -> float:
    from torch.distributed.checkpoint import FileSystemReader

    return _filled(place, FileSystemReader(place["path"]))


def _s3_by_rangeio(place: Place) -> float:
    from rangeio.adapters.torch import DcpReader

    where = f"s3://{servers.BUCKET}/{place['name']}"
    options = {
        "endpoint_url": place["endpoint"],
        "region": "us-east-1",
        "anonymous": True,
        "addressing": "path",
    }
    return _filled(place, DcpReader(where, **options))


def _s3_by_connector(place: Place) -> float:
    from s3torchconnector import S3ClientConfig, S3ReaderConstructor
    from s3torchconnector._s3client import S3Client
    from s3torchconnector.dcp import S3StorageReader
    from s3torchconnector.dcp.s3_file_system import S3FileSystem

    config = S3ClientConfig(unsigned=True, force_path_style=True)
    client = S3Client("us-east-1", endpoint=place["endpoint"], s3client_config=config)
    ways = S3ReaderConstructor.dcp_optimized()  # its default
    where = f"s3://{servers.BUCKET}/{place['name']}/"
    reader = S3StorageReader("us-east-1", where, config, reader_constructor=ways)
    reader.fs = S3FileSystem("us-east-1", s3_client=client, reader_constructor=ways)
    reader.path = reader.fs.init_path(where)
    return _filled(place, reader)


def _s3_by_fsspec(place: Place) -> float:
    from torch.distributed.checkpoint._fsspec_filesystem import FsspecReader

    options = {
        "anon": True,
        "endpoint_url": place["endpoint"],
        "config_kwargs": {"s3": {"addressing_style": "path"}},
    }
    return _filled(place, FsspecReader(f"s3://{servers.BUCKET}/{place['name']}", **options))


_DCP = "torch.distributed.checkpoint"
_RANGEIO = Way("rangeio DcpReader", _s3_by_rangeio, (_DCP,))
_CONNECTOR = Way("s3torchconnector", _s3_by_connector, (_DCP, "s3torchconnector", "tenacity"))
_FSSPEC = Way("torch FsspecReader, s3fs", _s3_by_fsspec, (_DCP, "s3fs"))


def _counted(place: Place) -> tuple[int, int]:
    return servers.counted(place["endpoint"])


JOBS = (
    Job(
        "dataloader-cold",
        "DataLoader, 4 workers, batches of 256 records of 4 KiB at random, cold; with the start of the workers",
        _loader_ways(32_768),
        _records,
        (Limit("time", 0.5, _MAPPED),),
        before=page_cache.cold,
        same=lambda one, other: bool(one == other),
    ),
    Job(
        "dataloader-hot",
        "the same, cached, four times as many",
        _loader_ways(_RECORDS),
        _records,
        (Limit("time", 1 / 1.2, _MAPPED),),
        before=page_cache.hot,
        same=lambda one, other: bool(one == other),
    ),
    Job(
        "dcp-local-cold",
        "a distributed checkpoint of 1 GiB, local, cold, into tensors that exist",
        (
            Way("rangeio DcpReader", _dcp_by_rangeio, (_DCP,)),
            Way("torch FileSystemReader", _dcp_by_torch, (_DCP,)),
        ),
        partial(_checkpoint, _LAYERS),
        (
            Limit("time", 1.0, ("torch FileSystemReader",)),
            Limit("cpu", 0.6, ("torch FileSystemReader",)),
        ),
        before=page_cache.cold,
        same=lambda one, other: bool(one == other),
    ),
    Job(
        "dcp-s3-near",
        "the same from S3 on nginx",
        (_RANGEIO, _CONNECTOR),
        partial(_served, servers.near, _LAYERS),
        (Limit("time", 0.95, (_CONNECTOR.name,)), Limit("cpu", 0.7, (_CONNECTOR.name,))),
        same=lambda one, other: bool(one == other),
    ),
    Job(
        "dcp-s3-far",
        "the same from S3 that is far",
        (_RANGEIO, _CONNECTOR),
        partial(_served, servers.far, _LAYERS),
        (Limit("time", 1.0, (_CONNECTOR.name,)),),
        same=lambda one, other: bool(one == other),
        counted=_counted,
    ),
    Job(
        "dcp-s3-far-small",
        "64 MiB from S3 that is far: torch's own reader takes minutes for more",
        (_RANGEIO, _FSSPEC),
        partial(_served, servers.far, 2),
        (Limit("time", 0.1, (_FSSPEC.name,)),),
        same=lambda one, other: bool(one == other),
        counted=_counted,
        warm_up=False,
    ),
)
