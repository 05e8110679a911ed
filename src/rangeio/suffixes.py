"""Many ranges that all count from the end: one request for the longest has them all, and tells the size."""

from copy import copy
from typing import TYPE_CHECKING, Literal

from rangeio.errors import Error
from rangeio.options import Options
from rangeio.ranges import Checked, Layout, Suffix

if TYPE_CHECKING:
    from _uring import Buffer


def only(checked: Checked, options: Options) -> int:
    """How many last bytes one request for all of these ranges asks for; 0 if it must be planned with the size."""
    if not checked.needs_size:
        return 0
    counts = [item.n if isinstance(item, Suffix) else -1 for item in checked.items]
    most = max(counts)
    apart = len(counts) > 1 and options.gap is None
    limits = [options.chunk, options.max_merged if len(counts) > 1 else None]
    most_at_once = min((limit for limit in limits if limit is not None), default=most)
    return 0 if min(counts) < 0 or apart or most > most_at_once else most


def is_all_of(tail: "Buffer | None", layout: Layout) -> bool:
    """Whether `tail`, the last bytes of the object, is the response to the only request of `layout`."""
    return tail is not None and layout.starts.size == 1 and int(layout.lengths[0]) == len(tail)


def to_each(checked: Checked, error: Error, on_error: Literal["raise", "return"]) -> list[Error]:
    """The failure of the one request for all ranges: the result of each, or raised as that of the first."""
    if on_error == "raise":
        error.index = 0
        raise error
    found = [copy(error) for _ in checked.items]
    for index, one in enumerate(found):
        one.index = index
    return found
