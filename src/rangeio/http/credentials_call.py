"""How a callable that returns credentials is called: one that must be awaited has an event loop of its own."""

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from typing import Any


def called(source: Callable[[], Any]) -> Any:
    """What `source` returns; blocks until that is there."""
    found = source()
    return _awaited(found) if inspect.isawaitable(found) else found


def _awaited(found: Awaitable[Any]) -> Any:
    """The result of an awaitable. Sync reads call this too, on a thread whose loop may be running and must not be
    waited for: so it runs in a thread, and an asyncio loop, of its own.
    """
    outcome: list[Any] = []
    failed: list[BaseException] = []

    async def wait() -> Any:
        return await found

    def run() -> None:
        try:
            outcome.append(asyncio.run(wait()))
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=copy_context().run, args=(run,), name="rangeio-credentials", daemon=True)
    thread.start()
    thread.join()
    try:
        if failed:
            raise failed[0]
        return outcome[0]
    finally:
        failed.clear()  # the traceback holds this frame
