"""Everything as metrics and spans, for Prometheus and OpenTelemetry. Both count the same events, each once.

::

    with PrometheusExporter(registry, monitor=monitor) as exporter:
        text = exporter.render()
"""

from procession.exporters._metrics import METRICS as METRICS
from procession.exporters._metrics import Metric as Metric
from procession.exporters._metrics import metric_table as metric_table
from procession.exporters._otel import OpenTelemetryExporter as OpenTelemetryExporter
from procession.exporters._prometheus import PrometheusExporter as PrometheusExporter
