"""Forks as many processes as told, a third of them into sessions of their own, says their pids, and waits."""

import os
import signal
import sys

signal.signal(signal.SIGTERM, signal.SIG_IGN)
count = int(sys.argv[1])
pids = []
for number in range(count):
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        if number % 3 == 0:
            os.setsid()
        os.write(writer, b"x")
        os.close(writer)
        os.close(reader)
        while True:
            signal.pause()
    os.close(writer)
    os.read(reader, 1)
    os.close(reader)
    pids.append(pid)
print(*pids, flush=True)
while True:
    signal.pause()
