"""The suites of fsspec and pyarrow for file systems, with a writer behind ours."""

import pickle
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faults.machine import need_module
from servers.s3 import BUCKET, S3Server

need_module("urllib3")
need_module("fsspec")
need_module("rangeio.fsspec")
abstract = need_module("fsspec.tests.abstract")
arrow_fs = need_module("pyarrow.fs")
arrow = need_module("rangeio.arrow")
writers = need_module("writers")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of pyarrow's helpers
    theirs = need_module("pyarrow.tests.test_fs")


class OfFiles(abstract.AbstractFixtures):  # type: ignore[misc, name-defined]
    @pytest.fixture
    def fs(self) -> Iterator[Any]:
        yield writers.WritableFiles()
        writers.WritableFiles.clear_instance_cache()

    @pytest.fixture
    def fs_path(self, tmp_path: Path) -> str:
        return str(tmp_path)


class OfObjects(abstract.AbstractFixtures):  # type: ignore[misc, name-defined]
    @pytest.fixture
    def fs(self, seaweedfs: S3Server) -> Iterator[Any]:
        fs = writers.WritableObjects(
            key=seaweedfs.access_key_id,
            secret=seaweedfs.secret_access_key,
            endpoint_url=seaweedfs.url,
            region=seaweedfs.region,
        )
        fs.server = seaweedfs
        yield fs
        writers.WritableObjects.clear_instance_cache()

    @pytest.fixture
    def fs_path(self, tmp_path: Path) -> str:
        return f"{BUCKET}/upstream/{tmp_path.name}"

    @pytest.fixture
    def supports_empty_directories(self) -> bool:
        return False


class TestGetFiles(abstract.AbstractGetTests, OfFiles):  # type: ignore[misc, name-defined]
    pass


class TestCopyFiles(abstract.AbstractCopyTests, OfFiles):  # type: ignore[misc, name-defined]
    pass


class TestGetObjects(abstract.AbstractGetTests, OfObjects):  # type: ignore[misc, name-defined]
    pass


# --- pyarrow -------------------------------------------------------------------------------------------------


class Writing(arrow.Handler):  # type: ignore[misc, name-defined]
    """Ours, with what pyarrow's handler of fsspec does to write."""


for _name in ("create_dir", "delete_dir", "delete_file", "move", "copy_file", "open_output_stream"):
    setattr(Writing, _name, getattr(arrow_fs.FSSpecHandler, _name))


@pytest.fixture(params=[arrow_fs.FSSpecHandler, Writing], ids=["by pyarrow", "by rangeio.arrow"])
def fs(request: pytest.FixtureRequest) -> Iterator[Any]:
    yield arrow_fs.PyFileSystem(request.param(writers.WritableFiles()))
    writers.WritableFiles.clear_instance_cache()


@pytest.fixture
def pathfn(tmp_path: Path) -> Any:
    return lambda path: (tmp_path / path).as_posix()


@pytest.fixture
def pickle_module() -> Any:
    return pickle


pickle_with_and_without_subtree_filesystem = theirs.pickle_with_and_without_subtree_filesystem

test_filesystem_pickling = theirs.test_filesystem_pickling
test_filesystem_is_functional_after_pickling = theirs.test_filesystem_is_functional_after_pickling
test_get_file_info = theirs.test_get_file_info
test_get_file_info_with_selector = theirs.test_get_file_info_with_selector
test_open_input_stream = theirs.test_open_input_stream
test_open_input_file = theirs.test_open_input_file
test_open_input_stream_not_found = theirs.test_open_input_stream_not_found
test_filesystem_equals_none = theirs.test_filesystem_equals_none
test_non_path_like_input_raises = theirs.test_non_path_like_input_raises
test_copy_file = theirs.test_copy_file
test_create_dir = theirs.test_create_dir
test_delete_dir = theirs.test_delete_dir
test_delete_file = theirs.test_delete_file
test_move_file = theirs.test_move_file
test_open_output_stream = theirs.test_open_output_stream
