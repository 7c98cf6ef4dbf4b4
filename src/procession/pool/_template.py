"""The template: an interpreter that has imported what workers need, runs nothing, and forks when it is told to.

It is loaded by path beside the worker program, and has one thread. Its children are workers that need not import
anything again. It reaps them and tells how they ended; when its owner is gone it goes too.
"""

from __future__ import annotations

import _socket
import _struct
import gc
import marshal
import os
import select
import sys

TYPE_CHECKING = False  # importing typing takes longer than all of the above
if TYPE_CHECKING:
    from typing import Any

TOKEN = _struct.Struct("<Q")
FORKED = _struct.Struct("<cQI")  # "P", the token of the request, the pid; the pidfd comes along
FAILED = _struct.Struct("<cQI")  # "F", the token, the system's number of the error
ENDED = _struct.Struct("<cIi")  # "X", the pid, the status as in waitpid(2)
_FDS = 4  # channel, page, stdout, stderr
_INT = _struct.calcsize("i")
_FITS = 32768  # bytes of news that fit into one message
_ID = "PROCESSION_ID"


def main(worker: Any, control: int, given: int) -> None:
    """Serves requests until the owner is gone."""
    end = _socket.socket(fileno=control)
    end.setblocking(True)
    os.set_inheritable(control, False)
    settings = marshal.loads(os.pread(given, os.fstat(given).st_size, 0))  # noqa: S302 - from our owner
    os.close(given)
    try:
        worker.adopt(settings)
        import logging
        import traceback
    except BaseException as error:  # noqa: BLE001 - anybody's code
        end.send(b"E" + worker.pickled_error(error, _FITS))
        return
    del logging, traceback
    worker.flush()
    gc.collect()
    gc.freeze()  # what is here stays shared with all children
    # A fork has one thread: what other threads were doing, or held, would be missing in it.
    end.send(b"R" if len(sys._current_frames()) == 1 else b"T")
    try:
        _Template(worker, end, settings).serve()
    except (BrokenPipeError, ConnectionResetError):
        os._exit(0)


class _Template:
    def __init__(self, worker: Any, end: _socket.socket, settings: dict[str, Any]) -> None:
        self.worker = worker
        self.end = end
        self.settings = settings
        self.poll = select.poll()
        self.children: dict[int, int] = {}  # pid by pidfd

    def serve(self) -> None:
        control = self.end.fileno()
        self.poll.register(control, select.POLLIN)
        while True:
            for fd, _ in self.poll.poll():
                if fd != control:
                    self.reap(fd)
                elif not self.request():
                    os._exit(0)

    def reap(self, pidfd: int) -> None:
        pid = self.children.pop(pidfd)
        self.poll.unregister(pidfd)
        os.close(pidfd)
        _, status = os.waitpid(pid, 0)
        self.end.send(ENDED.pack(b"X", pid, status))

    def request(self) -> bool:
        """Makes one child; ``False`` when nobody will ask for one any more."""
        space = _socket.CMSG_SPACE(_FDS * _INT)
        data, extra, _, _ = self.end.recvmsg(512, space, _socket.MSG_CMSG_CLOEXEC)
        if not data:
            return False
        fds = list(_struct.unpack(f"{_FDS}i", extra[0][2]))
        (token,) = TOKEN.unpack_from(data)
        try:
            pid, pidfd = self.fork(data[TOKEN.size :], fds)
        except OSError as error:
            self.end.send(FAILED.pack(b"F", token, error.errno or 0))
            return True
        finally:
            for fd in fds:
                os.close(fd)
        self.children[pidfd] = pid
        self.poll.register(pidfd, select.POLLIN)
        rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, _struct.pack("i", pidfd))]
        self.end.sendmsg([FORKED.pack(b"P", token, pid)], rights)
        return True

    def fork(self, cookie: bytes, fds: list[int]) -> tuple[int, int]:
        """Forks, and waits until the child has a session of its own and answers to its own name."""
        ready, done = os.pipe()
        try:
            pid = _fork()
            if not pid:
                self.child(cookie, fds, (ready, done))
            os.close(done)
            done = -1
            pidfd = os.pidfd_open(pid)
            os.read(ready, 1)
            return pid, pidfd
        finally:
            os.close(ready)
            if done >= 0:
                os.close(done)

    def child(self, cookie: bytes, fds: list[int], pipe: tuple[int, int]) -> None:
        """The life of a child; never returns."""
        code = 1
        try:
            self.end.close()
            for pidfd in self.children:
                os.close(pidfd)
            os.close(pipe[0])
            os.setsid()
            rename(cookie)
            channel, page, out, err = fds
            os.dup2(out, 1)
            os.dup2(err, 2)
            os.close(out)
            os.close(err)
            os.close(pipe[1])
            code = self.worker.run(channel, page, self.settings)
        except SystemExit as error:
            code = _code(error)
        except BaseException as error:  # noqa: BLE001 - the last resort
            sys.stderr.write(self.worker.text_of(error))
        finally:
            try:
                _leave()
            finally:
                os._exit(code)


def _fork() -> int:
    import warnings

    with warnings.catch_warnings():
        # Python counts the threads of native libraries, which know how to fork; those of Python were looked for.
        warnings.simplefilter("ignore")
        return os.fork()


def _code(error: SystemExit) -> int:
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    sys.stderr.write(f"{error.code}\n")
    return 1


def _leave() -> None:
    """What the interpreter does at its end, for a child that must not return into the template."""
    threading = sys.modules.get("threading")
    if threading is not None:
        threading._shutdown()
    import atexit

    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # noqa: BLE001, S110 - closed, or anybody's object
            pass


def rename(cookie: bytes) -> None:
    """Gives this fork a cookie of its own: for what it starts, and for whoever reads its variables in ``/proc``.

    The kernel shows the variables a *program* was started with, which for a fork are those of the template. They
    are memory of this process, so they are overwritten in place: the template's id was made long enough.
    """
    os.environ[_ID] = os.fsdecode(cookie)
    try:
        with open("/proc/self/stat", "rb") as file:
            fields = file.read()
        fields = fields[fields.rindex(b")") + 2 :]
        start, end = (int(field) for field in fields.split()[47:49])  # fields 50 and 51, see proc(5)
        memory = os.open("/proc/self/mem", os.O_RDWR | os.O_CLOEXEC)
        try:
            variables = os.pread(memory, end - start, start)
            name = b"\0" + _ID.encode() + b"="
            at = (b"\0" + variables).index(name) + len(name) - 1
            room = variables.index(b"\0", at) - at
            if len(cookie) <= room:
                os.pwrite(memory, cookie.ljust(room, b"\0"), start + at)
        finally:
            os.close(memory)
        with open("/proc/self/comm", "wb") as file:
            file.write(b"procession-work")
    except (OSError, ValueError):
        return  # what it starts is found by its cookie all the same, itself by its process group
