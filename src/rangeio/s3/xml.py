"""XML of a server's, read as it comes: no tree is made of it, and what no response of S3's has is refused early."""

from collections.abc import Callable
from xml.parsers import expat

# S3's responses are four deep.
_DEEPEST = 32
# A key has 1,024 bytes, each of them three letters when it is quoted; a token may be longer.
_MOST_TEXT = 64 << 10
# The start of an element, with its attributes, of which S3 has one (xmlns). It is held as a whole until it is parsed.
_MOST_TAG = 128 << 10
# Names that differ: the parser keeps each, with its namespace.
_MOST_NAMES, _LONGEST_NAME = 1_000, 1_000
_PIECE = 64 << 10

Ended = Callable[[tuple[str, ...], str], object]
"""Called with the names from the root to an element that is over, and its text. It may raise ValueError."""


def read_xml(body: bytes | memoryview, ended: Ended, *, whole: bool = True) -> None:
    """Tell `ended` of each element, in the order they end. ValueError for what is no XML, or none of S3's; where it is
    not the `whole` of a document, for what it is so far.

    Names are free of their namespace, which servers write in different ways. S3 declares no document type, so nothing
    that could make a small response a large one (entities) is let in.
    """
    reading = _Reading(ended)
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
                raise ValueError("a tag of more bytes than S3 sends")
        if whole:
            parser.Parse(b"", True)
    except (expat.ExpatError, LookupError) as error:  # LookupError: an encoding that there is not
        raise ValueError(f"no XML: {error}") from None


class _Reading:
    """Where in the document it is, and what was read of the element that is open there."""

    def __init__(self, ended: Ended) -> None:
        self.names: dict[str, str] = {}  # the parser puts each name here once
        self._ended = ended
        self._path: tuple[str, ...] = ()
        self._text: list[str] = []
        self._length = 0

    def begin(self, name: str, _: dict[str, str]) -> None:
        if len(self._path) >= _DEEPEST or len(self.names) > _MOST_NAMES or len(name) > _LONGEST_NAME:
            raise ValueError("deeper than S3 sends, or with more or longer names")
        self._path += (name.rpartition("}")[2],)
        self._text.clear()
        self._length = 0

    def hear(self, text: str) -> None:
        self._length += len(text)
        if self._length > _MOST_TEXT:
            raise ValueError("a text of more letters than S3 sends")
        self._text.append(text)

    def end(self, _: str) -> None:
        text = "".join(self._text)
        self._text.clear()
        self._length = 0
        path, self._path = self._path, self._path[:-1]
        self._ended(path, text)

    def refuse(self, *_: object) -> None:
        raise ValueError("a document type")
