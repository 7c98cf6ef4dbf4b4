"""The program a function worker runs: reads calls, runs them, writes replies.

It is loaded by path into a bare interpreter and imports as little as possible, nothing of procession: it has to be
up in milliseconds. The other end of its channel is ``_channel.py``, and the two share this file's numbers.

A frame is a header (length, id, number, kind, buffers), a table with the sizes of its out-of-band buffers, a pickle, and
the buffers. Calls are run in the order in which they came, and answered in that order, each before the next is
begun. A page of shared memory says which call is being run; it is written before anything of the call is touched, so
that whoever finds this program dead knows which call did it, and that the others were not begun.
"""

from __future__ import annotations

import _pickle
import _socket
import _struct
import _thread
import marshal
import mmap
import os
import sys
import time

TYPE_CHECKING = False  # importing typing takes longer than all of the above
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

HEADER = _struct.Struct("<QQIHH")
"""Length of what follows, id, number of a function or microseconds of a run, kind, number of buffers."""

MARK = _struct.Struct("<QB")
HELD = _struct.Struct("<QQ")  # at 16: how many bytes of answers are held back, and how often they have been sent
HELD_AT = 16
ANSWERS = 4096  # where answers that are held back stand: whoever finds this program dead finds them
HOLD = 32768
PAGE = ANSWERS + HOLD  # the mark, the flags, the answers
FLAGS = 64  # where the flags begin: one byte per call, by its id
FLAG_COUNT = 2048

CALL, DEFINE, FORGET, PING, STOP, SETUP = 1, 2, 3, 4, 5, 6
RESULT, ERROR, SKIPPED, PONG, READY, LOG, WARNING, START_FAILED = 11, 12, 13, 14, 15, 16, 17, 18
WAITING, READING, RUNNING, REPLYING = 0, 1, 2, 3

BYTES, BYTEARRAY = 1 << 63, 1 << 62  # in the table of sizes: what the buffer was
SIZE = ~(BYTES | BYTEARRAY)
LARGE = 32768  # bytes objects from this size on travel beside the pickle, not in it
KINDS: dict[object, int] = {bytes: BYTES, bytearray: BYTEARRAY}
_READ = 1 << 16
_PATIENCE = 0.0003  # seconds for which answers are held back while further calls are here already
_SMALL = 4096
_LONG = 4096  # characters of the texts of an exception that is too large to travel whole
_WAITALL = _socket.MSG_WAITALL

state = None
"""What the pool's ``worker_state`` made; see procession.pool.worker_state."""


_page: mmap.mmap | None = None  # for as long as there is a program: its end would close the number it thinks it has


class Gone(Exception):
    """The other end has closed the channel."""


class Link:
    """This end of the channel."""

    def __init__(self, fd: int) -> None:
        self.socket = _socket.socket(fileno=fd)
        self.socket.setblocking(True)
        self.data = b""
        self.at = 0
        self.lock = _thread.RLock()  # a log record may come from another thread ...
        self.busy = False  # ... or from a signal handler or a finalizer of this one, in the middle of a frame
        self.later: list[tuple[int, int, int, bytes, Sequence[Any]]] = []
        self.limit = 1 << 62
        self.page: mmap.mmap | None = None
        self.held = 0
        self.held_since = 0.0
        self.sent = 0

    def fill(self, wanted: int) -> None:
        """Sees to it that ``wanted`` bytes can be had at once."""
        have = len(self.data) - self.at
        if have >= wanted:
            return
        parts = [self.data[self.at :]] if have else []
        while have < wanted:
            data = self.socket.recv(max(_READ, wanted - have))
            if not data:
                raise Gone
            parts.append(data)
            have += len(data)
        self.data = parts[0] if len(parts) == 1 else b"".join(parts)
        self.at = 0

    def take(self, size: int) -> memoryview:
        """The next ``size`` bytes, as a view where they are there already."""
        if size <= _READ:
            self.fill(size)
            at = self.at
            self.at = at + size
            return memoryview(self.data)[at : at + size]
        return memoryview(self.take_into(size))

    def take_into(self, size: int) -> bytearray:
        """The next ``size`` bytes in a bytearray of their own, received in place."""
        target = bytearray(size)
        have = min(size, len(self.data) - self.at)
        target[:have] = memoryview(self.data)[self.at : self.at + have]
        self.at += have
        view = memoryview(target)
        while have < size:
            got = self.socket.recv_into(view[have:], size - have, _WAITALL)
            if not got:
                raise Gone
            have += got
        return target

    def take_bytes(self, size: int) -> bytes:
        """The next ``size`` bytes as a bytes object, received in place where possible."""
        if len(self.data) == self.at:
            data = self.socket.recv(size, _WAITALL)
            if len(data) == size:
                return data
            if not data:
                raise Gone
            self.data, self.at = data, 0
        return bytes(self.take_into(size))

    def frame(self) -> tuple[int, int, int, Any, Sequence[Any]]:
        """The next frame: kind, id, number, pickle, buffers."""
        self.fill(24)
        length, id, number, kind, count = HEADER.unpack_from(self.data, self.at)
        self.at += 24
        if not count:
            return kind, id, number, self.take(length), ()
        sizes = _struct.unpack(f"<{count}Q", self.take(8 * count))
        rest = length - 8 * count - sum(size & SIZE for size in sizes)
        pickled = bytes(self.take(rest))
        buffers = [self.take_bytes(size & SIZE) if size & BYTES else self.take_into(size & SIZE) for size in sizes]
        return kind, id, number, pickled, buffers

    def send(self, kind: int, id: int = 0, number: int = 0, pickled: bytes = b"", buffers: Sequence[Any] = ()) -> None:
        """Writes one frame, whole; one that comes up while another is being written goes after it."""
        with self.lock:
            if self.busy:
                self.later.append((kind, id, number, pickled, buffers))
                return
            self.busy = True
            try:
                if self.held:
                    self.release()
                self.write(kind, id, number, pickled, buffers)
                while self.later:
                    self.write(*self.later.pop(0))
            finally:
                self.busy = False

    def write(self, kind: int, id: int, number: int, pickled: bytes, buffers: Sequence[Any]) -> None:
        """Writes one frame. The lock is held."""
        if not buffers:
            head = HEADER.pack(len(pickled), id, number, kind, 0)
            if len(pickled) < _READ:
                self.socket.sendall(head + pickled)
            else:
                self.socket.sendall(head)
                self.socket.sendall(pickled)
            return
        views = [buffer.raw() for buffer in buffers]
        sizes = [view.nbytes | KINDS.get(type(view.obj), 0) for view in views]
        length = 8 * len(views) + len(pickled) + sum(view.nbytes for view in views)
        head = HEADER.pack(length, id, number, kind, len(views)) + _struct.pack(f"<{len(sizes)}Q", *sizes)
        self.socket.sendall(head + pickled)
        for view in views:
            self.socket.sendall(view)

    def has_call(self) -> bool:
        """Whether another call is here, whole, so that it will be run without waiting."""
        have = len(self.data) - self.at
        if have < 24:
            return False
        length, _, _, kind, _ = HEADER.unpack_from(self.data, self.at)
        return bool(kind == CALL and have >= 24 + length)

    def hold(self, kind: int, id: int, number: int, pickled: bytes, now: float) -> bool:
        """Holds an answer back, to be sent with the next ones in one go; ``False`` when it must not be.

        It stands in shared memory until then: if the next call ends this program, it is found there, and if the next
        call takes long, it is fetched from there.
        """
        with self.lock:
            held = self.held
            size = 24 + len(pickled)
            if self.busy or self.page is None or held + size > HOLD or (held and now - self.held_since > _PATIENCE):
                return False
            self.busy = True
            try:
                at = ANSWERS + held
                self.page[at : at + size] = HEADER.pack(len(pickled), id, number, kind, 0) + pickled
                if not held:
                    self.held_since = now
                self.held = held + size
                HELD.pack_into(self.page, HELD_AT, self.held, self.sent)
            finally:
                self.busy = False
        return True

    def cut(self, value: object) -> str:
        """The text of something that is news, not a result: as much of it as may be sent at once."""
        return plain(value)[: self.limit // 4]

    def release(self) -> None:
        """Sends what is held back. The lock is held."""
        page = self.page
        if page is not None:
            self.socket.sendall(page[ANSWERS : ANSWERS + self.held])
            self.held = 0
            self.sent += 1
            HELD.pack_into(page, HELD_AT, 0, self.sent)


def text_of(error: BaseException) -> str:
    """The traceback of an exception, without the frames of this file."""
    import traceback

    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    return "".join(traceback.format_exception(type(error), error, trace))


def plain(value: object) -> str:
    """The text of anybody's object, as a string of no other kind: those do not travel."""
    try:
        return str.__str__(str(value))
    except Exception as worse:  # noqa: BLE001 - anybody's code
        return f"<its text cannot be had: {type(worse).__name__}>"


def pickled_error(error: BaseException, limit: int) -> bytes:
    """An exception as the parts from which it, or at least the news of it, can be made again."""
    cls = type(error)
    kind = cls.__qualname__ if cls.__module__ in ("builtins", "__main__") else f"{cls.__module__}.{cls.__qualname__}"
    text = plain(error)
    try:
        trace = text_of(error)
    except Exception:  # noqa: BLE001 - anybody's code
        trace = ""
    whole = None
    if isinstance(error, Exception):
        try:
            whole = _pickle.dumps(error, 5)
        except Exception:  # noqa: BLE001 - anybody's code
            whole = None  # the names have to do
    news = marshal.dumps(("raised", plain(kind), text, trace, whole))
    if len(news) > limit:
        news = marshal.dumps(("raised", plain(kind), text[:_LONG], trace[-_LONG:], None))
    return news


def refused(what: str, value: object, error: BaseException) -> bytes:
    """The news that something cannot be pickled, or not be unpickled."""
    why = f"{type(error).__name__}: {plain(error)}"
    return marshal.dumps(("refused", what, plain(type(value).__qualname__), why, None))


class Worker:
    """Runs calls until it is told to stop."""

    def __init__(self, link: Link, page: mmap.mmap) -> None:
        self.link = link
        self.page = link.page = page
        self.functions: dict[int, Any] = {}
        self.limit = 1 << 62
        self.main: tuple[str, str] | None = None
        self.fence = _thread.allocate_lock()

    # ------------------------------------------------------------------------------------ beginning

    def set_up(self, settings: dict[str, Any]) -> None:
        """What each worker does once: its state and its initializer. Answers that it is ready, or why not."""
        global state
        self.limit = self.link.limit = settings["limit"]
        LogWatch(self.link, settings["log_level"])
        watch_warnings(self.link)
        try:
            if settings["init"]:
                make_state, initializer, initargs = self.loads(settings["init"])
                if make_state is not None:
                    state = make_state()
                    opener = getattr(state, "open", None)
                    if opener is not None:
                        opener()
                if initializer is not None:
                    initializer(*initargs)
        except SystemExit:
            raise
        except BaseException as error:  # noqa: BLE001 - anybody's code
            self.link.send(START_FAILED, pickled=pickled_error(error, self.limit))
            raise SystemExit(1) from None
        flush()
        self.link.send(READY)

    def loads(self, pickled: Any, buffers: Sequence[Any] = ()) -> Any:
        """Unpickles; the program's main module is made importable when something of it is asked for."""
        try:
            return _pickle.loads(pickled, buffers=buffers)
        except AttributeError:
            if not prepare_main(self.main):
                raise
        return _pickle.loads(pickled, buffers=buffers)

    # -------------------------------------------------------------------------------------- working

    def serve(self) -> None:
        """Runs calls until it is told to stop or nobody is left who could."""
        link = self.link
        try:
            while True:
                kind, id, number, pickled, buffers = link.frame()
                if kind == CALL:
                    self.call(id, number, pickled, buffers)
                    del pickled, buffers
                elif kind == DEFINE:
                    self.functions[number] = bytes(pickled)  # unpickled by the first call: it may be that which kills
                elif kind == FORGET:
                    self.functions.pop(number, None)
                elif kind == PING:
                    link.send(PONG, id)
                elif kind == STOP:
                    break
        except (Gone, OSError):
            pass  # nobody is left to work for
        close_state()

    def call(self, id: int, number: int, pickled: Any, buffers: Sequence[Any]) -> None:
        """Runs one call and answers it."""
        page = self.page
        began = time.perf_counter()
        MARK.pack_into(page, 0, id, READING)
        fence = self.fence
        fence.acquire()  # an atomic operation: the mark is to be seen before the flag is read
        fence.release()
        flag = FLAGS + id % FLAG_COUNT
        if page[flag]:
            page[flag] = 0
            self.link.send(SKIPPED, id)
            return
        kind = ERROR
        out: list[Any] = []
        part = "arguments"
        try:
            function: Any = self.functions[number] if number else None
            if type(function) is bytes:
                part = "function"
                function = self.functions[number] = self.loads(function)
                part = "arguments"
                began = time.perf_counter()  # what was imported for it is no part of its pace
            if number:
                args, kwargs = self.loads(pickled, buffers)
            else:
                function, args, kwargs = self.loads(pickled, buffers)
        except SystemExit:
            raise
        except BaseException as error:  # noqa: BLE001 - anybody's code
            answer = refused(part, None, error)
        else:
            page[8] = RUNNING
            try:
                result = function(*args, **kwargs) if kwargs else function(*args)
            except SystemExit:
                raise
            except BaseException as error:  # noqa: BLE001 - anybody's code
                page[8] = REPLYING
                answer = pickled_error(error, self.limit)
            else:
                page[8] = REPLYING
                kind, answer = self.pack(result, out)
                del result
            del function, args, kwargs
        flush()
        now = time.perf_counter()
        spent = min(int((now - began) * 1e6), 0xFFFFFFFF)
        link = self.link
        if out or len(answer) > _SMALL or not link.has_call() or not link.hold(kind, id, spent, answer, now):
            link.send(kind, id, spent, answer, out)

    def pack(self, result: Any, out: list[Any]) -> tuple[int, bytes]:
        """A result as it travels; what is wrong with it, when it cannot."""
        given = result
        try:
            if type(result) in (bytes, bytearray) and len(result) >= LARGE:
                result = _pickle.PickleBuffer(result)
            answer = _pickle.dumps(result, 5, buffer_callback=out.append)
            size = len(answer)
            if out:
                size += sum(buffer.raw().nbytes for buffer in out)
        except SystemExit:
            raise
        except BaseException as error:  # noqa: BLE001 - anybody's code
            out.clear()
            return ERROR, refused("result", given, error)
        if size > self.limit:
            out.clear()
            return ERROR, marshal.dumps(("large", "result", size, self.limit, None))
        return RESULT, answer


def close_state() -> None:
    """The last thing a worker does."""
    closer = getattr(state, "close", None)
    if closer is not None:
        closer()
    flush()


def flush() -> None:
    """What was printed is to be seen before what it was printed for is answered."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # noqa: BLE001, S110 - anybody's code
            pass  # closed, or replaced by something that has no flush


# ---------------------------------------------------------------------------------------- surroundings


def adopt(settings: dict[str, Any]) -> None:
    """Makes this interpreter resemble the owner's: its paths, its arguments, what it wants imported."""
    main = vars(sys.modules["__main__"])
    for name in [name for name in main if not name.startswith("__")]:
        del main[name]  # what started us: a function of the owner's main module may have the same name
    if settings["site"]:
        import site

        site.main()
    Watch("multiprocessing.process", lambda module: _share_key(module, settings["authkey"]))
    sys.path[:] = settings["path"]
    sys.argv[:] = settings["argv"]
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None:
            stream.reconfigure(line_buffering=True, errors="backslashreplace")
    for name in settings["preload"]:
        if name == "__main__":
            prepare_main(settings["main"])
        else:
            __import__(name)


def _share_key(process: Any, key: bytes) -> None:
    """Gives what is made with multiprocessing the owner's key, as its children have: proxies of managers need it."""
    process.current_process().authkey = key


def prepare_main(main: tuple[str, str] | None) -> bool:
    """Runs the owner's main module under another name, so that what is defined in it can be found; once."""
    if main is None or "__mp_main__" in sys.modules:
        return False
    import runpy
    import types

    how, what = main
    module = types.ModuleType("__mp_main__")
    sys.modules["__mp_main__"] = module
    if how == "name":
        found = runpy.run_module(what, run_name="__mp_main__", alter_sys=True)
    else:
        found = runpy.run_path(what, run_name="__mp_main__")
    module.__dict__.update(found)
    sys.modules["__main__"] = sys.modules["__mp_main__"] = module
    return True


class Watch:
    """Does something to a module at the moment at which somebody imports it, or now: most workers never do."""

    def __init__(self, name: str, install: Callable[[Any], None]) -> None:
        self.name = name
        self.install = install
        module = sys.modules.get(name)
        if module is not None:
            install(module)
        else:
            sys.meta_path.insert(0, self)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != self.name:
            return None
        sys.meta_path.remove(self)
        for finder in sys.meta_path:
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                break
        else:
            return None
        if spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            execute(module)
            self.install(module)

        setattr(spec.loader, "exec_module", exec_module)  # noqa: B010 - of this one instance
        return spec


class LogWatch:
    """Sends log records to the owner, from the moment somebody imports logging."""

    def __init__(self, link: Link, level: int) -> None:
        self.link = link
        self.level = level
        Watch("logging", self.install)

    def install(self, logging: Any) -> None:
        link = self.link

        class ToOwner(logging.Handler):  # type: ignore[misc]  # the module is only there now
            def emit(self, record: Any) -> None:
                try:
                    text = record.getMessage()
                except Exception as error:  # noqa: BLE001 - anybody's code
                    text = f"{record.msg!r} (its arguments do not fit: {error})"
                trace = record.exc_text
                if record.exc_info and not trace:
                    trace = logging.Formatter().formatException(record.exc_info)
                texts = (record.pathname, text, trace, record.funcName, record.threadName)
                path, text, trace, function, thread = (None if each is None else link.cut(each) for each in texts)
                numbers = int(record.levelno), int(record.lineno), float(record.created)
                parts = (plain(record.name), numbers[0], path, numbers[1], text, trace, function, numbers[2], thread)
                try:
                    link.send(LOG, pickled=marshal.dumps(parts))
                except OSError:
                    pass  # nobody is left to read it

        for handler in logging.root.handlers[:]:
            logging.root.removeHandler(handler)
        logging.root.addHandler(ToOwner())
        logging.root.setLevel(self.level)


def watch_warnings(link: Link) -> None:
    """Sends warnings to the owner instead of writing them to stderr."""
    import warnings

    def show(
        message: Any,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: object = None,
        line: object = None,  # noqa: ARG001 - the protocol
    ) -> None:
        if file is None:
            parts = (link.cut(message), plain(category.__name__), plain(filename), int(lineno))
            link.send(WARNING, pickled=marshal.dumps(parts))

    warnings.showwarning = show


def map_page(fd: int) -> mmap.mmap:
    """Maps the shared page and closes every descriptor of it: what a function writes to strange ones must not hit it."""
    global _page
    copy = os.dup(fd)
    os.close(copy)
    _page = mmap.mmap(fd, PAGE)  # keeps a duplicate, which gets the number that was just free
    try:
        if os.path.samestat(os.fstat(copy), os.fstat(fd)):
            os.close(copy)
    except OSError:
        pass  # it keeps none, or got another number
    os.close(fd)
    return _page


def run(channel: int, page: int, settings: dict[str, Any] | None) -> int:
    """The life of a worker; returns its exit code."""
    os.set_inheritable(channel, False)
    link = Link(channel)
    worker = Worker(link, map_page(page))
    try:
        if settings is None:
            kind, _, _, pickled, _ = link.frame()
            assert kind == SETUP
            settings = marshal.loads(pickled)  # noqa: S302 - from our owner
            try:
                adopt(settings)
            except SystemExit:
                raise
            except BaseException as error:  # noqa: BLE001 - anybody's code
                link.send(START_FAILED, pickled=pickled_error(error, settings["limit"]))
                return 1
        worker.main = settings["main"]
        worker.set_up(settings)
        worker.serve()
    except (Gone, BrokenPipeError, ConnectionResetError):
        return 0
    return 0
