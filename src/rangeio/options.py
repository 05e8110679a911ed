"""`Options`: how one object is opened and read, and the checks of their values."""

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from rangeio.errors import ConfigInvalidError, closest
from rangeio.policy import Retry, Timeout, hedge_of


@dataclass(frozen=True, slots=True)
class Options:
    """How one object is opened and read. The service chooses the defaults.

    gap: maximum number of bytes between two ranges that are merged into one request; 0 merges ranges that touch or
        overlap, None merges nothing. ``"auto"``, over a network: the bytes that arrive in the time another request
        would wait for its first byte, from 8 to 256 KiB, measured from the server's latest responses of 128 KiB and
        more; 48 KiB (the default) until four responses were measured. One call uses one gap, which `plan` shows. Files
        and memory, where a request needs no round trip: 0.
    max_merged: maximum size in bytes of a request merged from ranges that do not overlap; None for no limit.
    chunk: maximum size in bytes of one request, None for no limit. Awaited reads of a local file use the core's own
        pieces (1 MiB, with O_DIRECT 4 MiB, eight in flight): smaller pieces cost more, larger ones reduce parallelism.
    concurrent: maximum number of requests in flight, None for the reactor's choice.
    prefetch: maximum number of bytes that a stream reads ahead of its consumer, None for the default.
    size: size of the object in bytes, if known; a hint that saves a request. Files do not need it.
    pin: if True, refuse any version other than the one that was opened.
    direct: use O_DIRECT for files, if the file system supports it (`capability.direct_reason`). Ranges and memory need
        not be aligned, but awaited reads above 64 KiB into memory not aligned as the offset use the page cache.
        ``"auto"``: only from a sixteenth of the machine's memory (RANGEIO_DIRECT_FROM=bytes), at most an eighth cached.
    mapped: `read_batch` and `read_ranges` of a pinned file may copy out of a mapping what they have found in the page
        cache before; it then counts as memory of the process (RssFile). False: every read is a system call.

    Only for services over a network:

    timeout, retry: see `Timeout` and `Retry`.
    hedge: seconds after which a request without a first byte is sent again over another connection. The first response
        is used, the other connection closed. None disables it. Hedges use the retry budget and are counted in
        `rangeio.stats()`.
    on_no_range: what to do if the server sends the whole object instead of a range: ``"error"`` raises; ``"slice"``
        discards the bytes before the range; ``"download"`` downloads the object once and keeps it.
    no_range_cap: maximum number of bytes that ``"slice"`` discards or ``"download"`` keeps.
    if_match, if_none_match: ETags that the first response must satisfy. if_modified_since, if_unmodified_since: the
        same for dates in HTTP format.
    version: version of the object, if the service keeps several; None for the newest.
    own: options that only objects of this service have, such as ``snapshot`` of az; each is given by its own name.
    """

    gap: int | Literal["auto"] | None = 0
    max_merged: int | None = 1 << 20
    chunk: int | None = None
    concurrent: int | None = None
    prefetch: int | None = None
    size: int | None = None
    pin: bool = True
    direct: bool | Literal["auto"] = "auto"
    mapped: bool = True
    timeout: Timeout = field(default_factory=Timeout)
    retry: Retry = field(default_factory=Retry)
    hedge: float | None = None
    on_no_range: Literal["error", "slice", "download"] = "error"
    no_range_cap: int = 64 << 20
    if_match: str | None = None
    if_none_match: str | None = None
    if_modified_since: str | None = None
    if_unmodified_since: str | None = None
    version: str | None = None
    own: Mapping[str, Any] = field(default_factory=dict)

    def updated(self, changes: dict[str, Any], own_names: Sequence[str] = ()) -> "Options":
        """A copy with `changes` applied. ConfigInvalidError for an unknown name or an invalid value. own_names: the
        names of the options in `own`, whose values the service checks.
        """
        check_names(changes, [*OPTION_NAMES, *own_names], "option")
        own = {name: changes[name] for name in own_names if name in changes}
        general = {name: _checked(name, value) for name, value in changes.items() if name not in own}
        return replace(self, own={**self.own, **own}, **general)


OPTION_NAMES = [option.name for option in fields(Options) if option.name != "own"]


def check_names(given: dict[str, Any], known: Sequence[str], what: str) -> None:
    """ConfigInvalidError for the first unknown name, with the closest known name."""
    for name in given:
        if name not in known:
            raise ConfigInvalidError(f"unknown {what} {name!r}; {closest(name, [*known])}")


_MADE_BY: dict[str, Callable[[Any], Any]] = {"timeout": Timeout.of, "retry": Retry.of, "hedge": hedge_of}


def _checked(name: str, value: Any) -> Any:
    if name in ("pin", "mapped"):
        return bool(value)
    if name == "direct":
        if value in (True, False, "auto"):
            return value
        raise ConfigInvalidError(f"direct must be True, False or 'auto', not {value!r}")
    if name in _MADE_BY:
        return _MADE_BY[name](value)
    if name == "on_no_range":
        if value in ("error", "slice", "download"):
            return value
        raise ConfigInvalidError(f"on_no_range must be 'error', 'slice' or 'download', not {value!r}")
    if name.startswith("if_") or name == "version":
        if value is None or (isinstance(value, str) and value.isascii() and value.isprintable()):
            return value
        raise ConfigInvalidError(f"{name} must be a string that is valid in a header field, not {value!r}")
    if name == "gap" and isinstance(value, str):
        if value == "auto":
            return value
        raise ConfigInvalidError(f"gap must be a whole number of bytes, 'auto' or None, not {value!r}")
    if value is None and name != "no_range_cap":
        return None
    try:
        number = operator.index(value)
    except TypeError:
        raise ConfigInvalidError(f"{name} must be a whole number of bytes or None, not {value!r}") from None
    least = 0 if name in ("gap", "size", "prefetch") else 1
    if not least <= number < 2**63:
        raise ConfigInvalidError(f"{name} must be at least {least} and below 2**63, got {number}")
    return number
