"""Models in safetensors files: all of a file, hot and cold, a tenth of its tensors, one tensor from far away.

All pages of the result are touched: a mapping alone has read nothing yet. What a process loads first goes to memory
that the kernel has to provide, which takes longer than a copy from the page cache: `first` measures that, in a child
for each run. In the other jobs, those who keep memory for the next load have it.
"""

import json
import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rangeio_bench.jobs import page_cache, servers
from rangeio_bench.jobs.job import Job, Limit, Place, Way

_LAYERS, _HIDDEN, _INNER = 32, 1536, 4096
_BLOCK = 32 << 20
_PAGE = 4096


def _shapes(layers: int, words: int) -> dict[str, tuple[int, ...]]:
    """The tensors of a transformer, nine a layer."""
    found: dict[str, tuple[int, ...]] = {"embed.weight": (words, _HIDDEN), "head.weight": (words, _HIDDEN)}
    for number in range(layers):
        shapes = [(_HIDDEN, _HIDDEN)] * 4 + [(_INNER, _HIDDEN)] * 2 + [(_HIDDEN, _INNER)] + [(_HIDDEN,)] * 2
        names = ("q", "k", "v", "o", "gate", "up", "down", "norm1", "norm2")
        found |= {f"layers.{number:02}.{name}": shape for name, shape in zip(names, shapes, strict=True)}
    return found


def _written(path: Path, layers: int, words: int) -> Path:
    """A file of F16 tensors, made when it is first asked for."""
    header, at = {}, 0
    for name, shape in sorted(_shapes(layers, words).items()):
        nbytes = 2 * int(np.prod(shape))
        header[name] = {"dtype": "F16", "shape": [*shape], "data_offsets": [at, at + nbytes]}
        at += nbytes
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)
    if not path.exists() or path.stat().st_size != 8 + len(raw) + at:
        block = np.random.default_rng(7).bytes(_BLOCK + (1 << 20))
        with path.open("wb") as file:
            file.write(len(raw).to_bytes(8, "little") + raw)
            for number, start in enumerate(range(0, at, _BLOCK)):
                shift = number * 997 % (1 << 20)
                file.write(memoryview(block)[shift:][: min(_BLOCK, at - start)])
            file.flush()
            os.fsync(file.fileno())
    return path


@contextmanager
def _large(folder: Path) -> Iterator[Place]:
    """2.17 GiB, 290 tensors."""
    yield {"path": str(_written(folder / "model.safetensors", _LAYERS, 84_000))}


@contextmanager
def _far(folder: Path) -> Iterator[Place]:
    """125 MB, 20 tensors."""
    _written(folder / "small.safetensors", 2, 2_000)
    with servers.far(folder) as url:
        yield {"url": f"{url}/small.safetensors", "base": url}


def _tenth() -> list[str]:
    """Of each fifth layer the tensors q to o and one more: a tenth of the bytes or so."""
    return [
        f"layers.{number:02}.{name}" for number in range(0, _LAYERS, 5) for name in ("q", "k", "v", "o", "up")
    ]


def _touched(tensors: Any) -> dict[str, Any]:
    """The tensors, with every page read."""
    import torch

    found = dict(tensors)
    for tensor in found.values():
        int(tensor.reshape(-1).view(torch.uint8)[::_PAGE].max())
    return found


class _Closing(dict[str, Any]):
    """Tensors whose memory is freed by a call when they are dropped."""


def _by_rangeio(place: Place, names: Any = None, **options: Any) -> Any:
    from rangeio.adapters.safetensors import load_file

    return _touched(load_file(place["path"], names=names, **options))


def _by_package(place: Place, names: Any = None, backend: str = "mmap") -> Any:
    from safetensors import safe_open

    with safe_open(place["path"], framework="pt", backend=backend) as file:
        return _touched((name, file.get_tensor(name)) for name in names or file.offset_keys())


def _by_runai(place: Place) -> Any:
    from runai_model_streamer import SafetensorsStreamer

    with SafetensorsStreamer() as streamer:
        streamer.stream_file(place["path"])
        return _touched(streamer.get_tensors())


def _by_fast(place: Place) -> Any:
    from fastsafetensors import SafeTensorsFileLoader, SingleGroup

    loader = SafeTensorsFileLoader(SingleGroup(), device="cpu", nogds=True)
    loader.add_filenames({0: [place["path"]]})
    files = loader.copy_files_to_device()
    found = _Closing(_touched((name, files.get_tensor(name)) for name in files.key_to_rank_lidx))
    weakref.finalize(found, files.close)
    weakref.finalize(found, loader.close)
    return found


def _one(place: Place) -> Any:
    from rangeio.adapters.safetensors import safe_open

    with safe_open(place["url"], framework="np") as file:
        return file.get_tensor("layers.01.k")


def _downloaded(place: Place) -> Any:
    """All of the file first, as the hub's own library does; by many connections, as obstore has them."""
    import obstore
    from safetensors.numpy import load

    store = obstore.store.HTTPStore.from_url(place["base"], client_options={"allow_http": True})
    size = obstore.head(store, "small.safetensors")["size"]
    starts = [*range(0, size, 8 << 20)]
    parts = obstore.get_ranges(
        store, "small.safetensors", starts=starts, ends=[min(size, start + (8 << 20)) for start in starts]
    )
    return load(b"".join(bytes(part) for part in parts))["layers.01.k"]


def _same(one: Any, other: Any) -> bool:
    """Equal in names and bytes."""
    if not isinstance(one, dict):
        return bool(np.array_equal(one.view("u2"), other.view("u2")))
    import torch

    return one.keys() == other.keys() and all(
        torch.equal(one[name].view(torch.int16), other[name].view(torch.int16)) for name in one
    )


_OURS = ("torch", "rangeio.adapters.safetensors")
_WHOLE = (
    Way("rangeio", _by_rangeio, _OURS),
    Way("rangeio direct", partial(_by_rangeio, direct=True), _OURS),
    Way("safetensors mmap", _by_package, ("torch", "safetensors")),
    Way("safetensors pread", partial(_by_package, backend="pread"), ("torch", "safetensors")),
    Way("runai", _by_runai, ("torch", "runai_model_streamer")),
    Way("fastsafetensors", _by_fast, ("torch", "fastsafetensors")),
)
_TENTH = (
    Way("rangeio", lambda place: _by_rangeio(place, _tenth()), _OURS),
    Way("rangeio direct", lambda place: _by_rangeio(place, _tenth(), direct=True), _OURS),
    Way("safetensors mmap", lambda place: _by_package(place, _tenth()), ("torch", "safetensors")),
    Way("safetensors pread", lambda place: _by_package(place, _tenth(), "pread"), ("torch", "safetensors")),
)
_OWN = ("safetensors mmap", "safetensors pread")
_ALL = (*_OWN, "runai", "fastsafetensors")

_HOT = tuple(way for way in _WHOLE if way.name != "safetensors mmap")
_COPYING = ("safetensors pread", "runai", "fastsafetensors")

JOBS = (
    Job(
        "safetensors-cold",
        "safetensors, 2.17 GiB, not in the page cache, all pages touched",
        _WHOLE,
        _large,
        (Limit("time", 1.0, _ALL), Limit("time", 0.65, _OWN)),
        before=page_cache.cold,
        same=_same,
    ),
    Job(
        "safetensors-hot",
        "the same, in the page cache, into own memory",
        _HOT,
        _large,
        (Limit("time", 0.7, _COPYING),),
        before=page_cache.hot,
        same=_same,
    ),
    Job(
        "safetensors-first",
        "the same, the first load of a process",
        _HOT,
        _large,
        (Limit("time", 1.0, _COPYING), Limit("memory", 1.05 * 2.33e9)),
        before=page_cache.hot,
        child=True,
        warm_up=False,
    ),
    Job(
        "safetensors-tenth-cold",
        "a tenth of the tensors, not in the page cache",
        _TENTH,
        _large,
        (Limit("time", 0.8, _OWN),),
        before=page_cache.cold,
        same=_same,
    ),
    Job(
        "safetensors-far-tensor",
        "one tensor of 4.7 MB of a file of 125 MB, far away",
        (
            Way("rangeio", _one, ("rangeio.adapters.safetensors",)),
            Way("obstore, all of it", _downloaded, ("obstore", "safetensors")),
        ),
        _far,
        (Limit("time", 0.8, ("obstore, all of it",)), Limit("bytes", 5e6), Limit("requests", 3)),
        same=_same,
        counted=lambda place: servers.counted(place["url"]),
    ),
)
