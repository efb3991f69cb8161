"""A snapshot is input: every way in which a state can be wrong is told, and the engine is as fresh as before."""

import json
from dataclasses import replace

import numpy as np
import pytest

import bitactor as ba
from bitactor.state import EngineState, StateError
from tests.c_actors import CActor, make_app
from tests.test_engine_property import KINDS

START = 1_700_000_000_000_000_000


def app(name="count", state=None, idle_ns=10**9, kinds=KINDS):
    def count(state, signal, emit, wall):
        state["n"] += 1

    return make_app(kinds, [CActor(name, count, [kinds[0]], state or {"n": "u8", "m": "f4"}, idle_ns=idle_ns)])


@pytest.fixture(scope="module")
def state():
    with ba.Engine(app(), 0, clock="records") as engine:
        rng = np.random.default_rng(1)
        for tick in range(5):
            engine.apply(ba.make_signals(1, rng.integers(0, 500, 200), 1.0), START + tick * 10**8)
        return engine.export_state()


def refused(state, message, of=None):
    """Whether import tells the message, and the engine can take a good state afterwards."""
    with ba.Engine(of or app(), 1, clock="records") as engine:
        with pytest.raises(StateError, match=message):
            engine.import_state(state)
        assert engine.statistics().position == 0
        assert len(engine.table(engine.app.actors[0])) == 0
        engine.apply(ba.make_signals(1, [1], 1.0), START)
        engine.flush()
        assert engine.statistics().processed == 1


def actor_with(state, **changes):
    return replace(state, actors=(replace(state.actors[0], **changes),))


def changed(array, index, value):
    copy = array.copy()
    copy[index] = value
    return copy


def test_a_sound_state_passes(state):
    state.check()


def test_a_key_in_another_partition_is_found(state):
    keys = state.actors[0].keys
    other = int(state.actors[0].counts[0])  # the first row of partition 1
    swapped = changed(keys, [0, other], keys[[other, 0]])
    refused(actor_with(state, keys=swapped), f"key {keys[other]} in row 0 lies in another partition")


def test_a_key_that_is_there_twice_is_found(state):
    keys = state.actors[0].keys
    refused(actor_with(state, keys=changed(keys, 1, keys[0])), f"key {keys[0]} is there twice")


def test_counts_that_do_not_add_up_are_found(state):
    counts = state.actors[0].counts
    refused(actor_with(state, counts=changed(counts, 5, counts[5] + 1)), "its partitions count")


def test_fewer_states_than_keys_are_found(state):
    refused(actor_with(state, states=state.actors[0].states[1:]), "states of shape")


def test_a_touch_order_that_is_no_permutation_is_found(state):
    order = state.actors[0].touch_order
    refused(actor_with(state, touch_order=changed(order, 1, order[0])), "the touch order leaves out row")
    refused(actor_with(state, touch_order=changed(order, 1, 2**32 - 1)), "the touch order leaves out row")


def test_touches_that_are_not_in_their_order_are_found(state):
    ticks = state.actors[0].touch_ticks
    late = changed(ticks, 0, ticks.max())
    assert state.actors[0].counts[0] > 1
    refused(actor_with(state, touch_ticks=late), "touch 1 is older than the one before it")


def test_a_state_without_touches_whose_keys_expire_is_found(state):
    refused(actor_with(state, touch_ticks=None), "has touch_order and touch_ticks if its keys expire")


def test_counters_that_lose_a_signal_are_found(state):
    counters = {**state.counters, "processed": state.counters["processed"] - 1}
    refused(replace(state, counters=counters), "lose signals: 1000 accepted, but 999 processed and 0 dropped")


def test_a_counter_too_few_is_found(state):
    counters = {name: n for name, n in state.counters.items() if name != "expired"}
    refused(replace(state, counters=counters), "differ in expired")


@pytest.mark.parametrize("wrong", [-1, 2**64, 1.0, "1", None, True])
def test_a_position_that_is_no_u64_is_found(state, wrong):
    refused(replace(state, position=wrong), "position is")


def test_an_actor_named_twice_is_found(state):
    refused(replace(state, actors=state.actors * 2), "names an actor twice")


@pytest.mark.parametrize(
    ("of", "message"),
    [
        (app("other"), "an actor '(count|other)'"),
        (app(state={"n": "u8"}), r"actor 'count': the state has \{n: u8, m: f4\}; the app has \{n: u8\}"),
        (app(state={"m": "f4", "n": "u8"}), r"the app has \{m: f4, n: u8\}"),
        (app(idle_ns=0), "keys expired after 1000000000 ns, and do after 0 ns now"),
        (app(kinds=(ba.Kind("k1", 1, "i8", "u4"), *KINDS[1:])), "kinds of the state and of the app differ in 'k1'"),
    ],
)
def test_a_state_of_another_app_is_refused_with_what_differs_and_what_to_do(state, of, message):
    refused(state, message, of)
    refused(state, "migrate\\(state, app\\)", of)


# --- sections ---


def sections_of(state):
    meta, sections = state.to_sections()
    return json.loads(json.dumps(meta)), {name: array.tobytes() for name, array in sections}


def test_sections_that_lie_in_read_only_memory_are_not_copied(state):
    meta, sections = sections_of(state)
    read = EngineState.from_sections(meta, sections)
    assert read.actors[0].keys.ctypes.data == np.frombuffer(sections["actor0.keys"], "u8").ctypes.data
    assert not read.actors[0].states.flags.writeable
    read.check()


@pytest.mark.parametrize(
    ("key", "wrong", "message"),
    [
        ("format", 2, "the state has format 2; this release reads format 1"),
        ("format", None, "format None"),
        ("byte_order", "big", "byte_order is 'big', not 'little'"),
        ("partitions", 32, "partitions is 32, not 64"),
        ("partition_hash", 2, "partition_hash is 2, not 1"),
        ("actors", None, "schema lacks something"),
        ("kinds", [{}], "schema lacks something"),
        ("counters", 7, "schema lacks something"),
    ],
)
def test_a_schema_of_another_format_or_with_holes_is_refused(state, key, wrong, message):
    meta, sections = sections_of(state)
    with pytest.raises(StateError, match=message):
        EngineState.from_sections({**meta, key: wrong}, sections)


@pytest.mark.parametrize("suffix", ["counts", "keys", "states", "touch_order", "touch_ticks"])
def test_a_section_that_is_missing_or_cut_is_named(state, suffix):
    meta, sections = sections_of(state)
    name = f"actor0.{suffix}"
    with pytest.raises(StateError, match=f"section '{name}' has"):
        EngineState.from_sections(meta, {**sections, name: sections[name][:-1]})
    del sections[name]
    with pytest.raises(StateError, match=f"no section '{name}'"):
        EngineState.from_sections(meta, sections)


@pytest.mark.parametrize(
    "change",
    [
        {"rows": -1},
        {"rows": "9"},
        {"stride": 0},
        {"stride": 4},
        {"fields": [["n", "u8", None, 100]]},
        {"fields": [["n", "x9", None, 0]]},
        {"fields": [["n"]]},
        {"idle_ns": "soon"},
        {"name": None},
    ],
)
def test_a_schema_of_an_actor_that_makes_no_sense_is_refused(state, change):
    meta, sections = sections_of(state)
    meta["actors"][0].update(change)
    with pytest.raises(StateError):
        EngineState.from_sections(meta, sections).check()
