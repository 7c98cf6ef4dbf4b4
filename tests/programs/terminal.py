"""Says what it knows of its terminal, then its size whenever that changes; `quit` on stdin ends it."""

import os
import signal
import sys


def size(signum=None, frame=None):
    columns, rows = os.get_terminal_size(0)
    os.write(1, f"{rows}x{columns}\n".encode())


signal.signal(signal.SIGWINCH, size)
with open("/dev/tty", "rb") as tty:
    same = os.fstat(tty.fileno()).st_rdev is not None and os.ttyname(0) != ""
print(*(os.isatty(fd) for fd in (0, 1, 2)), same, os.getsid(0) == os.getpid(), flush=True)
print(os.tcgetpgrp(0) == os.getpgrp(), flush=True)
size()
for line in sys.stdin:
    if line.strip() == "quit":
        break
    print("heard", line.strip(), flush=True)
