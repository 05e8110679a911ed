"""Random use for as long as asked (`make soak`): threads, forks, drops, interrupts; every byte is checked."""

import os
from pathlib import Path

import pytest
from faults.child import Lab

pytestmark = pytest.mark.soak

PROGRAM = """
import gc, os, random, signal, sys, threading, time
import numpy as np
import rangeio

path, seconds, seed = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
nbytes = os.stat(path).st_size
end = time.monotonic() + seconds
failures = []


def some_range(chance):
    start = chance.randrange(nbytes)
    return start, min(start + int(2 ** chance.uniform(0, 21)), nbytes)


def once(reader, chance, kept):
    kind = chance.randrange(7)
    pairs = [some_range(chance) for _ in range(chance.randrange(1, 40))]
    if kind == 0:
        start, stop = pairs[0]
        kept.append((reader.read_at(start, stop - start), pattern(start, stop)))
    elif kind == 1:
        kept += [(b, pattern(*p)) for b, p in zip(reader.read_ranges(pairs, gap=chance.choice([0, 5000])), pairs)]
    elif kind == 2:
        places = [chance.randrange(nbytes - 512) for _ in range(200)]
        kept.append((reader.read_batch(places, 512), b"".join(pattern(at, at + 512) for at in places)))
    elif kind == 3:
        for index, buffer in reader.iter_ranges(pairs):
            kept.append((buffer, pattern(*pairs[index])))
            if chance.random() < 0.1:
                break
    elif kind == 4:
        space = np.empty(pairs[0][1] - pairs[0][0], "u1")
        reader.read_into(space, pairs[0][0])
        kept.append((space, pattern(*pairs[0])))
    elif kind == 5:
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
    else:
        views = [np.frombuffer(buffer, "u1") for buffer in reader.read_ranges(pairs)]
        kept += [(view, pattern(*pair)) for view, pair in zip(views, pairs)]
    for buffer, good in kept:
        assert bytes(buffer) == good, (kind, len(good))
    while len(kept) > 60:
        kept.pop(chance.randrange(len(kept)))


def work(number, until):
    chance = random.Random(f"{seed}/{number}")
    kept = []
    with rangeio.open(path, direct=chance.choice([True, False, "auto"])) as reader:
        while time.monotonic() < until:
            try:
                once(reader, chance, kept)
            except BaseException as error:
                failures.append(repr(error))
                return


threads = [threading.Thread(target=work, args=(number, end)) for number in range(4)]
for thread in threads:
    thread.start()
codes = []
while time.monotonic() < end:
    child = os.fork()
    if child == 0:
        work(f"child {len(codes)}", time.monotonic() + 1)
        os._exit(bool(failures))
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
for thread in threads:
    thread.join()
say(failures=failures, codes=sum(map(abs, codes)), leaks=leaks())
"""


def test_soak(lab: Lab, pattern_file: Path) -> None:
    seconds = float(os.environ.get("RANGEIO_SOAK_S", "60")) / 3
    seed = int.from_bytes(os.urandom(4), "little")
    print(f"seed {seed}")
    child = lab.start(PROGRAM, pattern_file, seconds, seed)
    facts = child.finish(timeout_s=seconds * 2 + 60).facts()
    assert facts == {"failures": [], "codes": 0, "leaks": {}}, f"seed {seed}"
