"""A child with bad manners. Says in one line of JSON who it has become, once it has become that.

Runs on the bare interpreter: ``python -I -S chaos_child.py KIND``.
"""

import json
import os
import signal
import sys


def ready(**pids: int) -> None:
    print(json.dumps(pids), flush=True)


def deaf() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def rest() -> None:
    while True:
        signal.pause()


def fork_deaf(*, session: bool, quiet: bool = False, scrub: bool = False) -> int:
    """Forks a process that ignores TERM; returns its pid once it does."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writer)
        os.read(reader, 1)
        os.close(reader)
        return pid
    os.close(reader)
    if session:
        os.setsid()
    deaf()
    if quiet:
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
    if scrub:
        os.set_inheritable(writer, True)
        code = f"import os, signal; os.write({writer}, b'1'); os.close({writer})\nwhile True: signal.pause()"
        os.execve(sys.executable, [sys.executable, "-I", "-S", "-c", code], {})
    os.write(writer, b"1")
    os.close(writer)
    rest()
    return 0


def daemon() -> int:
    """Forks twice, as daemons do; returns the pid of the daemon."""
    reader, writer = os.pipe()
    first = os.fork()
    if not first:
        os.close(reader)
        os.setsid()
        pid = fork_deaf(session=False, quiet=True)
        os.write(writer, str(pid).encode())
        os._exit(0)
    os.close(writer)
    pid = int(os.read(reader, 32))
    os.close(reader)
    os.waitpid(first, 0)
    return pid


def tree(size: int) -> None:
    """A tree of ``size`` processes, fanned out by four; each says when it and its own children are there."""
    reader, writer = os.pipe()
    shares = [size // 4 + (number < size % 4) for number in range(4)]
    for share in shares:
        if not share:
            continue
        if not os.fork():
            os.close(reader)
            if share > 1:
                tree(share - 1)
            os.write(writer, b"1")
            os.close(writer)
            rest()
    os.close(writer)
    for share in shares:
        if share:
            os.read(reader, 1)
    os.close(reader)


def polite_group(me: int) -> bool:
    """Leaves somebody in the group who does not hold the pipes and ends by TERM; whether we are the leader."""
    pid = os.fork()
    if pid:
        ready(group=pid, group_parent=me)
        return True
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    return False


def bomb(size: int) -> None:
    """Descendants in sessions of their own that fork again whenever their child is gone."""
    for _ in range(size):
        if not os.fork():
            os.setsid()
            deaf()
            while True:
                if not os.fork():
                    deaf()
                    rest()
                os.wait()


def become(kind: str, me: int, *words: str) -> bool:
    """Whether there is anything left to do but wait."""
    if kind == "stubborn":
        deaf()
        ready(stubborn=me)
    elif kind == "setsid":
        ready(setsid=fork_deaf(session=True), setsid_parent=me)
    elif kind == "quiet_setsid":  # does not hold the pipes
        ready(setsid=fork_deaf(session=True, quiet=True), setsid_parent=me)
    elif kind == "cgroup":  # in its own session and without any cookie
        ready(cgroup=fork_deaf(session=True, quiet=True, scrub=True), cgroup_parent=me)
    elif kind == "daemon":
        ready(daemon=daemon())
        return False
    elif kind == "stopped":
        ready(stopped=me)
        os.kill(me, signal.SIGSTOP)
    elif kind == "group":  # ends by itself and leaves somebody in its group
        ready(group=fork_deaf(session=False, quiet="quiet" in words), group_parent=me)
        return False
    elif kind == "polite_group":
        return not polite_group(me)
    elif kind == "tree":
        tree(int(words[0]))
        ready(tree=me)
    elif kind == "bomb":
        bomb(int(words[0]))
        ready(bomb=me)
    else:
        ready(**{kind: me})
    return True


if __name__ == "__main__":
    if become(sys.argv[1], os.getpid(), *sys.argv[2:]):
        rest()
