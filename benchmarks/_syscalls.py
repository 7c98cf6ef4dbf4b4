"""System calls the parent makes per spawn: a count that does not depend on how busy the machine is.

`strace -f` follows the children too (and must, to follow the parent's threads); only lines of the parent's own threads
are counted. Two runs of different length are subtracted, so start-up is not in the figure.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINE = re.compile(r"^(\d+) +(?:(\w+)\(|<\.\.\. (\w+) resumed>)(.*)$")
RESULT = re.compile(r"= (\d+)$")


def count_lines(lines: Iterable[str]) -> Counter[str]:
    """Calls by name, of the first process in the log and its threads."""
    calls: Counter[str] = Counter()
    parent: set[str] = set()
    starting: set[str] = set()  # threads inside an unfinished clone() of a thread
    for line in lines:
        if (match := LINE.match(line)) is None:
            continue
        pid, call, resumed, rest = match.groups()
        if not parent:
            parent.add(pid)
        if pid not in parent:
            continue
        if call:
            calls[call] += 1
        if (call or resumed) in ("clone", "clone3"):
            if "CLONE_THREAD" in rest:
                starting.add(pid)
            if pid in starting and (result := RESULT.search(rest)):
                parent.add(result[1])
                starting.discard(pid)
    return calls


def per_spawn(command: Sequence[str], few: int = 40, many: int = 140) -> dict[str, float] | None:
    """Calls per spawn by name, most frequent first, of `command sequential COUNT`; None without strace."""
    if (strace := shutil.which("strace")) is None:
        return None
    counts: list[Counter[str]] = []
    for count in (few, many):
        with tempfile.NamedTemporaryFile(mode="r", suffix=".strace") as log:
            subprocess.run(
                [strace, "-f", "-qq", "-o", log.name, *command, "sequential", str(count)],
                cwd=ROOT,
                check=True,
                timeout=300,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            counts.append(count_lines(log))
    spawns = many - few
    return {call: (total - counts[0][call]) / spawns for call, total in counts[1].most_common()}
