"""Many reads at once, in the steady state, while their object moves or gets other credentials."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from faults.machine import need_module
from servers.scripted import Answer, Asked, honest, reply, scripted

import rangeio

need_module("urllib3")

DATA = bytes(range(256)) * 400
MANY = 30
WANTED = [DATA[at * 1_000 :][:500] for at in range(MANY)]


def read_by(how: str, uri: str, change: Any, **options: Any) -> list[bytes]:
    """Reads at once of an object that was read before the change; twice, to get into the steady state."""

    async def awaited() -> list[bytes]:
        async with rangeio.open_async(uri, **options) as reader:
            for _ in range(2):
                await asyncio.gather(*[reader.read_at(0, 10) for _ in range(MANY)])
            change()
            return [
                bytes(b)
                for b in await asyncio.gather(*[reader.read_at(at * 1_000, 500) for at in range(MANY)])
            ]

    if how == "tasks":
        return asyncio.run(awaited())
    with rangeio.open(uri, **options) as reader, ThreadPoolExecutor(MANY) as threads:
        for _ in range(2):
            list(threads.map(lambda _: reader.read_at(0, 10), range(MANY)))
        change()
        return [bytes(b) for b in threads.map(lambda at: reader.read_at(at * 1_000, 500), range(MANY))]


@pytest.mark.parametrize("how", ["threads", "tasks"])
def test_a_signed_target_expires(how: str) -> None:
    """Each of them is refused at the old target; some when another has already found the new one, or just looks."""
    signed = [0]

    def stored(asked: Asked) -> Answer:
        return honest(DATA, asked) if asked.target == f"/object?sig={signed[0]}" else reply(403)

    def expire() -> None:
        signed[0] += 1

    with scripted(stored) as storage:

        def redirecting(asked: Asked) -> Answer:
            return reply(302, Location=f"{storage.url}/object?sig={signed[0]}")

        with scripted(redirecting) as site:
            assert read_by(how, f"{site.url}/object", expire) == WANTED


@pytest.mark.parametrize("how", ["threads", "tasks"])
def test_a_token_is_renewed_once(how: str) -> None:
    """However many requests were refused with the old one."""
    good, calls, lock = ["first"], [], threading.Lock()

    def credentials() -> dict[str, str]:
        with lock:
            calls.append(good[0])
        return {"Authorization": f"Bearer {good[0]}"}

    def answer(asked: Asked) -> Answer:
        return honest(DATA, asked) if asked.fields.get("authorization") == f"Bearer {good[0]}" else reply(401)

    def change() -> None:
        good[0] = "second"

    with scripted(answer) as server:
        assert read_by(how, f"{server.url}/object", change, credentials=credentials) == WANTED
    assert calls == ["first", "second"]
