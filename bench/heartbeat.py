"""Measures how late a task runs beside 64 tasks that read cached bytes as fast as they can.

python bench/heartbeat.py FILE [SECONDS]

The wall clock also counts CPU time of other processes. The loop's own CPU time from one beat to the next
does not: it is the time for which the reads blocked the loop, plus the millisecond of sleep.
"""

import asyncio
import sys
import time

import rangeio

TASKS, SLEEP_S = 64, 0.001


async def read(reader: rangeio.AsyncReader, task: int, nbytes: int, stop: asyncio.Event) -> None:
    """Random blocks of a cached file."""
    blocks = (reader.size or 0) // nbytes
    place = task * 977 % blocks
    while not stop.is_set():
        await reader.read_at(place * nbytes, nbytes)
        place = (place * 7919 + 13) % blocks


async def beat(seconds: float, late: list[float], held: list[float], stop: asyncio.Event) -> None:
    """Sleep repeatedly. Returns how much each sleep was too long, and the CPU time during it."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        wall, cpu = time.perf_counter(), time.thread_time()
        await asyncio.sleep(SLEEP_S)
        late.append(time.perf_counter() - wall - SLEEP_S)
        held.append(time.thread_time() - cpu)
    stop.set()


async def measure(path: str, nbytes: int, seconds: float) -> None:
    """One line per clock."""
    late: list[float] = []
    held: list[float] = []
    stop = asyncio.Event()
    async with rangeio.open_async(path) as reader:
        await reader.read_to_end()
        reads = (read(reader, task, nbytes, stop) for task in range(TASKS))
        await asyncio.gather(beat(seconds, late, held, stop), *reads)
    for what, times in (("late by", late), ("loop's CPU", held)):
        at = [sorted(times)[int(len(times) * part)] * 1e3 for part in (0.5, 0.99, 0.999)]
        print(
            f"{nbytes >> 10:3} KiB  {what:10}  median {at[0]:.2f} ms  p99 {at[1]:.2f} ms  p99.9 {at[2]:.2f} ms"
        )


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    for size in (4096, 65_536):
        asyncio.run(measure(sys.argv[1], size, float(sys.argv[2] if len(sys.argv) > 2 else 5)))
