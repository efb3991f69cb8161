"""A state of an older version of an app becomes one of the newer, or is refused with a word about what to declare."""

import numpy as np
import pytest

import bitactor as ba
from bitactor.migration import migrate
from bitactor.state import StateError

WALL = 1_700_000_000_000_000_000


def make(state=None, *, value="f8", expire_after=None, keys_max=None, number=1, extra=()):
    """App `market`: actor `vwap` counts in every field it has, actors named in extra count too."""
    app = ba.App("market")
    trade = app.kind("trade", number, value=value)
    fields = state if state is not None else {"volume": "f8", "n": "u4", "first": "i2"}
    noted = {} if "n" in fields else {"n": "u4"}

    def vwap(state, signal):
        state.n += 1

    def other(state, signal):
        state.n += 1

    actor = app.actor(trade, state={**fields, **noted}, expire_after=expire_after, keys_max=keys_max)(vwap)
    for name in extra:
        app.actor(trade, name=name, state={"n": "u8"})(other)
    return app, trade, actor


def state_of(app, keys=1000, wall_ns=WALL):
    rng = np.random.default_rng(7)
    with ba.Engine(app, 0, clock="records") as engine:
        signals = np.zeros(4 * keys, ba.SIGNAL_DTYPE)
        signals["kind"] = app.kinds[0].number
        signals["key"] = rng.permutation(np.repeat(np.arange(keys), 4))
        engine.apply(signals[: 2 * keys], wall_ns)
        engine.apply(signals[2 * keys :], wall_ns + 30 * 10**9)
        return engine.export_state()


def runs(state, app):
    """The table of vwap after an engine of the app took the state in."""
    with ba.Engine(app, 2, clock="records") as engine:
        engine.import_state(state)
        return engine.table("vwap").to_numpy()


def test_a_state_of_the_same_layout_is_the_same_state_without_a_copy():
    old = state_of(make()[0])
    new, report = migrate(old, make()[0])
    assert report.changes == ()
    assert report.migrations == ()
    assert new.actors[0] is old.actors[0]
    assert len(runs(new, make()[0])) == 1000


def test_added_fields_get_their_defaults_and_removed_ones_are_dropped():
    app = make({"n": "u4", "high": ba.field("f8", default=-1.5), "hours": ba.field("u2", 3, default=7)})[0]
    new, report = migrate(state_of(make()[0]), app)
    table = runs(new, app)
    assert (table["n"] == 4).all()
    assert (table["high"] == -1.5).all()
    assert (table["hours"] == [7, 7, 7]).all()
    assert report.changes == ("actor 'vwap': added high, hours; removed volume, first",)


def test_fields_in_another_order_keep_their_values():
    app = make({"first": "i2", "n": "u4", "volume": "f8"})[0]
    new, report = migrate(state_of(make()[0]), app)
    assert (runs(new, app)["n"] == 4).all()
    assert report.changes == ("actor 'vwap': fields moved",)


def test_a_new_actor_begins_empty_and_a_removed_one_is_dropped_and_counted():
    old = state_of(make(extra=["gone"])[0])
    app = make(extra=["fresh"])[0]
    new, report = migrate(old, app)
    assert report.dropped == {"gone": 1000}
    assert report.changes == ("actor 'fresh' is new and begins empty", "actor 'gone' is no more: 1000 keys dropped")
    assert [(a.name, len(a)) for a in new.actors] == [("vwap", 1000), ("fresh", 0)]
    assert new.counters == old.counters
    assert len(runs(new, app)) == 1000


def test_a_field_of_another_type_is_refused_naming_both_until_a_migration_is_declared():
    old = state_of(make()[0])
    app, _, vwap = make({"volume": "f8", "n": "u8", "first": "i2"})
    with pytest.raises(
        StateError, match=r"\{volume: f8, n: u4, first: i2\}.*\{volume: f8, n: u8, first: i2\}.*n changed"
    ):
        migrate(old, app)

    @app.migration(vwap, name="wider n", from_fields={"volume": "f8", "n": "u4", "first": "i2"})
    def wider(old, new):
        new["n"] = old["n"] * np.uint64(1 << 33)

    new, report = migrate(old, app)
    assert report.migrations == ("wider n",)
    assert (runs(new, app)["n"] == 4 << 33).all()
    assert (new.actors[0].keys == old.actors[0].keys).all()


def test_a_migration_cannot_write_to_the_old_states():
    old = state_of(make()[0])
    app, _, vwap = make({"volume": "f8", "n": "u8", "first": "i2"})

    @app.migration(vwap, name="wrong way", from_fields={"volume": "f8", "n": "u4", "first": "i2"})
    def wrong(old, new):
        old["n"] = 0

    with pytest.raises(StateError, match=r"test_migration.py:\d+: migration 'wrong way': ValueError: .*read-only"):
        migrate(old, app)


def test_an_array_of_another_length_is_refused_without_a_migration():
    old = state_of(make({"n": "u4", "hours": ("u2", 24)})[0])
    with pytest.raises(StateError, match=r"hours: u2\[24\].*hours: u2\[12\].*hours changed"):
        migrate(old, make({"n": "u4", "hours": ("u2", 12)})[0])


def test_a_kind_of_another_type_is_refused_until_a_migration_names_it():
    old = state_of(make()[0])
    app, trade, _ = make(value="i8")
    with pytest.raises(StateError, match="kind 'trade' had value f8 and aux u4; now value i8 and aux u4"):
        migrate(old, app)
    app.kind_migration(trade, name="price in cents", value="f8", aux="u4")
    new, report = migrate(old, app)
    assert report.migrations == ("price in cents",)
    assert new.kinds[0].signals == old.kinds[0].signals == 4000


def test_a_kind_of_another_number_is_told_and_keeps_its_count():
    new, report = migrate(state_of(make()[0]), make(number=9)[0])
    assert report.changes == ("kind 'trade' (1) is 'trade' (9) now",)
    assert new.kinds[0].signals == 4000


def test_an_actor_that_begins_to_expire_counts_from_the_wall_time_of_the_state():
    app = make(expire_after="60s")[0]
    new, report = migrate(state_of(make()[0]), app)
    assert report.changes == ("actor 'vwap': keys expired after 0 ns, and do after 60000000000 ns now",)
    with ba.Engine(app, 1, clock="records") as engine:
        engine.import_state(new)
        beat = np.empty(0, ba.SIGNAL_DTYPE)
        engine.apply(beat, WALL + 30 * 10**9 + 58 * 10**9)
        assert len(engine.table("vwap")) == 1000
        engine.apply(beat, WALL + 30 * 10**9 + 61 * 10**9)
        assert len(engine.table("vwap")) == 0


@pytest.mark.parametrize("idle", ["20s", "31s", "3h", "1ms", "700d"])
def test_another_idle_time_keeps_when_each_key_was_touched_last(idle):
    old = state_of(make(expire_after="60s")[0])
    app = make(expire_after=idle)[0]
    new, _ = migrate(old, app)
    new.check()
    touched = old.actors[0].touch_ticks != old.actors[0].touch_ticks.max()
    with ba.Engine(app, 1, clock="records") as engine:
        engine.import_state(new)
        # A touch is known to a tick of the old idle time, about a second, which is over when 1 ms is.
        alive = {"20s": 1000 - int(touched.sum()), "1ms": 0}.get(idle, 1000)
        assert len(engine.table("vwap")) == alive
        tick = max(app.actors[0].idle_ns // 64, 10**6)
        engine.apply(np.empty(0, ba.SIGNAL_DTYPE), WALL + 30 * 10**9 + app.actors[0].idle_ns + 2 * tick)
        assert len(engine.table("vwap")) == 0
        assert engine.statistics().expired == 1000


def test_an_actor_that_no_longer_expires_keeps_every_key():
    app = make()[0]
    new, _ = migrate(state_of(make(expire_after="60s")[0]), app)
    assert len(runs(new, app)) == 1000


def test_a_smaller_key_cap_keeps_the_keys_and_takes_no_new_ones():
    app = make(keys_max=64)[0]
    new, report = migrate(state_of(make()[0]), app)
    assert report.changes == ("actor 'vwap': 64 partitions hold more than 1 keys; they take no new ones",)
    with ba.Engine(app, 1, clock="records") as engine:
        engine.import_state(new)
        signals = ba.make_signals(1, [5, 10**6], 1.0)
        engine.apply(signals, WALL + 30 * 10**9)
        assert len(engine.table("vwap")) == 1000
        assert engine.state("vwap", 5).n == 5
        assert engine.statistics().dropped["key_cap"] == 1


def test_declaring_a_migration_that_could_never_run_is_an_error():
    app, trade, vwap = make()
    with pytest.raises(ValueError, match="fields that 'vwap' has now"):
        app.migration(vwap, name="none", from_fields={"first": "i2", "volume": "f8", "n": "u4"})
    app.migration(vwap, name="one", from_fields={"n": "u2"})(print)
    with pytest.raises(ValueError, match="'one' has that name, or the same actor"):
        app.migration(vwap, name="two", from_fields={"n": "u2"})
    with pytest.raises(ValueError, match="not an actor of app"):
        app.migration(make()[2], name="three", from_fields={"n": "u1"})
    with pytest.raises(ValueError, match="has these types now"):
        app.kind_migration(trade, name="four", value="f8", aux="u4")
    with pytest.raises(ValueError, match="not a kind of app"):
        app.kind_migration(make()[1], name="five", value="i8", aux="u4")
