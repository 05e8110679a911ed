"""Responses that are no longer as those before, and what becomes of them: a table for more than one way of reading."""

from collections.abc import Callable
from typing import Any

import rangeio
from servers.scripted import Answer, Asked, cut, honest, reply

DATA = bytes(range(256)) * 800
SIZE = len(DATA)


def changed(etag: str | None = '"v1"', **fields: str | None) -> Callable[[Asked], Answer]:
    """An honest reply, but for these fields."""

    def answer(asked: Asked) -> Answer:
        start, stop = asked.range or (0, 0)
        span = f"bytes {start}-{stop - 1}/{SIZE}"
        return reply(206, DATA[start:stop], **{"ETag": etag, "Content_Range": span, **fields})

    return answer


def shorter(asked: Asked) -> Answer:
    start, _ = asked.range or (0, 0)
    return reply(206, DATA[start : start + 9], ETag='"v1"', Content_Range=f"bytes {start}-{start + 8}/{SIZE}")


def earlier(asked: Asked) -> Answer:
    start, stop = asked.range or (0, 0)
    span = f"bytes {start - 5}-{stop - 1}/{SIZE}"
    return reply(206, DATA[start - 5 : stop], ETag='"v1"', Content_Range=span)


def chunked(asked: Asked) -> Answer:
    start, stop = asked.range or (0, 0)
    span = f"bytes {start}-{stop - 1}/{SIZE}"
    made = reply(206, ETag='"v1"', Content_Range=span, Content_Length=None, Transfer_Encoding="chunked")
    return Answer(made.data + b"%x\r\n%b\r\n0\r\n\r\n" % (stop - start, DATA[start:stop]))


def other_case(asked: Asked) -> Answer:
    head, _, body = honest(DATA, asked).data.partition(b"\r\n\r\n")
    status, _, fields = head.partition(b"\r\n")
    return Answer(status + b"\r\n" + fields.lower() + b"\r\n\r\n" + body)


def informed(asked: Asked) -> Answer:
    return Answer(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + honest(DATA, asked).data)


# What the odd request is answered, where the next one begins (counted from the odd one's start, None: none follows).
GOOD: dict[str, tuple[Callable[[Asked], Answer], int | None]] = {
    "shorter": (shorter, 9),
    "earlier": (earlier, None),
    "chunked": (chunked, None),
    "informed": (informed, None),
    "closing": (changed(Connection="close"), None),
    "long head": (changed(X_Long="x" * 6000), None),
    "other case": (other_case, None),
    "busy": (lambda _: reply(503), 0),
    "two lengths": (changed(content_length="7"), 0),
    "cut at the head": (lambda asked: cut(honest(DATA, asked), 0, "close"), 0),
    "cut": (lambda asked: cut(honest(DATA, asked), 33, "close"), 33),
    "reset": (lambda asked: cut(honest(DATA, asked), 0, "reset"), 0),
    "no reply": (lambda _: Answer(b"", "close"), 0),
    "half a head": (lambda _: Answer(b"HTTP/1.1 206 Par", "close"), 0),
    "silent": (lambda _: Answer(b"", "stall"), 0),
    "stalls in the head": (lambda _: Answer(b"HTTP/1.1 206 Par", "stall"), 0),
    "stalls in the body": (lambda asked: cut(honest(DATA, asked), 44, "stall"), 44),
}
PLAIN = ("other case", "long head")
"""Those of GOOD that are as plain as others."""
BAD: dict[str, tuple[Callable[[Asked], Answer], type[Exception]]] = {
    "other ETag": (changed('"v2"'), rangeio.ObjectChangedError),
    "no ETag": (changed(None), rangeio.ObjectChangedError),
    "other size": (changed(Content_Range=f"bytes 2000-9999/{SIZE + 1}"), rangeio.Error),
    "412": (lambda _: reply(412), rangeio.ObjectChangedError),
    "404": (lambda _: reply(404), rangeio.NotFoundError),
    "encoded": (changed(Content_Encoding="gzip"), rangeio.ContentEncodedError),
    "no range": (changed(Content_Range=None), rangeio.RangeNotSupportedError),
    "other range": (changed(Content_Range=f"bytes 0-9/{SIZE}"), rangeio.Error),
}
OPTIONS: Any = {
    "retry": rangeio.Retry(attempts=2, backoff_s=0.001),
    "timeout": rangeio.Timeout(first_byte_s=0.5, idle_s=0.5),
}
