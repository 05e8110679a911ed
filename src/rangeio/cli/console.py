"""What the commands share on a terminal: a progress line, and nothing where there is no terminal."""

import shutil
import sys
import time
from types import TracebackType
from typing import TextIO

_BAR = 24
_EVERY_S = 0.1


class UsageError(ValueError):
    """The command line asks for nothing sensible: exit code 2."""


class Progress:
    """A line on stderr that is rewritten in place, and gone at the end.

    It draws only when it is called, on the caller's thread: a bar with a thread of its own would take part in what
    it watches.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._shown = self._stream is not None and self._stream.isatty()  # None: the shell has closed it
        self._start = time.monotonic()
        self._drawn = 0.0

    def __call__(self, done: float, text: str = "") -> None:
        """done: the part that is done, 0.0 to 1.0."""
        now = time.monotonic()
        if not self._shown or now - self._drawn < _EVERY_S:
            return
        self._drawn = now
        filled = round(_BAR * min(max(done, 0.0), 1.0))
        line = f"[{'=' * filled:<{_BAR}}] {done:4.0%} {self._left(done, now - self._start)} {text}"
        self._stream.write("\r\x1b[K" + line[: shutil.get_terminal_size().columns - 1])
        self._stream.flush()

    def clear(self) -> None:
        """Make room for other output."""
        if self._shown and self._drawn:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._drawn = 0.0

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()

    @staticmethod
    def _left(done: float, elapsed: float) -> str:
        if done < 0.02:
            return "      "
        seconds = round(elapsed / done - elapsed)
        return f"{seconds // 60:2d}:{seconds % 60:02d} "
