"""What a plain reply looks like: the range that was asked for, of the version that is known, and nothing else.

Nearly all replies are, and differ from each other in little but two numbers and the time. So a head is compared with
one that was taken apart and judged before, line by line, and taken apart itself only where a line that matters is
another.
Nothing is accepted here that `rules` would not accept. Pure.
"""

import time
from itertools import zip_longest
from typing import TypeAlias

from rangeio.errors import Error
from rangeio.http import rules
from rangeio.http.exchange import SCRATCH
from rangeio.http.heads import MOST_DIGITS, BadReply, is_folded, parse_head

# What a judge of heads looks at, here and in `heads`, `rules` and `answers`. Other fields may say what they like.
_MATTERS = frozenset(
    [
        b"content-encoding",
        b"content-length",
        b"content-range",
        b"connection",
        b"etag",
        b"last-modified",
        b"location",
        b"transfer-encoding",
    ]
)
# Of these the two numbers are new in each reply, and expected to be what was asked for.
_COUNTING = frozenset([b"content-length", b"content-range"])
_END = b"\r\n\r\n"
# In a mask: a byte that has to be the same, and one that may be another.
_FIXED, _FREE = b"\xff", b"\0"
# Where heads, looked at twice a second, are made up in another way so often, each is of another length; until that is
# so long ago.
_MOST_CHANGES = 3
_FORGOTTEN_S = 5.0
# Heads change with the time that is in them, each second. Some have a number of their own each.
_LEAST_S = 0.5
# A head as long as this is still received whole if the three numbers of the next one have all the digits they may.
_LONGEST = SCRATCH - len(_END) - 3 * MOST_DIGITS

Reply: TypeAlias = tuple[tuple[bytes, ...], tuple[bytes, ...], tuple[int, ...]]
"""The texts around the numbers in a head, which of their bytes are fixed, and which numbers these are: 0 for the first
byte, 1 for the last one, 2 for how many there are."""


class Plain:
    """Replies for one known version, whose size is known. Any thread: what was learned is replaced as a whole."""

    __slots__ = ("_changed", "_form", "_formed", "_free", "_learned", "_sample", "_version", "size", "suffix")

    def __init__(self, version: rules.Version) -> None:
        assert version.size is not None
        self._version = version
        self._learned: tuple[frozenset[bytes], frozenset[bytes], bytes, bytes] | None = None
        self.size = version.size
        # What follows the range in a request.
        pin = f"\r\nIf-Match: {version.strong}" if version.strong else ""
        self.suffix = (pin + "\r\n\r\n").encode("latin-1")
        self._form: tuple[bytes, bool, int, bytes] | None = None
        self._formed = 0.0
        self._sample: tuple[bytes, int, int] | None = None  # what the form was made of
        self._free: frozenset[bytes] = frozenset()  # fields that may say something else in as many bytes
        self._changed = 0.0, 0  # when heads were last made up in another way, and how often of late

    def expect(self, at: int, stop: int) -> tuple[bytes, int, bytes] | None:
        """The head of the reply, its empty line included, if nothing has changed since the last one but the numbers;
        how long it should be even if more has; and what it should hold in any case. None before one was judged.
        """
        form = self._form
        if form is None:
            return None
        text, length_first, more, announced = form
        nbytes = stop - at
        head = text % ((nbytes, at, stop - 1) if length_first else (at, stop - 1, nbytes))
        return head, len(head) + more, announced % nbytes

    def repeated(self) -> Reply | None:
        """What `expect` says, for all ranges; None before a head was judged, or if each is of another length."""
        form, sample, learned = self._form, self._sample, self._learned  # other threads set them
        if form is None or form[2] or sample is None or learned is None or self._varies():
            return None
        head, at, stop = sample
        length, range_ = learned[2][2:-2], learned[3][2:-2]
        counting = {length % (stop - at): (length, [2]), range_ % (at, stop - 1): (range_, [0, 1])}
        texts, masks, order = [b""], [b""], list[int]()
        for line in head.split(b"\r\n"):
            name, _, value = line.partition(b":")
            pattern, numbers = counting.get(line, (line, []))
            first, *others = pattern.split(b"%d") if numbers else [pattern]
            free = len(value) if name.lower() in self._free else 0
            texts[-1] += first
            masks[-1] += _FIXED * (len(first) - free) + _FREE * free
            texts += others
            masks += [_FIXED * len(other) for other in others]
            order += numbers
            texts[-1] += b"\r\n"
            masks[-1] += _FIXED * 2
        if len(order) != 3:
            return None  # it says one of them in an odd way, or twice
        return (*texts[:-1], texts[-1] + b"\r\n"), (*masks[:-1], masks[-1] + _FIXED * 2), tuple(order)

    def accepts(self, head: bytes, at: int, stop: int) -> bool:
        """Whether a head, without its empty line, announces just the bytes `at` to `stop`. Cost: 2 us. The next one is
        expected to be like it.
        """
        if is_folded(head):
            return self._judged(head, at, stop, learn=False)
        accepted = self._is_known(head, at, stop) or self._judged(head, at, stop)
        if accepted:
            self._form_from(head, at, stop)
        return accepted

    def _is_known(self, head: bytes, at: int, stop: int) -> bool:
        """Whether it is of the kind that was judged last, which is so of nearly all."""
        if self._learned is None:
            return False
        required, known, length_line, range_line = self._learned
        every = head.split(b"\r\n")
        lines = set(every)
        if len(lines) < len(every):
            return False  # a field that is there twice has both values
        new = lines - known
        try:
            new.remove(length_line[2:-2] % (stop - at))
            new.remove(range_line[2:-2] % (at, stop - 1))
        except KeyError:
            return False
        if new:
            for line in new:
                name, colon, _ = line.partition(b":")
                if not colon or not name or b" " in name or b"\t" in name or name.lower() in _MATTERS:
                    return False
                if b"\n" in line or b"\r" in line or b"\0" in line:
                    return False
        return required <= lines

    def _judged(self, head: bytes, at: int, stop: int, *, learn: bool = True) -> bool:
        """The same for a head that is of a new kind. If it is accepted, others of its kind are known from now on."""
        try:
            parsed = parse_head(head)
            first, last, total = rules.content_range(parsed)
            plain = (
                parsed.status == 206
                and not parsed.chunked
                and not parsed.closing
                and parsed.length == stop - at
                and (first, last, total) == (at, stop, self.size)
                and not self._version.difference(parsed, total)
                and rules.encoding_of(parsed) == self._version.encoding
            )
        except (BadReply, Error):
            return False
        if plain and learn:
            self._learn(head)
        return plain

    def _form_from(self, head: bytes, at: int, stop: int) -> None:
        """Expect what was accepted; where each head is another, not each time, only one that is as long."""
        now = time.monotonic()
        form, learned = self._form, self._learned  # other threads set them
        assert learned is not None
        if form is not None and now - self._formed < _LEAST_S and len(head) <= _LONGEST:
            text, length_first, _, announced = form
            expected = len(text % (at, stop - 1, stop - at))  # whatever the order
            self._form = text, length_first, len(head) + len(_END) - expected, announced
            return
        self._compare(head, now)
        self._sample = head, at, stop
        _, _, length_line, range_line = learned
        text = head.replace(b"%", b"%%") + _END
        was_length, was_range = length_line % (stop - at), range_line % (at, stop - 1)
        # Said twice, the one that is left would be expected to stay as it is.
        once = text.lower().count(b"\r\ncontent-length") == text.lower().count(b"\r\ncontent-range") == 1
        if len(head) > _LONGEST or not once or was_length not in text or was_range not in text:
            self._form = None  # it says the same in an odd way
            return
        text = text.replace(was_length, length_line).replace(was_range, range_line)
        self._form = text, text.index(length_line) < text.index(range_line), 0, length_line
        self._formed = now

    def _compare(self, head: bytes, now: float) -> None:
        """Note which fields may say something else, such as the time, in as many bytes; and if a head is made up in
        another way than the one before was.
        """
        if self._sample is None:
            return
        changed = False
        for was, line in zip_longest(self._sample[0].split(b"\r\n"), head.split(b"\r\n"), fillvalue=b""):
            name = line.partition(b":")[0].lower()
            if line == was or name in _MATTERS:
                continue
            if len(line) == len(was) and was.lower().startswith(name + b":"):
                self._free |= {name}
            else:
                changed = True
        if changed:
            since, changes = self._changed
            self._changed = now, changes + 1 if now - since < _FORGOTTEN_S else 1

    def _varies(self) -> bool:
        """Whether each head is of another length, as far as it seems of late."""
        since, changes = self._changed
        return changes >= _MOST_CHANGES and time.monotonic() - since < _FORGOTTEN_S

    def _learn(self, head: bytes) -> None:
        status, *fields = head.split(b"\r\n")
        names = {line: line.partition(b":")[0].lower() for line in fields}
        required = frozenset([status, *(line for line in fields if names[line] in _MATTERS - _COUNTING)])
        known = required | {line for line in fields if names[line] not in _MATTERS}
        found = {name: line.partition(b":") for line, name in names.items() if name in _COUNTING}
        length_line = b"\r\n%b: %%d\r\n" % found[b"content-length"][0]
        range_line = b"\r\n%b: bytes %%d-%%d/%d\r\n" % (found[b"content-range"][0], self.size)
        self._learned = required, known, length_line, range_line
