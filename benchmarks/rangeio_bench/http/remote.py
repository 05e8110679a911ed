"""The rounds of `runner` for an object on a server. Results are compared with a local copy."""

import http.client
import ssl
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from rangeio.cli.machine import read_text
from rangeio_bench.cases import Case
from rangeio_bench.conditions import warm
from rangeio_bench.contender import Sample, Setting
from rangeio_bench.http.cases import PACE, WAIT_S, HttpCase
from rangeio_bench.http.clients import PART, Client
from rangeio_bench.http.paced import Counted, Paced
from rangeio_bench.results import CaseResult
from rangeio_bench.runner import Bench, Entry, Options
from rangeio_bench.work import Work, far_columns, random_records, whole_file

_LATENCIES = 4096


@dataclass(frozen=True, slots=True)
class Where:
    """The URLs of one object: url over plain TCP, tls over TLS (empty: not measured), ca_file to trust there."""

    url: str
    tls: str = ""
    ca_file: str = ""

    def __str__(self) -> str:
        parts = urlsplit(self.url)
        control = read_text("/proc/sys/net/ipv4/tcp_congestion_control")
        return f"{parts.scheme}://{server_of(self.url)}{parts.path} (tcp_congestion_control {control or 'unknown'})"


def server_of(url: str) -> str:
    """Host and port for a report, without a login."""
    return str(urlsplit(url).netloc).rpartition("@")[2]


def http_options(options: Options) -> Options:
    """Longer samples than for files, because the server on the same machine causes variation."""
    return replace(options, sample_s=options.sample_s * 6, case_s=options.case_s * 1.5)


class HttpBench(Bench):
    """The cases for one object."""

    def __init__(self, where: Where, copy: Path, options: Options) -> None:
        super().__init__(copy, copy.stat().st_size, copy.parent, http_options(options))
        self.where = where
        self.paced: Paced | None = None

    def close(self) -> None:
        """Stop the paced server."""
        super().close()
        if self.paced is not None:
            self.paced.close()
            self.paced = None

    def works(self, case: Case) -> list[Work]:
        """See `Bench`."""
        assert isinstance(case, HttpCase)
        if case.action in ("each", "threads", "tasks"):
            return [random_records(self.path, self.size, 1 << 16, length=case.block)]
        if case.action == "batch":
            return [
                random_records(self.path, self.size, case.group, salt=salt, length=case.block)
                for salt in range(16)
            ]
        if case.action == "ranges":
            return [far_columns(self.path, self.size)]
        return [whole_file(self.path, min(self.size, case.nbytes or self.options.large_bytes))]

    def setting(self, case: Case) -> Setting:
        """See `Bench`."""
        assert isinstance(case, HttpCase)
        here = Setting(self.path, self.folder, self.scratch, depth=case.depth, store=case.store)
        if case.server == "tls":
            return replace(here, url=self.where.tls, ca_file=self.where.ca_file)
        if case.server == "given":
            return replace(here, url=self.where.url)
        if self.paced is None:
            self.paced = Paced(self.path, pace=PACE, wait_s=WAIT_S)
        return replace(here, url=self.paced.url, server=_Count(self.paced))

    def obstacle(self, case: Case) -> str:
        """See `Bench`."""
        assert isinstance(case, HttpCase)
        if self.size < 16 << 20:
            return "the object is smaller than 16 MiB"
        if case.store == "az" and urlsplit(self.where.url).path.count("/") < 3:
            return "the path of the URL is not /account/container/blob"
        if case.server == "tls" and not self.where.tls:
            return "no --tls URL of the same object was given"
        if case.server == "paced" and not sys.platform.startswith("linux"):
            return "the kernel cannot pace"
        return ""

    def _reach_state(self, case: Case, result: CaseResult, works: list[Work], entries: list[Entry]) -> bool:
        warm(works[0])
        assert isinstance(case, HttpCase)
        if case.server == "paced":
            result.cache = f"a server with {PACE / 1e6:.0f} MB/s per connection and {WAIT_S * 1e3:.0f} ms"
        else:
            result.cache = server_of(self.where.tls if case.server == "tls" else self.where.url)
        return True

    def _prepare(self, case: Case, works: list[Work], entries: list[Entry]) -> float | None:
        return None

    def _ready(self, case: Case, entry: Entry) -> None:
        assert isinstance(case, HttpCase)
        if case.server != "paced":  # with the paced server, memory is never the bottleneck
            super()._ready(case, entry)
            # The results of one call are kept until the next call has completed.
            if case.action == "batch":
                entry.contender.measure(case.action, entry.works[:2])

    def _tail(self, case: Case, entry: Entry) -> float | None:
        if case.action not in ("each", "batch", "threads", "tasks"):
            return None
        if case.action == "each":
            return super()._tail(case, entry)
        assert isinstance(entry.contender, Client)
        work = random_records(
            self.path, self.size, min(_LATENCIES, (512 << 20) // case.block), length=case.block
        )
        times = entry.contender.latencies(case.action, work)
        return statistics.quantiles(times, n=100)[98] if len(times) >= 100 else None


@dataclass(frozen=True, slots=True)
class _Count:
    """The paced server's counters as part of a sample."""

    server: Paced

    def counted(self) -> Counted:
        return self.server.counted()

    def measured(self, sample: Sample, depth: int, before: object) -> Sample:
        now = self.server.counted()
        assert isinstance(before, Counted)
        turns = -(-sample.nbytes // (PART * depth))  # each of them waits for a first byte
        least_s = sample.nbytes / (self.server.pace * depth) + turns * self.server.wait_s
        return replace(
            sample,
            requests=now.requests - before.requests,
            device_bytes=now.nbytes - before.nbytes,
            least_ns=round(least_s * 1e9),
        )


def download(where: Where, path: Path, tick: Callable[[float], None]) -> None:
    """Download the local copy with the standard library, in one request."""
    parts = urlsplit(where.url)
    host, port = parts.hostname or "", parts.port
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        context = ssl.create_default_context(cafile=where.ca_file or None)
        connection = http.client.HTTPSConnection(host, port, context=context)
    else:
        connection = http.client.HTTPConnection(host, port)
    try:
        connection.request("GET", f"{parts.path}?{parts.query}" if parts.query else parts.path)
        response = connection.getresponse()
        if response.status != 200 or response.length is None:
            raise OSError(
                f"{server_of(where.url)} answers {response.status} {response.reason}, or tells no length"
            )
        size, done, last = response.length, 0, time.monotonic()
        with open(path, "wb") as file:
            while data := response.read(1 << 20):
                file.write(data)
                done += len(data)
                if time.monotonic() - last > 0.1:
                    last = time.monotonic()
                    tick(done / size)
    finally:
        connection.close()
    if done != size:
        raise OSError(f"{server_of(where.url)} sent {done} of {size} bytes")
