"""The program a function worker runs: reads calls, runs them, writes replies.

It is loaded by path into a bare interpreter and imports as little as possible, nothing of procession: it has to be
up in milliseconds. Its end of the channel is ``_link.py``, the other end is ``_channel.py``.

A frame is a header (length, id, number, kind, buffers), a table with the sizes of its out-of-band buffers, a pickle, and
the buffers. Calls are run in the order in which they came, and answered in that order, each before the next is
begun. A page of shared memory says which call is being run; it is written before anything of the call is touched, so
that whoever finds this program dead knows which call did it, and that the others were not begun.
"""

from __future__ import annotations

import _pickle
import _thread
import marshal
import mmap
import os
import sys
import time

from procession.pool._link import (  # loaded by path before this file: nothing else of procession is imported with it
    CALL,
    DEFINE,
    ERROR,
    FLAG_COUNT,
    FLAGS,
    FORGET,
    LARGE,
    LOG,
    MARK,
    PAGE,
    PING,
    PONG,
    READING,
    READY,
    REPLYING,
    RESULT,
    RUNNING,
    SETUP,
    SKIPPED,
    START_FAILED,
    STOP,
    WARNING,
    Gone,
    Link,
    plain,
)

TYPE_CHECKING = False  # importing typing takes longer than all of the above
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

_SMALL = 4096
_LONG = 4096  # characters of the texts of an exception that is too large to travel whole

state = None
"""What the pool's ``worker_state`` made; see procession.pool.worker_state."""


_main_failed = ""  # what is wrong with the owner's main module

_page: mmap.mmap | None = None  # for as long as there is a program: its end would close the number it thinks it has


def text_of(error: BaseException) -> str:
    """The traceback of an exception, without the frames of this file."""
    import traceback

    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    return "".join(traceback.format_exception(type(error), error, trace))


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
    """Runs the owner's main module under another name, so that what is defined in it can be found; once.

    Raises:
        RuntimeError: the module raised, now or when it was run.
    """
    global _main_failed
    if _main_failed:
        raise RuntimeError(_main_failed)
    if main is None or "__mp_main__" in sys.modules:
        return False
    import runpy
    import types

    how, what = main
    module = types.ModuleType("__mp_main__")
    sys.modules["__mp_main__"] = module
    try:
        if how == "name":
            found = runpy.run_module(what, run_name="__mp_main__", alter_sys=True)
        else:
            found = runpy.run_path(what, run_name="__mp_main__")
    except BaseException as error:  # SystemExit is what programs end with
        _main_failed = (
            f"a worker ran {what} once more, to find what is defined in it, and that raised {type(error).__name__}: "
            f'{plain(error)}; what starts the program belongs under if __name__ == "__main__":'
        )
        raise RuntimeError(_main_failed) from error
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
