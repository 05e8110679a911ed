"""No garbage collection while a read waits, where h5py is loaded.

h5py holds its lock while it reads from a file object, and takes it to let go of an object of its own. A collection that
runs in a thread on which the read depends (one that opens a connection; a server in the same process) may find such an
object, and both would wait for each other.
"""

import gc
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_reads = 0
_was_enabled = False


@contextmanager
def without_collections() -> Iterator[None]:
    """No automatic collection begins, in any thread, if h5py is loaded. Any number of threads may be in here."""
    if "h5py" not in sys.modules:
        yield
        return
    global _reads, _was_enabled
    with _lock:
        if not _reads:
            _was_enabled = gc.isenabled()
            gc.disable()
        _reads += 1
    try:
        yield
    finally:
        with _lock:
            _reads -= 1
            if not _reads and _was_enabled:
                gc.enable()


def _begin_anew() -> None:
    """In a forked child, where the other threads that read do not exist."""
    global _lock, _reads
    _lock = threading.Lock()
    if _reads and _was_enabled:
        gc.enable()
    _reads = 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
