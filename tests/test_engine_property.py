"""The same signals give the same states, outputs and counts, bit for bit, whatever the shards and the hash secret.

Random apps: non-commutative handlers, sums of floats in order, raising handlers, emits to other keys two and more waves
deep, expiry, key caps. BITACTOR_SEED=n replays one seed; without it the seeds are those below and a new one.
"""

import os
import random
import threading

import numpy as np
import pytest

import bitactor as ba
from bitactor.schema import Kind
from bitactor.testing import FakeClock, TestEngine, assert_same, results_of
from tests.c_actors import CActor, make_app

SEEDS = [int(os.environ["BITACTOR_SEED"])] if "BITACTOR_SEED" in os.environ else [*range(1, 9), random.randrange(2**32)]
KINDS = tuple(Kind(f"k{n}", n, "f8", "u4") for n in range(1, 6))
OUT = KINDS[4]
MASK = 2**64 - 1


def random_actor(rng, number, kinds):
    """An actor whose result depends on order and that emits to later kinds (or, rarely, to earlier ones: feedback)."""
    targets = [k for k in KINDS[number + 1 :] if rng.random() < 0.7]
    if rng.random() < 0.3:
        targets.append(rng.choice(KINDS[:4]))
    raises, fan, spread = rng.choice([0, 0, 7, 13]), rng.choice([1, 1, 2]), rng.choice([1, 37])

    def handler(state, signal, emit, wall):
        state["n"] += 1
        state["sum"] = state["sum"] * 1.000001 + signal["value"]
        state["mix"] = (int(state["mix"]) * 31 + int(signal["aux"]) + int(signal["key"])) & MASK
        for target in targets:
            if signal["aux"] > 0 and int(state["mix"]) % 3 == 0:
                for i in range(fan):
                    key = (int(signal["key"]) * 5 + spread * i) % 97
                    emit(target, key, float(state["sum"]), int(signal["aux"]) - 1, int(signal["time"]))
        if raises and int(state["mix"]) % raises == 0:
            raise ValueError(raises)

    cap, idle = rng.choice([0, 0, 1]), rng.choice([0, 0, 10**9])
    state = {"n": "u8", "sum": "f8", "mix": "u8"}
    return CActor(f"actor{number}", handler, kinds, state, targets, cap=cap, idle_ns=idle)


def random_app(seed):
    rng = random.Random(seed)
    return make_app(KINDS, [random_actor(rng, n, [KINDS[n]]) for n in range(rng.choice([2, 3, 4]))])


def random_frames(seed, count=12):
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(count):
        n = int(rng.integers(1, 120))
        frame = ba.make_signals(1, rng.integers(0, 97, n), rng.normal(size=n), rng.integers(0, 4, n), 7)
        frame["kind"] = rng.choice([1, 1, 1, 2, 5], n)
        frames.append((frame, int(rng.integers(0, 3))))
    return frames


def run(seed, frames, shards, secret):
    with TestEngine(random_app(seed), shards=shards, secret=secret, clock=FakeClock()) as engine:
        for frame, seconds in frames:
            engine.flush()  # time moves between steps that are done, so that every run has the same wall times
            engine.advance(seconds * 0.4)
            engine.send_batch(frame)
        engine.flush()
        return results_of(engine)


@pytest.mark.parametrize("seed", SEEDS)
def test_states_outputs_and_drops_are_the_same_for_any_shards_and_secret(seed):
    print(f"BITACTOR_SEED={seed}")
    frames = random_frames(seed)
    inline = run(seed, frames, 0, (1, 2))
    for shards, secret in [(0, (3, 4)), (1, (1, 2)), (2, (1, 2)), (2, (9, 9)), (7, (5, 6))]:
        assert_same(inline, run(seed, frames, shards, secret))


def test_the_random_apps_do_what_they_are_meant_to():
    outputs, waves, expired, dropped = 0, 0, 0, {}
    for seed in range(1, 9):
        with TestEngine(random_app(seed)) as engine:
            for frame, seconds in random_frames(seed):
                engine.advance(seconds * 0.4)
                engine.send_batch(frame)
            made = engine.outputs()
            outputs += len(made)
            waves = max(waves, int((made["index"] >> np.uint64(32)).max()) + 1)
            statistics = engine.statistics()
            expired += statistics.expired
            for reason, n in statistics.dropped.items():
                dropped[reason] = dropped.get(reason, 0) + n
    assert outputs > 100
    assert waves >= 3  # the step itself and two waves after it
    assert expired > 0
    assert dropped["raised"] > 0
    assert dropped["key_cap"] > 0


@pytest.mark.parametrize("shards", [1, 2])
def test_two_producers_give_what_a_replay_of_the_order_admitted_gives(shards):
    """Each signal is logged outwards with its position; sorted by it, they are the order in which they came."""
    kind, log = KINDS[0], OUT

    def handler(state, signal, emit, wall):
        state["sum"] = state["sum"] * 1.5 + signal["value"]
        emit(log, signal["key"], float(signal["value"]), int(signal["aux"]), int(signal["time"]))

    def app():
        return make_app(KINDS, [CActor("ordered", handler, [kind], {"sum": "f8"}, [log])])

    with TestEngine(app(), shards=shards) as engine:

        def produce(producer):
            for step in range(20):
                engine.send_batch(kind=kind, key=np.arange(20) % 7, value=np.full(20, producer + step), aux=producer,
                                  time=np.arange(20) + step * 20)  # fmt: skip

        threads = [threading.Thread(target=produce, args=(p,)) for p in (1, 2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        logged = engine.outputs(log)
        assert logged["position"].tolist() == list(range(800))
        for producer in (1, 2):
            assert logged["time"][logged["aux"] == producer].tolist() == list(range(400))
        table = engine.table("ordered").to_numpy()
    with TestEngine(app()) as replayed:
        replayed.send_batch(kind=kind, key=logged["key"], value=logged["value"], aux=logged["aux"], time=logged["time"])
        assert replayed.table("ordered").to_numpy().tobytes() == table.tobytes()
