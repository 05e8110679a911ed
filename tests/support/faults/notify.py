"""Answer a child's system calls one by one from outside (seccomp_unotify(2)).

Where a filter alone can only refuse for ever, this can interrupt three times and then let the call pass. The child
calls `inside.ask_parent(...)`; the parent's `Supervisor` holds, per call, the errnos still to be given.
"""

import fcntl
import os
import select
import socket
import struct
import threading
from collections import deque
from collections.abc import Mapping, Sequence

from . import seccomp

RECEIVE, SEND = 0xC0502100, 0xC0182101  # SECCOMP_IOCTL_NOTIF_RECV and _SEND of linux/seccomp.h
CONTINUE = 1
NOTICE = struct.Struct("=QII iIQ6Q")  # id, pid, flags, nr, arch, instruction, args
NAMES = {number: name for name, number in seccomp.CALLS.items()}


class Supervisor:
    """Serves one child from a thread. `heard` counts the calls, refused ones included.

    answers: for each call the errnos to give, 0 to let it pass. for_ever: what is given after those, normally 0.
    """

    def __init__(self, answers: Mapping[str, Sequence[int]], *, for_ever: int = 0) -> None:
        self.left = {call: deque(errnos) for call, errnos in answers.items()}
        self.for_ever = for_ever
        self.heard = dict.fromkeys(answers, 0)
        self.ours, self.childs = socket.socketpair()
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self) -> None:
        _, descriptors, _, _ = socket.recv_fds(self.ours, 1, 1)
        if not descriptors:
            return  # the child ended before it asked
        listener = descriptors[0]
        poll = select.poll()
        poll.register(listener, select.POLLIN)
        self.ours.sendall(b"k")
        try:
            while not poll.poll()[0][1] & select.POLLHUP:
                try:
                    self.answer(listener)
                except FileNotFoundError:
                    pass  # a signal ended the call before it was answered; it comes again
        finally:
            os.close(listener)

    def answer(self, listener: int) -> None:
        notice = bytearray(NOTICE.size)
        fcntl.ioctl(listener, RECEIVE, notice)
        number, _, _, call, *_ = NOTICE.unpack(notice)
        name = NAMES[call]
        self.heard[name] += 1
        errno = self.left[name].popleft() if self.left[name] else self.for_ever
        answer = struct.pack("=QqiI", number, 0, -errno, 0 if errno else CONTINUE)
        fcntl.ioctl(listener, SEND, answer)

    def close(self) -> None:
        self.ours.close()
        self.childs.close()
        self.thread.join(timeout=10)
        assert not self.thread.is_alive(), "the supervisor of a dead child still runs"

    def __enter__(self) -> "Supervisor":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
