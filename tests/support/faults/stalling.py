"""A file system that stops short, fails, delays and stalls, as the name of the file says.

    plain           a pattern file of FILE_BYTES, as all are
    short-N         no read gives more than N bytes
    eio-N           a read that touches byte N fails with EIO
    slow-N          every read takes N milliseconds
    stall-N         a read that touches byte N waits until the server is told ``release``
    unsized-N       the same, and st_size says 0
    size-N          st_size says N
    wide-N          as stall-N, of three times FILE_BYTES

Run as a program: ``stalling.py MOUNTPOINT CONTENT``; one line of JSON for each event, one word on stdin for each order.
Every read reaches the server as it was asked (direct_io): the kernel keeps no page of these files.

A process that reads such a file by pread cannot be killed until the server answers, and a ring over a server without
asynchronous direct I/O waits inside io_uring_enter. A disk that stalls is another matter: `device`
makes a loop device of one of these files.
"""

import errno
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from faults.fuse import Folder

FILE_BYTES = 1 << 20
SIZES = (0, 1000, FILE_BYTES + 4000)
NAMES = (
    *("plain", "short-1000", "short-70000", "eio-500000", "slow-20", "stall-300000", "stall-700000"),
    *("unsized-300000", "wide-300000", *(f"size-{size}" for size in SIZES)),
)


def told_size(name: str) -> int:
    """What st_size says of a file; its content is the same as of all."""
    action, _, number = name.partition("-")
    sizes = {"size": number, "unsized": 0, "wide": 3 * FILE_BYTES}
    return int(sizes.get(action, FILE_BYTES))


def serve(mountpoint: str, path: str) -> None:
    """`path`: a file of the content of all. To make it here would take numpy, whose import is most of a test."""
    content = Path(path).read_bytes()[: 3 * FILE_BYTES]
    released = threading.Event()
    speaking = threading.Lock()

    def say(**event: Any) -> None:
        with speaking:
            sys.stdout.write(json.dumps(event) + "\n")
            sys.stdout.flush()

    def read(name: str, size: int, offset: int) -> bytes:
        action, _, number = name.partition("-")
        stop = min(offset + size, len(content) if action == "wide" else FILE_BYTES)
        place = int(number or -1)
        if action == "short":
            stop = min(stop, offset + place)
        elif action == "slow":
            time.sleep(place / 1000)
        elif offset <= place < stop and action == "eio":
            raise OSError(errno.EIO, name)
        elif offset <= place < stop and action in ("stall", "unsized", "wide") and not released.is_set():
            say(event="stalled", file=name, offset=offset)
            released.wait()
            say(event="answered", file=name, offset=offset)
        return content[offset:stop]

    def listen() -> None:
        for line in sys.stdin:
            if line.strip() == "release":
                released.set()
        # The test is over, or was killed: nothing may wait on this file system any longer.
        released.set()
        subprocess.run(["umount", "-l", mountpoint], check=False, capture_output=True)

    threading.Thread(target=listen, daemon=True).start()
    Folder(mountpoint, NAMES, told_size, read).serve(lambda: say(event="ready"))


class Server:
    """The running file system, seen from a test."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self.process, self.folder = process, folder

    def wait_for(self, event: str) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            heard: dict[str, Any] = json.loads(line)
            if heard["event"] == event:
                return heard
        raise AssertionError(f"the file system ended before {event!r}")

    def release(self) -> None:
        """Let every stalled read go on, and stall no more."""
        assert self.process.stdin is not None
        self.process.stdin.write("release\n")
        self.process.stdin.flush()

    def path(self, name: str) -> Path:
        assert name in NAMES
        return self.folder / name


def unavailable() -> str:
    """Why there can be no such file system here; empty if there can."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK) or os.geteuid() != 0:
        return "needs root and /dev/fuse"
    return ""


@contextmanager
def device(server: Server, name: str) -> Iterator[Path]:
    """A read-only block device whose bytes come from the file: when that stalls, the device stalls."""
    from faults.machine import need  # with pytest, which the program has no time for

    command = ["losetup", "--read-only", "--find", "--show", str(server.path(name))]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    need(made.returncode == 0, f"losetup: {made.stderr.strip()}")
    # The last close of a block device waits for its reads; a child that is to end must not be the last.
    opened = os.open(made.stdout.strip(), os.O_RDONLY)
    try:
        yield Path(made.stdout.strip())
    finally:
        server.release()
        os.close(opened)
        subprocess.run(["losetup", "--detach", made.stdout.strip()], check=False, capture_output=True)


@contextmanager
def file_system(folder: Path, content: Path) -> Iterator[Server]:
    """content: a pattern file of at least 3 * FILE_BYTES."""
    program = Path(__file__).resolve()
    command = [sys.executable, str(program), str(folder), str(content)]
    environ = {**os.environ, "PYTHONPATH": str(program.parent.parent)}
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ)
    server = Server(process, folder)
    try:
        server.wait_for("ready")
        yield server
    finally:
        if process.poll() is None:
            server.release()
        subprocess.run(["umount", "-l", str(folder)], check=False, capture_output=True)
        try:
            process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


if __name__ == "__main__":
    serve(*sys.argv[1:])
