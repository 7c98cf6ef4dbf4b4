"""Starts a grandchild in a session of its own and says its pid.

Words: `ignore` it ignores SIGTERM; `close` it lets go of the pipes; `leave` the parent exits at once; `empty` it gets an
empty environment and stays in the group.
"""

import os
import signal
import sys

words = sys.argv[1:]
reader, writer = os.pipe()
pid = os.fork()
if pid == 0:
    os.close(reader)
    if "ignore" in words:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "empty" not in words:
        os.setsid()
    if "close" in words:
        null = os.open("/dev/null", os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
    os.set_inheritable(writer, False)
    os.write(writer, b"x")
    os.execve("/bin/sleep", ["sleep", "1000"], {} if "empty" in words else os.environ)
os.close(writer)
os.read(reader, 1)
os.read(reader, 1)  # the end of the file: it has become `sleep`
print(pid, flush=True)
if "leave" not in words:
    while True:
        signal.pause()
