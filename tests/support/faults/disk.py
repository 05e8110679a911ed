"""Files on loop devices whose blocks cannot be read: the kernel itself answers EIO. Needs root, mkfs and loop."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .data import pattern
from .machine import need, need_root_and

FILE_BYTES = 4 << 20
BLOCK = 4096


def command(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)


@contextmanager
def mounted(image: Path, point: Path) -> Iterator[Path]:
    """The image's file system at `point`; where the kernel has no loop device or file system, a skip."""
    point.mkdir(exist_ok=True)
    result = command("mount", "-o", "loop", image, point)
    need(result.returncode == 0, f"mount -o loop: {result.stderr.strip()}")
    try:
        yield point
    finally:
        if command("umount", point).returncode:
            command("umount", "-l", point)


def make_image(folder: Path, *mkfs: str, nbytes: int) -> Path:
    need_root_and(mkfs[0], "mount", "losetup")
    need(os.path.exists("/dev/loop-control"), "needs loop devices")
    image = folder / "image"
    with image.open("wb") as file:
        file.truncate(nbytes)
    result = command(*mkfs, image)
    assert result.returncode == 0, result.stderr
    with mounted(image, folder / "mount") as point:
        (point / "data").write_bytes(pattern(0, FILE_BYTES))
        with (point / "data").open("rb+") as file:
            os.fsync(file.fileno())
    return image


@contextmanager
def flipped_block(folder: Path, bad: int) -> Iterator[Path]:
    """A btrfs file whose block at offset `bad` fails its checksum: EIO there and nowhere else."""
    image = make_image(folder, "mkfs.btrfs", "-q", "-d", "single", nbytes=128 << 20)
    with image.open("rb+") as file:
        content = file.read()
        place = content.find(pattern(bad, bad + BLOCK))
        assert place > 0, "the block is not stored as it is"
        file.seek(place + 100)
        file.write(bytes(byte ^ 0xFF for byte in content[place + 100 : place + 108]))
        os.fsync(file.fileno())
    with mounted(image, folder / "mount") as point:
        yield point / "data"


@contextmanager
def cut_image(folder: Path) -> Iterator[Path]:
    """An ext4 file whose device ends under it: EIO from some offset on."""
    image = make_image(folder, "mkfs.ext4", "-q", "-F", nbytes=32 << 20)
    content = image.read_bytes()
    middle = content.find(pattern(FILE_BYTES // 2, FILE_BYTES // 2 + BLOCK))
    assert middle > 0, "the block is not stored as it is"
    with mounted(image, folder / "mount") as point:
        os.stat(point / "data")
        os.truncate(image, middle)
        yield point / "data"
