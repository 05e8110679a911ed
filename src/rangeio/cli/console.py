"""Standard output, standard error and terminals: a progress line, escaped names, and closed streams."""

import re
import shutil
import sys
import time
from types import TracebackType
from typing import TextIO

_BAR = 24
_EVERY_S = 0.1


class UsageError(ValueError):
    """Wrong usage of the command line: exit code 2."""


def need_stdout() -> None:
    """ValueError if the shell has closed standard output: the output would be lost silently."""
    if sys.stdout is None:
        raise ValueError("standard output is closed")


def complain(text: str) -> None:
    """Print one line on standard error; nothing if it is closed, because print() would then write to the output."""
    if sys.stderr is not None:
        print(shown(text, sys.stderr), file=sys.stderr)


# Options that errors advise to set. `credentials=` is a function, which no argument can be.
_ADVISED = (
    "account_key|access_key_id|anonymous|auth|bearer_token|bucket|ca_file|direct|endpoint_url|hedge|no_range_cap"
    "|on_no_range|pin|profile|proxy|region|retry|sas_token|secret_access_key|service_account|size|timeout|version"
)
_LISTS = "Operator.list() lists its content"
_OPTION = re.compile(rf"(?<![^\s(,])({_ADVISED})=('[^']*'|\"[^\"]*\"|\w*)")


def in_words_of_the_command(text: str) -> str:
    """Advice of the library, for the command line: ``retry=3`` is ``-o retry=3`` there.

    >>> in_words_of_the_command("set on_no_range='slice', or bearer_token= or HF_TOKEN; pin=False")
    'set -o on_no_range=slice, or -o bearer_token=... or HF_TOKEN; -o pin=false'
    """

    def given(found: "re.Match[str]") -> str:
        value = found[2].strip("'\"") or "..."
        return f"-o {found[1]}={value.lower() if value in ('True', 'False', 'None') else value}"

    return _OPTION.sub(given, text.replace(_LISTS, "rangeio ls lists its content, rangeio cp -r copies it"))


def error_text(error: Exception) -> str:
    """An error in one line."""
    text = in_words_of_the_command(" ".join(str(error).split()))
    if isinstance(error, OSError) and error.strerror and text.startswith("[Errno"):
        return f"{error.filename or 'error'}: {error.strerror}"  # an error of the system, without its number
    if isinstance(error, (OSError, ValueError, EOFError)) and text:
        return text
    # rangeio does not raise other classes on purpose: mention the traceback.
    return f"{type(error).__name__}: {text} (RANGEIO_DEBUG=1 shows where)"


# Characters that move the cursor, begin an escape sequence (C0 and C1), end a line, or change the text direction; and
# bytes of a name that are not UTF-8, some of which some terminals interpret as C1.
_STEERING = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def shown(text: str, stream: TextIO | None = None) -> str:
    """Untrusted `text` for standard output or `stream`: unchanged, but for a terminal with control characters escaped,
    as ls(1) does.
    """
    stream = sys.stdout if stream is None else stream
    return _STEERING.sub(_escape, text) if stream.isatty() else text


def _escape(found: "re.Match[str]") -> str:
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file name that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return found[0].encode("unicode_escape").decode("ascii")


class Progress:
    """A progress line on stderr that is redrawn in place and removed at the end.

    It draws only when it is called, on the caller's thread: a separate thread would affect the reads it measures.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._shown = self._stream is not None and self._stream.isatty()  # None if the shell has closed it
        self._start = time.monotonic()
        self._drawn = 0.0

    def __call__(self, done: float, text: str = "", *, left: float | None = None) -> None:
        """Draw the line. done: the completed share, 0.0 to 1.0. left: seconds to the end, if the caller knows better
        than the share tells.
        """
        now = time.monotonic()
        if not self._shown or now - self._drawn < _EVERY_S:
            return
        self._drawn = now
        filled = round(_BAR * min(max(done, 0.0), 1.0))
        line = f"[{'=' * filled:<{_BAR}}] {done:4.0%} {_left(done, now - self._start, left)} "
        line += shown(text, self._stream)
        self._stream.write("\r\x1b[K" + line[: shutil.get_terminal_size().columns - 1])
        self._stream.flush()

    def clear(self) -> None:
        """Remove the line, for other output."""
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


def _left(done: float, elapsed: float, left: float | None) -> str:
    if left is None:
        if done < 0.02:
            return "      "
        left = elapsed / done - elapsed
    seconds = round(left)
    hours = f"{seconds // 3600}:" if seconds >= 3600 else ""
    return f"{hours}{seconds // 60 % 60:2d}:{seconds % 60:02d} "
