"""What a source names: one file, a list, a directory or a pattern; and the values in the names of directories."""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.dataset

from rangeio.errors import ConfigInvalidError, IsDirectoryError, NotFoundError
from rangeio.operator import Operator
from rangeio.reader import Reader
from rangeio.service import Service
from rangeio.services.registry import located, service_class

Source: TypeAlias = "str | os.PathLike[str] | Reader | Iterable[str | os.PathLike[str] | Reader]"

_NULL = "__HIVE_DEFAULT_PARTITION__"
_INT32 = 2**31
_URLS = ("http", "https")


def listed(source: Source) -> "list[str | os.PathLike[str] | Reader]":
    """The sources that are named. TypeError for what has bytes and no name."""
    if isinstance(source, (str, os.PathLike, Reader)):
        return [source]
    if hasattr(source, "read") or isinstance(source, (bytes, bytearray, memoryview)):
        raise TypeError(
            f"a source is a URI, a path, a Reader or a list of these, not {type(source).__name__};"
            " rangeio.from_bytes and rangeio.from_fd make Readers"
        )
    return [*source]


@dataclass
class Part:
    """One file that may have to be opened. keys: the values that the names of its directories contain. advice: what to
    do if there is no such file.
    """

    path: str
    open: Callable[[], Reader]
    keys: dict[str, str | None] = field(default_factory=dict)
    advice: str = ""

    @contextmanager
    def opening(self) -> Iterator[None]:
        """Put the advice into an error that says that it is missing. Some services tell that at the first read."""
        try:
            yield
        except (NotFoundError, IsDirectoryError) as error:
            if self.advice:
                error.args = (f"{error}; {self.advice}",)
            raise


class Parts:
    """The files of a source, in order, and the columns that their paths add."""

    def __init__(
        self, source: Source, partitioning: str | None, options: dict[str, Any], *, dictionaries: bool
    ) -> None:
        """Lists directories; opens nothing. dictionaries: whether the columns of paths are dictionary-encoded, as
        pyarrow has them.
        """
        if partitioning not in (None, "hive"):
            raise ConfigInvalidError(f"partitioning must be 'hive' or None, not {partitioning!r}")
        self._operators: dict[str, Operator] = {}
        self._options, self._hive = options, partitioning == "hive"
        self.parts = [part for one in listed(source) for part in self._found(one)]
        names = dict.fromkeys(name for part in self.parts for name in part.keys)
        self._values = {name: self._typed(name) for name in names}
        self._dictionaries = dictionaries
        self.fields = [
            pa.field(name, pa.dictionary(pa.int32(), values.type) if dictionaries else values.type)
            for name, values in self._values.items()
        ]

    def _found(self, source: Any) -> list[Part]:
        if isinstance(source, Reader):
            return [Part(source.path, partial(source.slice, 0))]
        scheme, own, path = located(source)
        kind = service_class(scheme)
        is_url = scheme in _URLS
        name = path.partition("?")[0] if is_url else path  # a query may contain anything, such as a signature
        several = "*" in name or not name or name.endswith("/")
        lists = not is_url and kind.list is not Service.list
        if scheme == "fs":
            several = (several or self._hive or os.path.isdir(path)) and not os.path.isfile(path)
        elif lists:
            several = several or self._hive
        elif not is_url:
            several = False
        if not several:
            part = self._part(scheme, own, path, name)
            if not lists:
                part.advice = f"if it is a directory: {scheme} lists none, so name its files"
            elif scheme != "fs":
                part.advice = "if it is a directory, it must end in a slash"
            return [part]
        if "*" in path:
            fixed = re.split(r"[*?\[]", path, maxsplit=1)[0]
            head, pattern = fixed[: fixed.rfind("/") + 1], re.compile(_translated(path), re.DOTALL)
            names = [name for name in self._names(scheme, own, fixed) if pattern.fullmatch(name)]
        else:
            head = path if not path or path.endswith("/") else path + "/"
            names = self._names(scheme, own, head)
        names = [name for name in names if not _hidden(name[len(head) :])]
        if not names and scheme != "fs" and self._hive and "*" not in path and not path.endswith("/"):
            return [self._part(scheme, own, path, path)]  # one object, whose name may contain values
        if not names:
            raise NotFoundError(f"{os.fsdecode(source)!r}: no files", path=os.fsdecode(source))
        return [self._part(scheme, own, name, name[len(head) :]) for name in names]

    def _names(self, scheme: str, own: dict[str, Any], prefix: str) -> list[str]:
        return [stat.path for stat in self._operator(scheme, own).list(prefix) if not stat.path.endswith("/")]

    def _operator(self, scheme: str, own: dict[str, Any]) -> Operator:
        key = repr((scheme, sorted(own.items())))
        if key not in self._operators:
            if given := sorted({*own} & {*self._options}):
                raise ConfigInvalidError(
                    f"the URI contains the {given[0]}: it leaves no place for {given[0]}="
                )
            self._operators[key] = Operator(scheme, **own, **self._options)
        return self._operators[key]

    def _part(self, scheme: str, own: dict[str, Any], path: str, below: str) -> Part:
        operator = self._operator(scheme, own)
        keys = dict(_pairs(below)) if self._hive else {}
        return Part(operator.uri(path), partial(operator.open, path), keys)

    def _typed(self, name: str) -> Any:
        """The distinct values of a key: int32 if all are such numbers, as pyarrow infers it, else strings."""
        found = [part.keys.get(name) for part in self.parts]
        texts = [*dict.fromkeys(text for text in found if text is not None)]
        if texts and all(re.fullmatch("-?[0-9]+", text) and -_INT32 <= int(text) < _INT32 for text in texts):
            return pa.array(dict.fromkeys(int(text) for text in texts), pa.int32())
        return pa.array(texts, pa.string())

    def value(self, part: Part, name: str) -> Any:
        """The value that a path gives to a column, as a pyarrow.Scalar."""
        text, values = part.keys.get(name), self._values[name].type
        return pa.scalar(
            None if text is None else (int(text) if pa.types.is_integer(values) else text), values
        )

    def column(self, part: Part, name: str, rows: int) -> Any:
        """That value as a column of so many rows."""
        value = self.value(part, name)
        if not self._dictionaries:
            return pa.repeat(value, rows)
        index = self._values[name].index(value).as_py() if value.is_valid else None
        return pa.DictionaryArray.from_arrays(
            pa.repeat(pa.scalar(index, pa.int32()), rows), self._values[name]
        )

    def expression(self, part: Part) -> Any:
        """What is true of all rows of a file, as a pyarrow expression; None if its path says nothing."""
        told = None
        for name in self._values:
            value, column = self.value(part, name), pyarrow.dataset.field(name)
            one = column == value if value.is_valid else column.is_null()
            told = one if told is None else told & one
        return told


def _pairs(path: str) -> Iterable[tuple[str, str | None]]:
    for segment in path.split("/")[:-1]:
        name, equals, value = segment.partition("=")
        if equals and name:
            yield unquote(name), None if value == _NULL else unquote(value)


def _hidden(path: str) -> bool:
    """Whether a name begins with a dot or an underscore: metadata of writers, as pyarrow takes them."""
    return any(segment.startswith((".", "_")) and "=" not in segment for segment in path.split("/"))


_WILD = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def _translated(pattern: str) -> str:
    """A pattern as a regular expression: ``*`` and ``?`` stay within a directory, ``**`` does not."""

    def one(match: re.Match[str]) -> str:
        text = match[0]
        if text in _WILD:
            return _WILD[text]
        return text.replace("[!", "[^") if text.startswith("[") and len(text) > 1 else re.escape(text)

    return re.sub(r"\*\*/|\*\*|\*|\?|\[!?[^]\[\\]+\]|.", one, pattern, flags=re.DOTALL)
