"""The head of an HTTP/1.1 response: parsed strictly in one pass, and accepted if it is plain.

Plain: 206 for exactly the requested bytes, of the known version, with a length, no transfer coding, and a persistent
connection. Any other head, or the same in unusual form, goes to the HTTP engine with all bytes received: nothing is refused
here. Source: RFC 9112 sections 2 to 5, RFC 9110 sections 8.8, 14.4 and 15.3.7.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.string cimport memchr, memcmp

cdef extern from "<strings.h>" nogil:
    int strncasecmp(const char *a, const char *b, size_t length)

# More digits may not fit into an offset.
cdef int MOST_DIGITS = 18

# The characters of a field name: "tchar" of RFC 9110 section 5.6.2.
cdef unsigned char[256] IS_NAME


cdef void make_tables() noexcept:
    cdef int i
    for i in range(256):
        IS_NAME[i] = (c'0' <= i <= c'9') or (c'a' <= i <= c'z') or (c'A' <= i <= c'Z')
    for byte in b"!#$%&'*+-.^_`|~":
        IS_NAME[byte] = 1


make_tables()


cdef inline bint is_number(const char *at, Py_ssize_t length, int64_t *number) noexcept nogil:
    """Whether the text consists of digits only; stores the number."""
    cdef Py_ssize_t i
    cdef int64_t found = 0
    if not 0 < length <= MOST_DIGITS:
        return False
    for i in range(length):
        if not c'0' <= at[i] <= c'9':
            return False
        found = found * 10 + (at[i] - c'0')
    number[0] = found
    return True


cdef inline bint is_named(const char *at, Py_ssize_t length, const char *name, Py_ssize_t size) noexcept nogil:
    return length == size and strncasecmp(at, name, size) == 0


cdef bint parse_range(const char *at, Py_ssize_t length, Said *said) noexcept nogil:
    """Parse ``bytes first-last/total``, with ``*`` for an unknown total."""
    cdef const char *end = at + length
    cdef const char *dash
    cdef const char *slash
    if length < 10 or memcmp(at, b"bytes ", 6) != 0:
        return False
    at += 6
    dash = <const char *>memchr(at, c'-', end - at)
    if dash == NULL or not is_number(at, dash - at, &said.first):
        return False
    slash = <const char *>memchr(dash, c'/', end - dash)
    if slash == NULL or not is_number(dash + 1, slash - dash - 1, &said.last):
        return False
    if end - slash == 2 and slash[1] == c'*':
        return True
    return is_number(slash + 1, end - slash - 1, &said.total)


cdef bint note(Said *said, const char *name, Py_ssize_t size, Text value) noexcept nogil:
    """Store one field. False if a plain response cannot have it, or has it twice."""
    cdef char initial = name[0] | 0x20
    if initial == c'c':
        if is_named(name, size, b"content-length", 14):
            return said.length < 0 and is_number(value.at, value.length, &said.length)
        if is_named(name, size, b"content-range", 13):
            return said.first < 0 and parse_range(value.at, value.length, said)
        if is_named(name, size, b"connection", 10):
            if said.names_connection:
                return False
            said.names_connection = True
            return is_named(value.at, value.length, b"keep-alive", 10)
        if is_named(name, size, b"content-encoding", 16):
            if said.encoding.at != NULL:
                return False
            said.encoding = value
    elif initial == c'e':
        if is_named(name, size, b"etag", 4):
            if said.etag.at != NULL:
                return False
            said.etag = value
    elif initial == c'l':
        if is_named(name, size, b"last-modified", 13):
            if said.modified.at != NULL:
                return False
            said.modified = value
    elif initial == c't':
        return not is_named(name, size, b"transfer-encoding", 17)
    return True


cdef Py_ssize_t parse(const char *text, Py_ssize_t length, Said *said) noexcept nogil:
    """The length of a head, including its empty line. INCOMPLETE, or NOT_PLAIN if it is malformed, old, or unusual."""
    cdef const char *at = text
    cdef const char *end = text + length
    cdef const char *stop
    cdef const char *name
    cdef Text value
    said.status, said.names_connection, said.length = 0, False, -1
    said.first, said.last, said.total = -1, -1, -1
    said.etag.at, said.modified.at, said.encoding.at = NULL, NULL, NULL
    stop = <const char *>memchr(at, c'\n', end - at)
    if stop == NULL:
        return INCOMPLETE
    # "HTTP/1.1 206", and a reason that may be empty. HTTP/1.0 servers close each connection by default.
    if stop - at < 13 or memcmp(at, b"HTTP/1.1 ", 9) != 0 or stop[-1] != c'\r' or at[12] not in (c' ', c'\r'):
        return NOT_PLAIN
    said.status = (at[9] - c'0') * 100 + (at[10] - c'0') * 10 + (at[11] - c'0')
    if has_control(at + 12, stop - 1):
        return NOT_PLAIN
    while True:
        at = stop + 1
        stop = <const char *>memchr(at, c'\n', end - at)
        if stop == NULL:
            return INCOMPLETE
        if stop == at or stop[-1] != c'\r':
            return NOT_PLAIN
        if stop - at == 1:
            return stop + 1 - text
        name = at
        while IS_NAME[<unsigned char>at[0]]:
            at += 1
        if at == name or at[0] != c':':
            return NOT_PLAIN  # not a field, or the continuation of the line before
        value.at, value.length = at + 1, stop - 1 - (at + 1)
        while value.length and value.at[0] in (c' ', c'\t'):
            value.at, value.length = value.at + 1, value.length - 1
        while value.length and value.at[value.length - 1] in (c' ', c'\t'):
            value.length -= 1
        if has_control(value.at, value.at + value.length) or not note(said, name, at - name, value):
            return NOT_PLAIN


cdef inline bint has_control(const char *at, const char *end) noexcept nogil:
    """Whether there are control characters, including NUL, CR and LF, which some parsers take for the end of a line."""
    cdef unsigned char byte
    cdef bint found = False
    while at < end:
        byte = at[0]
        found |= (byte < 32 and byte != c'\t') or byte == 127
        at += 1
    return found


cdef inline bint is_same(Text said, Text known) noexcept nogil:
    """Whether a field has the known value, or is missing in both."""
    if said.at == NULL or known.at == NULL:
        return said.at == known.at
    return said.length == known.length and memcmp(said.at, known.at, said.length) == 0


cdef inline Text text_of(bytes value) noexcept:
    cdef Text found
    found.at, found.length = NULL, 0
    if value is not None:
        found.at, found.length = PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value)
    return found


cdef Py_ssize_t accept(const Known *known, const char *text, Py_ssize_t length, int64_t start, int64_t stop) noexcept nogil:
    """The length of a plain head, which announces exactly these bytes of the known version. Otherwise as `parse`."""
    cdef Said said
    cdef Py_ssize_t found = parse(text, length, &said)
    if found <= 0:
        return found
    if (
        said.status != 206
        or said.length != stop - start
        or said.first != start
        or said.last != stop - 1
        or said.total != known.size
        or not is_same(said.encoding, known.encoding)
        or not is_same(said.etag, known.etag)
    ):
        return NOT_PLAIN
    # Equal strong ETags imply equal bytes; otherwise the date must be equal too.
    return found if known.strong or is_same(said.modified, known.modified) else NOT_PLAIN


cdef class Expected:
    """See `Expected` in records.py."""

    def __init__(self, int64_t size, bytes etag, bytes modified, bytes encoding):
        self.etag, self.modified, self.encoding = etag, modified, encoding
        self.known.size = size
        self.known.strong = etag is not None and not etag.startswith((b"W/", b"w/"))
        self.known.etag, self.known.modified, self.known.encoding = text_of(etag), text_of(modified), text_of(encoding)

    @property
    def size(self):
        return self.known.size

    def accepts(self, head, int64_t start, int64_t stop):
        """See records.py."""
        cdef Py_buffer view
        PyObject_GetBuffer(head, &view, PyBUF_SIMPLE)
        try:
            return accept(&self.known, <const char *>view.buf, view.len, start, stop)
        finally:
            PyBuffer_Release(&view)
