"""Kill -9 at every crash point and at random moments: state and outputs are the log's, every acknowledged signal once.

Real processes, real TLS, real SQLite; signals are in flight all the time. `make crash` runs it for longer.
"""

import os
import random
import time

import numpy as np

from bitactor import faults
from bitactor.log.snapshots import SnapshotStore
from bitactor.state import EngineState
from bitactor.testing import replay
from tests.service_app import app
from tests.service_oracle import assert_same_state, read_log, stream
from tests.service_process import Producer, Served, number_of

LONG = int(os.environ.get("BITACTOR_CRASH_ROUNDS", "0"))
SEED = int(os.environ.get("BITACTOR_SEED", "0")) or random.SystemRandom().randrange(1 << 32)
KEEP_ALL = {"snapshot_every_s": 0.2, "snapshot_every_signals": 100_000, "snapshot_keep": 1000}
KEEP_ALL["outputs_window"] = 1 << 20
TRUNCATE = ("log.truncate.before", "log.truncate.after")
# How often each point is passed before the one that kills: late enough that signals are in flight.
PASSINGS = {"ingest.decoded": 40, "log.checkpoint.before": 1, "log.checkpoint.after": 1}


def newest_snapshot(served):
    store = SnapshotStore(served.directory / "data" / "snapshots")
    snapshot = store.load(store.latest()[0])
    state = {n.removeprefix("state."): data for n, data in snapshot.sections.items() if n.startswith("state.")}
    return snapshot, EngineState.from_sections(snapshot.meta["state"], state)


def finish(producers, more):
    """Let each producer send `more` signals and end."""
    for producer in producers:
        producer.end_after(more)
    for producer in producers:
        producer.finished()


def check_everything(served, producers):
    """After an orderly stop: the last snapshot, which covers the log, against an inline replay of the log."""
    snapshot, state = newest_snapshot(served)
    truth = read_log(served.directory / "data", app)
    assert snapshot.meta["sequence"] == truth.records
    assert_same_state(state, truth.state)
    outputs = truth.outputs.view([(n, f"u{truth.outputs.dtype[n].itemsize}") for n in truth.outputs.dtype.names])
    assert len(outputs) > 100
    assert bytes(snapshot.sections["outputs"]) == outputs.tobytes()
    for producer in producers:
        got = truth.sent[number_of(producer.label)]
        assert len(got) >= producer.acked >= producer.total
        sent = producer.signals[: len(got)]
        assert got.tobytes() == sent.tobytes(), f"{producer.label}: its signals are not there exactly once"
    assert truth.position == sum(map(len, truth.sent.values()))


def test_the_service_killed_at_each_crash_point_in_turn_loses_and_doubles_nothing(tmp_path):
    print(f"seed {SEED}")
    points = [p for p in faults.POINTS if p not in TRUNCATE]
    random.Random(SEED).shuffle(points)
    with Served(tmp_path, **KEEP_ALL) as served:
        producers = [Producer(served, name, 1_000_000, SEED, frame_max=30) for name in ("a", "b", "c")]
        for producer in producers:
            producer.start()
        for point in points:
            at = f"{point}:{PASSINGS.get(point, 3)}"
            connections = sum(producer.connections for producer in producers)
            while sum(producer.connections for producer in producers) == connections:  # heartbeats alone pass it too
                served.start(at)
                served.died(at)
        served.start()
        served.ready()
        finish(producers, 20_000)
        assert served.stop() == 0
        check_everything(served, producers)


def test_retention_is_safe_to_be_killed_in(tmp_path):
    """One producer, so that the state is a function of its stream alone: the log's beginning is gone in the end."""
    print(f"seed {SEED}")
    total = 300_000
    flags = {"snapshot_every_s": 0.05, "snapshot_every_signals": 5000, "snapshot_keep": 2}
    with Served(tmp_path, **flags) as served:
        producer = Producer(served, "a", total, SEED, frame_max=3000)
        producer.pause_s = 0.002
        producer.start()
        for point in TRUNCATE * 2:
            served.start(point)
            served.died(point)
        served.start()
        served.ready()
        producer.pause_s = 0.0
        producer.finished()
        assert served.stop() == 0
        _, state = newest_snapshot(served)
        wanted = replay(app, stream("a", total)[stream("a", total)["kind"] == 1]).tables["vwap"]
        got = state.actor("vwap")
        assert got.keys.tobytes() == np.asarray(wanted.columns["key"]).tobytes()
        for field in ("notional", "volume", "last"):
            assert got.rows[field].tobytes() == np.asarray(wanted.columns[field]).tobytes()
        assert int(state.actor("notes").rows["n"].sum()) == int((producer.signals["kind"] == 2).sum())


def test_the_service_killed_at_random_moments_loses_and_doubles_nothing(tmp_path):
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    rounds = LONG or 5
    with Served(tmp_path, **KEEP_ALL) as served:
        producers = [Producer(served, name, 1_000_000, SEED, frame_max=30) for name in ("a", "b", "c", "d")]
        for producer in producers:
            producer.start()
        for turn in range(rounds):
            served.start()
            if turn and chance.random() < 0.4:  # while it starts or recovers
                time.sleep(chance.random() * 1.0)
            else:
                served.ready()
                chance.choice(producers).acknowledged()
                time.sleep(chance.random() * (1.0 if LONG else 0.5))
            served.kill()
        served.start()
        said = served.ready()
        assert said["position"] > 0
        finish(producers, 10_000)
        assert served.stop() == 0
        check_everything(served, producers)
