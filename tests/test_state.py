"""State out of one engine and into another: whatever happens afterwards is the same, bit for bit, as if nothing had.

Random apps are those of test_engine_property.py: feedback over waves, raising handlers, expiry, key caps.
BITACTOR_SEED=n replays one seed; without it the seeds are those below and a new one.
"""

import json
import os
import random
import threading

import numpy as np
import pytest

import bitactor as ba
from bitactor.state import EngineState
from bitactor.testing import FakeClock, TestEngine
from tests.c_actors import CActor, make_app
from tests.test_engine_property import KINDS, OUT, random_app, random_frames

SEEDS = [int(os.environ["BITACTOR_SEED"])] if "BITACTOR_SEED" in os.environ else [*range(1, 7), random.randrange(2**32)]
START = 1_700_000_000_000_000_000


def records(seed, count=24):
    """(signals, wall time) of random records; every fourth or so is empty, and many expire what is there."""
    rng = np.random.default_rng(seed)
    wall = START
    for frame, seconds in random_frames(seed, count):
        wall += int(seconds * 0.4e9)
        yield (frame[:0] if rng.random() < 0.25 else frame), wall


def apply_all(engine, some):
    for signals, wall in some:
        engine.apply(signals, wall)
        engine._collect()


def same_state(a, b):
    """Whether two EngineStates are equal, bit for bit; the assertion names what differs."""
    (meta, arrays), (other_meta, other_arrays) = a.to_sections(), b.to_sections()
    assert meta == other_meta
    for (name, array), (other_name, other) in zip(arrays, other_arrays, strict=True):
        assert name == other_name
        assert array.tobytes() == other.tobytes(), name


def through_sections(state):
    """The state as a snapshot file gives it back: JSON, and bytes that nobody may write."""
    meta, sections = state.to_sections()
    return EngineState.from_sections(json.loads(json.dumps(meta)), {name: array.tobytes() for name, array in sections})


def engine_of(seed, shards, secret):
    return TestEngine(random_app(seed), shards=shards, secret=secret, clock=FakeClock(START))


@pytest.mark.parametrize("seed", SEEDS)
def test_an_imported_state_goes_on_bit_for_bit_whatever_the_shards_and_secret(seed):
    print(f"BITACTOR_SEED={seed}")
    steps = list(records(seed))
    rng = random.Random(seed)
    with engine_of(seed, 0, (1, 2)) as whole:
        apply_all(whole, steps)
        expected, outputs = whole.export_state(), whole.outputs()
    at = sorted(rng.sample(range(len(steps) + 1), 3))
    state, made = None, []
    # A chain: each engine takes over from the one before it, at a place of its own.
    for begin, end, shards in zip([0, *at], [*at, len(steps)], rng.sample([0, 1, 2, 3, 7], 4), strict=True):
        with engine_of(seed, shards, (rng.random().hex().__hash__() & 0xFFFF, 9)) as engine:
            if state is not None:
                engine.import_state(state)
                same_state(engine.export_state(), state)
                boundary = (state.position, state.counters["steps"], state.counters["waves"])
                assert {(s.position, s.steps, s.waves) for s in engine.statistics().shards} == {boundary}
            apply_all(engine, steps[begin:end])
            state = through_sections(engine.export_state())
            made.append(engine.outputs())
            assert engine.statistics().conserved
    same_state(state, expected)
    assert np.concatenate(made).tobytes() == outputs.tobytes()


def trades(keys, value=1.0):
    return ba.make_signals(1, keys, value, 1, 7)


def test_try_apply_never_waits_and_says_whether_the_record_is_in():
    held = threading.Event()

    def slow(state, signal, emit, wall):
        held.wait(30)
        state["n"] += 1

    app = make_app(KINDS, [CActor("slow", slow, [KINDS[0]], {"n": "u8"})])
    with ba.Engine(app, 1, ring_signals=16384, clock="records") as engine:
        record = trades(np.zeros(8192, "u8"))
        assert engine.try_apply(record, 1)
        assert engine.try_apply(record, 2)
        assert not engine.try_apply(record, 3)  # the ring is full
        assert not engine.try_apply(trades(np.zeros(8193, "u8")), 3)
        assert engine.statistics().accepted == 2 * 8192
        held.set()
        engine.flush()
        assert engine.try_apply(record, 3)
        engine.flush()
        assert engine.state("slow", 0).n == 3 * 8192


def counting(name="count", **settings):
    def count(state, signal, emit, wall):
        state["n"] += 1
        emit(OUT, signal["key"], float(state["n"]))

    return make_app(KINDS, [CActor(name, count, [KINDS[0]], {"n": "u8"}, [OUT], **settings)])


def engine_with(app, shards=1):
    return TestEngine(app, shards=shards, clock=FakeClock(START))


EMPTY = np.empty(0, ba.SIGNAL_DTYPE)


@pytest.mark.parametrize("shards", [0, 1, 2])
def test_a_record_is_applied_in_steps_of_8192_signals_with_one_wall_time(shards):
    record = trades(np.arange(20_000) % 97)
    with engine_with(counting(), shards) as engine:
        engine.apply(record, START + 5)
        statistics = engine.statistics()
        assert statistics.steps == 3
        state = engine.export_state()
        assert (state.position, state.wall_ns) == (20_000, START + 5)
        outputs = engine.outputs()
        assert outputs["position"].tolist() == list(range(20_000))


@pytest.mark.parametrize("shards", [0, 1, 2])
def test_heartbeats_alone_make_expiry_visible_to_queries(shards):
    with engine_with(counting(idle_ns=10**9), shards) as engine:
        engine.apply(trades(range(100)), START)
        for tenth in range(1, 10):
            engine.apply(EMPTY, START + tenth * 10**8)
            assert engine.state("count", 3).n == 1
            assert len(engine.table("count")) == 100
        engine.apply(EMPTY, START + 11 * 10**8)
        assert engine.state("count", 3) is None
        assert len(engine.table("count")) == 0
        statistics = engine.statistics()
        assert (statistics.expired, statistics.steps, statistics.position) == (100, 1, 100)
        assert statistics.conserved


def test_a_heartbeat_moves_wall_time_where_nothing_expires_too():
    with engine_with(counting()) as engine:
        engine.apply(trades([1]), START)
        engine.apply(EMPTY, START + 77)
        assert engine.export_state().wall_ns == START + 77


def test_apply_takes_only_whole_signals_at_a_wall_time_that_never_goes_back():
    with engine_with(counting()) as engine:
        engine.apply(trades([1]), START + 10)
        with pytest.raises(ValueError, match="never goes back"):
            engine.apply(trades([1]), START + 9)
        with pytest.raises(TypeError, match="is not a signal dtype"):
            engine.apply(np.zeros(4), START + 10)
        with pytest.raises(TypeError, match="one contiguous dimension"):
            engine.apply(trades(range(8))[::2], START + 10)
        unknown = trades(range(3))
        unknown["kind"][2] = 99
        with pytest.raises(ba.SignalError, match="signal 2: kind 99 is not declared"):
            engine.apply(unknown, START + 10)
        engine.flush()
        assert engine.statistics().accepted == 1
    with ba.Engine(counting(), 0) as engine, pytest.raises(RuntimeError, match='made with clock="records"'):
        engine.apply(trades([1]), START)


def test_apply_and_export_inside_a_handler_are_errors_and_not_a_deadlock():
    said = []

    def handler(state, signal, emit, wall):
        for call in (lambda: engine.apply(EMPTY, START), lambda: engine.apply(trades([1]), START), engine.export_state,
                     lambda: engine.erase(1)):  # fmt: skip
            try:
                call()
            except RuntimeError as error:
                said.append(str(error))

    app = make_app(KINDS, [CActor("a", handler, [KINDS[0]], {"n": "u8"}, idle_ns=10**9)])
    for shards in (0, 1):
        with engine_with(app, shards) as engine:
            engine.apply(trades([1]), START)
            engine.flush()
    assert len(said) == 8
    assert all("inside a handler" in words for words in said)


@pytest.mark.parametrize("shards", [0, 2])
def test_an_erased_key_is_gone_and_the_others_stay_in_dense_order(shards):
    with engine_with(counting(), shards) as engine, engine_with(counting(), 1) as other:
        for each in (engine, other):
            each.apply(trades(range(500)), START)
            assert [each.erase(key) for key in (7, 7, 499, 5000)] == [1, 0, 1, 0]
            assert each.state("count", 7) is None
            assert len(each.table("count")) == 498
            each.apply(trades([7]), START)
            assert each.state("count", 7).n == 1
        same_state(engine.export_state(), other.export_state())


def test_a_key_that_is_due_counts_as_absent_when_it_is_erased():
    with engine_with(counting(idle_ns=10**9)) as engine:
        engine.apply(trades(range(100)), START)
        engine.apply(trades([1000]), START + 2 * 10**9)
        assert engine.erase(1) == 0
        assert engine.erase(1000) == 1


def test_a_state_exported_beside_senders_holds_whole_steps_and_every_count():
    stop = threading.Event()
    with ba.Engine(counting(), 2) as engine:

        def send():
            while not stop.is_set():
                engine.send_batch(trades(np.arange(64)))

        threads = [threading.Thread(target=send) for _ in range(2)]
        for thread in threads:
            thread.start()
        states = [engine.export_state() for _ in range(20)]
        stop.set()
        for thread in threads:
            thread.join()
        for state in states:
            state.check()
            assert state.position % 64 == 0
            assert state.counters["accepted"] == state.position
            assert state.actors[0].rows["n"].sum() == state.position
        assert [s.position for s in states] == sorted(s.position for s in states)


def test_a_closed_engine_exports_what_it_ended_with_and_imports_nothing():
    engine = ba.Engine(counting(), 2, clock="records")
    engine.apply(trades(range(1000)), START)
    engine.close()
    state = engine.export_state()
    assert state.position == 1000
    with pytest.raises(ba.ClosedError):
        engine.import_state(state)
    with pytest.raises(ba.ClosedError):
        engine.erase(1)


def test_outputs_and_senders_go_on_from_the_imported_position():
    with engine_with(counting()) as engine:
        engine.apply(trades(range(50)), START)
        state = engine.export_state()
    for shards in (0, 1, 2):
        with engine_with(counting(), shards) as other:  # it has subscribed already, at position 0
            other.import_state(state)
            other.apply(trades(range(50)), START)
            outputs = other.outputs()
            assert outputs["position"].tolist() == list(range(50, 100))
            assert set(outputs["value"]) == {2.0}
            assert other.statistics().conserved


def test_tick_means_are_of_the_signals_that_this_engine_timed():
    with engine_with(counting()) as engine:
        engine.apply(trades(range(50)), START)
        state = engine.export_state()
    with engine_with(counting()) as other:
        other.import_state(state)
        of = other.statistics().actors[0]
        assert of.signals == 50
        assert of.ticks.mean == 0.0
        assert other.statistics().kinds[0].signals == 50
        other.apply(trades(range(50)), START)
        other.flush()
        assert other.statistics().actors[0].signals == 100
        assert other.statistics().actors[0].ticks.mean > 0


def test_a_state_goes_only_into_a_fresh_engine():
    with engine_with(counting()) as engine:
        engine.apply(trades(range(50)), START)
        with pytest.raises(RuntimeError, match="fresh engine"):
            engine.import_state(engine.export_state())
        assert engine.state("count", 1).n == 1


def test_prepared_buffers_serve_one_export_and_grow_when_keys_came():
    with engine_with(counting()) as engine:
        engine.apply(trades(range(100)), START)
        buffers = engine.prepare_export()
        state = engine.export_state(buffers)
        assert len(state.actors[0]) == 100
        assert state.actors[0].keys.base is not None  # a part of what was prepared
        with pytest.raises(ValueError, match="hold a state already"):
            engine.export_state(buffers)
        buffers = engine.prepare_export()
        engine.apply(trades(range(50_000)), START)
        state = engine.export_state(buffers)
        assert len(state.actors[0]) == 50_000
        same_state(state, engine.export_state())
