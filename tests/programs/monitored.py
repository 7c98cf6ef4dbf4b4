"""Does one thing a monitor can see, says so on stdout, and waits until its stdin ends.

monitored.py burn              uses the processor until told to stop
monitored.py grow MB STEP      takes MB of memory in steps of STEP MB, one per line on stdin (all at once: STEP 0)
monitored.py saw MB            takes and gives back MB of memory, one move per line on stdin
monitored.py files N           opens N descriptors
monitored.py threads N         starts N threads
monitored.py write PATH MB     writes MB to a file, to the disk
monitored.py send PORT BYTES   connects, sends BYTES, reads as many back, keeps the connection
monitored.py brief PORT BYTES  the same, and closes it at once
monitored.py children N MB     starts N children that take MB each
monitored.py switch N          sleeps N times for a moment
monitored.py wait              does nothing
"""

import os
import socket
import subprocess
import sys
import threading
import time


def say(word):
    os.write(1, word.encode() + b"\n")


def lines():
    with open(0, "rb", buffering=0, closefd=False) as stdin:
        while line := stdin.readline():
            yield line


def burn():
    say("ready")
    os.set_blocking(0, False)
    while True:
        end = time.monotonic() + 0.02
        while time.monotonic() < end:
            pass
        try:
            if not os.read(0, 100):
                return
        except BlockingIOError:
            pass


def grow(mb, step):
    held = []
    if step == "0":
        held.append(bytearray(os.urandom(1) * (int(mb) << 20)))
        say("ready")
        list(lines())
        return
    say("ready")
    for _ in lines():
        held.append(bytearray(b"x" * (int(step) << 20)))
        say("taken")


def saw(mb):
    held = None
    say("ready")
    for _ in lines():
        held = bytearray(b"x" * (int(mb) << 20)) if held is None else None
        say("taken" if held else "given back")


def files(n):
    held = [os.open("/dev/null", os.O_RDONLY) for _ in range(int(n))]
    say("ready")
    list(lines())
    del held


def threads(n):
    gate = threading.Event()
    for _ in range(int(n)):
        threading.Thread(target=gate.wait, daemon=True).start()
    say("ready")
    list(lines())


def write(path, mb):
    with open(path, "wb") as file:
        file.writelines(os.urandom(1 << 20) for _ in range(int(mb)))
        file.flush()
        os.fsync(file.fileno())
    say("ready")
    list(lines())


def connect(port, count):
    peer = socket.create_connection(("127.0.0.1", int(port)))
    peer.sendall(b"x" * int(count))
    left = int(count)
    while left:
        left -= len(peer.recv(1 << 16))
    return peer


def send(port, count):
    held = connect(port, count)
    say("ready")
    list(lines())
    held.close()


def brief(port, count):
    say("ready")
    held = None
    for line in lines():
        if line == b"open\n":
            held = connect(port, count)
        elif held is not None:
            held.close()
        say("done")


def children(n, mb):
    command = [sys.executable, "-I", "-S", __file__, "grow", mb, "0"]
    found = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(int(n))]
    for child in found:
        assert child.stdout
        child.stdout.readline()
    say("ready")
    list(lines())
    for child in found:
        assert child.stdin
        child.stdin.close()
        child.wait()


def switch(n):
    say("ready")
    for _ in lines():
        for _ in range(int(n)):
            time.sleep(0.0001)
        say("done")


def wait():
    say("ready")
    list(lines())


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
