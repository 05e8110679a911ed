"""What a reply means for the part that asked: bytes, the end, another place, another try, or an error.

Decided with the head (`judge`, `_judge_probe`), before any of the body is received; what the head decides is done when
the body is there (`part.outcome`). Whoever is to hear of a completed part is given as `complete`.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TypeAlias

from rangeio.errors import (
    ConfigInvalidError,
    ContentEncodedError,
    ObjectChangedError,
    RangeNotSatisfiedError,
    RangeNotSupportedError,
    UnexpectedError,
)
from rangeio.http import rules
from rangeio.http.exchange import Body
from rangeio.http.heads import Head
from rangeio.http.home import Parked, Unsolicited
from rangeio.http.parts import Part
from rangeio.http.reads import Probe
from rangeio.locks import begin_lock
from rangeio.policy import RETRIES

Complete: TypeAlias = Callable[[Part], None]
"""All bytes of a part are there, or there are no more."""

_MOST_HOPS = 10
_REDIRECTS = frozenset([301, 302, 303, 307, 308])
# Servers that do not do HEAD, or whose signature is for GET, say one of these.
_NO_HEAD = frozenset([400, 401, 403, 405, 416, 501])
# What a signed target of a redirect says once it has expired.
_EXPIRED = frozenset([401, 403, 404, 410])
_MOST_OF_A_REFUSAL = 16_384
_NO_BODY = Body(memoryview(bytearray()))


class _Learning:
    """Two first replies at once, in two threads: only one of them fixes the version."""

    _lock: threading.RLock

    def __init__(self) -> None:
        begin_lock(self)


_LEARNING = _Learning()


def judge(part: Part, head: Head, complete: Complete, download: Callable[[Part, rules.Take], None]) -> Body:
    """What to take of a reply. Raises the Error if there is nothing to be had.

    download: has the part get the whole object, as its server sends no less, and others wait for it.
    """
    status = head.status
    part.outcome = None
    # Servers and balancers say so when they close an idle connection (RFC 9112 section 9.5), perhaps while the request
    # is on its way. On a new connection it is the answer; the request may be repeated there (RFC 9110 section 15.5.9).
    if status in (400, 408) and head.closing and part.wire is not None and part.wire.used:
        raise Unsolicited
    if status in _REDIRECTS and "location" in head.fields:
        part.outcome = partial(_move, part, head.fields["location"])
        return _NO_BODY
    if isinstance(part.read, Probe):
        return _judge_probe(part, part.read, head, complete)
    if status not in rules.BRINGING:
        return _hear(part, head)
    remote = part.read.remote
    found = rules.judge(head, part.at, part.stop, part.read.stop, remote.on_no_range, remote.cap)
    if part.read.index < 0 and not _is_of_whole(found, part.read.stop):
        raise Parked
    if isinstance(found, rules.End):
        part.outcome = partial(_ended, part, found.total, complete)
        return _NO_BODY
    _check_version(part, head, found.total)
    if found.keep and part.read.index >= 0:
        download(part, found)
        found = replace(found, stop=part.stop)
    return _take(part, found, complete)


def _is_of_whole(found: "rules.Take | rules.End", stop: int) -> bool:
    """Whether it is the whole object, or the rest of one of `stop` bytes: where its size was not told, `stop` is what
    may be kept of it, and a range up to there is not all.
    """
    return isinstance(found, rules.Take) and (found.all or found.total == stop)


def _check_version(part: Part, head: Head, total: int | None) -> None:
    version = part.read.version
    with _LEARNING._lock:
        if not version.known:
            if None not in (total, version.size) and total != version.size:
                raise ObjectChangedError(f"it has {total} bytes, and size={version.size} was given")
            rules.check_conditions(part.read.remote.conditions, head)
            version.learn(head, total)
            return
    difference = version.difference(head, total)
    if difference:
        raise ObjectChangedError("it changed after it was opened: " + difference + "; open it again")
    if rules.encoding_of(head) != version.encoding:
        raise ContentEncodedError("the content coding is not the same as in the reply before")
    version.compared(head, total)


# --- bytes ---------------------------------------------------------------------------------------------------


def _take(part: Part, found: rules.Take, complete: Complete) -> Body:
    read = part.read
    if found.total is not None:
        read.end_at(found.total)
        read.room(read.stop)
    if found.all:
        part.take_all()
    upto = min(found.stop, part.limit)
    if found.open:
        return Body(memoryview(bytearray()), found.skip, partial(_grow, part))
    part.outcome = partial(_taken, part, upto, complete)
    return Body(read.room(upto)[part.at - read.start : upto - read.start], found.skip, whole=True)


def _grow(part: Part, needed: int) -> memoryview:
    """Room for `needed` bytes of a body of unknown length that began at `part.at`, as far as the part goes."""
    read, limit = part.read, part.limit
    if part.at + needed > limit and part.whole and read.remote.on_no_range == "error":
        raise RangeNotSupportedError("the server ignores Range and sends more than what was asked for")
    if part.at + needed > limit and read.index < 0:
        raise RangeNotSupportedError(
            f"the server ignores Range, and the object has more than no_range_cap={read.remote.cap} bytes"
        )
    memory = read.grown(min(part.at + needed, limit))
    return memory[part.at - read.start : limit - read.start]


def _taken(part: Part, upto: int, complete: Complete) -> None:
    """All that a reply said it has is there."""
    version, read = part.read.version, part.read
    RETRIES.succeeded(part.target.origin)
    part.at = upto
    part.moved = part.restarted = False
    if part.clamped and version.size is None and upto < read.stop:
        raise RangeNotSatisfiedError(
            "the server refuses a range that extends past the end (416), and does not tell the size; give size=, or ask"
            " for less"
        )
    if upto < part.stop and upto < read.stop:
        part.attempts = 0  # a server may send less than it was asked for, as often as it likes
        part.connect()
    else:
        complete(part)


def body_over(part: Part, filled: int, complete: Complete) -> None:
    """A body of unknown length is over: it is full, or the object ends there."""
    RETRIES.succeeded(part.target.origin)
    version = part.read.version
    part.at += filled
    if part.at < part.limit:
        if version.size is not None and part.at != version.size:
            raise ObjectChangedError(
                f"it changed after it was opened: it has {part.at} bytes now; open it again"
            )
        part.read.end_at(part.at)
    if part.whole:
        version.size = part.at
    complete(part)


def _ended(part: Part, total: int | None, complete: Complete) -> None:
    """416: no byte at `part.at`, or (some servers) none at the end of the range.

    Where neither the reply nor the version tells the size, one byte is asked for: the reply to that has the size, or
    is another 416, so that there is no byte at `part.at`. Source: RFC 9110 section 15.5.17, where Content-Range is a
    SHOULD.
    """
    version, read = part.read.version, part.read
    if version.known and version.size is not None and total not in (None, version.size):
        raise ObjectChangedError(f"it changed after it was opened: it has {total} bytes now; open it again")
    size = version.size if total is None else total
    if size is None and part.stop - part.at > 1 and not part.clamped:
        part.clamped = True
        part.stop = part.at + 1
        part.connect()
    elif size is None or part.at >= size:
        read.end_at(part.at if size is None else size)
        complete(part)
    elif part.clamped or part.stop <= size:
        raise RangeNotSatisfiedError(f"the server has {size} bytes and refuses to send these of them")
    else:
        part.clamped = True
        part.stop = min(part.stop, size)
        read.end_at(size)
        part.connect()


# --- no bytes ------------------------------------------------------------------------------------------------


def _hear(part: Part, head: Head) -> Body:
    """Keep what a refusal says, as far as anybody reads."""
    memory = bytearray(_MOST_OF_A_REFUSAL if head.length is None else min(head.length, _MOST_OF_A_REFUSAL))
    part.outcome = partial(_refused, part, head, memory)
    return Body(memoryview(memory))


def _refused(part: Part, head: Head, memory: bytearray) -> None:
    """A status that brings no bytes."""
    status, remote = head.status, part.read.remote
    credentials = remote.access.credentials
    assert part.exchange is not None
    pinned = part.read.version.known and part.read.version.strong is not None
    refusal = remote.refused(head, bytes(memory[: part.exchange.filled]), pinned=pinned)
    if refusal.again and part.hops < _MOST_HOPS:
        part.hops += 1
        part.connect()
    elif status in _EXPIRED and part.begin_anew():
        part.connect()
    elif refusal.renew and credentials.renewable and not part.refused:
        part.refused = True
        part.renew(credentials.version)
    elif refusal.error.status == "temporary":
        part.retry(refusal.error, rules.retry_after_s(head, time.time()))
    else:
        try:
            raise refusal.error
        finally:
            del refusal  # its traceback holds this frame: let neither hold the other


def _move(part: Part, location: str) -> None:
    part.hops += 1
    if part.hops > _MOST_HOPS:
        raise UnexpectedError(f"more than {_MOST_HOPS} redirects")
    try:
        part.redirected(location)
    except ConfigInvalidError:
        raise UnexpectedError("the server redirects to what is no http or https URL") from None
    part.connect()


def _judge_probe(part: Part, read: Probe, head: Head, complete: Complete) -> Body:
    """A reply to HEAD, or to the one-byte GET that stands in for it.

    A length of 0 from HEAD is no proof that there are no bytes: servers that build HEAD from an empty body say so of
    every object, against RFC 9110 section 8.6.
    """
    status, version = head.status, read.version
    first, _, total = rules.content_range(head)
    if part.method == "HEAD":
        if status in _NO_HEAD or (status == 200 and (not head.length or rules.encoding_of(head))):
            part.method = "GET"
            part.outcome = part.connect
            return _NO_BODY
        total = head.length
    elif status == 204 or (status == 416 and total is None):
        total = 0
    elif status == 200 and first is None:
        total = None if rules.encoding_of(head) else head.length
    if status not in rules.BRINGING:
        return _hear(part, head)
    if status in (204, 416):
        if version.known and version.size is not None and total != version.size:
            raise ObjectChangedError(
                f"it changed after it was opened: it has {total} bytes now; open it again"
            )
        version.size = total
    else:
        _check_version(part, head, total)
    read.size = total
    part.outcome = partial(complete, part)
    return _NO_BODY
