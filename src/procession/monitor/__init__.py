"""What every process costs, what is wrong with it, and what is done about it – read off the loop.

::

    async with ResourceMonitor(registry=registry) as monitor:
        monitor.watch(process, tree=True, limits=ResourceLimits(max_cpu_percent=80, max_memory_mb=512))
        monitor.on_alert(Severity.CRITICAL, actions.restart(via=units))
        async for alert in monitor.alerts():
            print(alert)
"""

from procession.errors import WebhookFailed as WebhookFailed
from procession.monitor import actions as actions
from procession.monitor._alerts import Alert as Alert
from procession.monitor._application import ApplicationFigures as ApplicationFigures
from procession.monitor._config import MonitorConfig as MonitorConfig
from procession.monitor._config import ResourceLimits as ResourceLimits
from procession.monitor._host import Capacity as Capacity
from procession.monitor._host import capacity as capacity
from procession.monitor._monitor import ResourceMonitor as ResourceMonitor
from procession.monitor._responders import AlertSink as AlertSink
from procession.monitor._responders import Responder as Responder
from procession.monitor._rules import Rule as Rule
from procession.monitor._sample import Sample as Sample
from procession.monitor._snapshot import MemoryMaps as MemoryMaps
from procession.monitor._snapshot import OpenFile as OpenFile
from procession.monitor._snapshot import OpenSocket as OpenSocket
from procession.monitor._snapshot import Snapshot as Snapshot
from procession.monitor._snapshot import ThreadInfo as ThreadInfo
from procession.monitor._snapshot import TreeNode as TreeNode
from procession.monitor._statistics import MonitorStatistics as MonitorStatistics
from procession.monitor._stream import AlertStream as AlertStream
from procession.monitor._trend import Figure as Figure
from procession.monitor._trend import Trend as Trend
from procession.monitor._watch import Watch as Watch
from procession.monitor._webhook import WebhookSink as WebhookSink
from procession.monitor._words import AlertType as AlertType
from procession.monitor._words import Severity as Severity
