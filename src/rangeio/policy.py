"""Time limits and retries: the caller's options, and the process-wide retry budget."""

import os
import threading
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

from rangeio.errors import ConfigInvalidError

_BOUNDS = ("connect_s", "first_byte_s", "idle_s", "total_s")


@dataclass(frozen=True, slots=True)
class Timeout:
    """Time limits in seconds, None for no limit. A number in place of a Timeout means `total_s`.

    connect_s: name lookup, TCP, proxy and TLS of one connection together. first_byte_s: from the request to the first
    byte of its response. idle_s: between two arrivals of bytes. total_s: one call of a Reader, including retries; None
    by default, because a large read may take long. The limits are checked every eighth of the shortest one.
    """

    connect_s: float | None = 10.0
    first_byte_s: float | None = 30.0
    idle_s: float | None = 30.0
    total_s: float | None = None
    tick_s: float = field(init=False, repr=False, compare=False)
    """The interval between checks."""
    silence_s: float = field(init=False, repr=False, compare=False)
    """The shortest limit of a request that was sent; infinite without one."""

    def __post_init__(self) -> None:
        bounds = (self.connect_s, self.first_byte_s, self.idle_s, self.total_s)
        for name, bound in zip(_BOUNDS, bounds, strict=True):
            _positive(name, bound)
        shortest = min((bound for bound in bounds if bound is not None), default=8.0)
        object.__setattr__(self, "tick_s", min(1.0, max(0.005, shortest / 8)))
        silence_s = min((bound for bound in bounds[1:] if bound is not None), default=float("inf"))
        object.__setattr__(self, "silence_s", silence_s)

    @classmethod
    def of(cls, given: Any) -> "Timeout":
        """Convert: a Timeout stays, a number means `total_s`, None means the defaults."""
        if given is None:
            return cls()
        return given if isinstance(given, cls) else cls(total_s=_positive("timeout", given))


@dataclass(frozen=True, slots=True)
class Retry:
    """Retries of requests with a temporary failure (a broken connection, a timeout, 408, 429, 5xx).

    attempts: maximum number of attempts of one request, including the first; 1 disables retries. A number in place of a
    Retry means this. backoff_s: the first pause is random between 0 and this; the limit doubles for each further pause,
    up to max_backoff_s. A Retry-After of the server is honoured up to max_retry_after_s; if it is longer, the error is
    raised at once. Source: full jitter, AWS Architecture Blog, "Exponential Backoff And Jitter".
    """

    attempts: int = 5
    backoff_s: float = 0.1
    max_backoff_s: float = 10.0
    max_retry_after_s: float = 60.0

    def __post_init__(self) -> None:
        if not isinstance(self.attempts, int) or self.attempts < 1:
            raise ConfigInvalidError(f"attempts must be a whole number of at least 1, not {self.attempts!r}")
        for name in ("backoff_s", "max_backoff_s", "max_retry_after_s"):
            if _positive(name, getattr(self, name), least=0.0) is None:
                raise ConfigInvalidError(f"{name} must be a number of seconds")

    @classmethod
    def of(cls, given: Any) -> "Retry":
        """Convert: a Retry stays, a number means `attempts`, False means one attempt, None means the defaults."""
        if given is None or given is True:
            return cls()
        if isinstance(given, cls):
            return given
        return cls(attempts=1 if given is False else given)

    def pause_s(self, failures: int, asked_s: float | None) -> float | None:
        """Seconds to wait after `failures`, at least the server's Retry-After; None if that is too long."""
        if asked_s is not None and asked_s > self.max_retry_after_s:
            return None
        most = min(self.max_backoff_s, self.backoff_s * 2.0 ** min(failures - 1, 30))
        from random import uniform

        return max(asked_s or 0.0, uniform(0.0, most))


def hedge_of(given: Any) -> float | None:
    """Check the option `hedge`: seconds or None. ConfigInvalidError for anything else."""
    return _positive("hedge", given)


def _positive(name: str, value: Any, least: float = 1e-3) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value < 1e9:
        raise ConfigInvalidError(f"{name} must be a number of seconds of at least {least:g}, not {value!r}")
    return float(value)


# Maximum number of failing origins with a bucket; beyond it, the one that failed first is dropped.
_MOST_ORIGINS = 1000


class RetryBudget:
    """Token buckets for retries, so that an outage does not multiply its load: one per origin, and a larger one for the
    process.

    Each retry takes tokens from both buckets, each success returns one. If either is empty, failures are not retried: a
    server that is down exhausts its own bucket, and retries to other servers continue. Thread-safe. Source: the retry
    quota of the AWS SDKs' standard mode, with the same figures; gRPC A6 also throttles per server.
    """

    def __init__(self, tokens: int = 500, cost: int = 5, *, origins: int = 20) -> None:
        """tokens: capacity of an origin's bucket. origins: the process's bucket holds this many times as many."""
        self._capacity, self._cost = tokens, cost
        self._tokens = self._of_all = tokens * origins
        self._origins: dict[Hashable, int] = {}
        self._renew_lock()
        self.refused = self.spent = self.hedges = self.hedges_won = 0

    def _renew_lock(self) -> None:
        """Create the lock; in a forked child too, because a thread of the parent may have held it. Reentrant, because a
        signal handler may read while the lock is held.
        """
        self._lock = threading.RLock()

    def reset(self) -> None:
        """Refill every bucket."""
        with self._lock:
            self._origins.clear()
            self._tokens = self._of_all

    def take(self, origin: Hashable, *, hedge: bool = False) -> bool:
        """Whether one more retry or hedge is allowed. If so, takes its tokens."""
        with self._lock:
            left = self._origins.get(origin, self._capacity)
            if min(left, self._tokens) < self._cost:
                self.refused += 1
                return False
            self._tokens -= self._cost
            self._origins[origin] = left - self._cost
            if len(self._origins) > _MOST_ORIGINS:
                del self._origins[next(iter(self._origins))]
            if hedge:
                self.hedges += 1
            else:
                self.spent += 1
            return True

    def hedge_won(self) -> None:
        """Record that the hedge got its response before the first request."""
        with self._lock:
            self.hedges_won += 1

    def succeeded(self, origin: Hashable) -> None:
        """Record a success: return one token to both buckets. Takes no lock while all buckets are full."""
        # Either bucket alone may lack tokens: other servers may have refilled the process's before this one recovered.
        if self._tokens < self._of_all or (self._origins and origin in self._origins):
            with self._lock:
                self._tokens = min(self._of_all, self._tokens + 1)
                left = self._origins.pop(origin, self._capacity) + 1
                if left < self._capacity:
                    self._origins[origin] = left

    def stats(self) -> dict[str, int]:
        """retries: made so far; retries_refused: for lack of tokens, including hedges; retry_tokens: left in the
        process's bucket; hedges: requests sent a second time; hedges_won: hedges with the first response.
        """
        return {
            "retries": self.spent,
            "retries_refused": self.refused,
            "retry_tokens": self._tokens,
            "hedges": self.hedges,
            "hedges_won": self.hedges_won,
        }


RETRIES = RetryBudget()
"""The budgets of this process."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=RETRIES._renew_lock)
