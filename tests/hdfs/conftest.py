"""Real clusters, one of each kind for the whole run."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from servers.hdfs import Hdfs, SecureHdfs, hdfs

# Kept between runs: the jars are 119 MB.
CACHE = Path(__file__).resolve().parents[2] / "build" / "hadoop"


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hdfs]:
    with hdfs(tmp_path_factory.mktemp("hdfs"), CACHE) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def two_name_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hdfs]:
    with hdfs(tmp_path_factory.mktemp("hdfs"), CACHE, "ha") as cluster:
        yield cluster


@pytest.fixture(scope="session")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureHdfs]:
    with hdfs(tmp_path_factory.mktemp("hdfs"), CACHE, "secure") as cluster:
        yield cluster
