"""Test what is built on procession: virtual time, simulated processes, cancellation everywhere, faults, a leak audit.

With :func:`run_virtual` and a :class:`SimulatedLauncher` a policy of hours is tested in milliseconds; with
:func:`cancel_everywhere` and :class:`LeakAudit` real code shows that it leaves nothing behind. Nothing here is imported
by the library itself.
"""

from procession.testing._cancel import CancelFailure as CancelFailure
from procession.testing._cancel import CancelMode as CancelMode
from procession.testing._cancel import CancelReport as CancelReport
from procession.testing._cancel import CancelRun as CancelRun
from procession.testing._cancel import cancel_everywhere as cancel_everywhere
from procession.testing._faults import SpawnFault as SpawnFault
from procession.testing._faults import failing_spawn as failing_spawn
from procession.testing._faults import fd_limit as fd_limit
from procession.testing._faults import process_limit as process_limit
from procession.testing._faults import slow_spawn as slow_spawn
from procession.testing._memory import MemoryInlet as MemoryInlet
from procession.testing._memory import MemoryOutlet as MemoryOutlet
from procession.testing._memory import MemoryPipe as MemoryPipe
from procession.testing._process import FIRST_PID as FIRST_PID
from procession.testing._process import SimulatedProcess as SimulatedProcess
from procession.testing._script import Script as Script
from procession.testing._simulated import Launched as Launched
from procession.testing._simulated import SimulatedHandle as SimulatedHandle
from procession.testing._simulated import SimulatedLauncher as SimulatedLauncher
from procession.testing._simulated import SimulatedMember as SimulatedMember
from procession.testing._virtual import VirtualDeadlock as VirtualDeadlock
from procession.testing._virtual import VirtualLivelock as VirtualLivelock
from procession.testing._virtual import VirtualLoop as VirtualLoop
from procession.testing._virtual import VirtualTimeError as VirtualTimeError
from procession.testing._virtual import run_virtual as run_virtual
from procession.testing._where import WaitingTask as WaitingTask
from procession.testing.audit import Leak as Leak
from procession.testing.audit import LeakAudit as LeakAudit
from procession.testing.audit import LeakKind as LeakKind
