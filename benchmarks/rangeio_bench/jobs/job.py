"""Jobs, the ways to do them, and the limits for rangeio."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

Place = Mapping[str, str]
"""What a job reads: paths, URLs and the like, by name."""

Metric = Literal["time", "cpu", "bytes", "requests", "memory"]


@dataclass(frozen=True)
class Way:
    """One library that does the job."""

    name: str
    run: Callable[[Place], Any]
    """The timed section: does the whole job and returns the result."""
    needs: tuple[str, ...] = ()
    """Import names of its libraries."""

    @property
    def ours(self) -> bool:
        """Whether rangeio reads."""
        return self.name.startswith("rangeio")

    def absence(self) -> str:
        """The reason why it cannot run here; empty if it can."""
        missing = [name for name in self.needs if find_spec(name) is None]
        return f"{', '.join(missing)} not installed" if missing else ""


@dataclass(frozen=True)
class Limit:
    """A limit for one figure of rangeio.

    time, cpu, bytes, requests, memory   times that of the best of `against`, at most
    the same without `against`           an absolute figure, at most: seconds, bytes, requests
    """

    metric: Metric
    bound: float
    against: tuple[str, ...] = ()
    way: str = ""
    """The way of rangeio that it refers to; the first one if empty."""


@dataclass(frozen=True)
class Job:
    """One job."""

    id: str
    title: str
    ways: tuple[Way, ...]
    place: Callable[[Path], AbstractContextManager[Place]]
    """Prepares data and servers in a folder, and stops them at the end."""
    limits: tuple[Limit, ...] = ()
    before: Callable[[Place], None] = lambda place: None
    """Called before each run, outside of the timed section: drops the page cache, say."""
    same: Callable[[Any, Any], bool] = lambda one, other: True
    """Whether two results are equal. Called after the first run of each way."""
    counted: Callable[[Place], tuple[int, int]] | None = None
    """Requests and bytes that the server has counted so far."""
    child: bool = False
    """Each run is in a new process: needed for memory, and for what is to be imported and connected anew."""
    warm_up: bool = True
    """Whether each way runs once before it is measured."""
