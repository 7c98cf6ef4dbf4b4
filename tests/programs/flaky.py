"""A service that misbehaves as it is told: says that it is up, answers lines on stdin, and fails in one of several ways.

flaky.py MODE [FILE]: ``ok`` serves for good; ``crash`` exits with code 3 once it is up; ``late`` crashes after a line on
stdin; ``deaf`` never says that it is up; ``countdown FILE`` crashes as often as the number in FILE says, counting down.
"""

import sys
from pathlib import Path

mode = sys.argv[1]
if mode == "countdown":
    file = Path(sys.argv[2])
    left = int(file.read_text())
    if left > 0:
        file.write_text(str(left - 1))
        mode = "crash"
if mode != "deaf":
    print("up", flush=True)
if mode == "crash":
    sys.exit(3)
for line in sys.stdin:
    if mode == "late":
        sys.exit(3)
    print(line, end="", flush=True)
