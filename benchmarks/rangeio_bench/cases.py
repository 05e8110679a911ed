"""The cases and their targets.

A case is one kind of work in one cache state. All contenders that support it take part; a target compares rangeio with
the named contenders of the same run, or with a fixed figure.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from rangeio_bench import awaiting, awaiting_uring, baselines, fio, ours, peers, through
from rangeio_bench.contender import Action, Contender

Cache = Literal["hot", "cold", "direct"]
Metric = Literal[
    "rate", "cpu ratio", "cpu per read", "p99 ratio", "device bytes", "requests", "limit", "growth", "memory"
]

# In the order of the report; the targets refer to the first `Rangeio`.
EVERYONE: tuple[type[Contender], ...] = (
    ours.Rangeio,
    ours.RangeioOther,
    baselines.Pread,
    baselines.Preadv,
    baselines.OpenReadClose,
    baselines.Threads,
    baselines.Mmap,
    baselines.Memmap,
    peers.Obstore,
    peers.OpenDAL,
    peers.Arrow,
    peers.TensorStore,
    peers.PyUring,
    peers.Caio,
    *awaiting.CONTENDERS,
    *awaiting_uring.CONTENDERS,
    *through.CONTENDERS,
    fio.Fio,
)


@dataclass(frozen=True)
class Target:
    """A limit for one figure of rangeio.

    rate           times the fastest of `against`, at least
    cpu ratio      times the CPU of `against`, at most
    cpu per read   nanoseconds, at most
    p99 ratio      times the p99 of the best of `against`, at most
    device bytes   times the requested bytes, at most
    requests       for each range, at most
    limit          times the minimum time at the rate of the server, at most
    growth, memory bytes, at most (see `memory`)
    """

    metric: Metric
    bound: float
    against: tuple[str, ...] = ()
    call: str = ""
    """The call of rangeio that the target refers to; the first in the list if empty."""

    @property
    def at_least(self) -> bool:
        """Whether more is better."""
        return self.metric == "rate"


@dataclass(frozen=True)
class Case:
    """One kind of work in one cache state."""

    id: str
    title: str
    why: str
    """The use case, in one sentence."""
    action: Action
    cache: Cache
    baseline: str
    """Name of the contender that ratios refer to."""
    targets: tuple[Target, ...] = ()
    group: int = 0
    """Reads in one batch."""
    depth: int = 0
    block: int = 0
    cpus: int = 0
    """CPUs the process may use during the case; 0 for all."""
    busy: bool = False
    """Whether a CPU-bound Python thread runs beside it."""
    place: str = ""
    """The file system (`places`) that a copy of the sample is read on, where not its own."""
    leave_out: tuple[str, ...] = ()
    """Contenders that are excluded from the case: a name, or a name and a call."""

    @property
    def unit(self) -> str:
        """The name of one read, for display."""
        return {"files": "file", "ranges": "range", "fill": "range"}.get(self.action, "read")

    @property
    def in_bytes(self) -> bool:
        """Whether bytes per second are more meaningful than reads per second."""
        return self.action in ("whole", "blocks", "ranges", "fill", "stream")

    @property
    def judged(self) -> set[str]:
        """The contenders of targets and the baseline: they run in every round, however slow."""
        rivals = (name for target in self.targets for name in target.against)
        return {"rangeio", self.baseline, *rivals}

    def contenders(self) -> Iterable[type[Contender]]:
        """The contenders that support the case."""
        for kind in EVERYONE:
            able = self.action in kind.calls and (self.cache != "direct" or kind.reads_direct)
            if able and not {kind.name, f"{kind.name} {kind.calls[self.action]}"} & set(self.leave_out):
                yield kind


def _batches() -> Iterable[Case]:
    for count, cpus, busy, bound in (
        (128, 1, False, 1.05),
        (1024, 1, False, 1.05),
        (128, 2, False, 1.5),
        (1024, 2, False, 1.5),
        (128, 0, True, None),
        (1024, 0, True, None),
    ):
        where = "beside a busy thread" if busy else "on one core" if cpus == 1 else "on two cores"
        yield Case(
            id=f"batch-{count}-busy" if busy else f"batch-{count}-{cpus}core",
            title=f"Batch of {count:,} hot 4 KiB, {where}",
            why="Random records of a dataset: a training batch, a lookup of many keys.",
            action="batch",
            cache="hot",
            baseline="os.pread",
            targets=() if bound is None else (Target("rate", bound, ("os.pread",)),),
            group=count,
            cpus=cpus,
            busy=busy,
        )


def _deep() -> Iterable[Case]:
    for depth, targets in (
        (1, ()),
        (32, (Target("rate", 0.95, ("fio",)),)),
        (128, (Target("rate", 0.95, ("fio",), "read_batch"), Target("cpu per read", 3000, (), "read_batch"))),
    ):
        yield Case(
            id=f"direct-4k-depth{depth}",
            title=f"Random 4 KiB, O_DIRECT, {depth} in flight",
            why="Data much larger than memory: every read goes to the device.",
            action="deep",
            cache="direct",
            baseline="os.preadv" if depth == 1 else "fio",
            targets=targets,
            depth=depth,
            # read_batch has a fixed depth of 128.
            leave_out={1: ("thread pool", "rangeio read_batch"), 32: ("os.preadv", "rangeio read_batch")}.get(
                depth, ("os.preadv",)
            ),
        )


def _large() -> Iterable[Case]:
    yield Case(
        id="whole-hot",
        title="A large read, hot",
        why="Loading a model that was loaded before: the cost is the copy and its memory.",
        action="whole",
        cache="hot",
        baseline="os.preadv",
        targets=(Target("rate", 0.95, ("os.preadv",)),),
    )
    yield Case(
        id="whole-cold",
        title="A large read, cold",
        why="Loading a model for the first time, through the page cache.",
        action="whole",
        cache="cold",
        baseline="os.preadv",
    )
    for mib in (1, 8):
        yield Case(
            id=f"whole-direct-{mib}m",
            title=f"A large read, O_DIRECT, blocks of {mib} MiB",
            why="Loading a model with O_DIRECT: at device speed, with low CPU usage.",
            action="blocks",
            cache="direct",
            baseline="thread pool",
            targets=(
                Target("rate", 0.98, ("thread pool", "pyuring", "fio")),
                Target("cpu ratio", 1 / 3, ("thread pool",)),
            ),
            block=mib << 20,
        )


def _ranges() -> Iterable[Case]:
    why = "A few columns of a table: ranges of 8 to 256 KiB in clusters, some adjacent, some with small gaps."
    targets: dict[Cache, tuple[Target, ...]] = {
        "hot": (),
        "cold": (Target("rate", 1.5, ("thread pool",)), Target("device bytes", 1.1)),
        "direct": (Target("rate", 1.15, ("thread pool",)),),
    }
    for cache, bounds in targets.items():
        name = {"hot": "hot", "cold": "cold", "direct": "O_DIRECT"}[cache]
        yield Case(
            id=f"ranges-{cache}",
            title=f"Column chunks of a Parquet file, {name}",
            why=why,
            action="ranges",
            cache=cache,
            baseline="thread pool",
            targets=bounds,
        )


def _fill() -> Iterable[Case]:
    for cache in ("hot", "cold", "direct"):
        name = {"hot": "hot", "cold": "cold", "direct": "O_DIRECT"}[cache]
        yield Case(
            id=f"fill-{cache}",
            title=f"Tensors into memory of their own, {name}",
            why="Loading a model: 290 tensors of 4 KiB to 8 MiB, each where the program wants it.",
            action="fill",
            cache=cache,
            baseline="thread pool",
            targets=(Target("rate", 1.0, ("thread pool",)),),
        )


def _files() -> Iterable[Case]:
    why = "A dataset of one small file per sample, read whole."
    yield Case(
        id="files-hot",
        title="Small files of 16 KiB, hot",
        why=why,
        action="files",
        cache="hot",
        baseline="open+pread+close",
        targets=(Target("rate", 1.0, ("open+pread+close",)),),
    )
    yield Case(
        id="files-cold",
        title="Small files of 16 KiB, cold",
        why=why,
        action="files",
        cache="cold",
        baseline="open+pread+close",
        targets=(Target("rate", 1.0, ("tensorstore",)),),
    )


def _one_by_one() -> Iterable[Case]:
    for busy in (False, True):
        yield Case(
            id="each-4k-busy" if busy else "each-4k",
            title="Hot 4 KiB, one by one" + (", beside a busy thread" if busy else ""),
            why="The cost of a call when the bytes are in memory"
            + (
                ", in a program that also computes: a read that releases the GIL has to wait for it."
                if busy
                else "."
            ),
            action="each",
            cache="hot",
            baseline="os.pread",
            targets=(Target("rate", 100 if busy else 1.0, ("os.pread",)),),
            busy=busy,
        )


def _tasks() -> Iterable[Case]:
    hot: dict[tuple[int, int], tuple[Target, ...]] = {
        (64, 4): (
            Target("rate", 2, ("caio",)),
            Target("rate", 30, ("obstore", "opendal")),
            Target("rate", 0.65, ("os.pread",)),
        ),
        (64, 64): (Target("rate", 0.95, ("os.pread",)),),
        (1, 4): (Target("rate", 40, ("thread pool",)),),
    }
    for (depth, kib), targets in hot.items():
        yield Case(
            id=f"tasks-{depth}-{kib}k",
            title=f"Hot {kib} KiB awaited, {depth} task{'s' * (depth > 1)}",
            why="An asyncio server or loader: cached reads should not go through threads.",
            action="tasks",
            cache="hot",
            baseline="os.pread",
            targets=targets,
            depth=depth,
            block=kib << 10,
            leave_out=("rangeio batch",),
        )
    yield Case(
        id="tasks-direct",
        title="Random 4 KiB awaited, O_DIRECT, 128 tasks",
        why="The same if every read goes to the device.",
        action="tasks",
        cache="direct",
        baseline="rangeio batch",
        targets=(Target("rate", 0.9, ("rangeio batch",)),),
        depth=128,
        block=4 << 10,
    )


def _elsewhere() -> Iterable[Case]:
    where = {
        "tmpfs": "Shared memory: what other processes have put into /dev/shm.",
        "overlay": "The root of every container: models and data sets that come with its image.",
    }
    for place, why in where.items():
        for busy in (False, True):
            yield Case(
                id=f"each-4k-{place}" + "-busy" * busy,
                title=f"Hot 4 KiB on {place}, one by one" + ", beside a busy thread" * busy,
                why=why,
                action="each",
                cache="hot",
                baseline="os.pread",
                targets=() if busy else (Target("rate", 1.0, ("os.pread",)),),
                busy=busy,
                place=place,
            )
        yield Case(
            id=f"tasks-1-4k-{place}",
            title=f"Hot 4 KiB on {place} awaited, 1 task",
            why=why,
            action="tasks",
            cache="hot",
            baseline="os.pread",
            targets=(Target("rate", 0.65, ("os.pread",)),),
            depth=1,
            block=4 << 10,
            leave_out=("rangeio batch",),
            place=place,
        )


def _through() -> Iterable[Case]:
    yield Case(
        id="stream-hot",
        title="A large file as a stream, hot",
        why="Copying, hashing, parsing: sequential reads with little memory.",
        action="stream",
        cache="hot",
        baseline="open()",
        targets=(Target("rate", 0.9, ("open()",)), Target("rate", 0.9, ("open()",), "AsyncReader.stream")),
        block=1 << 20,
    )
    for action, how in (("through", "one after the other"), ("seeks", "here and there")):
        yield Case(
            id=f"file-{action}",
            title=f"4 KiB through a file object, {how}, hot",
            why="The reads of csv, zipfile, pandas and h5py.",
            action="through" if action == "through" else "seeks",
            cache="hot",
            baseline="open()",
            targets=(Target("rate", 0.8, ("open()",)),),
            block=4 << 10,
        )


CASES: tuple[Case, ...] = (
    *_one_by_one(),
    *_batches(),
    *_deep(),
    *_large(),
    *_ranges(),
    *_fill(),
    *_files(),
    *_tasks(),
    *_elsewhere(),
    *_through(),
)
