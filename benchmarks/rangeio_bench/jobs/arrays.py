"""Arrays of zarr, by the stores that zarr has and by rangeio's, and by tensorstore, which is not zarr-python.

Needs zarr 3, and for the peers obstore, fsspec, s3fs (which pip may not install beside the newest boto3), tensorstore.
With zarr 3.4 (Python 3.12) the jobs that are called fused use its FusedCodecPipeline; before, they are as the others.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from rangeio_bench.jobs.job import Job, Limit, Place, Way
from rangeio_bench.jobs.servers import BUCKET, counted, far, near

SIDE, CHUNK, SHARD = 512, 32, 256
"""512 MiB as 4,096 chunks of 128 KiB, plain and in 8 shards."""
NAME = "arrays.zarr"
CONCURRENCY = 64
_FUSED = "zarr.core.codec_pipeline.FusedCodecPipeline"


def _array(root: Path, name: str, **layout: Any) -> None:
    """Write it, unless a run before has done so. The last file written tells that it is whole."""
    import zarr

    whole = root / f"{name}.whole"
    if whole.exists():
        return
    rng = np.random.default_rng(7)
    shape = (SIDE, SIDE, SIDE)
    array = zarr.create_array(
        str(root), name=name, shape=shape, dtype="f4", compressors=None, overwrite=True, **layout
    )
    for start in range(0, SIDE, SHARD):
        array[start : start + SHARD] = rng.random((SHARD, SIDE, SIDE), dtype="f4")
    whole.touch()


@contextmanager
def _files(folder: Path) -> Iterator[Place]:
    root = folder / NAME
    chunk, shard = (CHUNK,) * 3, (SHARD,) * 3
    _array(root, "plain", chunks=chunk)
    _array(root, "sharded", chunks=chunk, shards=shard)
    yield {"root": str(root)}


@contextmanager
def _served(folder: Path, serve: Callable[[Path], Any]) -> Iterator[Place]:
    with _files(folder), serve(folder) as url:
        parts = urlsplit(url)
        yield {"url": url, "endpoint": f"{parts.scheme}://{parts.netloc}"}


# --- the stores ----------------------------------------------------------------------------------------------


def _ours(place: Place) -> Any:
    from rangeio.adapters.zarr import ZarrStore

    if "root" in place:
        return ZarrStore(place["root"])
    return ZarrStore(
        f"s3://{BUCKET}/{NAME}",
        endpoint_url=place["endpoint"],
        region="us-east-1",
        anonymous=True,
        addressing="path",
    )


def _local(place: Place) -> Any:
    from zarr.storage import LocalStore

    return LocalStore(place["root"], read_only=True)


def _fsspec(place: Place) -> Any:
    from zarr.storage import FsspecStore

    if "root" in place:
        return FsspecStore.from_url(f"file://{place['root']}", read_only=True)
    options = {"anon": True, "client_kwargs": {"endpoint_url": place["endpoint"]}}
    return FsspecStore.from_url(f"s3://{BUCKET}/{NAME}", storage_options=options, read_only=True)


def _obstore(place: Place) -> Any:
    from obstore.store import LocalStore, S3Store
    from zarr.storage import ObjectStore

    if "root" in place:
        return ObjectStore(LocalStore(place["root"]), read_only=True)
    store = S3Store(
        BUCKET,
        prefix=NAME,
        endpoint=place["endpoint"],
        region="us-east-1",
        skip_signature=True,
        client_options={"allow_http": True},
    )
    return ObjectStore(store, read_only=True)


def _tensorstore(place: Place, name: str) -> Any:
    import tensorstore

    if "root" in place:
        kvstore: Any = {"driver": "file", "path": f"{place['root']}/{name}"}
    else:
        kvstore = {
            "driver": "s3",
            "bucket": BUCKET,
            "path": f"{NAME}/{name}/",
            "endpoint": place["endpoint"],
            "aws_region": "us-east-1",
            "aws_credentials": {"type": "anonymous"},
        }
    return tensorstore.open({"driver": "zarr3", "kvstore": kvstore}, read=True).result()


# --- what is read --------------------------------------------------------------------------------------------


def _all(read: Callable[[tuple[slice, ...]], Any], planes: int) -> Any:
    return read((slice(0, planes),))


def _boxes(read: Callable[[tuple[slice, ...]], Any], count: int, side: int, step: int) -> float:
    """The sum of the first values of boxes at random."""
    dice = np.random.default_rng(3)
    total = 0.0
    for corner in dice.integers(0, (SIDE - side) // step + 1, (count, 3)) * step:
        box = read(tuple(slice(start, start + side) for start in corner.tolist()))
        total += float(box[0, 0, 0]) + float(box[-1, -1, -1])
    return total


Work = Callable[[Callable[[tuple[slice, ...]], Any]], Any]


def _by_zarr(place: Place, store: Callable[[Place], Any], name: str, work: Work, fused: bool) -> Any:
    import zarr

    pipeline = (
        {"codec_pipeline.path": _FUSED}
        if fused and hasattr(zarr.core.codec_pipeline, "FusedCodecPipeline")
        else {}
    )
    with zarr.config.set({"async.concurrency": CONCURRENCY, **pipeline}):
        array = zarr.open_array(store(place), path=name, mode="r")
        return work(array.__getitem__)


def _by_tensorstore(place: Place, name: str, work: Work) -> Any:
    array = _tensorstore(place, name)
    return work(lambda box: array[box].read().result())


def _ways(name: str, work: Work, *, local: bool, fused: bool = False) -> tuple[Way, ...]:
    stores: list[tuple[str, Callable[[Place], Any], tuple[str, ...]]] = [
        ("rangeio", _ours, ("zarr",)),
        ("obstore", _obstore, ("zarr", "obstore")),
        ("fsspec", _fsspec, ("zarr", "fsspec", *(() if local else ("s3fs",)))),
    ]
    if local:
        stores.insert(1, ("LocalStore", _local, ("zarr",)))
    found = [
        Way(way, partial(_by_zarr, store=store, name=name, work=work, fused=fused), needs)
        for way, store, needs in stores
    ]
    last = Way("tensorstore", partial(_by_tensorstore, name=name, work=work), ("tensorstore", "zarr"))
    return (*found, last)


def _equal(one: Any, other: Any) -> bool:
    return bool(np.array_equal(one, other))


def _job(id: str, title: str, name: str, work: Work, limits: tuple[Limit, ...], **how: Any) -> Job:
    serve = how.get("serve")
    return Job(
        id=id,
        title=title,
        ways=_ways(name, work, local=serve is None, fused=how.get("fused", False)),
        place=_files if serve is None else partial(_served, serve=serve),
        limits=limits,
        same=_equal,
        counted=(lambda place: counted(place["url"])) if serve is far else None,
    )


_FULL, _QUARTER = partial(_all, planes=SIDE), partial(_all, planes=SIDE // 4)
_CHUNKS = partial(_boxes, count=200, side=CHUNK, step=CHUNK)
_SLABS = partial(_boxes, count=10, side=80, step=1)
_STORES = ("LocalStore", "obstore", "fsspec")

JOBS = (
    _job("zarr-local", "local, 4,096 chunks", "plain", _FULL, (Limit("time", 0.65, _STORES),)),
    _job("zarr-chunk", "local, 200 chunks at random", "plain", _CHUNKS, (Limit("time", 0.8, _STORES),)),
    _job("zarr-in-shard", "local, 200 chunks of shards", "sharded", _CHUNKS, (Limit("time", 0.8, _STORES),)),
    _job(
        "zarr-fused", "local, 4,096 chunks, fused", "plain", _FULL, (Limit("time", 1.0, _STORES),), fused=True
    ),
    _job(
        "zarr-fused-in-shard",
        "local, 200 chunks of shards, fused",
        "sharded",
        _CHUNKS,
        (Limit("time", 0.9, _STORES),),
        fused=True,
    ),
    _job(
        "zarr-far", "S3 far, 1,024 chunks", "plain", _QUARTER, (Limit("time", 0.9, ("obstore",)),), serve=far
    ),
    _job(
        "zarr-near", "S3 near, 4,096 chunks", "plain", _FULL, (Limit("time", 0.9, ("obstore",)),), serve=near
    ),
    _job(
        "zarr-slabs",
        "S3 far, 10 slabs of 80^3 of shards",
        "sharded",
        _SLABS,
        (Limit("time", 0.75, ("obstore",)),),
        serve=far,
    ),
)
