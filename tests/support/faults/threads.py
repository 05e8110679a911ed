"""Threads that `threading` does not know: see `rangeio.threads.start_thread`."""

import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any


def is_running(function: Callable[..., Any]) -> bool:
    """Whether a thread is in a function."""
    frames: list[FrameType | None] = [*sys._current_frames().values()]
    while frames:
        frame = frames.pop()
        if frame is not None:
            if frame.f_code is function.__code__:
                return True
            frames.append(frame.f_back)
    return False


def wait_for_end(function: Callable[..., Any], at_most_s: float = 30) -> None:
    """Wait until no thread is in a function."""
    wait_until(lambda: not is_running(function), at_most_s)


def wait_until(condition: Callable[[], bool], at_most_s: float = 30) -> None:
    """Wait for what no event tells."""
    end = time.monotonic() + at_most_s
    while not condition():
        assert time.monotonic() < end, f"it did not happen within {at_most_s} s"
        threading.Event().wait(0.005)
