"""The cases for an object on a server, and their targets."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from rangeio_bench.cases import Case, Target
from rangeio_bench.contender import Contender
from rangeio_bench.http import awaiting, clients, ours

# In the order of the report; the targets refer to the first contender of a name.
CLIENTS: tuple[type[clients.Client], ...] = (
    ours.Rangeio,
    ours.RangeioAwaiting,
    ours.RangeioUvloop,
    clients.HttpClient,
    clients.Urllib3,
    clients.Obstore,
    awaiting.ObstoreThreads,
    awaiting.ObstoreAwaiting,
    clients.OpenDAL,
    clients.Arrow,
    awaiting.Aiohttp,
)

Server = Literal["given", "tls", "paced"]

PACE = 50_000_000
"""Bytes per second of one connection, about as fast as a connection to an object store."""
WAIT_S = 0.02


@dataclass(frozen=True)
class HttpCase(Case):
    """One kind of work over connections, `depth` of them at once."""

    server: Server = "given"
    store: Literal["s3", "gs", "az"] = "s3"
    nbytes: int = 0
    """Bytes of the object that are read, if not all."""

    def contenders(self) -> Iterable[type[Contender]]:
        """The contenders that support the case."""
        for kind in CLIENTS:
            speaks = (kind.speaks_tls or self.server != "tls") and self.store in kind.stores
            if self.action in kind.calls and speaks:
                yield kind


def _small() -> Iterable[HttpCase]:
    yield HttpCase(
        id="http-4k",
        title="4 KiB ranges, one by one",
        why="The cost of a request over an open connection: mostly that of the client.",
        action="each",
        cache="hot",
        baseline="obstore",
        targets=(Target("cpu ratio", 0.55, ("http.client",)),),
        depth=1,
        block=4 << 10,
    )
    why = "Records, tiles or chunks of an array: many distant ranges, 16 connections."
    yield HttpCase(
        id="http-64k",
        title="64 KiB ranges, one caller, 16 in flight",
        why=why,
        action="batch",
        cache="hot",
        baseline="obstore",
        targets=(
            Target("rate", 2.0, ("obstore",)),
            Target("cpu ratio", 0.4, ("obstore",)),
            Target("p99 ratio", 0.6, ("obstore",)),
        ),
        group=512,
        depth=16,
        block=64 << 10,
    )


def _of_stores() -> Iterable[HttpCase]:
    reasons: dict[Literal["gs", "az"], str] = {
        "gs": "The same by the clients of Google Cloud Storage.",
        "az": "The same with an account key: what its signatures cost. The server checks none of them.",
    }
    for store, why in reasons.items():
        yield HttpCase(
            id=f"{store}-64k",
            title=f"64 KiB ranges of {store}://, one caller, 16 in flight",
            why=why,
            action="batch",
            cache="hot",
            baseline="obstore",
            targets=(Target("rate", 2.0, ("obstore",)), Target("cpu ratio", 0.4, ("obstore",))),
            group=512,
            depth=16,
            block=64 << 10,
            store=store,
        )


def _at_once() -> Iterable[HttpCase]:
    yield HttpCase(
        id="http-64k-tasks",
        title="64 KiB ranges, 16 tasks of asyncio",
        why="A server or a loader on asyncio.",
        action="tasks",
        cache="hot",
        baseline="obstore",
        targets=(Target("rate", 1.5, ("obstore",)),),
        depth=16,
        block=64 << 10,
    )
    yield HttpCase(
        id="http-64k-threads",
        title="64 KiB ranges, 16 threads",
        why="A pool of workers that read independently.",
        action="threads",
        cache="hot",
        baseline="obstore",
        targets=(Target("rate", 1.4, ("obstore",)),),
        depth=16,
        block=64 << 10,
    )
    yield HttpCase(
        id="http-1m",
        title="1 MiB ranges, one caller, 16 in flight",
        why="Larger tiles, or groups of tiles.",
        action="batch",
        cache="hot",
        baseline="obstore",
        targets=(Target("rate", 1.4, ("obstore",)), Target("cpu ratio", 0.5, ("obstore",))),
        group=96,
        depth=16,
        block=1 << 20,
    )


def _large() -> Iterable[HttpCase]:
    why = "Loading a model: one buffer, at network speed, with low CPU usage."
    bounds = {
        "http-whole-1": (1, (Target("rate", 2.5, ("obstore",)),)),
        "http-whole-16": (16, (Target("rate", 1.7, ("obstore",)), Target("cpu ratio", 0.4, ("obstore",)))),
        "https-whole-16": (16, (Target("rate", 1.25, ("obstore",)), Target("cpu ratio", 0.6, ("obstore",)))),
    }
    for name, (depth, targets) in bounds.items():
        tls = name.startswith("https")
        yield HttpCase(
            id=name,
            title=f"A large object into one buffer, {depth} connection{'s' * (depth > 1)}{', TLS' * tls}",
            why=why,
            action="whole",
            cache="hot",
            baseline="obstore",
            targets=targets,
            depth=depth,
            server="tls" if tls else "given",
        )


def _ranges() -> Iterable[HttpCase]:
    why = "A few columns of a table: 500 ranges of 16 to 512 KiB, some adjacent, some with small gaps."
    yield HttpCase(
        id="http-ranges",
        title="Column chunks of a Parquet file",
        why=why,
        action="ranges",
        cache="hot",
        baseline="obstore",
        targets=(Target("rate", 1 / 0.65, ("obstore",)),),
        depth=16,
    )
    pace = "50 MB/s per connection, 20 ms to the first byte"
    yield HttpCase(
        id="paced-ranges",
        title=f"Column chunks of a Parquet file, {pace}",
        why=why,
        action="ranges",
        cache="hot",
        baseline="obstore",
        targets=(
            Target("rate", 1 / 0.55, ("obstore",)),
            Target("rate", 1 / 0.7, ("http.client", "urllib3", "opendal", "pyarrow")),
            Target("requests", 0.65),
            Target("device bytes", 1.05),
        ),
        depth=16,
        server="paced",
    )
    yield HttpCase(
        id="paced-whole",
        title=f"256 MiB into one buffer, {pace}, 16 connections",
        why="The same object from a distant store.",
        action="whole",
        cache="hot",
        baseline="obstore",
        targets=(Target("limit", 1.05),),
        depth=16,
        server="paced",
        nbytes=256 << 20,
    )


HTTP_CASES: tuple[HttpCase, ...] = (
    *_small(),
    *_of_stores(),
    *_at_once(),
    *_large(),
    *_ranges(),
)
