"""The files that are read: created once, with random bytes, never overwritten."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from rangeio.cli.sizes import size_text
from rangeio_bench.work import SEED, SMALL_FILE, Work

Tick = Callable[[float], None]
"""Called with the completed share, 0.0 to 1.0."""

_STEP = 8 << 20


class SampleError(Exception):
    """The sample cannot be created without overwriting a file, or there is not enough space."""


def ensure_file(path: Path, size: int | None, tick: Tick) -> int:
    """Create `path` with `size` random bytes (1 GiB if None) unless it exists. Returns its size.

    An existing file is used if `size` is None or equal, and refused otherwise, because it may contain user data.
    """
    if path.exists():
        if not path.is_file():
            raise SampleError(f"{path} is not a regular file")
        found = path.stat().st_size
        if size is not None and found != size:
            raise SampleError(
                f"{path} exists with {found} bytes, not {size}; choose another file or omit --size"
            )
        return found
    size = 1 << 30 if size is None else size
    free = shutil.disk_usage(path.resolve().parent).free
    if free < size + (size >> 3):
        raise SampleError(f"{path} needs {size_text(size)}, but only {size_text(free)} are free")
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
            # Dirty pages cannot be dropped from the cache, and a device that writes back reads slowly.
            os.fsync(file.fileno())
        except BaseException:
            path.unlink()  # created here: an incomplete sample would be taken for a complete one next time
            raise


def ensure_small_files(work: Work, tick: Tick) -> None:
    """Create the missing files of `work`. An existing file of another size is refused, not replaced."""
    missing = []
    for name in work.names:
        path = work.path / name
        if not path.exists():
            missing.append(path)
        elif path.stat().st_size != SMALL_FILE:
            raise SampleError(
                f"{path} exists, but does not have {SMALL_FILE} bytes; remove it or choose another file"
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
