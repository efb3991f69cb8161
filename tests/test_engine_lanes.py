"""Engines of lanes: what they refuse, and what actors emit to keys of other lanes, against a plain model of all lanes.

BITACTOR_SEED=n replays one seed; without it the seeds are those below and a new one.
"""

import os
import random
from collections import Counter

import numpy as np
import pytest

import bitactor as ba
from bitactor._core._codec import partition
from bitactor.signals import lanes_of
from bitactor.state import EngineState, StateError

SEEDS = [int(os.environ["BITACTOR_SEED"])] if "BITACTOR_SEED" in os.environ else [1, 2, 3, random.randrange(2**32)]
KEYS = 40
MASK = 2**64 - 1


def make_app():
    """`walk` passes signals on as often as aux says, to keys that follow from its state; `tally` tells what it got."""
    app = ba.App("lanes")
    start = app.kind("start", 1, value="u8")
    hop = app.kind("hop", 2, value="u8")
    told = app.kind("told", 3, value="u8")

    @app.actor(start, hop, state={"mix": "u8", "n": "u8"})
    def walk(state, signal, emit):
        state.n += 1
        state.mix = (state.mix * 31 + signal.value * 7 + signal.key) % 1000003
        if state.mix % 11 == 0:
            raise ValueError("eleven")
        if signal.aux > 0:
            emit(hop, state.mix % 40, state.mix, aux=signal.aux - 1)
            if state.mix % 3 == 0:
                emit(hop, (state.mix + 13) % 40, signal.value, aux=0)
        if state.mix % 4 == 0:
            emit(told, signal.key, state.mix)

    @app.actor(hop, state={"sum": "u8"})
    def tally(state, signal, emit):
        state.sum = (state.sum * 3 + signal.value) % 1000003
        if state.sum % 2 == 0:
            emit(told, signal.key, state.sum, aux=1)

    return app


class Model:
    """One lane in plain Python: the states as dicts, a step as waves of lists."""

    def __init__(self, lane, lanes):
        self.lane, self.lanes, self.position = lane, lanes, 0
        self.states = {"walk": {}, "tally": {}}
        self.remote, self.told, self.counts = [], [], Counter()

    def step(self, signals):
        """signals: (kind, aux, key, time, value). Gives the emits to other lanes: (signal, position, index)."""
        before = len(self.remote)
        wave, depth = [(signal, self.position + i) for i, signal in enumerate(signals)], 0
        while wave:
            emits = []  # (signal, position, index) in order of their causes
            for signal, position in wave:
                made = [emit for actor in ("walk", "tally") for emit in self.act(actor, signal)]
                self.counts["raised" if None in made else "emits_processed" if depth else "processed"] += 1
                for emit in (emit for emit in made if emit is not None):
                    at = depth << 32 | len(emits) if depth else sum(p == position for _, p, _ in emits)
                    emits.append((emit, position, at))
            depth += 1
            self.counts["emitted"] += len(emits)
            last = self.position + len(signals) - 1
            self.told += [emit for emit in emits if emit[0][0] == 3]
            here = [e for e in emits if e[0][0] == 2 and partition(e[0][2]) % self.lanes == self.lane]
            self.remote += [e for e in emits if e[0][0] == 2 and partition(e[0][2]) % self.lanes != self.lane]
            wave = [(signal, last) for signal, _, _ in here]
        self.position += len(signals)
        return self.remote[before:]

    def act(self, actor, signal):
        """The emits of one actor; [None] when it raised."""
        kind, aux, key, time, value = signal
        if actor == "tally":
            if kind != 2:
                return []
            total = (self.states[actor].get(key, 0) * 3 + value) % 1000003
            self.states[actor][key] = total
            return [(3, 1, key, time, total)] if total % 2 == 0 else []
        mix, n = self.states[actor].setdefault(key, (0, 0))
        mix = (mix * 31 + value * 7 + key) % 1000003
        if mix % 11 == 0:
            return [None]
        self.states[actor][key] = (mix, n + 1)
        emits = []
        if aux > 0:
            emits.append((2, aux - 1, mix % 40, time, mix))
            if mix % 3 == 0:
                emits.append((2, 0, (mix + 13) % 40, time, value))
        if mix % 4 == 0:
            emits.append((3, 0, key, time, mix))
        return emits


class Lane:
    """One lane as an engine, with the face of Model."""

    def __init__(self, app, lane, lanes, shards, secret):
        self.engine = ba.Engine(app, shards, lane=lane, lanes=lanes, clock="records", secret=secret)
        self.remotes = self.engine.subscribe_remote(capacity=4096)
        self.tells = self.engine.subscribe("told", capacity=4096)
        self.remote, self.told = [], []

    def step(self, signals):
        rows = np.zeros(len(signals), ba.signal_dtype("u8"))
        for name, column in zip(("kind", "aux", "key", "time", "value"), zip(*signals, strict=True), strict=True):
            rows[name] = column
        self.engine.apply(rows, 1)
        self.engine.flush()
        self.told += read_now(self.tells)
        new = read_now(self.remotes)
        self.remote += new
        return new


def read_now(subscription):
    found, fields = [], ("kind", "aux", "key", "time", "value")
    while len(batch := subscription.read(timeout=0)):
        rows = batch.view(ba.signals.output_dtype("u8"))
        signals = zip(*(rows[name].tolist() for name in fields), strict=True)
        found += zip(signals, rows["position"].tolist(), rows["index"].tolist(), strict=True)
    return found


def random_inputs(seed, lanes):
    """Rounds of inputs, each a list for each lane, in the order in which they came."""
    rng = random.Random(seed)
    rounds = []
    for _ in range(6):
        cut = [[] for _ in range(lanes)]
        for _ in range(rng.randrange(1, 60)):
            signal = (
                rng.choice([1, 1, 2]),
                rng.randrange(4),
                rng.randrange(KEYS),
                rng.randrange(99),
                rng.randrange(999),
            )
            cut[partition(signal[2]) % lanes].append(signal)
        rounds.append(cut)
    return rounds


def run(lanes, rounds):
    """Each round every lane takes what was emitted to it, then its inputs; until nothing is on its way."""
    pending = [[] for _ in lanes]
    rounds = list(rounds)
    while rounds or any(pending):
        inputs = rounds.pop(0) if rounds else [[] for _ in lanes]
        for index, lane in enumerate(lanes):
            step, pending[index] = pending[index] + inputs[index], []
            for signal, _, _ in lane.step(step) if step else []:
                pending[partition(signal[2]) % len(lanes)].append(signal)


def compare(lane, model):
    engine, statistics = lane.engine, lane.engine.statistics()
    assert lane.remote == model.remote
    assert lane.told == model.told
    walk, tally = engine.table("walk").to_numpy(), engine.table("tally").to_numpy()
    assert {int(r["key"]): (int(r["mix"]), int(r["n"])) for r in walk} == model.states["walk"]
    assert {int(r["key"]): int(r["sum"]) for r in tally} == model.states["tally"]
    assert statistics.conserved
    assert statistics.emitted == model.counts["emitted"]
    assert statistics.emits_processed == model.counts["emits_processed"]
    assert statistics.emits_remote == len(model.remote)
    assert statistics.emits_outward == len(model.told)
    assert statistics.processed == model.counts["processed"]
    assert statistics.dropped["raised"] + statistics.emits_dropped["raised"] == model.counts["raised"]
    parts = (statistics.emits_processed, statistics.emits_outward, statistics.emits_remote)
    assert statistics.emitted == sum(parts) + sum(statistics.emits_dropped.values())


@pytest.mark.parametrize("count", [1, 2, 4, 16])
@pytest.mark.parametrize("seed", SEEDS)
def test_lanes_are_those_of_the_model_for_any_shards_and_secret(seed, count):
    print(f"BITACTOR_SEED={seed}")
    app, rounds = make_app(), random_inputs(seed, count)
    models = [Model(lane, count) for lane in range(count)]
    run(models, rounds)
    assert count == 1 or sum(len(model.remote) for model in models) > 20, "dull"
    exported = []
    for shards, secret in [(0, (1, 2)), (1, (3, 4)), (2, (5, 6)), (7, (7, 8))]:
        lanes = [Lane(app, lane, count, shards, secret) for lane in range(count)]
        run(lanes, rounds)
        for lane, model in zip(lanes, models, strict=True):
            compare(lane, model)
        states = [lane.engine.export_state().to_sections() for lane in lanes]
        exported.append([(meta, [(name, array.tobytes()) for name, array in arrays]) for meta, arrays in states])
        for lane in lanes:
            lane.engine.close()
    assert all(found == exported[0] for found in exported)


def of_lane(lane, lanes, n, first=0):
    keys = np.arange(first, first + 200 * lanes * n, dtype="u8")
    return keys[lanes_of(keys, lanes) == lane][:n]


def test_a_signal_of_another_lane_is_refused_with_its_place_and_nothing_is_admitted():
    app = make_app()
    with ba.Engine(app, 0, lane=3, lanes=16, clock="records") as engine:
        assert (engine.lane, engine.lanes) == (3, 16)
        assert "inline, lane 3 of 16" in repr(engine)
        keys = of_lane(3, 16, 20000)
        alien = int(of_lane(12, 16, 1)[0])
        keys[15000] = alien
        signals = ba.make_signals(app.kinds[0], keys, 1)
        told = f"signal 15000: key {alien} is of lane 12, and this engine holds lane 3 of 16"
        with pytest.raises(ba.SignalError, match=told) as caught:
            engine.apply(signals, 1)
        assert (caught.value.index, caught.value.accepted) == (15000, 0)
        with pytest.raises(ba.SignalError, match=f"signal 0: key {alien} is of lane 12"):
            engine.send("start", alien, 1)
        with pytest.raises(ba.SignalError, match=rf"{told}; 8192 signals before its frame were admitted"):
            engine.send_batch(signals)
        assert engine.statistics().accepted == 8192
        for ask in (lambda: engine.state("walk", alien), lambda: engine.erase(alien)):
            with pytest.raises(ValueError, match=rf"key {alien} is of lane 12, .*: ask the engine of that lane"):
                ask()
        assert engine.state("walk", int(keys[0])) is not None


@pytest.mark.parametrize(("lane", "lanes"), [(0, 0), (0, 3), (0, 128), (4, 4), (-1, 4), (1, 1)])
def test_lanes_that_cannot_be_are_refused_by_name(lane, lanes):
    with pytest.raises(ValueError, match=r"^lanes? is -?\d+: (the 64 partitions split|of \d+ lanes give)"):
        ba.Engine(make_app(), 0, lane=lane, lanes=lanes)


def test_remote_emits_are_kept_for_a_reader_who_comes_late_and_end_with_the_engine():
    app = make_app()
    with ba.Engine(app, 0, lane=0, lanes=2) as engine:
        unread = engine.subscribe_remote(capacity=2)
        assert [kind.name for kind in unread.kinds] == ["hop"]
        assert unread.dtype == ba.OUTPUT_DTYPE
        engine.send_batch(ba.make_signals(app.kinds[0], of_lane(0, 2, 500), np.arange(500), 9))
        remote = engine.statistics().emits_remote
        assert remote > 100, "more than it was asked to hold: within a step an inline engine's queue grows"
        with pytest.raises(ba.OutputsFullError):
            engine.send("start", int(of_lane(0, 2, 1)[0]), 1)
        rows = unread.read(max=10**6)
        assert len(rows) == remote
        assert unread.dropped == 0
        assert set(lanes_of(rows["key"], 2).tolist()) == {1}
        keys = list(zip(rows["position"].tolist(), rows["index"].tolist(), strict=True))
        assert keys == sorted(set(keys))
    assert unread.read() is None


def test_an_engine_of_all_lanes_has_no_remote_emits():
    app = make_app()
    with ba.Engine(app, 0) as engine:
        remote = engine.subscribe_remote()
        engine.send_batch(ba.make_signals(app.kinds[0], np.arange(500), np.arange(500), 9))
        assert (engine.lane, engine.lanes, engine.statistics().emits_remote) == (0, 1, 0)
        assert len(remote.read(timeout=0)) == 0


# --- the whole state of a lane ---


def state_of_lane(app, lane, lanes):
    with ba.Engine(app, 0, lane=lane, lanes=lanes, clock="records") as engine:
        engine.apply(ba.make_signals(app.kinds[0], of_lane(lane, lanes, 300), np.arange(300), 5), 1)
        return engine.export_state()


def again(state, **meta_changes):
    meta, arrays = state.to_sections()
    return EngineState.from_sections({**meta, **meta_changes}, dict(arrays))


def test_a_state_goes_on_in_an_engine_of_its_lane_and_in_no_other():
    app = make_app()
    state = again(state_of_lane(app, 1, 4))
    assert (state.lane, state.lanes) == (1, 4)
    assert state.counters["emits_remote"] > 0
    with ba.Engine(app, 2, lane=1, lanes=4, clock="records") as engine:
        engine.import_state(state)
        assert engine.statistics().emits_remote == state.counters["emits_remote"]
        assert engine.export_state().counters == state.counters
    for lane, lanes in [(2, 4), (1, 2), (0, 1)]:
        with (
            ba.Engine(app, 0, lane=lane, lanes=lanes, clock="records") as engine,
            pytest.raises(StateError, match=rf"of lane 1 of 4, and the engine holds lane {lane} of {lanes}"),
        ):
            engine.import_state(state)
    for changes, told in [
        ({"lane": 2}, "has keys of other lanes than 2 of 4"),
        ({"lanes": 3}, "the state's lane cannot be: lanes is 3"),
        ({"lane": 4}, "the state's lane cannot be: lane is 4"),
        ({"lane": "1"}, "lane is '1'; it is an unsigned number"),
    ]:
        with pytest.raises(StateError, match=told):
            again(state, **changes).check()


def test_a_state_written_before_there_were_lanes_is_read():
    app = make_app()
    meta, arrays = state_of_lane(app, 0, 1).to_sections()
    old = {name: value for name, value in meta.items() if name not in ("lane", "lanes")}
    old["counters"] = {name: n for name, n in meta["counters"].items() if name != "emits_remote"}
    state = EngineState.from_sections(old, dict(arrays))
    assert (state.lane, state.lanes, state.counters["emits_remote"]) == (0, 1, 0)
    with ba.Engine(app, 0, clock="records") as engine:
        engine.import_state(state)
        assert engine.export_state().to_sections()[0] == meta
    del old["counters"]["emitted"]
    with pytest.raises(StateError, match="counters are not those of this release; they differ in emitted"):
        EngineState.from_sections(old, dict(arrays)).check()


def test_the_app_record_of_one_lane_is_what_it_was_and_others_differ():
    from bitactor.runtime.app import describe

    app = make_app()
    assert describe(app) == describe(app, 1) == describe(app, lanes=1)
    assert describe(app)["lanes"] == 1
    assert describe(app, 16)["lanes"] == 16
    assert len({describe(app, lanes)["fingerprint"] for lanes in (1, 2, 16)}) == 3
    with pytest.raises(ValueError, match="lanes is 5"):
        describe(app, 5)
