"""What the tests of other libraries need that run here."""

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """The marks of the tests of pyarrow and h5py."""
    for mark in (
        "s3",
        "gcs",
        "azure",
        "hdfs",
        "processes",
        "pandas",
        "numpy",
        "gzip",
        "nonumpy",
        "threading",
    ):
        config.addinivalue_line("markers", f"{mark}: of pyarrow's tests")
    config.addinivalue_line("markers", "thread_unsafe: of h5py's tests")
