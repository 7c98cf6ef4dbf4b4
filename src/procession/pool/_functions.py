"""Functions on their way to workers: pickled once, sent once to each worker, and known by a number from then on."""

from __future__ import annotations

import pickle
import sys
import types
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from procession.errors import MessageTooLarge, NotPicklable
from procession.pool._channel import Parcel, beside
from procession.pool._link import plain

_KNOWN = 1024  # functions a pool remembers; whoever makes more of them sends them again
_NAMED = (types.FunctionType, types.BuiltinFunctionType, type)


class Function:
    """One function that workers know by a number.

    Attributes:
        number: that number, from 1.
        name: for people.
        parcel: its pickle.
        pace: seconds a call of it takes, as far as is known: quick to rise, slow to fall.
    """

    __slots__ = ("name", "number", "pace", "parcel")

    def __init__(self, number: int, name: str, pickled: bytes) -> None:
        self.number = number
        self.name = name
        self.parcel = Parcel(pickled)
        self.pace: float | None = None

    def took(self, seconds: float) -> None:
        """A call of it has taken so long."""
        pace = self.pace
        self.pace = seconds if pace is None or seconds > pace else 0.75 * pace + 0.25 * seconds


class Functions:
    """All functions a pool has been given lately.

    Those that are pickled by name are remembered as objects, those that cloudpickle takes apart by what comes out.
    Anything else that can be called – a bound method, a partial – may change between two calls, so it travels
    with each of them.
    """

    def __init__(self, limit: int, forget: Callable[[Function], None]) -> None:
        self._known: OrderedDict[object, Function] = OrderedDict()
        self._limit = limit
        self._forget = forget
        self._count = 0

    def of(self, function: Callable[..., Any]) -> Function | None:
        """How workers know it; ``None`` when it has to travel with the call.

        Raises:
            NotPicklable: it cannot travel at all.
        """
        try:
            known = self._known.get(function)
        except TypeError:  # it has no hash, so it is no plain function
            return None
        if known is not None:
            return known
        if type(function) not in _NAMED or _is_bound(function):
            return None
        try:
            pickled = pickle.dumps(function, 5)
            if function.__module__ == "__main__" and main_module() is None:
                raise pickle.PicklingError("the main module cannot be imported by a worker")
            return self._keep(function, function, pickled)
        except Exception as error:  # noqa: BLE001 - whatever pickle makes of it
            pickled = _by_value(function, error, "function", name_of(function))
        return self._known.get(pickled) or self._keep(pickled, function, pickled)

    def _keep(self, key: object, function: Callable[..., Any], pickled: bytes) -> Function:
        self._count += 1
        made = self._known[key] = Function(self._count, name_of(function), pickled)
        if len(self._known) > _KNOWN:
            self._forget(self._known.popitem(last=False)[1])
        return made

    def pack(
        self,
        function: Function | None,
        call: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any] | None,
    ) -> Parcel:
        """A call as it travels.

        Raises:
            NotPicklable: its arguments cannot travel.
            MessageTooLarge: they are too large.
        """
        for arg in args:
            if type(arg) in (bytes, bytearray):
                args = tuple(map(beside, args))
                break
        message = (args, kwargs) if function is not None else (call, args, kwargs or {})
        buffers: list[pickle.PickleBuffer] = []
        try:
            parcel = Parcel(pickle.dumps(message, 5, buffer_callback=buffers.append), buffers)
        except Exception as error:  # noqa: BLE001 - whatever pickle, or a __reduce__, makes of it
            at_fault = function is None and _is_at_fault(call)
            kind = name_of(call) if at_fault else _culprit(args, kwargs)
            parcel = Parcel(_by_value(message, error, "function" if at_fault else "arguments", kind))
        if parcel.length > self._limit:
            raise MessageTooLarge("arguments", parcel.length, self._limit)
        return parcel


def _is_bound(function: object) -> bool:
    owner = getattr(function, "__self__", None)
    return type(function) is types.BuiltinFunctionType and owner is not None and not isinstance(owner, types.ModuleType)


def _by_value(value: object, error: Exception, what: str, kind: str) -> bytes:
    """What pickle cannot do, cloudpickle may, where it is installed."""
    try:
        import cloudpickle  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError:
        raise NotPicklable(what, kind, why(error)) from error
    try:
        return bytes(cloudpickle.dumps(value, 5))
    except Exception as worse:
        raise NotPicklable(what, kind, why(worse)) from worse


def _is_at_fault(call: object) -> bool:
    try:
        pickle.dumps(call, 5)
    except Exception:  # noqa: BLE001 - whatever pickle makes of it
        return True
    return False


def _culprit(args: tuple[Any, ...], kwargs: Mapping[str, Any] | None) -> str:
    for value in (*args, *(kwargs or {}).values()):
        if _is_at_fault(value):
            return type(value).__qualname__
    return "arguments"


def why(error: BaseException) -> str:
    """An exception in one line; its text may be anybody's code."""
    return f"{type(error).__name__}: {plain(error)}"


def name_of(function: object) -> str:
    """A name for people."""
    name = getattr(function, "__qualname__", None)
    if isinstance(name, str):
        return name
    inner = getattr(function, "func", None)
    return name_of(inner) if inner is not None else type(function).__qualname__


def main_module() -> tuple[str, str] | None:
    """How a worker can have our main module: by name or by path; ``None`` when it cannot, as in an interactive one."""
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name:
        name = str(spec.name)
        return None if name.endswith("__main__") else ("name", name)
    path = getattr(main, "__file__", None)
    return None if not path or path.startswith("<") else ("path", str(path))
