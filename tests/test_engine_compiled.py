"""Compiled Python handlers through the whole engine: the documented example, and one app whose actors feed each other.

The same signals give the same tables and outputs for any number of shards and any secret, and with handlers that run
as Python (BITACTOR_JIT=off).
"""

from pathlib import Path

import numpy as np
import pytest

import bitactor as ba

app = ba.App("compiled")
trade = app.kind("trade", 1, value="f8", aux="u4")
hop = app.kind("hop", 2, value="i8")
alert = app.kind("alert", 3, value="f8")


@app.actor(trade, state={"sum": "f8", "last": "f8", "n": "u8"})
def drift(state, signal, emit):
    state.n += 1
    state.sum = state.sum * 0.5 + signal.value
    if signal.value < 0.01:
        raise ValueError("too small")
    if state.n % 3 == 0:
        emit(hop, signal.key * 7 % 101, int(state.sum * 1000), aux=2)
    if signal.value > 1.5 * state.last:
        emit(alert, signal.key, state.sum)
    state.last = signal.value


@app.actor(hop, trade, state={"hash": "i8", "hops": "u4"}, keys_max=64 * 3)
def relay(state, signal, emit):
    if signal.kind == hop:
        state.hash = state.hash * 31 + signal.value
        state.hops += 1
        if signal.aux > 0:
            emit(hop, signal.key + 1, state.hash, aux=signal.aux - 1)
    else:
        state.hash = state.hash ^ signal.aux


def signals(n=4000, seed=3):
    rng = np.random.default_rng(seed)
    return ba.make_signals(trade, rng.integers(0, 300, n), rng.random(n), rng.integers(0, 100, n), np.arange(n))


def run(shards, secret, batch):
    with ba.Engine(app, shards, secret=secret, frame_signals=512) as engine:
        outputs = engine.subscribe([alert, hop], capacity=1 << 18)
        assert engine.send_batch(batch) == len(batch)
        engine.flush()
        read = []
        while len(some := outputs.read(timeout=0)):
            read.append(some)
        counts = engine.statistics()
        assert counts.conserved
        return (
            engine.table(drift).to_numpy().tobytes(),
            engine.table(relay).to_numpy().tobytes(),
            np.concatenate(read).tobytes(),
            counts.dropped,
            counts.emits_dropped,
        )


@pytest.mark.parametrize("shards", [1, 2, 7])
def test_compiled_actors_that_feed_each_other_give_the_same_bits_for_any_shards_and_secret(shards):
    batch = signals()
    inline = run(0, (1, 2), batch)
    assert inline[3]["raised"] > 10
    assert inline[4]["key_cap"] > 10
    assert run(shards, (3, 4), batch) == inline


def test_handlers_run_as_python_give_the_same_bits_through_the_engine(monkeypatch):
    batch = signals(600)
    compiled = run(1, (1, 2), batch)
    monkeypatch.setenv("BITACTOR_JIT", "off")
    assert run(0, (1, 2), batch) == compiled
    assert run(2, (5, 6), batch) == compiled


def test_a_dead_letter_names_the_line_that_raised():
    with ba.Engine(app, 0) as engine:
        engine.send(trade, 1, 0.001)
        (letter,) = engine.dead_letters()
        assert letter.filename == __file__
        assert letter.message == "ValueError: too small"
        assert Path(__file__).read_text().splitlines()[letter.line - 1].strip() == 'raise ValueError("too small")'
        assert engine.state(drift, 1).n == 0


def test_the_documented_example_gives_what_it_says():
    market = ba.App("market")
    bought = market.kind("trade", 1, value="f8", aux="u4")
    jump = market.kind("alert", 2, value="f8")

    @market.actor(bought, state={"notional": "f8", "volume": "f8", "last": "f8"}, expire_after="1d")
    def vwap(state, signal, emit):
        state.notional += signal.value * signal.aux
        state.volume += signal.aux
        if state.last > 0 and signal.value > 1.05 * state.last:
            emit(jump, signal.key, signal.value)
        state.last = signal.value

    with ba.Engine(market) as engine:
        jumps = engine.subscribe(jump)
        engine.send_batch(kind=bought, key=[42, 42, 7], value=[100.0, 110.0, 5.0], aux=[1, 2, 3])
        engine.flush()
        assert engine.state(vwap, key=42).notional == 320.0
        assert dict(engine.state(vwap, 7)) == {"notional": 15.0, "volume": 3.0, "last": 5.0}
        assert sorted(engine.table(vwap).columns["key"]) == [7, 42]
        (only,) = jumps.read(timeout=5)
        assert (only["key"], only["value"], only["position"], only["index"]) == (42, 110.0, 1, 0)
