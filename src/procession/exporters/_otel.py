"""``OpenTelemetryExporter``: a span per process, and the same metrics, through the API of OpenTelemetry."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from procession.errors import ConfigError
from procession.events import Event, ProcessExited, ProcessSpawned, ProcessVanished
from procession.exporters._feed import Feed
from procession.exporters._metrics import METRICS, Metric
from procession.exporters._tally import Histogram, Labels, outcome_of

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span, TracerProvider

    from procession.monitor import ResourceMonitor
    from procession.registry import Listener, ProcessRegistry

_UNITS = {"seconds": "s", "bytes": "By", "": "1"}


class OpenTelemetryExporter:
    """Spans and metrics for OpenTelemetry; needs the extra ``otel``, and an SDK where they shall arrive.

    Each process is one span from before its spawn to its end, a child of the span that was current where it was started;
    its status is an error unless it exited with 0. Metrics are those of the Prometheus exporter under dotted names, for example
    ``procession.process_cpu`` in seconds.

    Args:
        registry: whose events are told.
        monitor: who is asked for figures of processes. Default: nobody; then there are none.
        tracer_provider: where spans go. Default: the global one.
        meter_provider: where metrics go. Default: the global one.
        max_series: how many combinations of labels one metric may have. Default 500.
        max_spans: how many spans may be open; the oldest is ended unfinished. Default 10,000.

    Raises:
        ConfigError: a value was refused, or OpenTelemetry is not there.
        Closed: the registry is closed.
    """

    def __init__(
        self,
        registry: ProcessRegistry,
        *,
        monitor: ResourceMonitor | None = None,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        max_series: int = 500,
        max_spans: int = 10_000,
    ) -> None:
        try:
            from opentelemetry import metrics, trace
        except ImportError:
            raise ConfigError("otel", None, "opentelemetry is needed: pip install procession[otel]") from None
        if isinstance(max_spans, bool) or not isinstance(max_spans, int) or max_spans < 1:
            raise ConfigError("max_spans", max_spans, "a whole number, 1 or more, is needed")
        self._trace: Any = trace
        self._tracer = trace.get_tracer("procession", tracer_provider=tracer_provider)
        meter = metrics.get_meter("procession", meter_provider=meter_provider)
        self._most = max_spans
        self._spans: OrderedDict[str, Span] = OrderedDict()
        self._histograms: dict[Metric, Any] = {}
        self._closed = False
        self._feed = Feed(registry, monitor, max_series, self._observed)
        self._listener: Listener = registry.listen(self._hear, types=(ProcessSpawned, ProcessExited, ProcessVanished))
        self._make_instruments(meter)

    def _make_instruments(self, meter: Any) -> None:
        for metric in METRICS:
            name, unit = _name(metric), _UNITS[metric.unit]
            if metric.kind == "histogram":
                options = {"unit": unit, "description": metric.help}
                try:
                    made = meter.create_histogram(name, **options, explicit_bucket_boundaries_advisory=metric.buckets)
                except TypeError:  # an API that does not know that advice yet
                    made = meter.create_histogram(name, **options)
                self._histograms[metric] = made
            elif metric.kind == "counter":
                meter.create_observable_counter(name, [self._asker(metric)], unit=unit, description=metric.help)
            else:
                meter.create_observable_gauge(name, [self._asker(metric)], unit=unit, description=metric.help)

    def _asker(self, metric: Metric) -> Callable[[Any], Iterable[Any]]:
        from opentelemetry.metrics import Observation

        def ask(_: Any) -> Iterable[Any]:
            if self._closed:
                return []
            return [
                Observation(value, dict(zip(metric.labels, labels, strict=True)))
                for labels, value in self._feed.series(metric)
                if not isinstance(value, Histogram)
            ]

        return ask

    def _observed(self, metric: Metric, labels: Labels, value: float) -> None:
        histogram = self._histograms.get(metric)
        if histogram is not None:
            histogram.record(value, dict(zip(metric.labels, labels, strict=True)))

    # ---------------------------------------------------------------------------------------- spans

    def _hear(self, event: Event) -> None:
        if isinstance(event, ProcessSpawned):
            self._began(event)
        elif isinstance(event, ProcessExited):
            self._ended(event)
        elif event.id in self._spans:
            self._unfinished(self._spans.pop(event.id), event.wall)

    def _began(self, event: ProcessSpawned) -> None:
        span = self._tracer.start_span(
            f"process {event.name}",
            kind=self._trace.SpanKind.INTERNAL,
            start_time=_ns(event.wall - event.duration),
            attributes={
                "process.pid": event.pid,
                "process.executable.name": event.name,
                "process.command_line": event.command,
                "procession.id": event.id,
                "procession.owner": event.owner,
                "procession.containment": str(event.containment),
            },
        )
        self._spans[event.id] = span
        if len(self._spans) > self._most:
            self._unfinished(self._spans.popitem(last=False)[1], event.wall)

    def _ended(self, event: ProcessExited) -> None:
        span = self._spans.pop(event.id, None)
        if span is None:
            return
        if event.exit.returncode is not None:
            span.set_attribute("process.exit.code", event.exit.returncode)
        span.set_attribute("procession.outcome", outcome_of(event.exit))
        codes = self._trace.StatusCode
        if event.exit.is_success:
            span.set_status(codes.OK)
        else:
            span.set_status(codes.ERROR, str(event.exit))
        span.end(end_time=_ns(event.wall))

    def _unfinished(self, span: Span, wall: float) -> None:
        span.set_attribute("procession.outcome", "unfinished")
        span.end(end_time=_ns(wall) if wall else None)

    def close(self) -> None:
        """Tells nothing any more, and ends the spans of processes that still live; may be called twice."""
        self._closed = True
        self._feed.close()
        self._listener.close()
        while self._spans:
            self._unfinished(self._spans.popitem(last=False)[1], 0.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<OpenTelemetryExporter: {'closed' if self._closed else f'{len(self._spans)} spans open'}>"


def _name(metric: Metric) -> str:
    """Units stand beside the name there, and counters need no ending."""
    name = metric.name.removesuffix("_total")
    return "procession." + (name.removesuffix(f"_{metric.unit}") if metric.unit else name)


def _ns(wall: float) -> int:
    return int(wall * 1e9)
