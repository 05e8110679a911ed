"""The page cache before a run: for `Job.before`. The place names a file, or a folder of files, by ``path``."""

from pathlib import Path

from rangeio_bench.conditions import drop_pages, load_pages
from rangeio_bench.jobs.job import Place


def cold(place: Place) -> None:
    """Drop the files from the page cache."""
    for path in _files(place):
        drop_pages(path)


def hot(place: Place) -> None:
    """Bring the files into the page cache."""
    for path in _files(place):
        load_pages(path)


def _files(place: Place) -> list[Path]:
    where = Path(place["path"])
    return [where] if where.is_file() else [*where.iterdir()]
