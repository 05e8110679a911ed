"""Records of one length as one table, and the memory of each row."""

from typing import TYPE_CHECKING, Any

from _uring.arguments import whole_table
from rangeio.errors import UnexpectedEofError, asked
from rangeio.ranges import Offsets

if TYPE_CHECKING:
    from _uring import Reactor


class Records:
    """The records at `starts`, of `length` bytes each. path: of the object, for errors.

    out: memory of the caller for all of them, None for a Buffer. ValueError if it has another size.
    """

    def __init__(self, path: str, starts: Offsets, length: int, out: Any = None) -> None:
        self._path, self.starts, self._length = path, starts, length
        self._table = out
        self._memory = whole_table(out, starts.size, length)

    def rows(self, reactor: "Reactor", size: int | None) -> list[memoryview]:
        """The memory of each record. size: of the object, if known.

        UnexpectedEofError if a record extends past it, before memory is allocated.
        """
        starts, length = self.starts, self._length
        if length and size is not None and (starts > size - length).any():
            self._passes(int((starts > size - length).argmax()), size)
        if self._table is None:
            self._table = reactor.allocate((starts.size, length))
        if not starts.size * length:
            return []
        memory, self._memory = self._memory, None  # the traceback of an error may hold this object
        memory = reactor.writable(self._table).cast("B") if memory is None else memory
        return [memory[at : at + length] for at in range(0, starts.size * length, length)]

    def filled(self, counts: list[Any]) -> Any:
        """The table. counts: the bytes read for each row. UnexpectedEofError if a record is incomplete."""
        for index, count in enumerate(counts):
            if count < self._length:
                self._passes(index, None)
        return self._table

    def _passes(self, index: int, size: int | None) -> None:
        start = int(self.starts[index])
        of = "" if size is None else f" of {size} bytes"
        raise UnexpectedEofError(
            f"{asked(self._path, start, self._length)}: record {index} extends past the end of an object{of}",
            path=self._path,
            offset=start,
            limit=self._length,
            index=index,
        )
