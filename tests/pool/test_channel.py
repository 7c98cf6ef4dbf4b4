"""Our end of the channel to a function worker, over a real socket pair."""

from __future__ import annotations

import array
import asyncio
import os
import pickle
import socket

import pytest

from procession.pool._channel import Channel, Parcel

pytestmark = [pytest.mark.both_loops, pytest.mark.row("PO9")]


async def exchanged(buffers):
    """Sends each buffer in a frame of its own; returns what came out of it, as it was handed over."""
    loop = asyncio.get_running_loop()
    here, there = (Channel(end, loop, 1 << 30) for end in socket.socketpair())
    came = []
    done = loop.create_future()

    def on_frame(kind, id, number, pickled, parts):
        came.append((id, bytes(pickled), *parts))
        if len(came) == len(buffers):
            done.set_result(None)

    there.open(on_frame, lambda problem: done.set_exception(AssertionError(problem)))
    for id, buffer in enumerate(buffers):
        here.send(1, id, 0, Parcel(b"pickle", [pickle.PickleBuffer(buffer)]))
    await done
    here.close()
    there.close()
    return came


async def test_large_frames_of_all_sizes_come_out_as_they_went_in():
    sizes = (1 << 20, 70_000, 1 << 20, 5 << 20, 1 << 19, 100, 3 << 20, 1 << 20)
    sent = [os.urandom(size) for size in sizes]
    came = await exchanged(sent)
    assert [(id, pickled) for id, pickled, _ in came] == [(id, b"pickle") for id in range(len(sizes))]
    assert [data for _, _, data in came] == sent
    assert all(type(data) is bytes for _, _, data in came)


async def test_what_was_handed_over_is_not_written_over_by_the_next_frame():
    sent = [array.array("Q", os.urandom(1 << 18)) for _ in range(4)]  # no bytes: these are received in place
    mixed = [sent[0], bytes(1 << 18), sent[1], bytearray(b"x" * (1 << 18)), sent[2], sent[3]]
    came = [data for *_, data in await exchanged(mixed)]
    assert [bytes(data) for data in came] == [bytes(buffer) for buffer in mixed]
    assert type(came[3]) is bytearray
