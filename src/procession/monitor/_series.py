"""The history of one process: a ring per figure, of fixed size, holding plain numbers."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable
from math import nan
from typing import TypeVar, cast

from procession.monitor._sample import Reading, Sample, sample_of

A = TypeVar("A", "array[float]", "array[int]")

_BLOCK = 64
_UNKNOWN = -1
_ALWAYS = ("at", "cpu_seconds", "rss_mb", "vms_mb", "disk_read_mb", "disk_write_mb", "context_switches")
_WHOLE = ("file_descriptors", "threads")
_SELDOM = ("pss_mb", "uss_mb", "network_received_mb", "network_sent_mb")

_IN_ORDER = (*_ALWAYS[1:6], *_WHOLE, "context_switches", *_SELDOM)  # as in a reading
FIGURES_KEPT = (*_ALWAYS, *_WHOLE, *_SELDOM)
"""The figures a series can give as a column."""


class Series:
    """The last ``size`` readings of one process.

    Columns take 8 bytes a value (4 for descriptors and threads, 1 for the state), grow in blocks up to ``size`` values and
    never beyond. Those of figures that nobody asked for (shares of memory, network) exist from their first value on.
    Unknown is NaN or −1 inside, ``None`` outside. All operations but those that return a whole column are O(1).

    Args:
        size: how many readings are kept.
        born: loop time at which the process was started.
    """

    __slots__ = ("_doubles", "_head", "_length", "_letters", "_seldom", "_sizes", "_wholes", "born", "size")

    def __init__(self, size: int, born: float = 0.0) -> None:
        self.size = size
        self.born = born
        self._length = 0
        self._head = 0  # where the next one goes
        self._doubles = [array("d") for _ in _ALWAYS]
        self._wholes = [array("i") for _ in _WHOLE]
        self._letters = bytearray()
        self._seldom: dict[str, array[float]] = {}
        self._sizes: array[int] | None = None

    def __len__(self) -> int:
        return self._length

    @property
    def nbytes(self) -> int:
        """Bytes that its columns take."""
        columns: list[array[float] | array[int]] = [*self._doubles, *self._wholes, *self._seldom.values()]
        return sum(len(column) * column.itemsize for column in columns) + len(self._letters)

    def append(self, at: float, reading: Reading) -> None:
        """Takes in one reading, in place of the oldest when the ring is full."""
        place = self._head
        if place == len(self._letters):
            self._grow()
        (_, letter, cpu, rss, vms, read, written, fds, threads, switches, _, pss, uss, received, sent, processes) = (
            reading
        )
        times, cpus, residents, virtuals, reads, writes, turns = self._doubles
        times[place] = at
        cpus[place] = nan if cpu is None else cpu
        residents[place] = nan if rss is None else rss
        virtuals[place] = nan if vms is None else vms
        reads[place] = nan if read is None else read
        writes[place] = nan if written is None else written
        turns[place] = nan if switches is None else switches
        self._wholes[0][place] = _UNKNOWN if fds is None else fds
        self._wholes[1][place] = _UNKNOWN if threads is None else threads
        self._letters[place] = ord(letter)
        if self._seldom or pss is not None or uss is not None or received is not None or sent is not None:
            for name, value in zip(_SELDOM, (pss, uss, received, sent), strict=True):
                self._set_seldom(name, place, value)
        if processes != 1 or self._sizes is not None:
            self._set_size(place, processes)
        self._head = place + 1 if place + 1 < self.size else 0
        self._length = min(self._length + 1, self.size)

    def _grow(self) -> None:
        """Makes room for another block; a sum of arrays is allocated exactly, which appending is not."""
        more = min(_BLOCK, self.size - len(self._letters))
        self._doubles = [column + array("d", bytes(8 * more)) for column in self._doubles]
        self._wholes = [column + array("i", bytes(4 * more)) for column in self._wholes]
        self._seldom = {name: column + array("d", [nan]) * more for name, column in self._seldom.items()}
        if self._sizes is not None:
            self._sizes += array("i", bytes(4 * more))
        self._letters += bytes(more)

    def _set_seldom(self, name: str, place: int, value: float | None) -> None:
        column = self._seldom.get(name)
        if column is None:
            if value is None:
                return
            self._seldom[name] = column = array("d", [nan]) * len(self._letters)
        column[place] = nan if value is None else value

    def _set_size(self, place: int, processes: int) -> None:
        if self._sizes is None:
            self._sizes = array("i", [1]) * len(self._letters)
        self._sizes[place] = processes

    # ------------------------------------------------------------------------------------ reading it

    def since(self, at: float) -> int:
        """How many readings were taken at ``at`` or later."""
        times, first, size, length = self._doubles[0], self._first(), self.size, self._length
        return length - bisect_left(range(length), at, key=lambda index: times[(first + index) % size])

    def _first(self) -> int:
        return self._head if self._length == self.size else 0

    def column(self, name: str, last: int | None = None) -> array[float] | array[int]:
        """The last so many values of one figure, oldest first; NaN or −1 where unknown.

        Raises:
            KeyError: there is no such figure.
        """
        length = self._length
        count = length if last is None else min(last, length)
        if name in _ALWAYS:
            return self._cut(self._doubles[_ALWAYS.index(name)], count)
        if name in _WHOLE:
            whole = self._wholes[_WHOLE.index(name)]
            return self._cut(whole, count)
        if name not in _SELDOM:
            raise KeyError(name)
        column = self._seldom.get(name)
        return array("d", [nan]) * count if column is None else self._cut(column, count)

    def _cut(self, column: A, count: int) -> A:
        end = self._head
        if count <= end:
            return column[end - count : end]
        return column[self.size - (count - end) :] + column[:end]

    def frozen(self, last: int) -> Callable[[str, int | None], array[float] | array[int]]:
        """The last so many values of each figure, as they are now, and all of memory; to be asked like ``column``."""
        cut = {name: self.column(name, last) for name in FIGURES_KEPT}
        memory = self.column("rss_mb")

        def column(name: str, count: int | None) -> array[float] | array[int]:
            return memory if count is None and name == "rss_mb" else cut[name]

        return column

    def readings(self, last: int | None = None) -> list[tuple[float, Reading]]:
        """The last so many readings with the loop times they were taken at, oldest first."""
        count = self._length if last is None else min(last, self._length)
        columns = [_opened(self.column(name, count)) for name in _IN_ORDER]
        sizes = [1] * count if self._sizes is None else self._cut(self._sizes, count)
        rows = zip(self.column("at", count), self._letters_of(count), *columns, sizes, strict=True)
        found: list[tuple[float, Reading]] = []
        for at, letter, *values, size in rows:
            figures, shares = cast("list[float | None]", values[:8]), cast("list[float | None]", values[8:])
            whole = [None if value is None else int(value) for value in figures[5:]]
            found.append((at, Reading._make((at, letter, *figures[:5], *whole, at - self.born, *shares, size))))
        return found

    def samples(self, id: str, pid: int, last: int | None = None) -> list[Sample]:
        """The last so many readings as samples, oldest first. What answers told is not kept, so it is ``None`` here."""
        count = self._length if last is None else min(last, self._length)
        found = self.readings(count + 1)  # one more, for the rates of the first
        before = found.pop(0) if len(found) > count else None
        samples = []
        for at, reading in found:
            samples.append(sample_of(id, pid, at, reading, before))
            before = (at, reading)
        return samples

    def _letters_of(self, count: int) -> str:
        end, letters = self._head, self._letters
        cut = letters[end - count : end] if count <= end else letters[self.size - (count - end) :] + letters[:end]
        return cut.decode("ascii")


def _opened(column: array[float] | array[int]) -> list[float | None]:
    if column.typecode == "i":
        return [None if value == _UNKNOWN else value for value in column]
    return [value if value == value else None for value in column]  # noqa: PLR0124 - NaN is unlike itself
