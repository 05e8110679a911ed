"""From sources, columns and filters to decoded rows."""

import re
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pyarrow as pa
import pyarrow.dataset
import pyarrow.fs
import pyarrow.parquet

from rangeio.errors import ConfigInvalidError
from rangeio.parquet.footers import ParquetObject, naming
from rangeio.parquet.sources import Part, Parts, Source
from rangeio.parquet.windows import Piece, Sizes, fetched

_FOOTERS_AHEAD = 16
"""Files whose footers are requested at once."""
_BATCH_ROWS = 65_536
_STRINGS = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)


def condition_of(filters: Any) -> Any:
    """Filters of any kind as a pyarrow expression, or None."""
    if filters is None:
        return None
    if not isinstance(filters, pyarrow.dataset.Expression):
        return pyarrow.parquet.filters_to_expression(filters)  # has names only
    found = filters
    if "FieldPath(" in _STRINGS.sub("", str(found)):
        raise ConfigInvalidError("filters must name their columns, not number them")
    return found


class Reading:
    """One call: which files, columns and rows. Opens the first file, whose schema is that of the result.

    schema: of the result. A later file that lacks one of its columns has nulls there; other types are cast.
    """

    def __init__(
        self,
        parts: Parts,
        columns: list[str] | None,
        filters: Any,
        *,
        use_threads: bool,
        first: ParquetObject | None = None,
    ) -> None:
        """first: the first file, if it is open; it is closed with the others."""
        self._parts, self._condition, self._use_threads = parts, condition_of(filters), use_threads
        self._keys = [field.name for field in parts.fields]
        self._opened: set[ParquetObject] = set()
        self._closed = False
        if not parts.parts:
            raise ConfigInvalidError("no source was given")
        self._first = first or self._open(parts.parts[0])
        self._opened.add(self._first)
        try:
            self._choose(self._first, columns)
        except BaseException:
            self.close()
            raise

    def kept_open(self) -> tuple[Parts, ParquetObject]:
        """The files and the first one, still open, for another Reading; this one is closed."""
        self._opened.discard(self._first)
        self.close()
        return self._parts, self._first

    def close(self) -> None:
        """Close all files that are open, and those whose footers are on their way."""
        self._closed = True
        while self._opened:
            self._opened.pop().close()

    def _open(self, part: Part) -> ParquetObject:
        with part.opening():
            object = ParquetObject(part.open(), self._parts.expression(part))
        self._opened.add(object)
        if self._closed:
            object.close()
        return object

    def _choose(self, first: ParquetObject, columns: list[str] | None) -> None:
        """Set what is read of each file (`_names`), with which types (`_wide`), and `schema`."""
        if isinstance(columns, str):
            raise TypeError(f"columns must be a list of names, not {columns!r}")
        own = [name for name in first.schema.names if name not in self._keys]
        asked = [*own, *self._keys] if columns is None else [*dict.fromkeys(columns)]
        for name in asked:
            if name not in self._keys and not first.leaves(name):
                raise KeyError(f"{name!r}: {first.path!r} has no such column")
        whole = _with(first.schema, self._parts.fields)
        needed = self._needed(whole, first.path)
        self._names = [name for name in [*asked, *needed] if name not in self._keys]
        self._names = [*dict.fromkeys(self._names)]
        fields = {field.name: field for field in self._parts.fields}
        out = _projected(first, [name for name in asked if name not in fields])
        ordered = dict.fromkeys(name if name in fields else first.root(name) for name in asked)
        self.schema = pa.schema([fields.get(name) or out.field(name) for name in ordered], out.metadata)
        wide = _projected(first, self._names)
        used = [name for name in self._keys if name in asked or name in needed]
        self._wide = pa.schema([*wide, *(fields[name] for name in used)], out.metadata)

    def _needed(self, schema: Any, path: str) -> list[str]:
        """The columns that the condition uses. pyarrow does not list them, but misses each that is taken away."""
        if self._condition is None:
            return []
        text, empty = str(self._condition), schema.empty_table()
        mentioned = [name for name in schema.names if name in text]
        try:
            empty.filter(self._condition)
        except pa.ArrowInvalid as error:
            if "No match for FieldRef" in str(error):
                raise KeyError(
                    f"filters: {path!r} has no such column: {str(error).partition(' in ')[0]}"
                ) from None
            raise
        return [name for name in mentioned if not _works(empty.drop_columns([name]), self._condition)]

    # --- files -----------------------------------------------------------------------------------------------

    def _kept(self) -> list[Part]:
        """The files that the values in their paths do not exclude."""
        parts = self._parts.parts
        if self._condition is None or not self._keys:
            return parts
        format, folder = pyarrow.dataset.ParquetFileFormat(), pyarrow.fs.LocalFileSystem()
        fragments = [
            format.make_fragment(str(number), folder, self._parts.expression(part))
            for number, part in enumerate(parts)
        ]
        schema = _with(self._first.schema, self._parts.fields)
        whole = pyarrow.dataset.FileSystemDataset(fragments, schema, format, folder)
        return [parts[int(fragment.path)] for fragment in whole.get_fragments(self._condition)]

    def _objects(self) -> Generator[tuple[Part, ParquetObject]]:
        """Each file, opened; the footers of the next ones are on their way."""
        first, parts = self._parts.parts[0], self._kept()
        rest = iter([part for part in parts if part is not first])
        if first in parts:
            yield first, self._first
        pool = ThreadPoolExecutor(_FOOTERS_AHEAD, "rangeio-parquet")  # begins no thread before its first use
        ahead: deque[tuple[Part, Future[ParquetObject]]] = deque()
        try:
            while True:
                while len(ahead) < _FOOTERS_AHEAD and (part := next(rest, None)) is not None:
                    ahead.append((part, pool.submit(self._open, part)))
                if not ahead:
                    return
                part, opening = ahead.popleft()
                yield part, opening.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def pieces(self, largest: int | None) -> Generator[Piece]:
        """What to decode, in order, without reading it. largest: divide larger row groups by columns."""
        schema = _with(self._wide, self._parts.fields)
        for part, object in self._objects():
            roots: dict[str, list[str]] = {}
            for name in self._names:
                # A file that has the column without the field: the whole column tells which of its rows are null.
                found = name if object.leaves(name) else self._first.root(name)
                if object.leaves(found):
                    roots.setdefault(object.root(found), []).append(found)
            for row_group in object.row_groups(self._condition, schema):
                yield from _divided(object, part, row_group, roots, largest)

    # --- rows ------------------------------------------------------------------------------------------------

    def tables(self, sizes: Sizes) -> Generator[Any]:
        """The rows in order, as tables of some row groups each."""
        done: list[Any] = []
        with closing(self._closing(self._decoded(fetched(self.pieces(sizes.most), sizes)))) as found:
            for piece, table in found:
                done.append(table)
                if piece.last:
                    table = done[0] if piece.first else self._whole(piece, _side_by_side(done))
                    done.clear()
                    yield table

    def _decoded(self, pieces: Generator[Piece]) -> Generator[tuple[Piece, Any]]:
        """The pieces in order, decoded by several threads, so that no core waits for the longest column of one."""
        if not self._use_threads:
            with closing(pieces):
                yield from ((piece, self._decode(piece)) for piece in pieces)
            return
        threads = pa.cpu_count()
        pool = ThreadPoolExecutor(threads, "rangeio-decode")
        ahead: deque[tuple[Piece, Future[Any]]] = deque()
        try:
            for piece in pieces:
                ahead.append((piece, pool.submit(self._decode, piece)))
                while ahead and (len(ahead) > 2 * threads or ahead[0][1].done()):
                    first, decoding = ahead.popleft()
                    yield first, decoding.result()
            while ahead:
                first, decoding = ahead.popleft()
                yield first, decoding.result()
        finally:
            pieces.close()
            pool.shutdown(wait=False, cancel_futures=True)

    def _decode(self, piece: Piece) -> Any:
        """The rows of a piece; as the caller wants them if it has all columns of its row groups."""
        try:
            with naming(piece.object.path):
                table = piece.object.decoder(piece.held).read_row_groups(
                    piece.row_groups, columns=piece.names, use_threads=self._use_threads
                )
            if piece.first and piece.last:
                return self._whole(piece, table)
            # pyarrow takes "a.b" for the column of this name and for a field of a column "a", if there are both.
            return table.select([*dict.fromkeys(map(piece.object.root, piece.names))])
        finally:
            piece.release()

    def _whole(self, piece: Piece, table: Any) -> Any:
        with naming(piece.object.path):
            return self._result(table, piece.tag)

    def batches(self, sizes: Sizes, rows: int | None) -> Generator[Any]:
        """Record batches, in order."""
        with closing(self._closing(_undecoded(fetched(self.pieces(None), sizes)))) as found:
            for piece, _ in found:
                with naming(piece.object.path):
                    yield from self._batches_of(piece, rows or _BATCH_ROWS)
                piece.release()

    def _batches_of(self, piece: Piece, rows: int) -> Iterator[Any]:
        found = piece.object.decoder(piece.held).iter_batches(
            rows, row_groups=piece.row_groups, columns=piece.names, use_threads=self._use_threads
        )
        for batch in found:
            yield from self._result(pa.Table.from_batches([batch]), piece.tag).to_batches()

    def _closing(self, found: Generator[tuple[Piece, Any]]) -> Generator[tuple[Piece, Any]]:
        """The pieces; closes each file after its last piece, and at the end what is open."""
        before: ParquetObject | None = None
        try:
            for piece, table in found:
                if before is not None and before is not piece.object:
                    self._opened.discard(before)
                    before.close()
                before = piece.object
                yield piece, table
        finally:
            found.close()
            self.close()

    def _result(self, table: Any, part: Part) -> Any:
        """Rows of a file as the caller wants them."""
        columns = []
        for field in self._wide:
            if field.name in self._keys:
                columns.append(self._parts.column(part, field.name, table.num_rows))
            elif field.name not in table.column_names:
                columns.append(pa.nulls(table.num_rows, field.type))
            else:
                column = table[field.name]
                columns.append(column if column.type == field.type else column.cast(field.type))
        if not columns:
            return table.select([])
        found = pa.Table.from_arrays(columns, schema=self._wide)
        if self._condition is not None:
            found = found.filter(self._condition)
        found = found.select(self.schema.names)
        return found if found.schema.equals(self.schema) else found.cast(self.schema)


def reading_of(
    source: Source,
    columns: list[str] | None,
    filters: Any,
    use_threads: bool,
    partitioning: str | None,
    options: dict[str, Any],
    *,
    dictionaries: bool = True,
) -> Reading:
    """The Reading of the arguments of `rangeio.parquet.scan`; see `Parts`."""
    parts = Parts(source, partitioning, options, dictionaries=dictionaries)
    return Reading(parts, columns, filters, use_threads=use_threads)


def _divided(
    object: ParquetObject, tag: Part, row_group: int, roots: dict[str, list[str]], largest: int | None
) -> Iterator[Piece]:
    """A row group as one piece, or as several of whole columns if it is larger than `largest` bytes."""
    pieces: list[Piece] = []
    for names in roots.values():
        leaves = sorted({leaf for name in names for leaf in object.leaves(name)})
        ranges = [object.chunk(row_group, leaf) for leaf in leaves]
        added = sum(stop - start for start, stop in ranges)
        if not pieces or (largest is not None and pieces[-1].nbytes + added > largest):
            pieces.append(Piece(object, tag, [row_group], [], [], first=not pieces, last=False))
        pieces[-1].names += names
        pieces[-1].ranges += ranges
    pieces = pieces or [Piece(object, tag, [row_group], [], [])]
    pieces[-1].last = True
    yield from pieces


def _undecoded(pieces: Generator[Piece]) -> Generator[tuple[Piece, Any]]:
    with closing(pieces):
        for piece in pieces:
            yield piece, None


def _side_by_side(tables: list[Any]) -> Any:
    """One table of the columns of several."""
    found = tables[0]
    for other in tables[1:]:
        for name in other.column_names:
            found = found.append_column(other.schema.field(name), other[name])
    return found


def _projected(object: ParquetObject, names: list[str]) -> Any:
    """The schema of some columns, and of fields in them."""
    with naming(object.path):
        return object.decoder([]).read_row_groups([], columns=names).schema


def _with(schema: Any, fields: Iterable[Any]) -> Any:
    """A schema with the columns of paths, which replace columns of the file of the same name."""
    replaced = {field.name for field in fields}
    return pa.schema([*(field for field in schema if field.name not in replaced), *fields], schema.metadata)


def _works(table: Any, condition: Any) -> bool:
    try:
        table.filter(condition)
    except pa.ArrowInvalid:
        return False
    return True
