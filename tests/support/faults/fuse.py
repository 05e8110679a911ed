"""A file system of one folder, served from this process over /dev/fuse: the kernel's protocol, without libfuse.

Source: linux/fuse.h, protocol 7.31. Each read is answered by a thread of its own, so one that is not answered holds no
other. Every read comes as it was asked (FOPEN_DIRECT_IO): the kernel keeps no page, and trusts no size.
"""

import ctypes
import errno
import os
import stat
import struct
import threading
from collections.abc import Callable, Sequence

LOOKUP, FORGET, GETATTR, OPEN, READ, STATFS, RELEASE, FLUSH, INIT = 1, 2, 3, 14, 15, 17, 18, 25, 26
OPENDIR, RELEASEDIR, ACCESS, INTERRUPT, DESTROY, BATCH_FORGET = 27, 29, 34, 36, 38, 42
UNANSWERED = (FORGET, INTERRUPT, BATCH_FORGET)
EMPTY = (RELEASE, FLUSH, RELEASEDIR, ACCESS, DESTROY)
ROOT = 1
DIRECT_IO = 1

REQUEST = struct.Struct("=IIQQIIII")  # length, opcode, unique, node, uid, gid, pid, padding
REPLY = struct.Struct("=IiQ")  # length, -errno, unique
STARTED = struct.Struct("=IIIIHHIIHH32x")
ENTRY, ATTRIBUTES = struct.Struct("=QQQQII"), struct.Struct("=QII")
INODE = struct.Struct("=QQQQQQIIIIIIIIII")
OPENED, READING = struct.Struct("=QII"), struct.Struct("=QQI")

Read = Callable[[str, int, int], bytes]
"""(name, size, offset): the bytes; or raises an OSError."""


class Folder:
    """The files `names`, of a size as `told` by stat, mounted at `mountpoint`. Root only."""

    def __init__(self, mountpoint: str, names: Sequence[str], told: Callable[[str], int], read: Read) -> None:
        self.names, self.told, self.read = names, told, read
        self.device = os.open("/dev/fuse", os.O_RDWR)
        options = f"fd={self.device},rootmode=40000,user_id=0,group_id=0,allow_other"
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mount(b"test", os.fsencode(mountpoint), b"fuse", 0, options.encode()) != 0:
            raise OSError(ctypes.get_errno(), f"mount of {mountpoint}")

    def serve(self, started: Callable[[], None]) -> None:
        """Until it is unmounted."""
        while True:
            try:
                message = os.read(self.device, 1 << 20)
            except OSError as error:
                if error.errno in (errno.EINTR, errno.ENOENT):  # interrupted, before it was taken
                    continue
                return
            _, call, unique, node, *_ = REQUEST.unpack_from(message)
            body = message[REQUEST.size :]
            if call == READ:
                threading.Thread(target=self.answer_read, args=(unique, node, body), daemon=True).start()
            elif call not in UNANSWERED:
                self.reply(unique, *self.answer(call, node, body))
            if call == INIT:
                started()

    def reply(self, unique: int, body: bytes, error: int = 0) -> None:
        try:
            os.write(self.device, REPLY.pack(REPLY.size + len(body), -error, unique) + body)
        except OSError:
            pass  # nobody waits for it any more

    def answer(self, call: int, node: int, body: bytes) -> tuple[bytes, int]:
        if call == INIT:
            return STARTED.pack(7, 31, 1 << 17, 0, 64, 48, 1 << 17, 1, 0, 0), 0
        if call == LOOKUP:
            name = body.rstrip(b"\0").decode()
            if name not in self.names:
                return b"", errno.ENOENT
            found = ROOT + 1 + self.names.index(name)
            return ENTRY.pack(found, 0, 1, 1, 0, 0) + self.inode(found), 0
        if call == GETATTR:
            return ATTRIBUTES.pack(1, 0, 0) + self.inode(node), 0
        if call in (OPEN, OPENDIR):
            return OPENED.pack(0, DIRECT_IO, 0), 0
        if call == STATFS:
            return bytes(80), 0
        return b"", 0 if call in EMPTY else errno.ENOSYS

    def inode(self, node: int) -> bytes:
        size = 0 if node == ROOT else self.told(self.names[node - ROOT - 1])
        mode = stat.S_IFDIR | 0o755 if node == ROOT else stat.S_IFREG | 0o644
        times = (1_700_000_000,) * 3
        return INODE.pack(node, size, -(-size // 512), *times, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)

    def answer_read(self, unique: int, node: int, body: bytes) -> None:
        _, offset, size = READING.unpack_from(body)
        try:
            data = self.read(self.names[node - ROOT - 1], size, offset)
        except OSError as error:
            self.reply(unique, b"", error.errno or errno.EIO)
        else:
            self.reply(unique, data)
