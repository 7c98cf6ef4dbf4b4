"""What a worker keeps from one call to the next."""

from __future__ import annotations

import sys
from typing import Any

from procession.errors import StateError


def worker_state() -> Any:
    """Inside a function run by a pool: what ``PoolConfig.worker_state`` made in this worker.

    A model that is loaded once, a connection that is opened once: its ``open()`` was called before the first call, its
    ``close()`` is called after the last.

    Raises:
        StateError: this is no worker.
    """
    worker = sys.modules.get("_procession_worker")
    if worker is None:
        raise StateError("only functions run by a FunctionPool have a worker's state")
    return worker.state
