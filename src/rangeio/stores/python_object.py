"""Python objects with `pread`, or with `seek` and `read`."""

import io
from functools import partial
from typing import Any

from rangeio.errors import UnexpectedError
from rangeio.stores.failures import shown
from rangeio.stores.one_at_a_time import turn_of
from rangeio.stores.store import Info, Store


class PythonObject(Store):
    """`obj.pread(n, offset)` (POSIX order), any number at once; else `obj.seek` and `obj.read`, one at a time.

    size: of the object; None: `seek` to its end tells. TypeError if it can do neither.
    """

    backend = "object"

    def __init__(self, obj: Any, size: int | None) -> None:
        self._obj = obj
        self._size = size
        self._preads = callable(getattr(obj, "pread", None))
        self._seeks = callable(getattr(obj, "seek", None)) and callable(getattr(obj, "read", None))
        if not (self._preads or self._seeks):
            lacking = [name for name in ("seek", "read") if not callable(getattr(obj, name, None))]
            raise TypeError(
                f"from_object needs pread(n, offset), or seek() and read(); {type(obj).__name__} has no pread and no"
                f" {' and no '.join(lacking)}"
            )
        if isinstance(obj, io.TextIOBase):
            raise TypeError(
                "from_object needs bytes, but this file was opened as text; open it in binary mode"
            )
        self.alone = not self._preads
        self._turn = turn_of(obj)  # several Readers of it would move the same cursor
        name = getattr(obj, "name", None)
        self.path = shown(name) if isinstance(name, str) else f"<{type(obj).__name__}>"

    def pread(self, offset: int, n: int, known: Info | None) -> Any:
        if self._preads:
            return self._obj.pread(n, offset)
        data = self._turn.take(partial(self._sought, offset, n))
        if data is None:
            raise UnexpectedError("read() returned None: the file does not block, and has no data yet")
        return data

    def info(self) -> Info:
        if self._size is not None:
            return Info(self._size)
        if not self._seeks:
            return Info(None)
        return Info(self._turn.take(self._end))

    def _sought(self, offset: int, n: int) -> Any:
        self._obj.seek(offset)
        return self._obj.read(n)

    def _end(self) -> int:
        end = self._obj.seek(0, io.SEEK_END)
        return int(self._obj.tell() if end is None else end)
