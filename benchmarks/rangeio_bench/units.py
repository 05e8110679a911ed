"""Formatting of times and rates."""

from rangeio.cli.sizes import short


def time_text(nanoseconds: float) -> str:
    """``478 ns``, ``1.5 ms``, ``12 s``."""
    for scale, unit in ((1e9, "s"), (1e6, "ms"), (1e3, "µs")):
        if nanoseconds >= scale:
            return f"{short(nanoseconds / scale)} {unit}"
    return f"{nanoseconds:.0f} ns"


def rate_text(per_second: float) -> str:
    """``2.13 M``, ``91.4 k``, without a unit."""
    for scale, unit in ((1e6, " M"), (1e3, " k")):
        if per_second >= scale:
            return f"{short(per_second / scale)}{unit}"
    return short(per_second)
