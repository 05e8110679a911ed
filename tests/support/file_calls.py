"""One call of a file, compared with the same of io.BytesIO."""

import io
from typing import Any


def same_call(file: Any, right: io.BytesIO, method: str, count: int) -> None:
    """Both files do the same and are at the same position afterwards. `read_buffer` is a `read` into a Buffer."""
    if method == "readinto":
        into, expected = bytearray(count), bytearray(count)
        assert file.readinto(into) == right.readinto(expected)
        assert into == expected
    elif method == "peek":
        assert right.getvalue()[right.tell() :].startswith(file.peek(1))
    elif method == "read_buffer":
        assert bytes(file.read_buffer(count)) == right.read(count)
    else:
        assert getattr(file, method)(count) == getattr(right, method)(count)
    assert file.tell() == right.tell()
