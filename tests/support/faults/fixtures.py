"""Fixtures of the tests that use faults; `conftest.py` names this module in `pytest_plugins`."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from . import stalling as fuse
from .child import Lab
from .data import write_pattern
from .machine import BACKENDS, need, need_backend, need_root_and

PATTERN_BYTES = 4 << 20


@pytest.fixture(params=BACKENDS)
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    """Children forced to each backend in turn."""
    need_backend(request.param)
    lab = Lab(tmp_path, request.param)
    yield lab
    lab.close()


@pytest.fixture
def auto_lab(tmp_path: Path) -> Iterator[Lab]:
    """Children that choose their backend themselves."""
    lab = Lab(tmp_path, None)
    yield lab
    lab.close()


@pytest.fixture(scope="session")
def pattern_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pattern(tmp_path_factory.mktemp("pattern") / "data.bin", PATTERN_BYTES)


@pytest.fixture
def stalling(tmp_path: Path, pattern_file: Path) -> Iterator[fuse.Server]:
    """A file system of its own for one test, with nothing released yet."""
    need(not fuse.unavailable(), fuse.unavailable())
    folder = tmp_path / "stalling"
    folder.mkdir()
    with fuse.file_system(folder, pattern_file) as server:
        yield server


@pytest.fixture
def stalling_device(stalling: fuse.Server) -> Iterator[Path]:
    """A block device over the file ``stall-300000`` of `stalling`."""
    need_root_and("losetup")
    with fuse.device(stalling, "stall-300000") as path:
        yield path
