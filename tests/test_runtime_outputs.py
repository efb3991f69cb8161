"""The window of outputs: what subscribers of the wire are given, from where, and what they are told is gone."""

import asyncio
import struct

import numpy as np
import pytest

import bitactor as ba
from bitactor.protocol.errors import Code, ProtocolError
from bitactor.protocol.messages import Outputs, Subscribe, decode_message
from bitactor.runtime.outputs import OutputHub

app = ba.App("hub")
number = app.kind("number", 1, value="u8")
even = app.kind("even", 2, value="u8")
odd = app.kind("odd", 3, value="u8")


@app.actor(number, state={"n": "u8"})
def split(state, signal, emit):
    state.n += 1
    if signal.value % 2 == 0:
        emit(even, signal.key, signal.value)
        emit(even, signal.key, signal.value + 100)
    else:
        emit(odd, signal.key, signal.value)


def numbers(first, count):
    return ba.make_signals(number, key=np.arange(count) % 7, value=np.arange(first, first + count), time=1)


class Peer:
    """Takes what a reader writes; `room`: messages that it takes before it is full."""

    def __init__(self, room=1 << 30):
        self.room = room
        self.messages = []

    def write(self, data):
        message = decode_message(data)
        assert isinstance(message, Outputs)
        self.messages.append(message)
        self.room -= 1
        return self.room > 0

    @property
    def rows(self):
        """(kind, value, position, index) of each row, in order."""
        size = 48
        data = b"".join(message.rows for message in self.messages)
        found = []
        for at in range(0, len(data), size):
            kind, _, _, _, _, value, position, index = struct.unpack_from(">HHIQQQQQ", data, at)
            found.append((kind, value, position, index))
        return found


def expected(first, count, begin=0):
    """What the actor emits for `numbers`, of which the first is at position `begin`."""
    rows = []
    for i in range(count):
        value = first + i
        if value % 2 == 0:
            rows += [(2, value, begin + i, 0), (2, value + 100, begin + i, 1)]
        else:
            rows.append((3, value, begin + i, 0))
    return rows


async def settle(hub, rows):
    async with asyncio.timeout(10):
        while hub.count < rows:
            await asyncio.sleep(0.001)
    await asyncio.sleep(0)


@pytest.fixture
def running():
    """run(body, window): await body(engine, hub) on a loop."""

    def run(body, window=1000, restore=None):
        async def main():
            with ba.Engine(app, clock="records") as engine:
                hub = OutputHub(app, window)
                if restore is not None:
                    hub.restore(restore)
                hub.attach(engine)
                try:
                    return await body(engine, hub)
                finally:
                    hub.close()

        return asyncio.run(main())

    return run


def test_a_live_reader_gets_what_comes_and_another_reads_from_a_place_on(running):
    async def body(engine, hub):
        live, past = Peer(), Peer()
        engine.apply(numbers(0, 100), 1)
        await settle(hub, 150)
        hub.subscribe(Subscribe(1, (2, 3), live=True), live.write)
        engine.apply(numbers(100, 50), 2)
        await settle(hub, 225)
        hub.subscribe(Subscribe(2, (2, 3), 40, 1, live=False), past.write)
        await asyncio.sleep(0.01)
        everything = expected(0, 150)
        assert live.rows == everything[150:]
        assert past.rows == [row for row in everything if row[2:] >= (40, 1)]
        assert {message.id for message in past.messages} == {2}

    running(body)


def test_a_reader_from_a_place_ahead_is_given_nothing_that_comes_before_it(running):
    async def body(engine, hub):
        ahead, never = Peer(), Peer()
        engine.apply(numbers(0, 10), 1)
        await settle(hub, 15)
        hub.subscribe(Subscribe(1, (2, 3), 40, 1, live=False), ahead.write)
        hub.subscribe(Subscribe(2, (2, 3), 2**64 - 1, 2**64 - 1, live=False), never.write)
        for step in range(1, 10):
            engine.apply(numbers(10 * step, 10), 1 + step)
            await settle(hub, 15 * step + 15)
        assert ahead.rows == [row for row in expected(0, 100) if row[2:] >= (40, 1)]
        assert never.rows == []

    running(body)


def test_a_reader_is_given_only_the_kinds_it_asked_for_in_order(running):
    async def body(engine, hub):
        peer = Peer()
        hub.subscribe(Subscribe(1, (3,), live=True), peer.write)
        for i in range(20):
            engine.apply(numbers(1000 * i, 1000), i)
        await settle(hub, 30_000)
        assert peer.rows == [row for row in expected(0, 20_000) if row[0] == 3]

    running(body, window=40_000)


def test_a_peer_that_is_full_is_given_no_more_until_it_resumes(running):
    async def body(engine, hub):
        peer = Peer(room=1)
        reader = hub.subscribe(Subscribe(1, (2, 3), live=True), peer.write)
        engine.apply(numbers(0, 10), 1)
        await settle(hub, 15)
        engine.apply(numbers(10, 10), 2)
        await settle(hub, 30)
        assert len(peer.messages) == 1
        peer.room = 100
        reader.resume()
        assert peer.rows == expected(0, 20)
        reader.close()
        reader.close()
        engine.apply(numbers(20, 10), 3)
        await settle(hub, 45)
        assert peer.rows == expected(0, 20)

    running(body)


@pytest.mark.parametrize("window", [16, 100, 5000])
def test_outputs_that_left_the_window_are_gone_and_a_reader_who_lags_is_told_how_many(running, window):
    async def body(engine, hub):
        slow = Peer(room=1)
        reader = hub.subscribe(Subscribe(1, (2, 3), live=True), slow.write)
        engine.apply(numbers(0, 2), 1)
        await settle(hub, 3)
        for i in range(4):
            engine.apply(numbers(2 + 1999 * i, 1999), 2)
            await settle(hub, 3)
        total = len(expected(0, 2 + 4 * 1999))
        await settle(hub, total)
        everything = expected(0, 2 + 4 * 1999)
        kept = everything[-window:]
        assert hub.first == total - window
        given = len(slow.rows)
        slow.room = 1 << 30
        reader.resume()
        assert slow.rows[:given] == everything[:given]
        assert slow.rows[given:] == kept
        assert slow.messages[-1].dropped == total - window - given
        with pytest.raises(ProtocolError, match="gone") as error:
            hub.subscribe(Subscribe(2, (2, 3), 5, 0, live=False), slow.write)
        assert error.value.code == Code.OUTPUT_GONE
        oldest = Peer()
        hub.subscribe(Subscribe(3, (2, 3), *hub.gone, live=False), oldest.write)
        await asyncio.sleep(0.01)
        assert oldest.rows == kept

    running(body, window=window)


def test_an_exported_window_goes_on_where_it_was(running):
    async def first(engine, hub):
        engine.apply(numbers(0, 300), 1)
        await asyncio.to_thread(engine.flush)
        return await asyncio.to_thread(hub.export)

    exported = running(first, window=100)

    for window in (100, 40, 400):

        async def second(engine, hub, window=window):
            state = min(window, 100)
            peer = Peer()
            hub.subscribe(Subscribe(1, (2, 3), *hub.gone, live=False), peer.write)
            await asyncio.sleep(0.01)
            assert peer.rows == expected(0, 300)[-state:]
            with pytest.raises(ProtocolError, match="gone"):
                hub.subscribe(Subscribe(1, (2, 3), 0, 0, live=False), peer.write)

        running(second, window=window, restore=exported)


def test_kinds_that_no_reader_may_have_are_refused_by_name(running):
    async def body(engine, hub):
        with pytest.raises(ProtocolError, match="'number' is handled by an actor") as error:
            hub.subscribe(Subscribe(1, (1,)), print)
        assert error.value.code == Code.SIGNAL_KIND
        with pytest.raises(ProtocolError, match="kind 9 is not declared"):
            hub.subscribe(Subscribe(1, (2, 9)), print)

    running(body)
