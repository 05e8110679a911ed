"""Every byte of a result was received, once: an answer that does not add up is an error, not a result."""

import errno
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from faults.child import Lab, code
from faults.data import write_pattern
from faults.machine import need, need_backend, sanitized

import _uring

# Stands before the C library: reads of 64 bytes and more that were answered in full claim one byte more.
CALLS = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/uio.h>
#include <unistd.h>

static ssize_t more(ssize_t got, size_t asked) { return got == (ssize_t)asked && asked >= 64 ? got + 1 : got; }

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t pread(int fd, void *data, size_t size, off_t at) { return more(REAL(pread)(fd, data, size, at), size); }
ssize_t pread64(int fd, void *data, size_t size, off64_t at) { return more(REAL(pread64)(fd, data, size, at), size); }

static size_t sum(const struct iovec *parts, int count)
{
    size_t all = 0;
    while (count--) all += parts++->iov_len;
    return all;
}

ssize_t preadv(int fd, const struct iovec *parts, int count, off_t at)
{
    return more(REAL(preadv)(fd, parts, count, at), sum(parts, count));
}

ssize_t preadv64(int fd, const struct iovec *parts, int count, off64_t at)
{
    return more(REAL(preadv64)(fd, parts, count, at), sum(parts, count));
}

ssize_t preadv2(int fd, const struct iovec *parts, int count, off_t at, int flags)
{
    return more(REAL(preadv2)(fd, parts, count, at, flags), sum(parts, count));
}

ssize_t preadv64v2(int fd, const struct iovec *parts, int count, off64_t at, int flags)
{
    return more(REAL(preadv64v2)(fd, parts, count, at, flags), sum(parts, count));
}
"""

# Stands before liburing: what has completed claims to have brought one byte more.
RING = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include "abi.h"

static void *real(const char *name)
{
    static void *library;
    if (!library) library = dlopen(getenv("REAL_LIBURING"), RTLD_NOW | RTLD_LOCAL);
    return dlsym(library, name);
}

static int more(struct abi_ring *ring, int result)
{
    for (uint32_t i = 0; i < abi_cq_ready(ring); i++)
        if (abi_cq_peek(ring, i)->res > 0) abi_cq_peek(ring, i)->res += 1;
    return result;
}

int io_uring_submit(struct abi_ring *ring)
{
    return more(ring, ((int (*)(struct abi_ring *))real("io_uring_submit"))(ring));
}

int io_uring_submit_and_wait_timeout(struct abi_ring *ring, void *cqe, unsigned count, void *time, void *mask)
{
    int (*call)(void *, void *, unsigned, void *, void *) = real("io_uring_submit_and_wait_timeout");
    return more(ring, call(ring, cqe, count, time, mask));
}

#define PASS(name) \
    long name(long a, long b, long c) { return ((long (*)(long, long, long))real(#name))(a, b, c); }
PASS(io_uring_queue_init_params)
PASS(io_uring_queue_exit)
PASS(io_uring_ring_dontfork)
PASS(io_uring_register_files)
PASS(io_uring_register_files_update)
PASS(io_uring_register_buffers)
PASS(io_uring_unregister_buffers)
"""

READS = code("""
    import asyncio, os, sys
    import rangeio
    path = sys.argv[1]

    reads = {
        "small": lambda reader: reader.read_at(5, 100),
        "large": lambda reader: reader.read_at(5, 3_000_000),
        "into": lambda reader: reader.read_into(bytearray(200_000), 7),
        "ranges": lambda reader: reader.read_ranges([(0, 512), (9000, 10_000)], gap=0),
        "batch": lambda reader: reader.read_batch([5, 9000, 7], 64),
        "iter": lambda reader: list(reader.iter_ranges([(0, 512), (9000, 10_000)])),
        "file": lambda reader: reader.as_file().read(),
    }
    direct = sys.argv[2] == "direct"
    awaited = {} if direct else {name: reads[name] for name in ("small", "large", "into", "ranges", "batch")}
    if direct:
        del reads["into"]  # whose memory may not be aligned

    def note(name, error=None):
        found[name] = [type(error).__name__, getattr(error, "errno", None)] if error else "a result"

    async def main():
        async with rangeio.open_async(path, direct=direct) as reader:
            for name, read in awaited.items():
                try:
                    await read(reader)
                except rangeio.Error as error:
                    note("awaited " + name, error)
                else:
                    note("awaited " + name)

    found = {}
    with rangeio.open(path, direct=direct) as reader:
        for name, read in reads.items():
            try:
                read(reader)
            except rangeio.Error as error:
                note(name, error)
            else:
                note(name)
    asyncio.run(main())
    if not direct:
        [error] = rangeio.Operator("fs").read_ranges([(path, (5, 90_000))], on_error="return")
        note("files", error if isinstance(error, Exception) else None)
    del reader
    say(found=found, leaks=leaks())
""")


def compiled(source: str, folder: Path) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    need(compiler, "needs a C compiler")
    assert compiler
    (folder / "shim.c").write_text(source)
    headers = Path(_uring.__file__).parent
    command = [
        compiler,
        "-shared",
        "-fPIC",
        "-I",
        str(headers),
        "-o",
        str(folder / "shim.so"),
        str(folder / "shim.c"),
        "-ldl",
    ]
    subprocess.run(command, check=True)
    return folder / "shim.so"


def check_all_failed(found: dict[str, object], count: int) -> None:
    assert len(found) == count
    assert found == {name: ["UnexpectedError", errno.EIO] for name in found}


def test_a_call_that_brings_more_than_was_asked_for(lab: Lab, tmp_path: Path) -> None:
    need(not sanitized(), "AddressSanitizer believes it, and ends the process")
    path = write_pattern(tmp_path / "data", 4 << 20)  # just written, so it is cached: a ring makes no calls
    preloaded = ":".join(filter(None, [os.environ.get("LD_PRELOAD"), str(compiled(CALLS, tmp_path))]))
    facts = lab.run(READS, path, "cached", LD_PRELOAD=preloaded).facts()
    check_all_failed(facts["found"], 13)
    assert facts["leaks"] == {}


@pytest.mark.parametrize("lab", ["uring"], indirect=True)
def test_a_completion_of_more_than_was_asked_for(lab: Lab, pattern_file: Path, tmp_path: Path) -> None:
    need_backend("uring")
    library = compiled(RING, tmp_path)
    real = _uring.Reactor(backend="uring").backend.liburing
    facts = lab.run(READS, pattern_file, "direct", RANGEIO_LIBURING=str(library), REAL_LIBURING=real).facts()
    check_all_failed(facts["found"], 6)
    assert facts["leaks"] == {}
