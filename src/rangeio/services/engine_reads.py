"""How a Source over HTTP runs reads that are not made in the steady state: by an engine, in a thread or on a loop."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from _uring import ready, yield_if_due
from _uring.event_loops import bind, current_key
from rangeio.errors import Error, asked
from rangeio.http.connection_pool import ConnectionPool
from rangeio.http.drivers import Driver, LoopDriver, this_thread
from rangeio.http.engine import Engine
from rangeio.http.range_read import in_order
from rangeio.http.remote_object import RemoteObject
from rangeio.options import Options
from rangeio.ranges import OPEN
from rangeio.service import Travels
from rangeio.services.http_options import CONCURRENT

if TYPE_CHECKING:
    from _uring import Reactor


class EngineReads(Travels):
    """The base of a Source over HTTP."""

    _reactor: "Reactor"
    _remote: RemoteObject
    _options: Options
    _pool: ConnectionPool

    def _run(
        self,
        driver: Driver,
        landed: Callable[[int, Any], None],
        chunk: int | None = None,
        concurrent: int | None = None,
        wanted: Callable[[], bool] | None = None,
        began: float | None = None,
    ) -> Engine:
        return Engine(
            driver,
            self._pool,
            landed,
            chunk=chunk or self._options.chunk or OPEN,
            concurrent=concurrent or self._options.concurrent or CONCURRENT,
            wanted=wanted,
            began=began,
        )

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Name the range in an error that was raised before any request, such as a missing descriptor."""
        try:
            yield
        except Error as error:
            if error.path:
                raise
            text = f"{asked(self.path, None, None)}: {error}"
            raise type(error)(text, path=self.path, errno=error.errno, status=error.status) from error

    def _now(
        self, reads: list[Any], chunk: int | None = None, concurrent: int | None = None, each: bool = False
    ) -> list[Any]:
        """Wait for the results in this thread. See `in_order`."""
        return self._until_landed(lambda run: run.add_all(reads), len(reads), chunk, concurrent, each=each)

    def _until_landed(
        self,
        begin: Callable[[Engine], None],
        count: int,
        chunk: int | None = None,
        concurrent: int | None = None,
        landed: dict[int, Any] | None = None,
        began: float | None = None,
        each: bool = False,
    ) -> list[Any]:
        """landed: results that are there already, by index. began: time at which the call began."""
        landed = {} if landed is None else landed
        with self._named(), this_thread() as driver:
            run = self._run(driver, landed.__setitem__, chunk, concurrent, began=began)
            try:
                begin(run)
                while len(landed) < count:
                    driver.step()
            finally:
                run.cancel()
        return in_order(landed, count, each)

    def _awaited(
        self, reads: list[Any], chunk: int | None = None, concurrent: int | None = None, each: bool = False
    ) -> Awaitable[list[Any]]:
        """The same with `await`."""
        return self._await(reads, chunk, concurrent, each) if reads else ready([])

    async def _await(
        self, reads: list[Any], chunk: int | None, concurrent: int | None, each: bool
    ) -> list[Any]:
        key = current_key()
        binding: Any = bind(key)
        landed: dict[int, Any] = {}
        waiter = binding.waiter(None)

        def take(index: int, result: Any) -> None:
            landed[index] = result
            if len(landed) == len(reads) and not waiter.done():
                waiter.set_result(None)

        run = self._run(LoopDriver(key), take, chunk, concurrent)
        try:
            with self._named():
                run.add_all(reads)
            if waiter.done():  # cut from an object in memory: nothing was waited for
                await yield_if_due()
            await binding.wait(waiter)
        finally:
            run.cancel()
        return in_order(landed, len(reads), each)
