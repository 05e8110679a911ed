"""One object on a server: its address, its version, and the requests for its bytes."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from _uring import Expected, RangeRequest
from rangeio.errors import Error, UnauthenticatedError, UnsupportedError
from rangeio.http.connection_pool import ConnectionPool
from rangeio.http.credentials_call import called
from rangeio.http.fields import check_value, checked_fields, head_of, merged
from rangeio.http.heads import Head
from rangeio.http.proxies import basic
from rangeio.http.redaction import Quoted, secrets_of_fields, secrets_of_login, secrets_of_query
from rangeio.http.urls import Address, may_carry, moved
from rangeio.http.validation import End, OnNoRange, Take, Version, request_id, status_class, told_by_head
from rangeio.locks import begin_lock
from rangeio.policy import Retry, Timeout
from rangeio.ranges import UnprovenSize

Fresh: TypeAlias = Mapping[str, str] | tuple[Mapping[str, str], float]
"""Return value of a credentials callable: header fields, or a tuple of them and their expiry in seconds since 1970."""

# A waiting thread wakes at least this often, whatever the limits: a signal may have arrived in another thread.
_LOOK_S = 1.0
# Credentials are renewed this long before they expire.
_RENEW_S = 60.0
# Number of previous redirect targets that are remembered, because requests to them may still be in flight.
_MOST_LEFT = 512


class Credentials:
    """Header fields with credentials. Calls `source` for new ones when they are missing, about to expire or rejected.

    Calls it once for all waiting reads, on the thread of a sync read or on a worker thread. The repr shows no secrets.
    """

    _lock: threading.RLock
    advice = ""
    """What to do if they are missing or refused, in the message of that error."""

    def __init__(self, fixed: Mapping[str, str], source: Callable[[], Any] | None) -> None:
        self._fields: dict[str, str] = dict(fixed)
        self._fields_before: dict[str, str] = {}
        self._source = source
        self._renew_at = 0.0 if source is not None else float("inf")
        self.version = 0
        begin_lock(self)  # held during the call of the source

    @property
    def stale(self) -> bool:
        """Whether `renew`, which may block, must be called before the next request."""
        return self._renew_at != float("inf") and time.time() > self._renew_at

    @property
    def fields(self) -> dict[str, str]:
        """The header fields to send."""
        return self._fields

    def renew(self, refused: int | None = None) -> None:
        """Get new credentials from the source. refused: the `version` a server rejected; does nothing if it is not the
        current one.
        """
        with self._lock:
            if self._source is None or (refused is not None and refused != self.version):
                return
            if refused is None and not self.stale:
                return
            expiry = self.accept(called(self._source))
            # Credentials valid for less than twice the margin are renewed at half their lifetime, and expired ones (by
            # our clock) after a second, so not at each request.
            left_s = expiry - time.time()
            self._renew_at = time.time() + max(1.0, left_s - min(_RENEW_S, left_s / 2))
            self.version += 1

    def fetch(self) -> None:
        """Get credentials if needed, outside of a request. May block. UnauthenticatedError if that fails."""
        try:
            if self.stale:
                self.renew()
        except Error as error:
            if self.advice and isinstance(error, UnauthenticatedError):
                error.args = (f"{error.args[0]}; {self.advice}",)
            raise
        except Exception as error:
            raise UnauthenticatedError(f"credentials() failed: {type(error).__name__}") from error

    def accept(self, given: Any) -> float:
        """Store the credentials from the source. Returns their expiry in seconds since 1970."""
        fields, expiry = given if isinstance(given, tuple) else (given, float("inf"))
        self._fields, self._fields_before = checked_fields(fields), self._fields
        return float(expiry)

    def secrets(self) -> Iterator[str]:
        """Secrets that no message may show: of the current credentials and of those a request in flight may use."""
        yield from secrets_of_fields(self._fields)
        yield from secrets_of_fields(self._fields_before)

    @property
    def renewable(self) -> bool:
        """Whether a rejection is worth a retry with new credentials."""
        return self._source is not None


@dataclass(slots=True)
class Access:
    """What all objects of a service share: the pool and the fields of each request. insecure_redirects: allow redirects
    from https to http.
    """

    pool: ConnectionPool
    fields: dict[str, str] = field(default_factory=dict, repr=False)
    credentials: Credentials = field(default_factory=lambda: Credentials({}, None))
    insecure_redirects: bool = False


@dataclass(slots=True)
class Refusal:
    """The meaning of a response without bytes. renew: other credentials might be accepted. again: the request should be
    repeated at once, because something was learned from the response. ends: the object has no byte at the requested
    offset, as 416 says; total: its size then, if the response tells. elsewhere: another server may respond
    (`RemoteObject.leave`).
    """

    error: Error
    renew: bool = False
    again: bool = False
    ends: bool = False
    total: int | None = None
    elsewhere: bool = False


class RemoteObject:
    """One object: its current address (redirects), its version (the pin), and the policy for reads. Thread-safe.

    A service overrides what differs from plain HTTP: the attributes of this class, and the methods that say so.

    conditions: header fields sent until the version is known, such as If-None-Match. size: its size, if known before;
    the first response is compared with it.
    """

    by_bytes = True
    """Whether requests are for ranges, which errors then contain; not those for a page of a listing."""
    ranges_alike = True
    """Whether the requests for two ranges differ in the numbers of the Range field only. Then the core makes them from
    one text (`range_request`); otherwise `request` makes each of them.
    """
    suffix_ranges = True
    """Whether a request may be for the last bytes of an object of unknown size."""
    redirects_object = True
    """Whether a redirect holds for later requests of the object; otherwise for one request only."""
    by_status = False
    """Whether size and version come from a status of its own: the response to a `request` for nothing (stop None),
    which `status` reads. Responses with bytes then tell neither. See `status_checks`.
    """
    alternatives = 0
    """The number of other servers that may respond to its requests (`leave`)."""
    accept_encoding = "identity"
    """The content codings that a request accepts."""
    probe_method = "HEAD"
    """The method with which `stat` begins. If HEAD is refused, it requests one byte."""
    stored_encoding = False
    """Whether a content coding in a response is that of the stored bytes, to which offsets refer. Otherwise an encoded
    body is refused.
    """

    def __init__(
        self,
        access: Access,
        address: Address,
        *,
        timeout: Timeout,
        retry: Retry,
        pin: bool,
        on_no_range: OnNoRange,
        cap: int,
        conditions: Mapping[str, str],
        shown: str = "",
        size: int | None = None,
        hedge_s: float | None = None,
    ) -> None:
        self.access = access
        self.address = address
        self.timeout, self.retry = timeout, retry
        self.hedge_s = hedge_s
        self.pinned = pin
        self.on_no_range, self.cap = on_no_range, cap
        self.conditions = {name: check_value(name, value) for name, value in conditions.items()}
        self.shown = shown or address.shown
        self._version = Version(size=size)
        self.kept: Any = None  # the whole object, if the server does not send ranges
        self._target = address
        self._left: dict[Address, None] = {}  # previous redirect targets, the newest last
        self._prefix: tuple[Any, str] = (None, "")
        self._range_request: tuple[Any, RangeRequest | None] = (None, None)
        self._expected: Expected | None = None
        self.checked_at = float("-inf")  # when the last status was requested

    @property
    def target(self) -> Address:
        """The address where it was last found."""
        return self._target

    @property
    def version(self) -> Version:
        """The pin of all reads. Without pin=, a new one for each read, whose pieces still have one version."""
        return self._version if self.pinned else Version()

    @property
    def size(self) -> int | None:
        """Size in bytes, if it is known and pinned; an `UnprovenSize` while only HEAD reported it."""
        size, told = self._version.size, self._version.told
        if not self.pinned:
            return None
        return UnprovenSize(told) if size is None and told is not None else size

    @property
    def told_by(self) -> str:
        """See `Version`."""
        return self._version.told_by if self.pinned else ""

    def tick_s(self, timeout: Timeout) -> float:
        """The interval between checks of its requests."""
        return timeout.tick_s if self.hedge_s is None else min(timeout.tick_s, max(0.001, self.hedge_s / 4))

    def patience_s(self, timeout: Timeout) -> float:
        """The silence after which a waiting thread must check the limits."""
        least_s = min(_LOOK_S, timeout.silence_s)
        return least_s if self.hedge_s is None else min(least_s, self.hedge_s)

    def move(self, address: Address) -> None:
        """Change its address."""
        self._go_to(address)
        self.address = address

    @property
    def expected(self) -> Expected | None:
        """The expected fields of a plain response; None while they are not known, and unless `ranges_alike`."""
        version, size = self._version, self._version.size
        if (
            self._expected is None
            and self.ranges_alike
            and self.pinned
            and size is not None
            and version.known
            and version.ranged
        ):
            etag, modified = _sent(version.etag), _sent(version.modified)
            self._expected = Expected(size, etag, modified, _sent(version.encoding))
        return self._expected

    def redirect(self, asked: Address, head: Head) -> Address:
        """Follow a redirect; returns its target. asked: the address that sent it. ConfigInvalidError for an invalid
        URL; UnsupportedError if it leads from https to http, unless that is allowed.
        """
        target = self.redirected(asked, head)
        leaves_tls = asked.origin.scheme == "https" and target.origin.scheme == "http"
        if leaves_tls and not self.access.insecure_redirects:
            raise UnsupportedError(
                "the server redirects from https to "
                + Quoted(target.shown)
                + ", where others can read and change"
                " the bytes; insecure_redirects=True follows it"
            )
        if self.redirects_object:
            self._go_to(target)
        else:
            self._remember(target)
        return target

    def redirected(self, asked: Address, head: Head) -> Address:
        """The target of a redirect. For services: its head may tell more. ConfigInvalidError for an invalid URL."""
        return moved(asked, head.fields["location"])

    def forget_redirect(self, target: Address) -> None:
        """Go back to the original address if `target` is still the current one: a signed target may have expired."""
        if self._target == target:
            self._go_to(self.address)

    def _go_to(self, target: Address) -> None:
        if self._target != self.address:
            self._remember(self._target)
        self._target = target

    def asks_otherwise(self, asked: bytes, absolute: bool) -> bool:
        """Whether a request in the steady state that began with this text went to another address than the present one,
        or with other credentials.
        """
        return self.expected is not None and self.range_request(self.target, absolute).before != asked

    def _remember(self, target: Address) -> None:
        """Keep an address whose secrets may be quoted by the response to a request in flight."""
        left = self._left  # other threads change it, too
        left.pop(target, None)
        left[target] = None
        for old in list(left)[:-_MOST_LEFT] if len(left) > _MOST_LEFT else ():
            left.pop(old, None)

    def request(
        self, method: str, at: int, stop: int | None, version: Version, target: Address, absolute: bool
    ) -> bytes:
        """The request for `at` to `stop`; for the whole object if `stop` is None.

        Everything added to the head was checked before: the conditions here, the ETag when its response was parsed
        (`heads`).
        """
        range_field = "" if stop is None or not self.by_bytes else f"Range: bytes={at}-{stop - 1}\r\n"
        return self._request(method, range_field, version, target, absolute)

    def suffix_request(self, count: int, version: Version, target: Address, absolute: bool) -> bytes:
        """The request for the last `count` bytes."""
        return self._request("GET", f"Range: bytes=-{count}\r\n", version, target, absolute)

    def _request(
        self, method: str, range_field: str, version: Version, target: Address, absolute: bool
    ) -> bytes:
        text = self._head(method, target, absolute) + range_field
        added = self.pin_fields(version) if version.known else self.conditions
        text += "".join(f"{name}: {value}\r\n" for name, value in added.items())
        return (text + "\r\n").encode("latin-1")

    def pin_fields(self, version: Version) -> Mapping[str, str]:
        """The fields with which a server refuses (412) any version but this one; none if it cannot. For services."""
        return {"If-Match": version.strong} if version.strong else {}

    def range_request(self, target: Address, absolute: bool) -> RangeRequest:
        """The reusable request for a range. Requires `expected`."""
        expected = self.expected
        assert expected is not None
        key = (target, absolute, self.stamp())
        known, found = self._range_request
        if found is None or known != key:
            before = self._head("GET", target, absolute) + "Range: bytes="
            pin = "".join(f"\r\n{name}: {value}" for name, value in self.pin_fields(self._version).items())
            found = RangeRequest(before.encode("latin-1"), (pin + "\r\n\r\n").encode("latin-1"), expected)
            self._range_request = key, found
        return found

    def range_request_text(self, target: Address, absolute: bool, start: int, stop: int) -> bytes:
        """The request for `start` to `stop`, made from `range_request`."""
        request = self.range_request(target, absolute)
        return b"%b%d-%d%b" % (request.before, start, stop - 1, request.after)

    def _head(self, method: str, target: Address, absolute: bool) -> str:
        key = (method, target, absolute, self.stamp())
        known, text = self._prefix
        if known != key:
            line = f"{method} {target.url if absolute else target.target} HTTP/1.1"
            ours = {
                "Host": target.origin.authority,
                "User-Agent": "rangeio",
                "Accept-Encoding": self.accept_encoding,
            }
            to_proxy = self.access.pool.proxy_fields(target.origin) if absolute else {}
            text = head_of(line, merged(ours, self.fields_for(method, target), to_proxy))
            self._prefix = key, text
        return text

    def stamp(self) -> object:
        """The state that `fields_for` depends on besides its arguments; compared for equality at each request."""
        return self.access.credentials.version

    def fields_for(self, method: str, target: Address) -> Mapping[str, str]:
        """The header fields of the caller, including credentials; none for origins other than the original one."""
        if not may_carry(self.address.origin, target.origin):
            return {}
        login = {} if self.address.login is None else {"Authorization": basic(*self.address.login)}
        return merged(self.access.fields, login, self.access.credentials.fields)

    def secrets(self) -> Iterator[str]:
        """Secrets that no message may show, because a server may quote its request."""
        yield from secrets_of_query(self.address.target)
        yield from secrets_of_login(self.address.login)
        yield from secrets_of_fields(self.access.fields)
        yield from self.access.credentials.secrets()
        yield from self.secrets_of_redirects()

    def secrets_of_redirects(self) -> Iterator[str]:
        """Secrets of redirects and proxies, including previous ones that a request in flight may use."""
        led_to = {self.target, *list(self._left)} - {self.address}
        for address in led_to:
            yield from secrets_of_query(address.target)
            yield from secrets_of_login(address.login)
        for origin in {address.origin for address in (self.address, *led_to)}:
            yield from self.access.pool.secrets(origin)

    def interpret(self, head: Head, target: Address) -> None:
        """Replace fields of a response with one of those statuses, or to HEAD, by what they mean for this service.
        target: the address that sent it. For services.
        """

    def told_by_redirect(self, head: Head) -> Head | None:
        """The head that a redirect stands for, if it tells the version, and as its length the size, so that `stat` need
        not follow it. For services.
        """
        return None

    def judged(self, head: Head, at: int, stop: int) -> Take | End | None:
        """The meaning of a response to a request for `at` to `stop` with status 200, 204, 206 or 416, where the service
        differs from HTTP; None where it does not. For services.
        """
        return None

    def told_by_head(self, head: Head) -> int | None:
        """The size from a response to HEAD; None if a byte must be requested to learn it. For services."""
        return told_by_head(head)

    def status(self, body: bytes) -> tuple[int, str]:
        """The size and the revision in the body of a status (`by_status`). For services."""
        raise NotImplementedError

    def leave(self, target: Address) -> None:
        """Send further requests to another server, if there is one: `target` does not respond, or says that it is not
        the right one. For services.
        """

    def refused(self, head: Head, body: bytes, *, pinned: bool) -> Refusal:
        """The meaning of a status without bytes. body: its beginning. pinned: `pin_fields` were sent.

        The message of the error, which is also in its `context` as "said", contains no secrets, even if the server
        quotes them.
        """
        kind, meaning = status_class(head.status, pinned=pinned)
        said = f"HTTP {head.status}: {meaning}"
        error = kind(said, http_status=head.status, request_id=request_id(head), context={"said": said})
        return Refusal(error, renew=head.status in (401, 403))


def _sent(value: str | None) -> bytes | None:
    """A header field as it is sent."""
    return value.encode("latin-1") if value else None
