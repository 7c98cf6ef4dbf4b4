"""On SIGTERM starts a process in a session of its own, which a second SIGTERM would end, and exits."""

import os
import signal


def late(signum, frame):
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # none is lost between fork and exec
    if os.fork():
        os._exit(0)
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    os.execv("/bin/sleep", ["sleep", "1000"])


signal.signal(signal.SIGTERM, late)
print("ready", flush=True)
while True:
    signal.pause()
