r"""procession owns child processes inside asyncio programs.

>>> from procession import Command, run
>>> completed = await run(Command("echo", "hello"))     # doctest: +SKIP
>>> completed.text                                      # doctest: +SKIP
'hello\n'
"""

import sys as _sys

if _sys.platform == "win32":  # pragma: no cover - nothing of this exists there
    raise ImportError("procession needs a POSIX system (Linux, best effort on macOS); Windows has no process groups")

from procession._core.backoff import Backoff as Backoff
from procession._core.backoff import RetryPolicy as RetryPolicy
from procession._types import Completed as Completed
from procession._types import Containment as Containment
from procession._types import Exit as Exit
from procession._types import Priority as Priority
from procession._types import ProcessRef as ProcessRef
from procession._types import ProcessState as ProcessState
from procession._types import StopReport as StopReport
from procession._types import Stream as Stream
from procession.command import DEVNULL as DEVNULL
from procession.command import INHERIT as INHERIT
from procession.command import PIPE as PIPE
from procession.command import STDOUT as STDOUT
from procession.command import Command as Command
from procession.errors import Closed as Closed
from procession.errors import ConfigError as ConfigError
from procession.errors import ExecutionTimeout as ExecutionTimeout
from procession.errors import ExitError as ExitError
from procession.errors import InvalidTransition as InvalidTransition
from procession.errors import NotFound as NotFound
from procession.errors import ProcessError as ProcessError
from procession.errors import ProcessionError as ProcessionError
from procession.errors import SignaledError as SignaledError
from procession.errors import SpawnError as SpawnError
from procession.errors import SpawnFailure as SpawnFailure
from procession.errors import StateError as StateError
from procession.errors import StreamClosed as StreamClosed
from procession.errors import SubscriptionLost as SubscriptionLost
from procession.events import Event as Event
from procession.events import Gap as Gap
from procession.events import ProcessExited as ProcessExited
from procession.events import ProcessSpawned as ProcessSpawned
from procession.events import ProcessStopped as ProcessStopped
from procession.events import StateChanged as StateChanged
from procession.process import AsyncioLauncher as AsyncioLauncher
from procession.process import Chunk as Chunk
from procession.process import Communicator as Communicator
from procession.process import Line as Line
from procession.process import Overflow as Overflow
from procession.process import PidfdLauncher as PidfdLauncher
from procession.process import Pipeline as Pipeline
from procession.process import PipelineCompleted as PipelineCompleted
from procession.process import Process as Process
from procession.process import Spawning as Spawning
from procession.process import create_subprocess_exec as create_subprocess_exec
from procession.process import create_subprocess_shell as create_subprocess_shell
from procession.process import default_launcher as default_launcher
from procession.process import reap_orphans as reap_orphans
from procession.process import run as run
from procession.process import spawn as spawn
from procession.process import system_report as system_report
from procession.registry import ProcessRegistry as ProcessRegistry

__version__ = "0.1.0.dev0"
