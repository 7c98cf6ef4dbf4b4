"""Writes so many numbered lines as told to stdout, and as many to stderr when told `both`."""

import os
import sys

for first in range(0, int(sys.argv[1]), 1000):
    last = min(first + 1000, int(sys.argv[1]))
    block = "".join(f"{number:08d} {'x' * 55}\n" for number in range(first, last)).encode()
    for fd in (1, 2) if "both" in sys.argv else (1,):
        left = memoryview(block)
        while left:
            left = left[os.write(fd, left) :]
