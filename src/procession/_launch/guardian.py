"""The guardian: a small program that outlives its owner just long enough to end what the owner left.

It is run as a script, on its own, by the bare interpreter: standard library only, no imports of
procession. Arguments: a marker for people who read ``ps``, the owner's cookie, the owner's pid. Its
stdin is a pipe held open by the owner; lines on it name cgroups to end as well. When the owner is
gone – the pipe ends, or the owner's pidfd says so even if a forked child still holds the pipe – it
kills every process that carries the owner's cookie, again and again until none is found.
"""

import os
import select
import signal
import sys

PATIENCE = 600  # passes that find only what cannot be killed, 0.1 s apart


def main(token: bytes, owner: int) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    cgroups = wait_for_end(owner)
    for path in cgroups:
        end_cgroup(path)
    needle = b"PROCESSION_OWNER="
    clean = 0
    for _ in range(PATIENCE):
        victims = sweep(needle, token)
        # Twice clean: one that forked and ended between the listing and the look may have been missed.
        clean = 0 if victims else clean + 1
        if clean == 2:
            break
        if victims:
            wait_for(victims)
    for path in cgroups:
        remove_cgroup(path)


def wait_for_end(owner: int) -> list[str]:
    poll = select.poll()
    poll.register(0, select.POLLIN)
    pidfd = -1
    if os.getppid() == owner:
        try:
            pidfd = os.pidfd_open(owner)
        except (AttributeError, OSError):
            pidfd = -1  # an old kernel: the pipe has to do
        else:
            poll.register(pidfd, select.POLLIN)
            if os.getppid() != owner:
                return []
    text = b""
    while True:
        ready = dict(poll.poll())
        if 0 in ready:
            data = os.read(0, 4096)
            if not data:
                break
            text += data
        if pidfd in ready:
            os.set_blocking(0, False)
            try:
                text += os.read(0, 65536)
            except OSError:
                pass
            break
    return [os.fsdecode(line) for line in text.split(b"\n") if line]


def sweep(needle: bytes, token: bytes) -> list[int]:
    """Kills whoever carries the cookie; returns pidfds (or 0) of those found alive."""
    victims = []
    me = os.getpid()
    for name in os.listdir("/proc"):
        if not name.isdecimal() or int(name) == me or not carries(name, needle, token):
            continue
        pid = int(name)
        try:
            pidfd = os.pidfd_open(pid)
        except AttributeError:
            pidfd = -1
        except OSError:
            continue
        # Read again: only now is it certain that the pidfd names the process that had the cookie.
        if not carries(name, needle, token):
            if pidfd >= 0:
                os.close(pidfd)
            continue
        try:
            if pidfd >= 0:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            else:
                os.kill(pid, signal.SIGKILL)
        except OSError:
            pass
        victims.append(pidfd)
    return victims


def carries(pid: str, needle: bytes, token: bytes) -> bool:
    """Whether the process was started with the cookie among its variables."""
    data = b""
    for _ in range(1000):
        try:
            data = read_all(f"/proc/{pid}/environ")
            if data or not has_variables(pid):
                break
        except OSError:
            return False
        os.sched_yield()  # between two programs it seems to have no variables
    for item in data.split(b"\0"):
        if item.startswith(needle):
            return token in item[len(needle) :].split(b":")
    return False


def read_all(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY)
    try:
        data = b""
        while more := os.read(fd, 1 << 17):
            data += more
        return data
    finally:
        os.close(fd)


def has_variables(pid: str) -> bool:
    """Whether one that seemed to have no variables has some, or is about to, see proc(5).

    Between two programs it has memory (field 23 of its stat), but no variables in it yet (fields 50 and 51).
    If it has them now, they were asked for in the memory of the program before.
    """
    data = read_all(f"/proc/{pid}/stat")
    fields = data[data.rindex(b")") + 2 :].split()
    return len(fields) > 48 and fields[20] != b"0" and (fields[48] == b"0" or fields[47] != fields[48])


def wait_for(victims: list[int]) -> None:
    """Waits until they have ended, at most a tenth of a second, and lets go of them."""
    poll = select.poll()
    left = 0
    for pidfd in victims:
        if pidfd >= 0:
            poll.register(pidfd, select.POLLIN)
            left += 1
    if not left:
        select.select([], [], [], 0.01)
    rounds = 20
    while left and rounds:
        ready = poll.poll(100)
        if not ready:
            break
        for pidfd, _ in ready:
            poll.unregister(pidfd)
            left -= 1
        rounds -= 1
    for pidfd in victims:
        if pidfd >= 0:
            os.close(pidfd)


def end_cgroup(path: str) -> None:
    try:
        with open(os.path.join(path, "cgroup.kill"), "w", encoding="ascii") as file:
            file.write("1")
    except OSError:
        pass


def remove_cgroup(path: str) -> None:
    for name in os.listdir(path) if os.path.isdir(path) else ():
        if os.path.isdir(os.path.join(path, name)):
            remove_cgroup(os.path.join(path, name))
    try:
        os.rmdir(path)
    except OSError:
        pass


if __name__ == "__main__":
    main(sys.argv[2].encode(), int(sys.argv[3]))
