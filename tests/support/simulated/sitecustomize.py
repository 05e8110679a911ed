"""Simulates what CPython lacks on Windows or macOS, by its documentation: SIMULATE=windows or macos.

Python imports this module at its start, if its folder is in PYTHONPATH. Everything of the standard library that the
program needs is imported before: it was written for this system, and would fail with what is taken away here.
"""

# ruff: noqa: F401
import argparse
import asyncio
import concurrent.futures
import ctypes
import http.client
import http.server
import importlib.metadata
import logging
import multiprocessing
import os
import platform
import select
import selectors
import shutil
import signal
import socket
import socketserver
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import types
import urllib.request
from importlib.machinery import ExtensionFileLoader, PathFinder
from importlib.util import spec_from_file_location
from typing import Any

# What neither system has.
NEITHER = {
    os: "posix_fadvise posix_fallocate eventfd memfd_create sched_getaffinity sched_setaffinity splice copy_file_range"
    " O_DIRECT O_NOATIME O_PATH O_TMPFILE RWF_NOWAIT RWF_HIPRI getrandom pidfd_open setns unshare",
    select: "epoll EPOLLIN EPOLLOUT EPOLLET EPOLL_CLOEXEC EPOLLERR EPOLLHUP",
    selectors: "EpollSelector",
    socket: "TCP_QUICKACK TCP_USER_TIMEOUT TCP_CORK SO_PEERCRED SOCK_CLOEXEC SOCK_NONBLOCK MSG_NOSIGNAL",
}
NOT_ON_WINDOWS = {
    os: "pread preadv pwrite pwritev readv writev fork forkpty register_at_fork sysconf set_blocking get_blocking"
    " geteuid getuid getgid getegid statvfs fstatvfs fchmod fchown chown uname getloadavg mkfifo mknod wait wait3 wait4"
    " waitid O_CLOEXEC O_NOCTTY O_NONBLOCK O_SYNC O_DSYNC O_DIRECTORY O_NOFOLLOW posix_spawn pipe2 nice lockf fdatasync"
    " sync major minor makedev getpgid setsid killpg lchown openpty ttyname sched_yield",
    socket: "SO_REUSEPORT MSG_DONTWAIT CMSG_LEN CMSG_SPACE SCM_RIGHTS",
    signal: "SIGALRM SIGHUP SIGQUIT SIGUSR1 SIGUSR2 setitimer getitimer pthread_kill sigwait siginterrupt alarm SIGPIPE"
    " SIGCHLD",
    time: "tzset clock_gettime",
}
MODULES_NOT_ON_WINDOWS = ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog", "readline")


def _take_away(what: "dict[types.ModuleType, str]") -> None:
    for module, names in what.items():
        for name in names.split():
            if hasattr(module, name):
                delattr(module, name)


class _NoExtension:
    """No compiled module of rangeio is there."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        spec = PathFinder.find_spec(name, path) if name.startswith("_uring.") else None
        if spec is None or not isinstance(spec.loader, ExtensionFileLoader):
            return None
        for folder in path:
            source = os.path.join(folder, name.rpartition(".")[2] + ".py")
            if os.path.exists(source):
                return spec_from_file_location(name, source)
        raise ImportError(f"no extension on {sys.platform}")


class _ProactorLike(asyncio.SelectorEventLoop):
    """The default loop of Windows watches no descriptors."""

    def add_reader(self, *arguments: Any) -> None:
        raise NotImplementedError

    remove_reader = add_writer = remove_writer = add_reader


class _ProactorPolicy(asyncio.DefaultEventLoopPolicy):
    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        return _ProactorLike()


class _Kernel32:
    """ReadFile as documented: at the offset in OVERLAPPED, 0 and ERROR_HANDLE_EOF (38) at the end."""

    def __init__(self, *names: Any, **how: Any) -> None:
        pass

    @staticmethod
    def ReadFile(handle: int, target: Any, length: int, got: Any, overlapped: Any) -> int:
        where = overlapped._obj
        try:
            data = _pread(handle - 1000, length, where.offset + (where.offset_high << 32))
        except OSError:
            _last_error[0] = 6  # ERROR_INVALID_HANDLE
            return 0
        ctypes.memmove(target, data, len(data))
        got._obj.value = len(data)
        _last_error[0] = 0 if data else 38
        return int(bool(data))


_last_error = [0]
_pread = os.pread


def _be_windows() -> None:
    _take_away(NOT_ON_WINDOWS)
    for name in ("recvmsg", "recvmsg_into", "sendmsg", "sendmsg_afalg"):
        setattr(socket.socket, name, property(_absent))
    for module in MODULES_NOT_ON_WINDOWS:
        sys.modules[module] = None  # type: ignore[assignment]
    os.O_BINARY = 0  # type: ignore[attr-defined]
    selectors.DefaultSelector = selectors.SelectSelector  # type: ignore[misc, assignment]
    asyncio.set_event_loop_policy(_ProactorPolicy())
    ctypes.WinDLL = _Kernel32  # type: ignore[attr-defined]
    ctypes.get_last_error = lambda: _last_error[0]  # type: ignore[attr-defined]
    ctypes.WinError = lambda code: OSError(22, f"error {code} of Windows")  # type: ignore[attr-defined]
    msvcrt = types.ModuleType("msvcrt")
    msvcrt.get_osfhandle = lambda fd: fd + 1000  # type: ignore[attr-defined]
    sys.modules["msvcrt"] = msvcrt


def _absent(self: Any) -> None:
    raise AttributeError


if simulated := os.environ.get("SIMULATE"):
    selectors.DefaultSelector = selectors.PollSelector  # type: ignore[misc, assignment]
    _take_away(NEITHER)
    sys.platform = {"windows": "win32", "macos": "darwin"}[simulated]
    platform.system = lambda: {"windows": "Windows", "macos": "Darwin"}[simulated]
    if simulated == "windows":
        _be_windows()
    sys.meta_path.insert(0, _NoExtension())  # type: ignore[arg-type]
