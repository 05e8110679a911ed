"""What observers are told and what is logged: complete, without secrets, and nothing where nobody listens."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from awaited import run_on
from faults.machine import need_module
from servers.scripted import Answer, Asked, cut, honest, reply, scripted

import rangeio
from rangeio.events import LISTENERS

need_module("urllib3")

DATA = bytes(range(256)) * 400
SECRET = "S3cretSignature"
FAST: Any = {"retry": rangeio.Retry(attempts=3, backoff_s=0.001)}


@pytest.fixture
def events() -> Iterator[list[rangeio.Event]]:
    """What was told, in order."""
    told: list[rangeio.Event] = []
    stop = rangeio.on_event(told.append)
    yield told
    stop()
    stop()
    assert not LISTENERS


def facts(events: list[rangeio.Event]) -> list[tuple[Any, ...]]:
    return [(one.kind, one.offset, one.nbytes) for one in events if one.kind != "response"]


@pytest.fixture(params=["sync", "asyncio", "trio"])
def call(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Calls a method of a Reader of a URL twice, or awaits it."""
    if request.param != "sync":
        need_module(request.param)

    def call(url: str, name: str, *args: Any, **options: Any) -> None:
        async def awaited() -> None:
            async with rangeio.open_async(url, **FAST, **options) as reader:
                for _ in range(2):
                    await getattr(reader, name)(*args)

        if request.param == "sync":
            with rangeio.open(url, **FAST, **options) as reader:
                for _ in range(2):
                    getattr(reader, name)(*args)
        else:
            run_on(request.param, awaited)

    return call


def test_a_read(call: Any, events: list[rangeio.Event]) -> None:
    """A first one and one of the steady state."""
    with scripted(lambda asked: honest(DATA, asked)) as server:
        url = f"{server.url}/data?sig={SECRET}"
        call(url, "read_at", 10, 100)
    assert facts(events) == [("request", 10, 100), ("read", 10, 100)] * 2
    responses = [one for one in events if one.kind == "response"]
    assert [one.status for one in responses] == [206, 206]
    for one in events:
        assert one.path == f"{url.partition('?')[0]}?..."
        assert one.seconds is None if one.kind == "request" else (one.seconds or 0) > 0
        assert one.attempts in (None, 1)


def test_many_ranges(call: Any, events: list[rangeio.Event]) -> None:
    with scripted(lambda asked: honest(DATA, asked)) as server:
        call(server.url + "/data", "read_ranges", [(0, 10), (50, 80), (90_000, 90_010)])
    assert sorted(facts(events)[:4], key=str) == sorted(
        [("request", 0, 80), ("read", 0, 80), ("request", 90_000, 10), ("read", 90_000, 10)], key=str
    )
    ranges = [one for one in events if one.kind == "ranges"]
    assert [(one.ranges, one.requests, one.nbytes) for one in ranges] == [(3, 2, 90)] * 2
    assert all((one.seconds or 0) > 0 for one in ranges)


@pytest.mark.parametrize("options", [{}, {"on_error": "return"}], ids=["raise", "return"])
def test_many_ranges_of_a_file(tmp_path: Path, events: list[rangeio.Event], options: dict[str, Any]) -> None:
    """Merged or not, sync or awaited, whatever becomes of errors; `reader.stats` counts the same."""
    path = tmp_path / "data"
    path.write_bytes(DATA)

    async def awaited() -> dict[str, int]:
        async with rangeio.open_async(path, gap=100) as reader:
            await reader.read_ranges([(0, 10), (50, 80), (90_000, 90_010)], **options)
            return reader.stats

    with rangeio.open(path, gap=100) as reader:
        reader.read_ranges([(0, 10), (50, 80), (90_000, 90_010)], **options)
        counted = [reader.stats, run_on("asyncio", awaited)]
    facts = {"ranges": 3, "requests": 2, "bytes_requested": 50, "bytes_fetched": 90}
    assert counted == [facts, facts]
    assert [(one.kind, one.path) for one in events] == [("ranges", str(path))] * 2
    assert [(one.ranges, one.requests, one.nbytes) for one in events] == [(3, 2, 90)] * 2


def test_many_ranges_some_of_which_fail(events: list[rangeio.Event]) -> None:
    """Bytes of those that came."""

    def script(asked: Asked) -> Answer:
        return reply(403) if "bytes=50000-" in asked.fields.get("range", "") else honest(DATA, asked)

    with scripted(script) as server, rangeio.open(server.url + "/data", **FAST) as reader:
        found = reader.read_ranges([(0, 10), (50_000, 50_020)], gap=None, on_error="return")
    assert isinstance(found[1], rangeio.PermissionDeniedError)
    (one,) = (event for event in events if event.kind == "ranges")
    assert (one.ranges, one.requests, one.nbytes) == (2, 1, 10)


# What docs/observability.md says of each call: the kinds of events over HTTP, and of a file.
TOLD: list[tuple[str, Callable[[Any], Any], str, str]] = [
    ("read_at", lambda reader: reader.read_at(0, 10), "request response read", ""),
    ("read_batch", lambda reader: reader.read_batch([0, 50_000], 10), "request response read", ""),
    (
        "read_ranges_into",
        lambda reader: reader.read_ranges_into([(bytearray(9), 0)]),
        "request response read",
        "",
    ),
    ("stream", lambda reader: [*reader.stream()], "request response read", ""),
    ("as_file", lambda reader: reader.as_file().read(9), "request response read", ""),
    ("iter_ranges", lambda reader: [*reader.iter_ranges([(0, 9)])], "request response read", ""),
    ("read_ranges", lambda reader: reader.read_ranges([(0, 9)]), "request response read ranges", "ranges"),
    ("stat", lambda reader: reader.stat(), "request response", ""),
]


@pytest.mark.parametrize(("read", "http", "file"), [row[1:] for row in TOLD], ids=[row[0] for row in TOLD])
def test_what_is_told_of_each_call(
    tmp_path: Path, events: list[rangeio.Event], read: Callable[[Any], Any], http: str, file: str
) -> None:
    path = tmp_path / "data"
    path.write_bytes(DATA)
    others = [lambda: rangeio.from_bytes(DATA), lambda: rangeio.from_object(BytesIO(DATA))]
    with scripted(lambda asked: honest(DATA, asked)) as server:
        for expected, make in [
            (http, lambda: rangeio.open(server.url)),
            *[(file, make) for make in (lambda: rangeio.open(path), *others)],
        ]:
            events.clear()
            with make() as reader:
                read(reader)
            assert {one.kind for one in events} == {*expected.split()}


def test_what_is_told_of_many_objects(tmp_path: Path, events: list[rangeio.Event]) -> None:
    """Each object with several ranges is a `read_ranges`; others are single reads."""
    for name in "ab":
        (tmp_path / name).write_bytes(DATA)
    jobs: list[Any] = [("a", (0, 5)), ("b", (0, 5)), ("b", (90_000, 90_005))]
    operator = rangeio.Operator("fs", root=tmp_path)

    async def awaited() -> None:
        await operator.read_ranges_async(jobs)

    operator.read_ranges(jobs)
    run_on("asyncio", awaited)
    assert [(one.kind, one.ranges, one.path) for one in events] == [("ranges", 2, str(tmp_path / "b"))] * 2


def test_a_page_of_a_listing_is_a_request(events: list[rangeio.Event]) -> None:
    page = b"<ListBucketResult><Contents><Key>a</Key><Size>5</Size></Contents></ListBucketResult>"
    with scripted(lambda asked: reply(200, page)) as server:
        store = rangeio.Operator(
            "s3", bucket="bucket", endpoint_url=server.url, anonymous=True, region="us-east-1"
        )
        assert [stat.path for stat in store.list()] == ["a"]
    assert [(one.kind, one.offset, one.status) for one in events] == [
        ("request", None, None),
        ("response", None, 200),
    ]


def test_a_status_that_fails_is_a_read_that_failed(events: list[rangeio.Event]) -> None:
    with scripted(lambda asked: reply(404)) as server, pytest.raises(rangeio.NotFoundError):
        rangeio.Operator("http").stat(server.url)
    assert [(one.kind, one.status) for one in events][-2:] == [("response", 404), ("read", 404)]


def test_retries(call: Any, events: list[rangeio.Event], caplog: pytest.LogCaptureFixture) -> None:
    """A refusal, a broken body, and a read that fails in the end; the log says the same, without secrets."""
    caplog.set_level(logging.DEBUG, "rangeio")

    def script(asked: Asked) -> Answer:
        if asked.number == 0:
            return reply(503)
        if asked.number == 1:
            return cut(honest(DATA, asked), 40, "close")
        return honest(DATA, asked) if asked.number < 4 else reply(500)

    with scripted(script) as server:
        call(f"{server.url}/data?sig={SECRET}", "read_at", 10, 100)
        with pytest.raises(rangeio.ServerError):
            call(f"{server.url}/data?sig={SECRET}", "read_at", 10, 100)
    retries = [one for one in events if one.kind == "retry"]
    assert [(one.status, one.attempts) for one in retries[:1]] == [(503, 2)]
    assert len(retries) == 4
    reads = [(one.nbytes, one.attempts, one.error, one.status) for one in events if one.kind == "read"]
    assert reads == [(100, 3, None, None), (100, 1, None, None), (0, 3, "ServerError", 500)]
    logged = [record for record in caplog.records if record.name == "rangeio.http"]
    assert sum("follows in" in record.getMessage() for record in logged) == 4
    assert SECRET not in caplog.text
    assert SECRET not in str(events)


def test_pins_redirects_and_hedges_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Also where nobody listens."""
    caplog.set_level(logging.DEBUG, "rangeio")
    etags = iter(['"1"', '"2"'])

    def changing(asked: Asked) -> Answer:
        if asked.target.startswith("/old"):
            return reply(302, location=f"/new?sig={SECRET}")
        return honest(DATA, asked, etag=next(etags))

    with scripted(changing) as server, rangeio.open(server.url + "/old", **FAST) as reader:
        reader.read_at(0, 1)
        with pytest.raises(rangeio.ObjectChangedError):
            reader.read_at(0, 1)
    said = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert any(
        level == "DEBUG" and text.endswith("/new?...") and "redirected to" in text for level, text in said
    )
    assert any(level == "WARNING" and text.endswith("changed after it was opened") for level, text in said)
    assert SECRET not in caplog.text


def test_local_files(tmp_path: Path, events: list[rangeio.Event], caplog: pytest.LogCaptureFixture) -> None:
    """Many ranges are told; single reads of files cost less than telling."""
    path = tmp_path / "data"
    path.write_bytes(DATA)
    with rangeio.open(path) as reader:
        reader.read_at(0, 10)
        reader.read_ranges([(0, 10), (90_000, 90_020)])
    (one,) = events
    assert (one.kind, one.path, one.ranges, one.nbytes) == ("ranges", str(path), 2, 30)
    with rangeio.open(path) as reader:
        path.write_bytes(DATA + b"more")
        with pytest.raises(rangeio.ObjectChangedError):
            reader.read_ranges([(0, 10), (90_000, 90_020)])
    assert ("rangeio.local", logging.WARNING) in {(one.name, one.levelno) for one in caplog.records}


def test_listeners_that_fail(caplog: pytest.LogCaptureFixture) -> None:
    """They change nothing, and the log says so."""

    def fail(event: rangeio.Event) -> None:
        raise RuntimeError("of the listener")

    stop = rangeio.on_event(fail)
    try:
        with scripted(lambda asked: honest(DATA, asked)) as server, rangeio.open(server.url + "/d") as reader:
            assert reader.read_at(0, 10) == DATA[:10]
    finally:
        stop()
    assert "of the listener" in caplog.text
    with pytest.raises(TypeError):
        rangeio.on_event("no callable")  # type: ignore[arg-type]


def test_opentelemetry() -> None:
    need_module("opentelemetry.sdk")
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from rangeio.adapters.opentelemetry import observe

    spans, measured = InMemorySpanExporter(), InMemoryMetricReader()
    traces, meters = TracerProvider(), MeterProvider([measured])
    traces.add_span_processor(SimpleSpanProcessor(spans))
    stop = observe(traces, meters)
    try:
        with scripted(lambda asked: honest(DATA, asked) if asked.number else reply(503)) as server:
            url, tracer = f"{server.url}/d?sig={SECRET}", traces.get_tracer("test")
            with rangeio.open(url, **FAST) as reader, tracer.start_as_current_span("outer"):
                reader.read_at(10, 100)

            async def awaited() -> None:
                async with rangeio.open_async(server.url + "/d") as reader:
                    await reader.read_ranges([(0, 10), (50_000, 50_010)], gap=None)

            asyncio.run(awaited())
    finally:
        stop()
    first, outer, *rest = spans.get_finished_spans()
    assert first.name == "rangeio read"
    assert first.parent.span_id == outer.context.span_id
    assert first.attributes["rangeio.nbytes"] == 100
    assert first.attributes["rangeio.attempts"] == 2
    assert first.end_time > first.start_time
    assert [span.name for span in rest] == ["rangeio read", "rangeio read", "rangeio ranges"]
    assert SECRET not in "".join(span.to_json() for span in (first, *rest))
    data = measured.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics
    sums = {metric.name: metric.data.data_points for metric in data}
    assert sum(point.value for point in sums["rangeio.requests"]) == 4
    assert sum(point.value for point in sums["rangeio.retries"]) == 1
    assert sum(point.value for point in sums["rangeio.bytes"]) == 120
    assert sum(point.count for point in sums["rangeio.read.duration"]) == 3
