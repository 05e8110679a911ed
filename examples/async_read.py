"""Reading with asyncio: many small reads at once, and a large range as a stream.

python examples/async_read.py FILE-OR-URL
"""

import asyncio
import sys

import rangeio


async def main(path: str) -> None:
    async with rangeio.open_async(path) as reader:
        size = (
            await reader.stat()
        ).size or 0  # reader.size sends no request: over a network it may not be known yet
        offsets = range(0, size, 1 << 20)
        heads = await asyncio.gather(*(reader.read_at(offset, 64) for offset in offsets))
        print(f"{len(heads)} heads, the first: {bytes(heads[0][:16]) if heads else b''!r}")

        total = 0
        async for buffer in reader.stream(prefetch=16 << 20):
            total += len(buffer)  # numpy.frombuffer(buffer) does not copy
        print(f"{total} bytes streamed")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else __file__))
