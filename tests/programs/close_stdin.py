"""Closes its stdin, says so, and lives on until SIGTERM."""

import os
import signal

os.close(0)
print("closed", flush=True)
signal.pause()
