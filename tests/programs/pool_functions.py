"""What the workers of the pools' tests run."""
# ruff: noqa: C901, PTH, B006, RET503

import ctypes
import logging
import os
import pickle
import signal
import subprocess
import sys
import time
import warnings

STARTED: list[object] = []


def echo(value):
    return value


def add(a, b=1):
    return a + b


def pid(_=None):
    return os.getpid()


def sleep(seconds):
    time.sleep(seconds)
    return seconds


def sleep_pid(seconds):
    time.sleep(seconds)
    return os.getpid()


def touch(path):
    """Leaves a trace of having been run."""
    with open(path, "a") as file:
        file.write("x")


def touch_and_sleep(path, seconds):
    touch(path)
    time.sleep(seconds)


def fail(text):
    raise ValueError(text)


class Odd(Exception):
    """Cannot be made again from its arguments."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def fail_oddly():
    raise Odd(1, 2)


class Closed(Exception):
    """Cannot be pickled."""

    def __reduce__(self):
        raise pickle.PicklingError("no way")


def fail_closed():
    raise Closed("secret")


def fail_base():
    raise KeyboardInterrupt("no")


def fail_stop():
    raise StopIteration(3)


def lambda_result():
    return lambda: 1


class BadState:
    def __reduce__(self):
        return (fail, ("cannot be unpickled",))


def bad_result():
    return BadState()


class ExitWhenUnpickled(Exception):
    def __reduce__(self):
        return (sys.exit, (1,))


def made_by_exit():
    return ExitWhenUnpickled()


def fail_with_exit():
    raise ExitWhenUnpickled


def speak(word):
    print(word)
    print(word.upper(), file=sys.stderr)
    logging.getLogger("tests.pool").warning("logged %s", word)
    warnings.warn(f"warned {word}", UserWarning, stacklevel=1)
    os.write(1, b"raw\n")
    return word


def child(seconds):
    """Starts a process in a session of its own and waits."""
    process = subprocess.Popen(["sleep", str(seconds)], start_new_session=True)
    print("child", process.pid, flush=True)
    process.wait()


def spawn_child(path):
    process = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    with open(path, "w") as file:
        file.write(str(process.pid))
    time.sleep(1000)


def blob(size):
    return b"x" * size


def length(data):
    return len(data)


def kind_of(*values):
    return [type(value).__name__ for value in values]


def flip(data):
    """Changes what it was given, which is its own."""
    data[0] ^= 0xFF
    return data


def cookies():
    return os.environ["PROCESSION_ID"], open("/proc/self/environ", "rb").read()


# ------------------------------------------------------------------------------------------ ways to die


def die(how):
    """Ends the worker that runs it."""
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "segfault":
        ctypes.string_at(0)
    elif how == "_exit":
        os._exit(7)
    elif how == "exit":
        sys.exit(3)
    elif how == "abort":
        os.abort()
    elif how == "close":
        os.closerange(3, 64)
        time.sleep(1000)
    elif how == "garbage":
        for fd in range(3, 64):
            try:
                os.write(fd, b"\xff" * 4096)
            except OSError:
                pass
        time.sleep(1000)
    elif how == "header":
        for fd in range(3, 64):
            try:
                os.write(fd, (4 << 30).to_bytes(8, "little") + bytes(16))
            except OSError:
                pass
        time.sleep(1000)
    elif how == "half":
        for fd in range(3, 64):
            try:
                os.write(
                    fd, (1000).to_bytes(8, "little") + (1).to_bytes(8, "little") + bytes(4) + b"\x0b\0\0\0" + b"x" * 10
                )
            except OSError:
                pass
        os._exit(1)
    elif how == "noise":
        os.write(1, os.urandom(1 << 20))
        os.write(2, b"last words\n")
        os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError(how)


def die_once(path, how):  # noqa: RET503
    """Dies the first time it is run."""
    if os.path.exists(path):  # noqa: PTH110
        return "survived"
    touch(path)
    die(how)


class DiesWhenRead:
    """Ends whoever unpickles it."""

    def __init__(self, how):
        self.how = how

    def __reduce__(self):
        return (die, (self.how,))


class DiesWhenPickled:
    def __init__(self, how):
        self.how = how

    def __reduce__(self):
        die(self.how)


def dies_replying(how):
    return DiesWhenPickled(how)


# ----------------------------------------------------------------------------------------- initializers


def begin(value):
    STARTED.append(value)


def started():
    return list(STARTED)


def begin_badly():
    raise RuntimeError("no begin")


def begin_and_die():
    print("cannot", file=sys.stderr, flush=True)
    os._exit(9)


def begin_slowly():
    time.sleep(1000)


class Model:
    """A worker's state."""

    def __init__(self):
        self.opened = False
        self.uses = 0

    def open(self):
        self.opened = True

    def close(self):
        print("model closed after", self.uses, flush=True)


def use_model():
    from procession.pool import worker_state

    model = worker_state()
    model.uses += 1
    return model.opened, model.uses


def grow(megabytes, kept=[]):  # noqa: B006
    kept.append(bytearray(os.urandom(1 << 20) * megabytes))
    return os.getpid()
