"""Waiting for a state: no polling, no lost wake-up, no waiting for what cannot come."""

from __future__ import annotations

import asyncio

import pytest

from procession._types import Exit, ProcessState
from procession.errors import Closed, ConfigError, InvalidTransition, NotFound

pytestmark = pytest.mark.both_loops

S = ProcessState


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_it_returns_at_once_in_the_state(registry, start):
    entry = start("a")
    assert await registry.wait_for("a", S.RUNNING) is entry.record
    entry.exited(Exit(0))
    assert await registry.wait_for("a", "exited") is entry.record


async def test_it_waits_for_one_of_several(registry, start):
    entry = start("a", spawned=False)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(registry.wait_for("a", S.EXITED, S.FAILED))
        await settle()
        assert not waiting.done()
        entry.failed("no such program")
    assert waiting.result().state is S.FAILED


async def test_a_state_passed_through_is_not_missed(registry, start):
    entry = start("a")
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(registry.wait_for("a", S.STOPPING))
        await settle()
        entry.to(S.STOPPING)
        entry.exited(Exit(0))
    assert waiting.result().state is S.EXITED


async def test_it_is_told_in_the_loop_turn_of_the_move(registry, start):
    entry = start("a")
    loop = asyncio.get_running_loop()
    order = []

    async def wait() -> None:
        await registry.wait_for("a", S.EXITED)
        order.append("told")

    async with asyncio.TaskGroup() as group:
        group.create_task(wait())
        await settle()
        entry.exited(Exit(0))
        loop.call_soon(lambda: loop.call_soon(order.append, "two turns later"))
        await settle()
    assert order == ["told", "two turns later"]


async def test_an_end_in_another_state_raises_with_the_story(registry, start):
    entry = start("a")
    waiting = asyncio.ensure_future(registry.wait_for("a", S.SUSPENDED, S.STOPPING))
    await settle()
    entry.exited(Exit(-9))
    with pytest.raises(InvalidTransition) as caught:
        await waiting
    assert (caught.value.id, caught.value.old, caught.value.new) == ("a", "exited", "stopping or suspended")
    assert caught.value.story == ("running", "exited: SIGKILL")
    with pytest.raises(InvalidTransition):
        await registry.wait_for("a", S.RUNNING)


async def test_bad_questions(registry, start):
    start("a")
    with pytest.raises(NotFound):
        await registry.wait_for("nobody", S.RUNNING)
    with pytest.raises(ConfigError):
        await registry.wait_for("a")
    with pytest.raises(ConfigError):
        await registry.wait_for("a", "dead")


async def test_a_cancelled_waiter_harms_nobody_and_leaves_nothing(registry, start):
    entry = start("a")
    waiting = [asyncio.ensure_future(registry.wait_for("a", S.EXITED)) for _ in range(3)]
    await settle()
    waiting[0].cancel()
    await settle()
    entry.exited(Exit(0))
    waiting[1].cancel()  # already told, not yet run
    await settle()
    assert [task.cancelled() for task in waiting] == [True, True, False]
    assert waiting[2].result() is entry.record
    assert not registry._ledger._waiters


async def test_closing_the_registry_lets_everybody_go(registry, start):
    start("a")
    async with registry:
        waiting = asyncio.ensure_future(registry.wait_for("a", S.EXITED))
        await settle()
    with pytest.raises(Closed):
        await waiting
    with pytest.raises(Closed):
        await registry.wait_for("a", S.EXITED)
    assert (await registry.wait_for("a", S.RUNNING)).id == "a"


async def test_an_id_used_again_does_not_disturb_who_waited_for_the_first(registry, start):
    first = start("a")
    waiting = asyncio.ensure_future(registry.wait_for("a", S.EXITED))
    await settle()
    first.exited(Exit(0))
    start("a")
    again = asyncio.ensure_future(registry.wait_for("a", S.SUSPENDED))
    await settle()
    assert waiting.result() is first.record
    assert not again.done()
    again.cancel()
    await settle()
    assert not registry._ledger._waiters
