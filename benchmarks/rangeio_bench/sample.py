"""The files that are read: made once, of random bytes, never overwritten."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from rangeio.cli.sizes import size_text
from rangeio_bench.work import SEED, SMALL_FILE, Work

Tick = Callable[[float], None]
"""Called with the part done, 0.0 to 1.0."""

_STEP = 8 << 20


class SampleError(Exception):
    """The sample cannot be had without destroying something, or without room for it."""


def ensure_file(path: Path, size: int | None, tick: Tick) -> int:
    """Make `path` with `size` random bytes (1 GiB if None) unless it is there; its size.

    A file that is there is used as it is if `size` is None or equal, and refused otherwise: it may be someone's data.
    """
    if path.exists():
        if not path.is_file():
            raise SampleError(f"{path} is not a regular file")
        found = path.stat().st_size
        if size is not None and found != size:
            raise SampleError(
                f"{path} is there with {found} bytes, not {size}; name another file or leave --size out"
            )
        return found
    size = 1 << 30 if size is None else size
    free = shutil.disk_usage(path.resolve().parent).free
    if free < size + (size >> 3):
        raise SampleError(f"{size_text(size)} wanted for {path}, {size_text(free)} free")
    _write(path, size, tick)
    return size


def _write(path: Path, size: int, tick: Tick) -> None:
    random = np.random.default_rng(SEED)
    with open(path, "xb", buffering=0) as file:
        try:
            for offset in range(0, size, _STEP):
                left = memoryview(random.bytes(min(_STEP, size - offset)))
                while left:
                    left = left[file.write(left) :]
                tick(offset / size)
            # Dirty pages cannot be dropped from the cache, and a device busy writing back is slow to read.
            os.fsync(file.fileno())
        except BaseException:
            path.unlink()  # ours, made a moment ago: half a sample would be taken for a whole one next time
            raise


def ensure_small_files(work: Work, tick: Tick) -> None:
    """Make the files of `work` that are not there. One of another size is refused, not replaced."""
    missing = []
    for name in work.names:
        path = work.path / name
        if not path.exists():
            missing.append(path)
        elif path.stat().st_size != SMALL_FILE:
            raise SampleError(
                f"{path} is there, but not with {SMALL_FILE} bytes; remove it or name another file"
            )
    if not missing:
        return
    random = np.random.default_rng(SEED)
    for folder in {path.parent for path in missing}:
        folder.mkdir(parents=True, exist_ok=True)
    for number, path in enumerate(missing):
        with open(path, "xb") as file:
            file.write(random.bytes(SMALL_FILE))
        if number % 256 == 0:
            tick(number / len(missing))
    os.sync()
