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
from tests.test_engine_property import KINDS, random_app, random_frames

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
