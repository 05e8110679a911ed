"""Sequential reads of a file in pieces: streams and file objects. Results are dropped at once."""

import asyncio
from typing import Any, ClassVar

import rangeio
from rangeio_bench.contender import Contender, Role, Setting
from rangeio_bench.work import Work


class RangeioThrough(Contender):
    """Reader.stream, and the file returned by as_file()."""

    name = "rangeio"
    role: ClassVar[Role] = "ours"
    calls = {"stream": "Reader.stream", "through": "as_file", "seeks": "as_file"}

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.reader = rangeio.open(setting.path)

    @classmethod
    def version(cls) -> str:
        """The version of the imported package."""
        return rangeio.__version__

    def _stream(self, work: Work) -> Any:
        last: Any = None
        for last in self.reader.stream((work.offsets[0], work.offsets[0] + work.nbytes)):  # noqa: B007
            pass
        return last

    def _through(self, work: Work) -> Any:
        with self.reader.as_file() as file:
            return _read_through(file, work)

    def _seeks(self, work: Work) -> Any:
        with self.reader.as_file() as file:
            return _read_here_and_there(file, work)

    def _close(self) -> None:
        self.reader.close()


class RangeioStreamAwaited(RangeioThrough):
    """The same stream on an event loop."""

    calls = {"stream": "AsyncReader.stream"}

    def _stream(self, work: Work) -> Any:
        async def main() -> Any:
            last: Any = None
            async with rangeio.open_async(self.setting.path) as reader:
                async for last in reader.stream((work.offsets[0], work.offsets[0] + work.nbytes)):  # noqa: B007
                    pass
            return last

        return asyncio.run(main())


class OpenFile(Contender):
    """The file returned by open()."""

    name = "open()"
    calls = {"stream": "readinto, 1 MiB", "through": "read", "seeks": "seek+read"}

    def _stream(self, work: Work) -> Any:
        """Into the same warm memory each time."""
        space = self.setting.scratch.bytes(work.length).data
        last = space[:0]
        with open(self.setting.path, "rb", buffering=0) as file:
            file.seek(work.offsets[0])
            for length in work.lengths:
                last = space[: file.readinto(space[:length])]
        return last

    def _through(self, work: Work) -> Any:
        with open(self.setting.path, "rb") as file:
            return _read_through(file, work)

    def _seeks(self, work: Work) -> Any:
        with open(self.setting.path, "rb") as file:
            return _read_here_and_there(file, work)


def _read_through(file: Any, work: Work) -> Any:
    read, length = file.read, work.length
    last: Any = None
    file.seek(work.offsets[0])
    for _ in work.offsets:
        last = read(length)
    return last


def _read_here_and_there(file: Any, work: Work) -> Any:
    seek, read, length = file.seek, file.read, work.length
    last: Any = None
    for offset in work.offsets:
        seek(offset)
        last = read(length)
    return last


CONTENDERS: tuple[type[Contender], ...] = (RangeioThrough, RangeioStreamAwaited, OpenFile)
