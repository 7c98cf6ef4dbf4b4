"""Own a process: start it, talk to it, stop it with everything it started, and prove it."""

from procession._launch._engines import AsyncioLauncher as AsyncioLauncher
from procession._launch._engines import PidfdLauncher as PidfdLauncher
from procession._launch._engines import default_launcher as default_launcher
from procession._launch._orphans import reap_orphans as reap_orphans
from procession.process._communicator import Communicator as Communicator
from procession.process._compat import DropInProcess as DropInProcess
from procession.process._compat import create_subprocess_exec as create_subprocess_exec
from procession.process._compat import create_subprocess_shell as create_subprocess_shell
from procession.process._lines import Line as Line
from procession.process._merge import Chunk as Chunk
from procession.process._pipeline import Pipeline as Pipeline
from procession.process._pipeline import PipelineCompleted as PipelineCompleted
from procession.process._pipeline import PipelineStream as PipelineStream
from procession.process._process import Process as Process
from procession.process._reach import Reach as Reach
from procession.process._run import raise_for as raise_for
from procession.process._run import run as run
from procession.process._sink import Writer as Writer
from procession.process._source import Overflow as Overflow
from procession.process._source import Source as Source
from procession.process._spawn import Spawning as Spawning
from procession.process._spawn import spawn as spawn
from procession.process._system import SystemReport as SystemReport
from procession.process._system import system_report as system_report
