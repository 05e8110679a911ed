"""A copy of the sample on other file systems: in memory, and below an overlay as that of a container."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

PLACES = ("", "tmpfs", "overlay")
_BYTES = 64 << 20
_SHARED_MEMORY = Path("/dev/shm")


class PlaceError(Exception):
    """There can be no such file here; the message says why."""


class Places:
    """Copies of the first 64 MiB of a file, each made when it is first asked for."""

    def __init__(self, sample: Path) -> None:
        self._sample = sample
        self._made = ExitStack()
        self._paths: dict[str, Path | PlaceError] = {}

    def path(self, place: str) -> Path:
        """Where the copy is. PlaceError where there is none."""
        if place not in self._paths:
            make: Callable[[], Path] = {"tmpfs": self._in_memory, "overlay": self._under_overlay}[place]
            try:
                self._paths[place] = make()
            except PlaceError as error:
                self._paths[place] = error
        found = self._paths[place]
        if isinstance(found, PlaceError):
            raise found
        return found

    def close(self) -> None:
        """Remove what was made."""
        self._paths.clear()
        self._made.close()

    def _folder(self, parent: Path) -> Path:
        return Path(
            self._made.enter_context(tempfile.TemporaryDirectory(prefix="rangeio-bench-", dir=parent))
        )

    def _copy(self, folder: Path) -> Path:
        with open(self._sample, "rb") as source, open(folder / "sample", "xb") as copy:
            copy.write(source.read(_BYTES))
            copy.flush()
            os.fsync(copy.fileno())  # what is dirty is not read as what is clean
        return folder / "sample"

    def _in_memory(self) -> Path:
        if not _SHARED_MEMORY.is_dir() or shutil.disk_usage(_SHARED_MEMORY).free < 2 * _BYTES:
            raise PlaceError(f"needs {_SHARED_MEMORY} with {_BYTES >> 20} MiB free")
        return self._copy(self._folder(_SHARED_MEMORY))

    def _under_overlay(self) -> Path:
        if os.geteuid() != 0:
            raise PlaceError("needs root, to mount an overlay")
        folder = self._folder(self._sample.resolve().parent)
        below, empty, point = (folder / name for name in ("below", "empty", "overlay"))
        for made in (below, empty, point):
            made.mkdir()
        self._copy(below)
        words = ["mount", "-t", "overlay", "overlay", "-o", f"lowerdir={below}:{empty}", str(point)]
        result = subprocess.run(words, capture_output=True, text=True, check=False)
        if result.returncode:
            raise PlaceError(f"mount of an overlay: {result.stderr.strip()}")
        self._made.callback(subprocess.run, ["umount", "-l", str(point)], check=False)
        return point / "sample"
