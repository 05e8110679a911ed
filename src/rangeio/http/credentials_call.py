"""How a callable that returns credentials is called: one that must be awaited has an event loop of its own."""

import asyncio
import inspect
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

from rangeio.threads import start_thread

_FORKED_S = 0.1
"""How often it is checked whether this is a forked process, which does not have the thread."""

Outcome = tuple[Any, BaseException | None]


def called(source: Callable[[], Any]) -> Any:
    """What `source` returns; blocks until that is there."""
    while True:
        found = source()
        if not inspect.isawaitable(found):
            return found
        outcome = _awaited(found)
        if outcome is not None:
            break
        with suppress(ValueError):  # it is running, in the parent
            getattr(found, "close", int)()
    found, error = outcome
    if error is None:
        return found
    try:
        raise error
    finally:
        del error, outcome  # the traceback holds this frame


def _awaited(found: Awaitable[Any]) -> Outcome | None:
    """The result of an awaitable, or its exception. None in a child that a signal handler forked meanwhile.

    Sync reads call this too, on a thread whose loop may be running and must not be waited for: so it runs in a thread,
    and an asyncio loop, of its own.
    """
    ended: SimpleQueue[Outcome] = SimpleQueue()

    async def wait() -> Any:
        return await found

    def run() -> None:
        try:
            ended.put((asyncio.run(wait()), None))
        except BaseException as error:
            ended.put((None, error))

    pid = os.getpid()
    start_thread(partial(copy_context().run, run))
    while os.getpid() == pid:
        with suppress(Empty):
            return ended.get(timeout=_FORKED_S)
    return None
