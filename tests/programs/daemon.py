"""Makes a daemon by two forks and says its pid; exits, or waits when told `stay`."""

import os
import signal
import sys

reader, writer = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.chdir("/")
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.write(writer, str(os.getpid()).encode())
    os.close(writer)
    while True:
        signal.pause()
os.close(writer)
print(os.read(reader, 32).decode(), flush=True)
os.wait()
if "stay" in sys.argv:
    while True:
        signal.pause()
