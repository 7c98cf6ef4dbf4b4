"""One registry of every process: records, indexes, events, journal.

::

    async with ProcessRegistry() as registry:
        registry.listen(print, types=ProcessExited)
        async with registry.subscribe(ProcessSpawned, owner="pool") as events:
            async for event in events:
                ...
"""

from procession.registry._entry import RegistryEntry as RegistryEntry
from procession.registry._filters import Label as Label
from procession.registry._listener import Listener as Listener
from procession.registry._listener import Tier as Tier
from procession.registry._records import ProcessRecord as ProcessRecord
from procession.registry._registry import ProcessRegistry as ProcessRegistry
from procession.registry._sink import JsonLines as JsonLines
from procession.registry._statistics import RegistryStatistics as RegistryStatistics
from procession.registry._subscription import Subscription as Subscription
from procession.registry._timeline import timeline_page as timeline_page
from procession.registry._timeline import write_timeline as write_timeline
from procession.registry._trace import trace_events as trace_events
from procession.registry._trace import write_trace as write_trace
