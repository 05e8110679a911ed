"""Reads of other people's stores into memory of the caller: many at once, and each with a result of its own."""

from collections.abc import Callable
from typing import Any

import pytest
from awaited import LOOPS, cancel_when, run_on
from faults.machine import need_module
from scripted_store import Scripted

import rangeio

DATA = bytes(range(251)) * 4000
SIZE = len(DATA)
STARTS = [i * 60_000 for i in range(16)]


@pytest.fixture(params=[None, *LOOPS])
def into(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Reads ranges into memory, of a store, in a thread or awaited."""

    def read(store: Scripted, spaces: list[bytearray], *, on_error: Any, **options: Any) -> Any:
        places = list(zip(spaces, STARTS, strict=True))
        if request.param is None:
            with rangeio.from_object(store, SIZE, **options) as reader:
                return reader.read_ranges_into(places, on_error=on_error)

        async def main() -> Any:
            async with rangeio.from_object_async(store, SIZE, **options) as reader:
                return await reader.read_ranges_into(places, on_error=on_error)

        return run_on(request.param, main)

    if request.param is not None:
        need_module(request.param)
    return read


@pytest.mark.parametrize("on_error", ["raise", "return"])
def test_one_call_for_each(into: Callable[..., Any], on_error: str) -> None:
    store, spaces = Scripted(DATA), [bytearray(5000) for _ in STARTS]
    assert into(store, spaces, on_error=on_error, concurrent=3) == [5000] * 16
    assert spaces == [DATA[start : start + 5000] for start in STARTS]
    assert sorted(store.calls) == [(start, 5000) for start in STARTS]
    assert store.most <= 3
    spaces[0].append(0)  # nothing holds the memory any more


def test_each_has_its_result(into: Callable[..., Any]) -> None:
    """A failure of some leaves the others alone, the first and the last of them, too."""
    failing = {STARTS[0], STARTS[7], STARTS[15]}

    def answer(offset: int, n: int) -> bytes:
        if offset in failing:
            raise OSError("broken")
        return DATA[offset : offset + n]

    spaces = [bytearray(5000) for _ in STARTS]
    found = into(Scripted(DATA, answer), spaces, on_error="return")
    for index, (start, space, result) in enumerate(zip(STARTS, spaces, found, strict=True)):
        if start in failing:
            assert isinstance(result, rangeio.UnexpectedError)
            assert result.index == index
        else:
            assert (result, space) == (5000, DATA[start : start + 5000])
        space.append(0)
    with pytest.raises(rangeio.UnexpectedError, match="broken") as caught:
        into(Scripted(DATA, answer), spaces, on_error="raise")
    assert caught.value.index == 0


def test_time_limit(into: Callable[..., Any]) -> None:
    """Each has it as its result, and the store writes nothing to the memory afterwards."""
    store, spaces = Scripted(DATA, hold=True), [bytearray(10) for _ in STARTS]
    found = into(store, spaces, on_error="return", timeout=0.05)
    assert [type(result) for result in found] == [rangeio.TimedOutError] * 16
    assert [result.index for result in found] == list(range(16))
    store.release()
    store.wait_for(0)
    assert spaces == [bytes(10)] * 16


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("read", ["read_ranges_into", "read_batch"])
def test_cancellation_returns_at_once(loop: str, read: str) -> None:
    need_module(loop)
    store, space = Scripted(DATA, hold=True), bytearray(100)

    async def main() -> None:
        reader = rangeio.from_object_async(store, SIZE)
        half = memoryview(space)

        async def awaited() -> None:
            if read == "read_batch":
                await reader.read_batch([0, 70_000], 50, out=space)
            else:
                await reader.read_ranges_into([(half[:50], 0), (half[50:], 70_000)])

        await cancel_when(loop, lambda: store.now > 0, awaited())
        half.release()

    run_on(loop, main)
    store.release()
    store.wait_for(0)
    assert space == bytes(100)
