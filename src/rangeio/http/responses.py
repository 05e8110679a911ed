"""What a response means for its attempt: bytes, the end of the object, a redirect, a retry, or an error.

The head decides this (`judge`, `_judge_probe`), before any of the body is received. The decision is carried out when
the body is complete (`attempt.outcome`). `complete` is called with each completed attempt.
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
from rangeio.http import validation
from rangeio.http.attempt import Attempt
from rangeio.http.engine_protocol import Parked, Unsolicited
from rangeio.http.heads import Head
from rangeio.http.range_read import Probe, SuffixRead
from rangeio.http.response_parser import Body
from rangeio.locks import begin_lock
from rangeio.policy import RETRIES

Complete: TypeAlias = Callable[[Attempt], None]
"""Called when all bytes of an attempt have arrived, or the object ends before."""

_MOST_HOPS = 10
_REDIRECTS = frozenset([301, 302, 303, 307, 308])
# The statuses of servers that do not support HEAD, or whose signature is for GET.
_NO_HEAD = frozenset([400, 401, 403, 405, 416, 501])
# The statuses of servers that do not support the last bytes as a range.
_NO_SUFFIX = frozenset([400, 405, 416, 501])
# The statuses of a signed redirect target that has expired.
_EXPIRED = frozenset([401, 403, 404, 410])
_MOST_OF_A_REFUSAL = 16_384
_NO_BODY = Body(memoryview(bytearray()))


class _Learning:
    """A lock, so that of two simultaneous first responses in two threads only one fixes the version."""

    _lock: threading.RLock

    def __init__(self) -> None:
        begin_lock(self)


_LEARNING = _Learning()


def judge(
    attempt: Attempt, head: Head, complete: Complete, download: Callable[[Attempt, validation.Take], None]
) -> Body:
    """Decide what to use of a response. Raises the Error if nothing can be used.

    download: makes the attempt download the whole object, because the server does not send ranges; others wait for it.
    """
    status = head.status
    attempt.outcome = None
    # Servers and load balancers send this when they close an idle connection (RFC 9112 section 9.5), possibly while the
    # request is in transit. On a new connection it is the response; the request may be repeated (RFC 9110 section
    # 15.5.9).
    if status in (400, 408) and head.closing and attempt.connection is not None and attempt.connection.used:
        raise Unsolicited
    if status in _REDIRECTS and "location" in head.fields:
        attempt.outcome = partial(_move, attempt, head, complete)
        return _NO_BODY
    remote = attempt.read.remote
    if status in validation.BRINGING:
        remote.interpret(head, attempt.target)
    if isinstance(attempt.read, Probe):
        return _judge_probe(attempt, attempt.read, head, complete)
    if isinstance(attempt.read, SuffixRead) and not attempt.read.settled:
        body = _place_suffix(attempt, attempt.read, head, complete)
        if body is not None:
            return body
    if status not in validation.BRINGING:
        return _hear(attempt, head, complete)
    found = remote.judged(head, attempt.at, attempt.stop) or validation.judge(
        head,
        attempt.at,
        attempt.stop,
        attempt.read.stop,
        remote.on_no_range,
        remote.cap,
        stored_encoding=remote.stored_encoding,
    )
    if attempt.read.index < 0 and not _is_of_whole(found, attempt.read.stop):
        raise Parked
    if isinstance(found, validation.End):
        attempt.outcome = partial(_ended, attempt, found.total, complete)
        return _NO_BODY
    if not remote.by_status:
        _check_version(attempt, head, found.total)
    if found.keep and attempt.read.index >= 0:
        download(attempt, found)
        found = replace(found, stop=attempt.stop)
    return _take(attempt, found, complete)


def _is_of_whole(found: "validation.Take | validation.End", stop: int) -> bool:
    """Whether it is the whole object, or the rest of an object of `stop` bytes. While the size is unknown, `stop` is
    the limit for a download, and a range up to it is not the whole object.
    """
    return isinstance(found, validation.Take) and (found.all or found.total == stop)


def _check_version(attempt: Attempt, head: Head, total: int | None, *, by_head: bool = False) -> None:
    version = attempt.read.version
    with _LEARNING._lock:
        if not version.known:
            if None not in (total, version.size) and total != version.size:
                raise ObjectChangedError(f"the object has {total} bytes, but size={version.size} was given")
            validation.check_conditions(attempt.read.remote.conditions, head)
            version.learn(head, total, by_head=by_head)
            return
    difference = version.difference(head, total)
    if difference:
        raise ObjectChangedError("it changed after it was opened: " + difference + "; open it again")
    if validation.encoding_of(head) != version.encoding:
        raise ContentEncodedError("the content coding differs from that of the previous response")
    version.compared(head, total, by_head=by_head)


# --- bytes ---------------------------------------------------------------------------------------------------


def _take(attempt: Attempt, found: validation.Take, complete: Complete) -> Body:
    read = attempt.read
    size = read.version.size if found.total is None else found.total
    if size is not None:
        read.end_at(size)
        # All of it at once: growing would move the memory, and other attempts begin before this one ends.
        read.room(read.stop)
    if found.all:
        attempt.take_all()
    upto = min(found.stop, attempt.limit)
    if found.open:
        return Body(memoryview(bytearray()), found.skip, partial(_grow, attempt))
    attempt.outcome = partial(taken, attempt, upto, complete)
    memory = read.room(upto)[attempt.at - read.start : upto - read.start]
    return Body(memory, found.skip, _refuse_more if found.exact else None, whole=True)


def _refuse_more(needed: int) -> memoryview:
    raise RangeNotSupportedError("the server sends more than the requested bytes")


def _place_suffix(attempt: Attempt, read: SuffixRead, head: Head, complete: Complete) -> Body | None:
    """Learn from the first response where the last bytes start. A Body if the response does not contain them: then they
    are requested by their place, or if that is not known, the read ends without a result.
    """
    first, last, total = validation.content_range(head)
    if head.status == 200 and first is None and not validation.encoding_of(head):
        total = head.length  # it knows no ranges, or no suffix
    if total is not None and head.status in (200, 206, 416):
        read.settle(total)
        if head.status == 206 and first is not None and read.start <= first and last == total:
            attempt.place(first)
            return None
        if head.status == 200 and read.start == 0:
            return None
        attempt.place(read.start)
        attempt.outcome = partial(complete, attempt) if read.start == read.stop else attempt.connect
        return _NO_BODY
    if head.status in validation.BRINGING or head.status in _NO_SUFFIX:
        attempt.place(read.stop)
        attempt.outcome = partial(complete, attempt)
        return _NO_BODY
    return None


def _grow(attempt: Attempt, needed: int) -> memoryview:
    """Memory for `needed` bytes of a body of unknown length that starts at `attempt.at`, up to the attempt's limit."""
    read, limit = attempt.read, attempt.limit
    if attempt.at + needed > limit and attempt.whole and read.remote.on_no_range == "error":
        raise RangeNotSupportedError("the server ignores Range and sends more than the requested bytes")
    if attempt.at + needed > limit and read.index < 0:
        raise RangeNotSupportedError(
            f"the server ignores Range, and the object has more than no_range_cap={read.remote.cap} bytes"
        )
    memory = read.grown(min(attempt.at + needed, limit))
    return memory[attempt.at - read.start : limit - read.start]


def taken(attempt: Attempt, upto: int, complete: Complete) -> None:
    """All bytes that the response announced have arrived."""
    version, read = attempt.read.version, attempt.read
    RETRIES.succeeded(attempt.target.origin)
    attempt.at = upto
    attempt.moved = attempt.restarted = False
    if attempt.clamped and version.expected is None and upto < read.stop:
        raise RangeNotSatisfiedError(
            "the server refuses a range that extends past the end (416) and does not report the size; set size=, or"
            " request less"
        )
    if upto < attempt.stop and upto < read.stop:
        attempt.attempts = attempt.hops = 0  # a server may send less than requested, any number of times
        attempt.connect()
    else:
        complete(attempt)


def body_over(attempt: Attempt, filled: int, complete: Complete) -> None:
    """A body of unknown length has ended: the requested bytes are complete, or the object ends there."""
    RETRIES.succeeded(attempt.target.origin)
    version = attempt.read.version
    attempt.at += filled
    if attempt.at < attempt.limit:
        expected = version.expected
        # If no byte was stored, it ended at `attempt.at` or within the skipped bytes before.
        if expected is not None and (expected > attempt.at if not filled else expected != attempt.at):
            raise ObjectChangedError(
                f"it changed after it was opened: it has {attempt.at} bytes now; open it again"
            )
        attempt.read.end_at(attempt.at)
    if attempt.whole:
        version.size = attempt.at
    complete(attempt)


def _ended(attempt: Attempt, total: int | None, complete: Complete) -> None:
    """Handle 416: there is no byte at `attempt.at`, or (some servers) none at the end of the range.

    If neither the response nor the version contains the size, request one byte: its response contains the size, or is
    another 416, and then there is no byte at `attempt.at`. Source: RFC 9110 section 15.5.17, where Content-Range is a
    SHOULD.
    """
    version, read = attempt.read.version, attempt.read
    if version.known and version.expected is not None and total not in (None, version.expected):
        raise ObjectChangedError(f"it changed after it was opened: it has {total} bytes now; open it again")
    if version.told is not None and total is not None:
        version.size = total  # confirms the size from HEAD
    size = version.expected if total is None else total
    if size is None and attempt.stop - attempt.at > 1 and not attempt.clamped:
        attempt.clamped = True
        attempt.stop = attempt.at + 1
        attempt.connect()
    elif size is None or attempt.at >= size:
        read.end_at(attempt.at if size is None else size)
        complete(attempt)
    elif attempt.clamped or attempt.stop <= size:
        raise RangeNotSatisfiedError(
            f"the object has {size} bytes, but the server refuses this range of them"
        )
    else:
        attempt.clamped = True
        attempt.stop = min(attempt.stop, size)
        read.end_at(size)
        attempt.connect()


# --- no bytes ------------------------------------------------------------------------------------------------


def _hear(attempt: Attempt, head: Head, complete: Complete) -> Body:
    """Keep the beginning of the body of a refusal."""
    memory = bytearray(_MOST_OF_A_REFUSAL if head.length is None else min(head.length, _MOST_OF_A_REFUSAL))
    attempt.outcome = partial(_refused, attempt, head, memory, complete)
    return Body(memoryview(memory))


def _refused(attempt: Attempt, head: Head, memory: bytearray, complete: Complete) -> None:
    """Handle a status without bytes of the object."""
    status, remote = head.status, attempt.read.remote
    credentials = remote.access.credentials
    assert attempt.response is not None
    version = attempt.read.version
    pinned = version.known and bool(remote.pin_fields(version))
    refusal = remote.refused(head, bytes(memory[: attempt.response.filled]), pinned=pinned)
    if refusal.ends and not isinstance(attempt.read, Probe):
        _ended(attempt, refusal.total, complete)
    elif refusal.elsewhere and attempt.goes_elsewhere():
        attempt.connect()
    elif refusal.again and attempt.hops < _MOST_HOPS:
        attempt.hops += 1
        attempt.connect()
    elif status in _EXPIRED and attempt.restart_at_original():
        attempt.connect()
    elif refusal.renew and credentials.renewable and not attempt.refused:
        attempt.refused = True
        attempt.renew(attempt.asked_with)
    elif refusal.error.status == "temporary":
        attempt.retry(refusal.error, validation.retry_after_s(head, time.time()))
    else:
        try:
            raise refusal.error
        finally:
            del refusal  # breaks the cycle of frame and traceback


def _move(attempt: Attempt, head: Head, complete: Complete) -> None:
    attempt.hops += 1
    if attempt.hops > _MOST_HOPS:
        raise UnexpectedError(f"more than {_MOST_HOPS} redirects")
    try:
        attempt.redirected(head)
    except ConfigInvalidError:
        raise UnexpectedError("the server redirects to an address that is not an http or https URL") from None
    read = attempt.read
    told = read.remote.told_by_redirect(head) if isinstance(read, Probe) else None
    if told is None:
        attempt.connect()
        return
    assert isinstance(read, Probe)
    _check_version(attempt, told, told.length, by_head=True)
    read.size = told.length
    complete(attempt)


def _judge_probe(attempt: Attempt, read: Probe, head: Head, complete: Complete) -> Body:
    """Decide about a response to HEAD, or to the GET of one byte that replaces it."""
    status, version = head.status, read.version
    if read.remote.by_status:
        return _judge_status(attempt, read, head, complete)
    first, _, total = validation.content_range(head)
    if attempt.method == "HEAD":
        total = read.remote.told_by_head(head)
        if status in _NO_HEAD or (status in validation.BRINGING and total is None):
            attempt.method = "GET"
            attempt.outcome = attempt.connect
            return _NO_BODY
    elif status == 204 or (status == 416 and total is None):
        total = 0
    elif status == 200 and first is None:
        encoded = validation.encoding_of(head) and not read.remote.stored_encoding
        total = None if encoded else head.length
    if status not in validation.BRINGING:
        return _hear(attempt, head, complete)
    if status in (204, 416):
        if version.known and version.expected is not None and total != version.expected:
            raise ObjectChangedError(
                f"it changed after it was opened: it has {total} bytes now; open it again"
            )
        version.size = total
    else:
        _check_version(attempt, head, total, by_head=attempt.method == "HEAD")
    read.size = total
    attempt.outcome = partial(complete, attempt)
    return _NO_BODY


def _judge_status(attempt: Attempt, read: Probe, head: Head, complete: Complete) -> Body:
    if head.status != 200:
        return _hear(attempt, head, complete)
    memory = bytearray(_MOST_OF_A_REFUSAL)
    attempt.outcome = partial(_learn_status, attempt, read, memory, complete)
    return Body(memoryview(memory))


def _learn_status(attempt: Attempt, read: Probe, memory: bytearray, complete: Complete) -> None:
    """Set the version from the body of a status, or compare it."""
    assert attempt.response is not None
    version, remote = read.version, read.remote
    size, revision = remote.status(bytes(memory[: attempt.response.filled]))
    with _LEARNING._lock:
        if version.known and version.revision != revision:
            raise ObjectChangedError("it changed after it was opened; open it again")
        if not version.known:
            if version.size not in (None, size):
                raise ObjectChangedError(f"the object has {size} bytes, but size={version.size} was given")
            version.learn_status(size, revision)
    RETRIES.succeeded(attempt.target.origin)
    remote.checked_at = attempt.sent
    read.size = size
    complete(attempt)
