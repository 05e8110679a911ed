"""How long to wait and how often to try again: what a caller may choose, and the budget of all retries."""

import os
import random
import threading
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

from rangeio.errors import ConfigInvalidError

_BOUNDS = ("connect_s", "first_byte_s", "idle_s", "total_s")


@dataclass(frozen=True, slots=True)
class Timeout:
    """Seconds, None for no bound. A number in its place means `total_s`.

    connect_s: name lookup, TCP, proxy and TLS together, of one connection. first_byte_s: from the request to the first
    byte of its response. idle_s: between two arrivals of bytes. total_s: one call of a Reader, retries included; None
    by default, because a large read may rightly take long. They are looked at every eighth of the shortest.
    """

    connect_s: float | None = 10.0
    first_byte_s: float | None = 30.0
    idle_s: float | None = 30.0
    total_s: float | None = None
    tick_s: float = field(init=False, repr=False, compare=False)
    """How often to look."""

    def __post_init__(self) -> None:
        bounds = (self.connect_s, self.first_byte_s, self.idle_s, self.total_s)
        for name, bound in zip(_BOUNDS, bounds, strict=True):
            _positive(name, bound)
        shortest = min((bound for bound in bounds if bound is not None), default=8.0)
        object.__setattr__(self, "tick_s", min(1.0, max(0.005, shortest / 8)))

    @classmethod
    def of(cls, given: Any) -> "Timeout":
        """A Timeout as it is, a number as seconds for all of a read, None for the defaults."""
        if given is None:
            return cls()
        return given if isinstance(given, cls) else cls(total_s=_positive("timeout", given))


@dataclass(frozen=True, slots=True)
class Retry:
    """When a request failed for a while only (a broken connection, a timeout, 408, 429, 5xx), try again.

    attempts: of one request, the first included; 1 for no retry. A number in place of a Retry means this. backoff_s:
    the first pause is random between 0 and this, each further one between 0 and twice as much, up to max_backoff_s.
    A server's Retry-After is honoured up to max_retry_after_s; where it asks for more, the error is raised at once.
    Source: full jitter, AWS Architecture Blog, "Exponential Backoff And Jitter".
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
        """A Retry as it is, a number as attempts, False for one attempt, None for the defaults."""
        if given is None or given is True:
            return cls()
        if isinstance(given, cls):
            return given
        return cls(attempts=1 if given is False else given)

    def pause_s(self, failures: int, asked_s: float | None) -> float | None:
        """Seconds to wait after so many failures, at least what the server asked for; None if that is too long."""
        if asked_s is not None and asked_s > self.max_retry_after_s:
            return None
        most = min(self.max_backoff_s, self.backoff_s * 2.0 ** min(failures - 1, 30))
        return max(asked_s or 0.0, random.uniform(0.0, most))


def hedge_of(given: Any) -> float | None:
    """Seconds, or None. ConfigInvalidError for anything else."""
    return _positive("hedge", given)


def _positive(name: str, value: Any, least: float = 1e-3) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value < 1e9:
        raise ConfigInvalidError(f"{name} must be a number of seconds of at least {least:g}, not {value!r}")
    return float(value)


# Of so many failing origins each has a bucket; the one that failed first is forgotten.
_MOST_ORIGINS = 1000


class RetryBudget:
    """Tokens for retries, so that an outage does not multiply its own load: a bucket for each origin, and a larger one
    for the process.

    Each retry takes some tokens of both, each success gives one back. Where one is empty, the first failure is the
    last: a server that is down uses up its own bucket, and retries of others go on. Any thread.
    Source: the retry quota of the AWS SDKs' standard mode, whose figures these are; gRPC A6 throttles per server, too.
    """

    def __init__(self, tokens: int = 500, cost: int = 5, *, origins: int = 20) -> None:
        """tokens: of one origin. origins: so many times as many of the process."""
        self._capacity, self._cost = tokens, cost
        self._tokens = self._of_all = tokens * origins
        self._origins: dict[Hashable, int] = {}
        self._renew_lock()
        self.refused = self.spent = self.hedges = self.hedges_won = 0

    def _renew_lock(self) -> None:
        """In a forked child too: a thread that only the parent has may have held it. A handler may read amid it."""
        self._lock = threading.RLock()

    def reset(self) -> None:
        """Fill every bucket."""
        with self._lock:
            self._origins.clear()
            self._tokens = self._of_all

    def take(self, origin: Hashable, *, hedge: bool = False) -> bool:
        """Whether one more retry is allowed, or request that is made twice; if so it is paid for."""
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
        """The second of two equal requests was answered first."""
        with self._lock:
            self.hedges_won += 1

    def succeeded(self, origin: Hashable) -> None:
        """A request was answered. Free of the lock while all buckets are full."""
        # Either may lack tokens alone: others may have filled the process's before this server was well again.
        if self._tokens < self._of_all or (self._origins and origin in self._origins):
            with self._lock:
                self._tokens = min(self._of_all, self._tokens + 1)
                left = self._origins.pop(origin, self._capacity) + 1
                if left < self._capacity:
                    self._origins[origin] = left

    def stats(self) -> dict[str, int]:
        """retries: made so far; retries_refused: for want of tokens, hedges too; retry_tokens: left of the process's.
        hedges: requests made twice; hedges_won: where the second was answered first.
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
