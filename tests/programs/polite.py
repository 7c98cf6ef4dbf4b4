"""On SIGTERM says `bye` and exits with the code given."""

import os
import signal
import sys


def bye(signum, frame):
    os.write(1, b"bye\n")
    os._exit(int(sys.argv[1]) if len(sys.argv) > 1 else 0)


signal.signal(signal.SIGTERM, bye)
print("ready", flush=True)
while True:
    signal.pause()
