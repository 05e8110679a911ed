"""The core of rangeio: the compiled extension, or its pure-Python twin if the extension is not built.

RANGEIO_BACKEND=uring|pool|python forces a backend, and raises if it is not available.

The extension relies on the GIL: on a free-threaded CPython, importing it turns the GIL on. Where the GIL has to stay
off, the twin serves.
"""

import os
import sys
from importlib import import_module
from typing import Any

from _uring.errors import ErrorFactory, ErrorKind, set_error_factory
from _uring.pickling import set_default_reactor
from _uring.records import Backend, FileStat

__all__ = [
    "Backend",
    "Buffer",
    "Connection",
    "ErrorFactory",
    "ErrorKind",
    "Expected",
    "File",
    "FileStat",
    "IdleConnections",
    "LoopTransfers",
    "RangeRequest",
    "Reactor",
    "awaited",
    "awaited_at",
    "begin_awaited",
    "yield_if_due",
    "default_reactor",
    "extension_error",
    "planning",
    "ready",
    "refused",
    "set_error_factory",
]

_forced = os.environ.get("RANGEIO_BACKEND", "") or "auto"


def _import_native() -> tuple[Any, str, str]:
    """The compiled reactor; or None, why it does not serve, and what to do."""
    has_gil = getattr(sys, "_is_gil_enabled", lambda: True)
    if _forced == "python" and not has_gil():
        return None, "it was not imported, because that would turn the GIL on", ""
    try:
        native = import_module("_uring.reactor")
    except ImportError as error:
        return (
            None,
            str(error),
            "; to build it, install a C compiler and the headers of Python, then reinstall it"
            " (pip install --force-reinstall --no-deps --no-cache-dir --no-binary rangeio rangeio)",
        )
    if not has_gil():
        # Its free lists and its closing of descriptors have no other lock: reads would return bytes of others.
        return None, "it needs the GIL, which PYTHON_GIL=0 or -X gil=0 keeps off", "; run without them"
    return native, "", ""


_native, _why, _advice = _import_native()
_extension_error = _why + _advice
if _native is None and _forced != "python":
    import_module("_uring.pure.reactor").reason = f"the compiled extension is not available: {_why}"

LoopTransfers: Any = None
awaited: Any = None
awaited_at: Any = None
begin_awaited: Any = None
if _native is None or _forced == "python":
    from _uring.pure import planning
    from _uring.pure.buffer import Buffer
    from _uring.pure.connections import Connection, IdleConnections
    from _uring.pure.coop import ready, refused, yield_if_due
    from _uring.pure.file import File
    from _uring.pure.http1 import Expected, RangeRequest
else:
    from _uring import planning
    from _uring.connections import Connection, IdleConnections
    from _uring.coop import ready, refused, yield_if_due
    from _uring.file import File
    from _uring.http1 import Expected
    from _uring.memory import Buffer
    from _uring.transfer import RangeRequest
    from _uring.transfers import LoopTransfers, awaited, awaited_at, begin_awaited


class Reactor:
    """Creates the reactor of the requested backend, an instance of that backend's own class."""

    def __new__(cls, *, backend: str = "auto", **options: Any) -> Any:
        if backend == "auto":
            backend = _forced
        if backend == "python" or (backend == "auto" and _native is None):
            return import_module("_uring.pure.reactor").Reactor(**options)
        if _native is None:
            raise ImportError(
                f"backend {backend!r} was requested, but the compiled extension is not available: {_extension_error}"
            )
        return _native.Reactor(backend=backend, **options)


_default: Any = None


def default_reactor() -> Any:
    """The process's reactor, created on first use. A forked child keeps using it, with new rings and threads."""
    global _default
    if _default is None:
        _default = Reactor()
    return _default


set_default_reactor(default_reactor)


def extension_error() -> str:
    """Why the compiled extension is not available; empty if it is."""
    return _extension_error
