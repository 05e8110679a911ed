"""Reads as spans and metrics of OpenTelemetry (extra ``otel``).

``stop = rangeio.adapters.opentelemetry.observe()`` once in a program, after its providers are set.
"""

import time
from collections.abc import Callable
from typing import Any

from rangeio.events import Event, on_event

try:
    from opentelemetry import metrics, trace
    from opentelemetry.trace import SpanKind, Status, StatusCode
except ModuleNotFoundError as _error:
    if _error.name != "opentelemetry":
        raise
    raise ImportError(
        "rangeio.adapters.opentelemetry needs opentelemetry-api: pip install 'rangeio[otel]'"
    ) from None


class _Observer:
    """Makes spans and measurements of events."""

    def __init__(self, tracer: Any, meter: Any) -> None:
        self._tracer = tracer
        self._requests = meter.create_counter("rangeio.requests", unit="{request}")
        self._retries = meter.create_counter("rangeio.retries", unit="{request}")
        self._hedges = meter.create_counter("rangeio.hedges", unit="{request}")
        self._bytes = meter.create_counter("rangeio.bytes", unit="By")
        self._waits = meter.create_histogram("rangeio.response.duration", unit="s")
        self._reads = meter.create_histogram("rangeio.read.duration", unit="s")

    def __call__(self, event: Event) -> None:
        """See `on_event`."""
        scheme = {"rangeio.scheme": event.path.partition("://")[0] if "://" in event.path else "fs"}
        if event.kind == "request":
            self._requests.add(1, scheme)
        elif event.kind == "response":
            self._waits.record(event.seconds or 0.0, {**scheme, "http.response.status_code": event.status})
        elif event.kind == "retry":
            self._retries.add(1, {**scheme, "error.type": event.error})
        elif event.kind == "hedge":
            self._hedges.add(1, scheme)
        else:
            self._complete(event, scheme)

    def _complete(self, event: Event, scheme: dict[str, Any]) -> None:
        if event.kind == "read":  # those of "ranges" consist of them, but for local files
            failed = {} if event.error is None else {"error.type": event.error}
            self._reads.record(event.seconds or 0.0, {**scheme, **failed})
        if event.kind == "read" or scheme["rangeio.scheme"] == "fs":
            self._bytes.add(event.nbytes or 0, scheme)
        end = time.time_ns()
        names = ("path", "offset", "nbytes", "ranges", "requests", "attempts")
        values = {f"rangeio.{name}": getattr(event, name) for name in names}
        span = self._tracer.start_span(
            f"rangeio {event.kind}",
            kind=SpanKind.CLIENT,
            start_time=end - int((event.seconds or 0.0) * 1e9),
            attributes={**scheme, **{name: value for name, value in values.items() if value is not None}},
        )
        if event.error is not None:
            span.set_status(Status(StatusCode.ERROR, event.error))
        span.end(end)


def observe(tracer_provider: Any = None, meter_provider: Any = None) -> Callable[[], None]:
    """Make a span of each read, below the one that is current where it completes, and measure requests, responses,
    retries, hedges, bytes and reads. Returns a function that ends it. The providers: None for the global ones.
    """
    tracer = trace.get_tracer("rangeio", tracer_provider=tracer_provider)
    meter = metrics.get_meter("rangeio", meter_provider=meter_provider)
    return on_event(_Observer(tracer, meter))
