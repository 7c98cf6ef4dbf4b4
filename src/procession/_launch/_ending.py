"""Ending a tree for good: signal, wait, kill, look again until nothing is left – and say what was done.

Works on any ``ProcessHandle``, real or simulated.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from procession._core.aio import Latch, wait_until
from procession._linux._proc import boot_ticks
from procession._types import Containment, ProcessRef, signal_name
from procession.abc import Member, ProcessHandle

KILL_BOUND = 2.0
"""Seconds that SIGKILL may take to show before a process is reported as a survivor (uninterruptible sleep)."""

_PASSES = 50
"""How often the tree is looked through after SIGKILL; a fork bomb loses long before."""


@dataclass(slots=True)
class Ending:
    """What has been done so far; becomes the ``StopReport``."""

    signalled: list[str] = field(default_factory=list)
    seen: dict[tuple[int, int], ProcessRef] = field(default_factory=dict)
    escaped: dict[tuple[int, int], ProcessRef] = field(default_factory=dict)
    survived: list[ProcessRef] = field(default_factory=list)
    verified: bool = True
    forced: bool = False

    def sent(self, signum: int) -> None:
        """Notes a signal, each kind once."""
        name = signal_name(signum)
        if name not in self.signalled:
            self.signalled.append(name)

    def saw(self, member: Member) -> bool:
        """Notes a member; ``True`` when it is news."""
        key = (member.ref.pid, member.ref.started)
        if member.escaped:
            self.escaped[key] = member.ref
        if key in self.seen:
            return False
        self.seen[key] = member.ref
        return True


class _Tree:
    """One tree on its way to its end. Members found stay held until :meth:`close`."""

    def __init__(self, handle: ProcessHandle, hurry: asyncio.Future[None] | None, whole: bool) -> None:
        self.handle = handle
        self.whole = whole and handle.containment not in (Containment.NONE, Containment.GROUP)
        self.ending = Ending()
        self.hurry = hurry
        self.loop = asyncio.get_running_loop()
        self.held: dict[tuple[int, int], Member] = {}
        self.gone = Latch(loop=self.loop)
        handle.on_exit(lambda _: self.gone.open())

    def signal(self, signum: int) -> None:
        """To the group at once, and to every member known to be outside it."""
        handle = self.handle
        done = handle.signal_group(signum)
        for member in self.held.values():
            if member.escaped or handle.exit is not None:
                done = member.send_signal(signum) or done
        if done and signum != signal.SIGCONT:
            self.ending.sent(signum)

    async def look(self) -> bool:
        """One pass for members; holds the new ones. ``True`` when anybody lives besides the leader."""
        anybody = False
        for member in await self._members():
            if member.escaped and not self.whole:
                member.close()
                continue
            anybody = True
            key = (member.ref.pid, member.ref.started)
            self.ending.saw(member)
            if key in self.held:
                member.close()
            else:
                self.held[key] = member
        return anybody

    async def _members(self) -> Sequence[Member]:
        while True:
            try:
                members = await self.handle.members()
            except asyncio.CancelledError:
                continue  # see end_tree
            except OSError:  # what could not be looked through is no proof
                self.ending.verified = False
                return ()
            self.ending.verified = True
            return members

    async def all_gone(self, deadline: float, *, leader_only: bool = False) -> bool:
        """Waits until the leader and every held member have ended, at most until ``deadline``."""
        latches = [self.gone]
        for member in () if leader_only else self.held.values():
            latch = Latch(loop=self.loop)
            member.on_exit(latch.open)
            latches.append(latch)
        waiting: list[asyncio.Future[None]] = [latch for latch in latches if not latch.done()]
        gathered = Latch(loop=self.loop)
        left = len(waiting)

        def one_less(_: object) -> None:
            nonlocal left
            left -= 1
            if not left:
                gathered.open()

        for future in waiting:
            future.add_done_callback(one_less)
        if not waiting:
            gathered.open()
        hurry: Callable[[object], None] = lambda _: gathered.open()  # noqa: E731
        if self.hurry is not None:
            self.hurry.add_done_callback(hurry)
        try:
            while not gathered.done() and self.loop.time() < deadline:
                try:
                    await wait_until(gathered, deadline)
                except asyncio.CancelledError:
                    continue  # see end_tree
        finally:
            if self.hurry is not None:
                self.hurry.remove_done_callback(hurry)
        return not left

    def release(self) -> None:
        """Lets go of everybody held."""
        for member in self.held.values():
            member.close()
        self.held.clear()


async def end_tree(
    handle: ProcessHandle,
    *,
    stop_signal: int | None,
    grace: float,
    hurry: asyncio.Future[None] | None = None,
    whole: bool = True,
    kill_bound: float = KILL_BOUND,
) -> Ending:
    """Ends the child and all that is proven to be of its tree.

    Args:
        handle: the child.
        stop_signal: what asks it to end; ``None`` goes straight to SIGKILL.
        grace: seconds between the two.
        hurry: when this future is done, the grace period is over.
        whole: ``False`` leaves alone what has left the process group, as at a natural exit.
        kill_bound: seconds that SIGKILL may take to show.

    Cancellation: absorbed. A program that ends by cancelling all of its tasks cancels this one too, which
        must not leave the tree half ended; it carries its own bound. Run it inside ``finish``.
    """
    tree = _Tree(handle, hurry, whole)
    try:
        if stop_signal is not None and grace > 0 and await _ask(tree, stop_signal, grace):
            return tree.ending
        await _force(tree, kill_bound)
        return tree.ending
    finally:
        tree.release()


async def _ask(tree: _Tree, stop_signal: int, grace: float) -> bool:
    """TERM and CONT to all of the tree, then the grace period; ``True`` when nothing is left after it."""
    deadline = tree.loop.time() + grace
    if tree.handle.exit is not None:
        await tree.look()  # without its leader a group may have to be signalled one by one
    since = boot_ticks()
    tree.signal(stop_signal)
    tree.signal(signal.SIGCONT)  # a stopped process cannot act on a pending signal
    asked: set[tuple[int, int]] = set()
    while True:
        if tree.whole:
            await tree.look()
            _ask_members(tree, stop_signal, asked, None)
            await tree.all_gone(deadline, leader_only=True)
            if tree.handle.exit is not None:
                _ask_members(tree, stop_signal, asked, since)
        if not await tree.all_gone(deadline):
            return False
        tree.release()
        if not await _anybody(tree):
            return True
        if tree.hurry is not None and tree.hurry.done():
            return False


def _ask_members(tree: _Tree, stop_signal: int, asked: set[tuple[int, int]], since: int | None) -> None:
    """Asks, once each, those outside the group, and those that began after ``since``, when the group was asked.

    The latter only when the leader has ended: while it lives they may be what it cleans up with.
    """
    for key, member in tree.held.items():
        late = since is not None and member.ref.started >= since
        if key not in asked and (member.escaped or late):
            asked.add(key)
            if member.send_signal(stop_signal):
                member.send_signal(signal.SIGCONT)
                tree.ending.sent(stop_signal)


async def _anybody(tree: _Tree) -> bool:
    """Whether anything of the tree is left, by the strongest proof the rung in force has."""
    handle = tree.handle
    if handle.containment is Containment.NONE:
        return handle.exit is None
    if not tree.whole and not handle.signal_group(0):
        return False
    if await tree.look():
        return True
    # Where there were members, look twice: one that forked and ended under the first look may have hidden the other.
    return bool(tree.ending.seen) and await tree.look()


async def _force(tree: _Tree, kill_bound: float) -> None:
    """SIGKILL until a look finds nobody, within ``kill_bound``."""
    handle, ending = tree.handle, tree.ending
    tree.hurry = None
    deadline = tree.loop.time() + kill_bound
    for _ in range(_PASSES):
        if tree.whole and handle.kill_container():
            ending.sent(signal.SIGKILL)
        tree.signal(signal.SIGKILL)
        for member in tree.held.values():
            member.send_signal(signal.SIGKILL)
        ending.forced = ending.forced or "SIGKILL" in ending.signalled
        gone = await tree.all_gone(deadline)
        tree.release()
        if not await _anybody(tree) and handle.exit is not None:
            return
        if not gone or tree.loop.time() > deadline:
            break
    ending.survived = [member.ref for member in tree.held.values()]
    if handle.exit is None:
        ending.survived.insert(0, handle.ref)
