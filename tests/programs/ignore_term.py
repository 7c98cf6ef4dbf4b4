"""Ignores SIGTERM and says `ready`; ends when it is killed."""

import signal

signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
while True:
    signal.pause()
