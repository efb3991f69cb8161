"""Where an engine's time goes, and how full its ring is: parts that add up to no more than the whole."""

import threading
import time

import numpy as np
import pytest

import bitactor as ba
from tests.c_actors import CActor, make_app
from tests.test_engine_property import KINDS, OUT

HOP = KINDS[1]


def forwarding(held=None):
    def forward(state, signal, emit, wall):
        if held is not None:
            held.wait(30)
        emit(HOP, int(signal["key"]) + 1, 1.0)
        emit(OUT, int(signal["key"]), 1.0)

    def receive(state, signal, emit, wall):
        state["n"] += 1

    return make_app(
        KINDS,
        [
            CActor("forward", forward, [KINDS[0]], {"n": "u8"}, [HOP, OUT]),
            CActor("receive", receive, [HOP], {"n": "u8"}),
        ],
    )


@pytest.mark.parametrize("shards", [0, 1, 2])
def test_the_parts_of_a_step_add_up_to_no_more_than_the_step(shards):
    begun = time.perf_counter()
    with ba.Engine(forwarding(), shards) as engine:
        engine.send_batch(kind=1, key=np.arange(3000) % 50, value=1.0)
        engine.flush()
        statistics = engine.statistics()
    elapsed = time.perf_counter() - begun
    for shard in statistics.shards:
        parts = shard.dispatch_seconds + shard.emit_seconds + shard.barrier_seconds
        assert 0 < parts <= shard.step_seconds * 1.001
        assert shard.step_seconds + shard.idle_seconds <= elapsed * 1.01
        assert shard.emit_seconds > 0
    # Of two shards the later one does not wait, of one nobody does.
    assert (sum(shard.barrier_seconds for shard in statistics.shards) > 0) == (shards > 1)
    handlers = sum(actor.handler_seconds for actor in statistics.actors)
    assert 0 < handlers <= sum(shard.dispatch_seconds for shard in statistics.shards) * 1.001


def test_the_ring_says_what_it_holds_and_how_much_is_taken():
    held = threading.Event()
    with ba.Engine(forwarding(held), 1, ring_signals=16384) as engine:
        assert (engine.statistics().ring_signals, engine.statistics().ring_used) == (16384, 0)
        engine.send_batch(kind=1, key=np.arange(5000), value=1.0)
        assert engine.statistics().ring_used == 5000
        held.set()
        engine.flush()
        assert engine.statistics().ring_used == 0
    with ba.Engine(forwarding(), 0) as engine:
        assert (engine.statistics().ring_signals, engine.statistics().ring_used) == (0, 0)


def test_an_inline_engine_counts_the_keys_that_are_there_now():
    with ba.Engine(forwarding(), 0) as engine:
        for n in range(1, 600):
            engine.send(1, n, 1.0)
            if n % 97 == 0:
                assert [actor.keys for actor in engine.statistics().actors] == [n, n]
