"""The same reader under trio: ranges as they complete, with a deadline, and a stream through a memory channel.

python examples/trio_read.py FILE-OR-URL
"""

import sys
from typing import Any

import trio

import rangeio


async def count(channel: Any) -> None:
    total = 0
    async for buffer in channel:
        total += len(buffer)
    print(f"{total} bytes came through the channel")


async def main(path: str) -> None:
    async with rangeio.open_async(path) as reader:
        size = (await reader.stat()).size or 0
        ranges = [(start, start + 4096) for start in range(0, size, max(1, size // 8))]
        with trio.move_on_after(5):  # a cancelled read returns at once and leaves nothing behind
            async for index, buffer in reader.iter_ranges(ranges):
                print(f"range {index}: {len(buffer)} bytes")

        sending, receiving = trio.open_memory_channel[Any](4)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(count, receiving)
            await reader.sink(sending)  # closes the channel at the end


if __name__ == "__main__":
    trio.run(main, sys.argv[1] if len(sys.argv) > 1 else __file__)
