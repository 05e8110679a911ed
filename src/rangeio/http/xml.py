"""Event-based parser for XML from a server: it builds no tree and refuses early what object stores do not send."""

from collections.abc import Callable, Mapping
from xml.parsers import expat

# S3's responses have a depth of four.
_DEEPEST = 32
# A key has up to 1,024 bytes, each of them three characters when quoted; a token may be longer.
_MOST_TEXT = 64 << 10
# The start tag of an element with its attributes, of which object stores use one or two. The parser buffers a tag.
_MOST_TAG = 128 << 10
# Distinct names: the parser keeps each, with its namespace.
_MOST_NAMES, _LONGEST_NAME = 1_000, 1_000
_PIECE = 64 << 10

Ended = Callable[[tuple[str, ...], str], object]
"""Called at the end of an element with the names from the root to it, and its text. It may raise ValueError."""
Begun = Callable[[str, Mapping[str, str]], object]
"""Called at the start of an element with its name and its attributes."""


def read_xml(
    body: bytes | memoryview, ended: Ended, *, whole: bool = True, begun: Begun | None = None
) -> None:
    """Call `ended` for each element, in the order they end. ValueError for invalid XML and for XML that object stores
    do not send. If not `whole`, the document may be truncated.

    Names come without their namespace, which servers write in different ways. No store declares a document type, so
    document types are refused, and with them entities, which could expand a small response into a large one.
    """
    reading = _Reading(ended, begun)
    parser = expat.ParserCreate(None, "}", reading.names)
    parser.buffer_text = True
    parser.StartElementHandler = reading.begin
    parser.CharacterDataHandler = reading.hear
    parser.EndElementHandler = reading.end
    parser.StartDoctypeDeclHandler = reading.refuse
    view = memoryview(body)
    try:
        for at in range(0, len(view), _PIECE):
            piece = view[at : at + _PIECE]
            parser.Parse(piece, False)
            if at + len(piece) - parser.CurrentByteIndex > _MOST_TAG + _PIECE:
                raise ValueError("a larger tag than object stores send")
        if whole:
            parser.Parse(b"", True)
    except (expat.ExpatError, LookupError) as error:  # LookupError: an unknown encoding
        raise ValueError(f"invalid XML: {error}") from None


class _Reading:
    """The position in the document, and the text of the current element."""

    def __init__(self, ended: Ended, begun: Begun | None) -> None:
        self.names: dict[str, str] = {}  # the parser stores each name here once
        self._ended, self._begun = ended, begun
        self._path: tuple[str, ...] = ()
        self._text: list[str] = []
        self._length = 0

    def begin(self, name: str, attributes: dict[str, str]) -> None:
        if len(self._path) >= _DEEPEST or len(self.names) > _MOST_NAMES or len(name) > _LONGEST_NAME:
            raise ValueError("deeper than object stores send, or with more or longer names")
        self._path += (name.rpartition("}")[2],)
        self._text.clear()
        self._length = 0
        if self._begun is not None:
            self._begun(self._path[-1], attributes)

    def hear(self, text: str) -> None:
        self._length += len(text)
        if self._length > _MOST_TEXT:
            raise ValueError("a longer text than object stores send")
        self._text.append(text)

    def end(self, _: str) -> None:
        text = "".join(self._text)
        self._text.clear()
        self._length = 0
        path, self._path = self._path, self._path[:-1]
        self._ended(path, text)

    def refuse(self, *_: object) -> None:
        raise ValueError("a document type")
