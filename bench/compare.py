#!/usr/bin/env python3
"""compare.py --against CHECKOUT [--rounds N] [--cases A,B] [--backend NAME] URL --copy FILE [--tls URL --ca-file PEM]

Reads over HTTP with this checkout and another one (also built in its tree), interleaved: the ratio of CPU and time for
each read, computed within each round, then the median. `make compare AGAINST=../other` runs it with nginx.

Each checkout reads in a separate process, which runs through all rounds. CPU is user and system time of all its
threads. The cases named `varying` request the same bytes under a path where a response field has a different
length in each response.
"""

import argparse
import asyncio
import json
import os
import random
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve().parent.parent
KIB, MIB = 1 << 10, 1 << 20


# --- in the process of one checkout ---


class Worker:
    """Runs cases on request, with persistent Readers."""

    def __init__(self, urls: dict[str, str], ca_file: str | None) -> None:
        import rangeio

        self.rangeio = rangeio
        self.urls, self.ca_file = urls, ca_file
        self.readers: dict[str, Any] = {}
        self.loops: dict[str, Any] = {}
        self.dice = random.Random(1)

    def reader(self, server: str) -> Any:
        if server not in self.readers:
            options = {"ca_file": self.ca_file} if server == "tls" else {}
            self.readers[server] = self.rangeio.open(self.urls[server], gap=None, **options)
        return self.readers[server]

    def starts(self, count: int, nbytes: int, server: str) -> list[int]:
        return [self.dice.randrange((self.reader(server).size - nbytes) // 4096) * 4096 for _ in range(count)]

    def each(self, server: str, count: int, nbytes: int) -> int:
        read_at = self.reader(server).read_at
        for start in self.starts(count, nbytes, server):
            read_at(start, nbytes)
        return count

    def ranges(self, server: str, count: int, nbytes: int) -> int:
        reader = self.reader(server)
        reader.read_ranges(
            [(start, start + nbytes) for start in self.starts(count, nbytes, server)], concurrent=16
        )
        return count

    def threads(self, server: str, count: int, nbytes: int) -> int:
        read_at = self.reader(server).read_at

        def body(starts: list[int]) -> None:
            for start in starts:
                read_at(start, nbytes)

        threads = [
            threading.Thread(target=body, args=(self.starts(count // 16, nbytes, server),)) for _ in range(16)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return count // 16 * 16

    def tasks(self, server: str, count: int, nbytes: int, loop: str = "asyncio") -> int:
        name = f"{server} {loop}"
        if name not in self.loops:
            if loop == "uvloop":
                import uvloop

                made: Any = uvloop.new_event_loop()
            else:
                made = asyncio.new_event_loop()
            options = {"ca_file": self.ca_file} if server == "tls" else {}

            async def opened() -> Any:
                return self.rangeio.open_async(self.urls[server], gap=None, **options)

            self.loops[name] = made, made.run_until_complete(opened())
        made, reader = self.loops[name]
        jobs = [self.starts(count // 16, nbytes, server) for _ in range(16)]

        async def job(starts: list[int]) -> None:
            for start in starts:
                await reader.read_at(start, nbytes)

        async def main() -> None:
            await asyncio.gather(*(job(starts) for starts in jobs))

        made.run_until_complete(main())
        return count // 16 * 16

    def large(self, server: str, nbytes: int, concurrent: int) -> int:
        if not hasattr(self, "memory"):
            self.memory = bytearray(256 * MIB)
        self.reader(server)
        options = {"ca_file": self.ca_file} if server == "tls" else {}
        key = f"{server} {concurrent}"
        if key not in self.readers:
            self.readers[key] = self.rangeio.open(self.urls[server], concurrent=concurrent, **options)
        self.readers[key].read_into(memoryview(self.memory)[:nbytes])
        return nbytes // MIB

    def run(self, case: str) -> tuple[float, float]:
        """(CPU, time) per read in microseconds; for large reads per MiB."""
        before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        count = CASES[case](self)
        took, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return cpu / count * 1e6, took / count * 1e6


CASES: dict[str, Callable[[Worker], int]] = {
    "each-4k": lambda worker: worker.each("plain", 2000, 4 * KIB),
    "each-4k-varying": lambda worker: worker.each("varying", 2000, 4 * KIB),
    "each-64k": lambda worker: worker.each("plain", 1000, 64 * KIB),
    "ranges-64k": lambda worker: worker.ranges("plain", 2048, 64 * KIB),
    "ranges-64k-varying": lambda worker: worker.ranges("varying", 2048, 64 * KIB),
    "ranges-1m": lambda worker: worker.ranges("plain", 96, MIB),
    "threads-64k": lambda worker: worker.threads("plain", 2048, 64 * KIB),
    "threads-64k-varying": lambda worker: worker.threads("varying", 2048, 64 * KIB),
    "tasks-64k": lambda worker: worker.tasks("plain", 2048, 64 * KIB),
    "tasks-64k-varying": lambda worker: worker.tasks("varying", 2048, 64 * KIB),
    "tasks-64k-uvloop": lambda worker: worker.tasks("plain", 2048, 64 * KIB, "uvloop"),
    "tasks-4k": lambda worker: worker.tasks("plain", 2048, 4 * KIB),
    "tasks-4k-uvloop": lambda worker: worker.tasks("plain", 2048, 4 * KIB, "uvloop"),
    "large-1": lambda worker: worker.large("plain", 256 * MIB, 1),
    "large-16": lambda worker: worker.large("plain", 256 * MIB, 16),
    "tls-each-4k": lambda worker: worker.each("tls", 1000, 4 * KIB),
    "tls-ranges-64k": lambda worker: worker.ranges("tls", 512, 64 * KIB),
    "tls-tasks-64k": lambda worker: worker.tasks("tls", 512, 64 * KIB),
    "tls-large-16": lambda worker: worker.large("tls", 128 * MIB, 16),
}


def work(urls: dict[str, str], ca_file: str | None) -> None:
    """Main loop: reads a line with the name of a case, writes a line with its figures."""
    worker = Worker(urls, ca_file)
    for line in sys.stdin:
        print(json.dumps(worker.run(line.strip())), flush=True)


# --- in the comparing process ---


class Checkout:
    """The process of one checkout."""

    def __init__(self, root: Path, backend: str | None, urls: dict[str, str], ca_file: str | None) -> None:
        environment = {**os.environ, "PYTHONPATH": str(root / "src")}
        if backend:
            environment["RANGEIO_BACKEND"] = backend
        command = [sys.executable, __file__, "--work", json.dumps([urls, ca_file])]
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, case: str) -> tuple[float, float]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(case + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"compare: the process of a checkout ended in {case}")
        cpu, took = json.loads(line)
        return cpu, took


def compare(this: Checkout, other: Checkout, cases: list[str], rounds: int) -> None:
    print(
        f"{'case':22}{'CPU':>10}{'against':>10}{'ratio':>8}   {'time':>10}{'against':>10}{'ratio':>8}   of CPU"
    )
    for case in cases:
        figures: list[tuple[tuple[float, float], tuple[float, float]]] = []
        for turn in range(rounds + 1):
            pair = (this, other) if turn % 2 else (other, this)
            found = {checkout: checkout.run(case) for checkout in pair}
            if turn:  # the first one opens connections
                figures.append((found[this], found[other]))
        ratios = [[ours[i] / theirs[i] for ours, theirs in figures] for i in (0, 1)]
        columns = [median(side[i] for side in pairs) for i in (0, 1) for pairs in zip(*figures, strict=True)]
        print(
            f"{case:22}{columns[0]:10.1f}{columns[1]:10.1f}{median(ratios[0]):8.3f}   "
            f"{columns[2]:10.1f}{columns[3]:10.1f}{median(ratios[1]):8.3f}   "
            f"{min(ratios[0]):.2f}..{max(ratios[0]):.2f}",
            flush=True,
        )


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--work", help=argparse.SUPPRESS)
    arguments.add_argument("--against", type=Path)
    arguments.add_argument("--rounds", type=int, default=9)
    arguments.add_argument("--cases", default="")
    arguments.add_argument("--backend")
    arguments.add_argument("url", nargs="?")
    arguments.add_argument("--copy")
    arguments.add_argument("--tls")
    arguments.add_argument("--ca-file")
    given = arguments.parse_args()
    if given.work:
        urls, ca_file = json.loads(given.work)
        work(urls, ca_file)
        return
    if given.against is None or given.url is None:
        arguments.error("--against and a URL are required")
    urls = {"plain": given.url, "varying": given.url.replace("/bench/", "/varying/bench/"), "tls": given.tls}
    cases = [case for case in CASES if given.tls or not case.startswith("tls")]
    if given.cases:
        cases = [case for case in cases if any(case.startswith(name) for name in given.cases.split(","))]
    this = Checkout(HERE, given.backend, urls, given.ca_file)
    other = Checkout(given.against.resolve(), given.backend, urls, given.ca_file)
    compare(this, other, cases, given.rounds)


if __name__ == "__main__":
    main()
