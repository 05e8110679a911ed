"""Facts about the machine and the location of a file, for `rangeio doctor` and the results of the bench.

Everything is read from /proc and /sys; values that a container or another system does not show are empty strings.
Nothing here imports the reactor, because `rangeio doctor` must work even if the reactor fails.
"""

import ctypes
import mmap
import os
import platform
from dataclasses import dataclass
from pathlib import Path

# mincore(2): the lowest bit of each byte means "resident", the others are reserved.
_LOWEST_BIT = bytes(value & 1 for value in range(256))


def read_text(path: str | Path) -> str:
    """The stripped text of a small file of /proc or /sys; empty if it cannot be read."""
    try:
        return Path(path).read_text(errors="replace").strip()
    except OSError:
        return ""


@dataclass(frozen=True, slots=True)
class Machine:
    """The computer and its operating system."""

    kernel: str
    system: str
    processor: str
    cpus: int
    """CPUs that this process may run on, not all CPUs of the machine."""
    memory: int
    python: str
    load: float
    """Load average of the last minute: if it is well above 0, other processes affected the measurement."""


@dataclass(frozen=True, slots=True)
class Place:
    """The file system and device of a file."""

    file_system: str
    options: str
    device: str
    """Name of the block device; empty on tmpfs, on overlayfs over several devices, and on network file systems."""
    model: str
    bytes: int
    rotational: bool
    scheduler: str
    read_ahead: int

    def __str__(self) -> str:
        device = " ".join(word for word in (self.device or "no block device", self.model) if word)
        return f"{self.file_system} on {device}"


def machine() -> Machine:
    """This machine."""
    release = dict(line.split("=", 1) for line in read_text("/etc/os-release").splitlines() if "=" in line)
    models = [line for line in read_text("/proc/cpuinfo").splitlines() if line.startswith("model name")]
    return Machine(
        kernel=f"{platform.system()} {platform.release()} {platform.machine()}",
        system=release.get("PRETTY_NAME", platform.platform()).strip('"'),
        processor=models[0].partition(":")[2].strip() if models else platform.processor(),
        cpus=len(usable_cpus()),
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0,
        python=f"{platform.python_implementation()} {platform.python_version()}",
        load=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else 0.0,
    )


def usable_cpus() -> set[int]:
    """The CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


def place(path: str | os.PathLike[str]) -> Place:
    """The file system and block device below `path`, which must exist."""
    number = os.stat(path).st_dev
    wanted = f"{os.major(number)}:{os.minor(number)}" if hasattr(os, "major") else ""  # not on Windows
    file_system, options = "unknown", ""
    for line in read_text("/proc/self/mountinfo").splitlines():
        # proc(5): ID parent major:minor root mount options [optional fields] - type source super-options
        left, _, right = line.partition(" - ")
        if left.split()[2] == wanted:
            file_system, options = right.split()[0], left.split()[5]
    disk = Path(f"/sys/dev/block/{wanted}").resolve()
    if (disk / "partition").exists():
        disk = disk.parent
    known = bool(wanted) and (disk / "queue").exists()
    return Place(
        file_system=file_system,
        options=options,
        device=disk.name if known else "",
        model=_model(disk) if known else "",
        bytes=int(read_text(disk / "size") or 0) * 512 if known else 0,
        rotational=read_text(disk / "queue/rotational") == "1",
        scheduler=read_text(disk / "queue/scheduler"),
        read_ahead=int(read_text(disk / "queue/read_ahead_kb") or 0) * 1024,
    )


def _model(disk: Path) -> str:
    """The model name of the device, otherwise the name of its driver (virtio_blk, nvme)."""
    driver = disk / "device/driver"
    return read_text(disk / "device/model") or (driver.resolve().name if driver.exists() else "")


def huge_pages() -> str:
    """The selected value of transparent_hugepage/enabled: always, madvise or never."""
    words = read_text("/sys/kernel/mm/transparent_hugepage/enabled")
    return next((word.strip("[]") for word in words.split() if word.startswith("[")), "")


def memlock() -> int | None:
    """RLIMIT_MEMLOCK in bytes; None if unlimited."""
    try:
        import resource
    except ImportError:  # not a POSIX system: nothing is locked there
        return None
    soft = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    return None if soft == resource.RLIM_INFINITY else soft


def resident_share(fd: int) -> float | None:
    """The share of the file's pages in the page cache, 0.0 to 1.0; None if mincore(2) fails.

    Since Linux 5.2 mincore is accurate only for processes that own the file or may write to it (CVE-2019-5489); for
    others it reports that everything is resident.
    """
    size = os.fstat(fd).st_size
    if size == 0:
        return None
    page = mmap.PAGESIZE
    pages = (size + page - 1) // page
    vector = ctypes.create_string_buffer(pages)
    try:
        # A private writable mapping, because ctypes can only get the address of a writable buffer.
        with mmap.mmap(fd, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE) as view:
            first = ctypes.c_char.from_buffer(view)
            address = ctypes.addressof(first)
            failed = ctypes.CDLL(None).mincore(ctypes.c_void_p(address), ctypes.c_size_t(size), vector)
            del first  # the mapping cannot be closed while this export exists
    except (OSError, ValueError, AttributeError):
        return None
    return None if failed else vector.raw.translate(_LOWEST_BIT).count(1) / pages
