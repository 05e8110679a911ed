"""Logging without importing `logging`: a program that has not imported it listens to nobody."""

import sys
from typing import Any, Literal, TypeAlias

Logger: TypeAlias = Literal["rangeio", "rangeio.http", "rangeio.local"]
Level: TypeAlias = Literal["debug", "info", "warning", "error"]


def log(name: Logger, level: Level, text: str, *arguments: object) -> None:
    """Log `text % arguments`. Nothing is printed unless the program has set up logging."""
    logging: Any = sys.modules.get("logging")
    if logging is None:
        return
    top = logging.getLogger("rangeio")
    if not top.handlers:
        top.addHandler(logging.NullHandler())  # otherwise `logging` prints warnings itself
    getattr(logging.getLogger(name), level)(text, *arguments, stacklevel=2)
