"""The syntax of sizes on the command line: bytes with binary units."""

import re

_UNITS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)


def parse_size(text: str) -> int:
    """Parse a size in bytes: ``4096``, ``64KiB``, ``1.5g``. Units are binary with or without the ``i``."""
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise ValueError(f"{text!r} is not a size: write it as 4096, 64KiB or 1GiB")
    size = float(match[1]) * 1024 ** _UNITS[match[2].lower()]
    if size != int(size):
        raise ValueError(f"{text!r} is not a whole number of bytes")
    return int(match[1]) if not match[2] else int(size)


def size_text(nbytes: float) -> str:
    """``4 KiB``, ``1.5 GiB``, ``17 B``, with three significant digits."""
    for power, unit in ((4, "TiB"), (3, "GiB"), (2, "MiB"), (1, "KiB")):
        if abs(nbytes) >= 1024**power:
            return f"{short(nbytes / 1024**power)} {unit}"
    return f"{nbytes:.0f} B"


def short(number: float) -> str:
    """The number with three significant digits, without exponent."""
    if abs(number) >= 100:
        return f"{number:.0f}"
    text = f"{number:.2f}" if abs(number) < 10 else f"{number:.1f}"
    return text.rstrip("0").rstrip(".")
