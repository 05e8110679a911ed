"""The bench of whole jobs: its rounds, its verdicts and its servers."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import rangeio
from rangeio_bench.jobs import report, servers
from rangeio_bench.jobs.job import Job, Limit, Place, Way
from rangeio_bench.jobs.runner import measure

CONTENT = bytes(range(256)) * 400


@contextmanager
def _place(folder: Path) -> Iterator[Place]:
    (folder / "a b.bin").write_bytes(CONTENT)
    with servers.far(folder) as url:
        yield {"path": str(folder / "a b.bin"), "url": f"{url}/a%20b.bin"}


def _from_far(place: Place) -> bytes:
    with rangeio.open(place["url"]) as reader:
        return bytes(reader.read_range())


WAYS = (
    Way("rangeio", _from_far),
    Way("a plain file", lambda place: Path(place["path"]).read_bytes()),
    Way("a wrong one", lambda place: b"other bytes"),
    Way("a failing one", lambda place: 1 // 0),
    Way("an absent one", _from_far, needs=("no_such_module",)),
)


def test_every_way_that_is_right_is_measured_and_limits_are_judged(tmp_path: Path) -> None:
    limits = (
        Limit("bytes", len(CONTENT) + 1000),
        Limit("requests", 0.5),
        Limit("time", 1e9, ("a plain file",)),
        Limit("time", 1.0, ("an absent one",)),
    )
    job = Job(
        "try",
        "A file from afar",
        WAYS,
        _place,
        limits,
        same=lambda one, other: one == other,
        counted=lambda place: servers.counted(place["url"]),
    )
    result = measure(job, tmp_path, rounds=2)
    assert [len(row.runs) for row in result.rows] == [2, 2, 0, 0]
    assert {run.requests for run in result.rows[0].runs} == {1}
    lines = report.text(result).splitlines()
    assert any("differs from that of the first way" in line for line in lines)
    assert any("ZeroDivisionError" in line for line in lines)
    assert any("no_such_module not installed" in line for line in lines)
    assert [line.split(":")[0].strip() for line in lines[-4:]] == ["met", "MISSED", "met", "no figure"]
    assert report.data(result)["rows"]["rangeio"]["runs"][0]["requests"] == 1
    again = report.restored(job, report.data(result))
    assert report.data(again) == report.data(result)
    page = report.markdown("tables", [result], "Here.").splitlines()
    assert page[:3] == ["## Tables", "", "Here."]
    assert [line for line in page if line.startswith("| A file from afar | **")] == [page[-3]]


def test_the_far_server_of_a_folder_knows_only_its_files(tmp_path: Path) -> None:
    with _place(tmp_path) as place:
        with rangeio.open(place["url"]) as reader:
            assert bytes(reader.read_at(300, 10)) == CONTENT[300:310]
        url = place["url"].replace("a%20b", "other")
        with pytest.raises(rangeio.NotFoundError), rangeio.open(url) as reader:
            reader.read_at(0, 1)
