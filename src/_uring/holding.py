"""A future of asyncio that delays its cancellation.

Imported when a read first needs one: whoever reads without an event loop has no use for asyncio.
"""

import asyncio
from collections.abc import Callable
from typing import Any


class Holding(asyncio.Future[Any]):
    """A future that delays a cancellation until it gets its result. Until then `cancel` returns True, as for a task
    that ends later.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, cancelled: Callable[[], None]) -> None:
        super().__init__(loop=loop)
        self._heard: Callable[[], None] | None = cancelled
        self._message: tuple[Any, ...] | None = None

    def cancel(self, *message: Any, **named: Any) -> bool:
        """Request cancellation. msg: see asyncio.Future; the first one is kept."""
        if self.done():
            return False
        if self._message is None:
            self._message = message or tuple(named.values())
            heard, self._heard = self._heard, None
            assert heard is not None
            heard()
        return True

    def set_result(self, value: Any, /) -> None:
        self._heard = None  # it references the read
        if self._message is None:
            super().set_result(value)
        else:
            super().cancel(*self._message)

    def set_exception(self, error: Any, /) -> None:
        """An interruption is always raised, even if cancelled: it is for the program, not for this task."""
        self._heard = None
        if self._message is None or not isinstance(error, Exception):
            super().set_exception(error)
        else:
            super().cancel(*self._message)
