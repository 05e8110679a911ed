"""Descriptors for the pure-Python backend: open, identify, read by position."""

import errno
import os
import stat
import time
from collections.abc import Callable

from _uring.errors import make_error
from _uring.records import FileStat

# Maximum bytes of one read(2) on Linux, on any word size; the kernel shortens larger reads.
_READ_MAX = 0x7FFFF000
# Bytes of one call of posix_fadvise.
_AHEAD = 128 << 10
# Maximum retries after EAGAIN, one per millisecond.
_PATIENCE = 1000
_OPEN_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_NONBLOCK", 0)  # so that a FIFO without a writer does not block
    | getattr(os, "O_BINARY", 0)
)
_SYNTHETIC = frozenset(
    [
        "binfmt_misc",
        "bpf",
        "cgroup",
        "cgroup2",
        "configfs",
        "debugfs",
        "efivarfs",
        "fusectl",
        "proc",
        "pstore",
        "resctrl",
        "securityfs",
        "selinuxfs",
        "smackfs",
        "sysfs",
        "tracefs",
    ]
)


def read_into(fd: int, view: memoryview, offset: int) -> int:
    """Fill `view` from `offset`. Return the bytes read: fewer only at the end of the file. EINTR: PEP 475."""
    done = patience = 0
    while done < len(view):
        part = view[done : done + _READ_MAX]
        try:
            got = _read_once(fd, part, offset + done)
        except BlockingIOError:
            # For a regular file, only an unusual file system returns EAGAIN. It means: try again later.
            patience += 1
            if patience > _PATIENCE:
                raise
            time.sleep(0.001)
            continue
        if got == 0:
            break
        if got > len(part):  # written past the end of the memory, or never read at all
            raise OSError(errno.EIO, f"a read of {len(part)} bytes returned {got}")
        done += got
    return done


def _read_once(fd: int, part: memoryview, offset: int) -> int:
    if hasattr(os, "preadv"):
        return os.preadv(fd, [part], offset)
    data = pread(fd, len(part), offset)
    part[: len(data)] = data
    return len(data)


def pread(fd: int, limit: int, offset: int) -> bytes:
    if hasattr(os, "pread"):
        return os.pread(fd, limit, offset)
    from _uring.pure.windows import read_file

    return read_file(fd, limit, offset)


def will_need(fd: int, start: int, length: int, is_over: Callable[[], bool]) -> None:
    """Have the kernel read ahead; it does so by at most the read-ahead of the device a call, often 128 KiB."""
    if not hasattr(os, "posix_fadvise"):  # macOS, Windows
        return
    for at in range(start, start + length, _AHEAD):
        if is_over():
            return
        try:
            os.posix_fadvise(fd, at, min(_AHEAD, start + length - at), os.POSIX_FADV_WILLNEED)
        except OSError:
            return


def open_descriptor(path: str) -> int:
    try:
        fd = os.open(path, _OPEN_FLAGS)
        if hasattr(os, "set_blocking"):
            os.set_blocking(fd, True)
        return fd
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise make_error(
                "unsupported", path=path, detail="a socket, or a device node without a device"
            ) from error
        code = errno.EISDIR if os.name == "nt" and os.path.isdir(path) else error.errno
        raise make_error("errno", code or errno.EIO, path) from error


def identify(fd: int, path: str) -> FileStat:
    """Stat the descriptor. Raises for anything that cannot be read by position."""
    try:
        status = os.fstat(fd)
        mode = status.st_mode
        if stat.S_ISBLK(mode):
            # The times of a block device are those of its node, and say nothing about its content.
            return FileStat(_device_size(fd, path), 0, status.st_dev, status.st_ino)
    except OSError as error:
        raise make_error("errno", error.errno or errno.EIO, path) from error
    if stat.S_ISDIR(mode):
        raise make_error("errno", errno.EISDIR, path)
    if not stat.S_ISREG(mode):
        what = {stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}.get(
            stat.S_IFMT(mode), "a character device"
        )
        raise make_error(
            "unsupported", path=path, detail=f"{what} cannot be read by position; read it as a stream"
        )
    return FileStat(status.st_size, status.st_mtime_ns, status.st_dev, status.st_ino)


def is_synthetic(fd: int) -> bool:
    """Whether the file system generates the content on reading, so that size and time mean nothing."""
    status = os.fstat(fd)
    # Most files have blocks, so no look-up is needed; for an empty or sparse one it costs about 50 us.
    return getattr(status, "st_blocks", 1) == 0 and _filesystem(status.st_dev) in _SYNTHETIC


def has_bytes_past_size(fd: int) -> bool:
    """Whether there are bytes past st_size and the file has not just grown. Its size then means nothing.

    On a block-device file system the kernel itself ends reads at st_size. Others, such as FUSE and 9p, may pass reads
    on to a server that returns more. Size 0 may mean that the size is unknown.
    """
    size = -1
    status = os.fstat(fd)
    on_device = not hasattr(os, "major") or os.major(status.st_dev) != 0
    if not stat.S_ISREG(status.st_mode) or (status.st_size and on_device):
        return False
    while status.st_size > size:
        size = status.st_size
        try:
            if not pread(fd, 1, size):
                return False
        except OSError:  # recurs, and is reported, when the file is read
            return False
        status = os.fstat(fd)
    return True


def _device_size(fd: int, path: str) -> int:
    """The size of a block device, through a separate descriptor: the cursor of the caller's may be in use."""
    own = os.open(f"/proc/self/fd/{fd}" if os.path.exists("/proc/self/fd") else path, os.O_RDONLY)
    try:
        return os.lseek(own, 0, os.SEEK_END)
    finally:
        os.close(own)


def _filesystem(device: int) -> str:
    """The type of the file system with that device number; empty if not found. Source: proc_pid_mountinfo(5)."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as table:
            for line in table:
                mount, _, source = line.partition(" - ")
                major, _, minor = mount.split()[2].partition(":")
                if os.makedev(int(major), int(minor)) == device:
                    return source.split()[0]
    except OSError:
        pass
    return ""


def difference(pinned: FileStat, now: FileStat) -> str:
    before, after = pinned.size or 0, now.size or 0
    if after != before:
        return f"{'truncated' if after < before else 'grown'} from {before} to {after} bytes"
    return f"rewritten: still {after} bytes, but modified since it was opened"
