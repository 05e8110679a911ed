"""Run as a program: reads URLs while no more than a few descriptors are left, and says what came of each read.

`descriptors.py WAY CA_FILE URL...`. It prints a line of JSON for each read: what it was, how it ended with so few
descriptors, how it ended afterwards, and how many places of the pool are taken by nobody. And one line more: how many
descriptors are open that were not before.
"""

import contextlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from awaited import Loop

import rangeio
from rangeio.awaitables import pause, run_now
from rangeio.policy import RETRIES
from rangeio.threads import CONNECTING

RANGES = [(at, at + 100) for at in range(0, 50_000, 5_000)]
SHAPES: dict[str, Callable[[Any], Any]] = {
    "one": lambda reader: reader.read_at(5, 10),
    "many": lambda reader: reader.read_ranges(RANGES, gap=None),
    "each": lambda reader: list(reader.iter_ranges(RANGES, gap=None)),
    "stat": lambda reader: reader.stat(),
}
SPARE = (0, 1, 2, 4)
_MOST = 64
_SETTLE_S = 10


@contextlib.contextmanager
def no_more_than(spare: int) -> Iterator[None]:
    """Only so many descriptors are to be had."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (_MOST, hard))
    held = []
    try:
        with contextlib.suppress(OSError):
            while True:
                held.append(os.dup(0))
        for _ in range(spare):
            os.close(held.pop())
        yield
    finally:
        for fd in held:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def outcome(reader: Any, shape: str, spare: int | None) -> dict[str, Any]:
    """How it ended. The loop itself has what it needs before."""
    RETRIES._tokens = RETRIES._capacity
    try:
        with contextlib.nullcontext() if spare is None else no_more_than(spare):
            if isinstance(reader, rangeio.Reader):
                SHAPES[shape](reader)
            elif shape == "each":
                async for _ in reader.iter_ranges(RANGES, gap=None):
                    pass
            else:
                await SHAPES[shape](reader)
    except Exception as error:
        ours = isinstance(error, rangeio.Error)
        return {
            "ours": ours,
            "errno": getattr(error, "errno", None),
            "said": f"{type(error).__name__}: {error}",
        }
    return {"read": True}


def opened() -> int:
    """Descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))


def tried(loop: Loop | None, url: str, options: dict[str, Any], shape: str, spare: int) -> dict[str, Any]:
    """One read. Its Operator has no connection before."""
    operator = rangeio.Operator("http", **options)
    reader: Any = operator.open(url) if loop is None else operator.open_async(url)
    ends: list[dict[str, Any]] = []

    pool = operator._service.access.pool  # type: ignore[attr-defined]

    def taken() -> int:
        return int(pool.stats()["connections_open"])

    async def both() -> None:
        ends.append(await outcome(reader, shape, spare))
        ends.append(await outcome(reader, shape, None))
        reader.close()
        pool.unuse()
        if loop is None:
            CONNECTING.wait(30)
        end = time.monotonic() + _SETTLE_S
        while (
            loop is not None and taken() and time.monotonic() < end
        ):  # reads that nobody waits for any more end by themselves
            await pause(0.002)

    run_now(both) if loop is None else loop.run(both)
    return {
        "what": f"{shape} of {url.partition(':')[0]}, {spare} left",
        "found": ends[0],
        "after": ends[1],
        "places": taken(),
    }


def shapes_of(url: str) -> list[str]:
    """What is tried of a URL: the certificates of TLS are for one read as for another."""
    return ["one"] if url.startswith("https:") else [*SHAPES]


def main(way: str, ca_file: str, *urls: str) -> None:
    """Do it."""
    loop = None if way == "sync" else Loop(way)
    retry = rangeio.Retry(attempts=2, backoff_s=0.001)
    options: dict[str, Any] = {"retry": retry, "timeout": 20, "ca_file": ca_file}
    for spares in ((_MOST // 2,), SPARE):  # first with enough of them: what is imported, and made once
        before = opened()
        for url in urls:
            for shape in shapes_of(url):
                for spare in spares:
                    print(json.dumps(tried(loop, url, options, shape, spare)), flush=True)
    print(json.dumps({"more": opened() - before}))
    if loop is not None:
        loop.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
