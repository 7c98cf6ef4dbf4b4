"""A tree that burns processor time: the parent, a child, and a child in a session of its own.

Arguments: a file of three counters, which each process counts its own one of up; the number of a pipe, where each writes
its letter (a, b, c) whenever it has come a good bit further; and how far the parent goes before it ends, 0 for ever.
On SIGTERM the parent says `bye` and exits with 7.
"""

import mmap
import os
import signal
import sys

path, fd, goal = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with open(path, "r+b") as file:
    counters = memoryview(mmap.mmap(file.fileno(), 64)).cast("q")
os.set_blocking(fd, False)


def burn(slot, goal):
    count = 0
    while not goal or count < goal:
        count += 1
        counters[slot] = count
        if count % 2000 == 0:
            try:
                os.write(fd, b"abc"[slot : slot + 1])
            except BlockingIOError:
                pass


def bye(signum, frame):
    os.write(1, b"bye\n")
    os._exit(7)


children = []
for slot in (1, 2):
    child = os.fork()
    if not child:
        if slot == 2:
            os.setsid()
        burn(slot, 0)
    children.append(child)
    counters[4 + slot] = child
signal.signal(signal.SIGTERM, bye)
counters[4] = os.getpid()
burn(0, goal)
for child in children:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
