"""``PrometheusExporter``: everything as metrics of Prometheus, in a registry of the user's choice."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import accumulate
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from procession.errors import ConfigError
from procession.exporters._feed import Feed, Series
from procession.exporters._metrics import METRICS, Metric
from procession.exporters._tally import Histogram

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric as Family

    from procession.monitor import ResourceMonitor
    from procession.registry import ProcessRegistry


class PrometheusExporter:
    """A collector for ``prometheus_client``; needs the extra ``prometheus``.

    ::

        exporter = PrometheusExporter(registry, monitor=monitor)
        start_http_server(9100)          # of prometheus_client; or serve exporter.render() yourself

    It counts events from when it is made until it is closed, so make it before what it is to count. Figures of processes are
    asked for when they are scraped, added up by owner and name: labels never hold a pid or an id. Scrapes may come on any
    thread.

    Args:
        registry: whose events are counted.
        monitor: who is asked for figures of processes. Default: nobody; then there are none.
        collector_registry: where it registers itself. Default: ``prometheus_client.REGISTRY``.
        namespace: what all names begin with. Default ``procession``.
        max_series: how many combinations of labels one metric may have; what comes later counts as ``other``. Default 500.

    Raises:
        ConfigError: a value was refused, or ``prometheus_client`` is not there.
        Closed: the registry is closed.
    """

    def __init__(
        self,
        registry: ProcessRegistry,
        *,
        monitor: ResourceMonitor | None = None,
        collector_registry: CollectorRegistry | None = None,
        namespace: str = "procession",
        max_series: int = 500,
    ) -> None:
        try:
            import prometheus_client
        except ImportError:
            raise ConfigError(
                "prometheus", None, "prometheus_client is needed: pip install procession[prometheus]"
            ) from None
        if not isinstance(namespace, str) or not re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", namespace):
            raise ConfigError("namespace", namespace, "letters, digits and underscores are needed")
        self.namespace: str = namespace
        self._feed = Feed(registry, monitor, max_series)
        self._home: Any = prometheus_client.REGISTRY if collector_registry is None else collector_registry
        self._registered = False
        try:
            self._home.register(self)
        except BaseException:
            self._feed.close()
            raise
        self._registered = True

    def describe(self) -> Iterable[Family]:
        """The metrics without their values; asked by the registry, so that a name is not taken twice."""
        return [self._family(metric, []) for metric in METRICS]

    def collect(self) -> Iterable[Family]:
        """The metrics as they are now; asked by the registry at each scrape."""
        return [self._family(metric, series) for metric, series in self._feed.families()]

    def _family(self, metric: Metric, series: Series) -> Family:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
        from prometheus_client.utils import floatToGoString

        name = f"{self.namespace}_{metric.name}"
        kinds: dict[str, Any] = {
            "counter": CounterMetricFamily,
            "gauge": GaugeMetricFamily,
            "histogram": HistogramMetricFamily,
        }
        family: Any = kinds[metric.kind](name, metric.help, labels=metric.labels)
        for labels, value in series:
            if isinstance(value, Histogram):
                counts = list(accumulate(list(value.counts)))
                bounds = [*map(floatToGoString, value.bounds), "+Inf"]
                buckets = list(zip(bounds, map(float, counts), strict=True))
                family.add_metric(labels, buckets=buckets, sum_value=value.sum)
            else:
                family.add_metric(labels, value)
        return family  # type: ignore[no-any-return]

    def render(self) -> bytes:
        """All metrics of the registry it is in, as text for a scrape; see :attr:`content_type`."""
        from prometheus_client import generate_latest

        return generate_latest(self._home)

    @property
    def content_type(self) -> str:
        """The content type of what ``render`` returns."""
        from prometheus_client import CONTENT_TYPE_LATEST

        return CONTENT_TYPE_LATEST

    def close(self) -> None:
        """Counts nothing any more, and leaves the registry; may be called twice."""
        self._feed.close()
        if self._registered:
            self._registered = False
            self._home.unregister(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<PrometheusExporter {self.namespace}: {'registered' if self._registered else 'closed'}>"
