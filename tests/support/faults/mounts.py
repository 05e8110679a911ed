"""File systems of each kind that reads are made on, mounted for a while. Needs root.

Run as a program, ``mounts.py MOUNTPOINT FOLDER``, it serves the files of a folder over FUSE.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from faults.disk import command, make_image, mounted
from faults.fuse import Folder
from faults.machine import SUPPORT, need, need_root_and

MKFS = {
    "ext4": (("mkfs.ext4", "-q", "-F"), 64 << 20),
    "xfs": (("mkfs.xfs", "-q"), 320 << 20),
    "btrfs": (("mkfs.btrfs", "-q"), 128 << 20),
}
IN_MEMORY = ("tmpfs", "ramfs")
OVER = ("overlay over ext4", "overlay over tmpfs")
KINDS = (*MKFS, *IN_MEMORY, *OVER, "fuse")


@contextmanager
def mount(*words: object) -> Iterator[None]:
    """`mount WORDS`, the last of which is the mountpoint; a skip where the kernel does not have it."""
    result = command("mount", *words)
    need(result.returncode == 0, f"mount {' '.join(map(str, words))}: {result.stderr.strip()}")
    try:
        yield
    finally:
        if command("umount", words[-1]).returncode:
            command("umount", "-l", words[-1])


@contextmanager
def overlay(below: Path, point: Path, writable: Path) -> Iterator[Path]:
    """What is in `below`, and in `writable` what is made in it."""
    upper, work = writable / "upper", writable / "work"
    for folder in (upper, work, point):
        folder.mkdir(exist_ok=True)
    with mount("-t", "overlay", "overlay", "-o", f"lowerdir={below},upperdir={upper},workdir={work}", point):
        yield point


@contextmanager
def file_system(kind: str, folder: Path) -> Iterator[tuple[Path, Path]]:
    """Where to make files, and where they are then to be read."""
    need_root_and("mount")
    with ExitStack() as stack:
        point = folder / "mounted"
        point.mkdir()
        if kind in MKFS:
            mkfs, nbytes = MKFS[kind]
            stack.enter_context(mounted(make_image(folder, *mkfs, nbytes=nbytes), point))
        elif kind in IN_MEMORY:
            stack.enter_context(mount("-t", kind, kind, point))
        elif kind == "fuse":
            point = stack.enter_context(served(folder, point))
        else:
            below, _ = stack.enter_context(file_system(kind.split()[-1], point))
            lower = below / "lower"
            lower.mkdir()
            (lower / "below").write_bytes(bytes(range(256)) * 4096)
            point = stack.enter_context(overlay(lower, folder / "overlay", below))
        yield (folder if kind == "fuse" else point), point


@contextmanager
def served(folder: Path, point: Path) -> Iterator[Path]:
    need(os.access("/dev/fuse", os.R_OK | os.W_OK), "needs /dev/fuse")
    words = [sys.executable, str(Path(__file__).resolve()), str(point), str(folder)]
    environ = {**os.environ, "PYTHONPATH": str(SUPPORT)}
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environ)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield point
    finally:
        command("umount", "-l", point)
        process.communicate(timeout=30)


class Names(list[str]):
    """The files of a folder, numbered as they are asked for."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.folder = folder

    def __contains__(self, name: object) -> bool:
        if not super().__contains__(name) and os.path.isfile(f"{self.folder}/{name}"):
            self.append(str(name))
        return super().__contains__(name)


def serve(mountpoint: str, folder: str) -> None:
    def told(name: str) -> int:
        return os.stat(f"{folder}/{name}").st_size

    def read(name: str, size: int, offset: int) -> bytes:
        with open(f"{folder}/{name}", "rb") as file:
            return os.pread(file.fileno(), size, offset)

    Folder(mountpoint, Names(folder), told, read).serve(lambda: print("ready", flush=True))


if __name__ == "__main__":
    serve(*sys.argv[1:])
