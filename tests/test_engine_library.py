"""The engine from Python: what is sent, what is read back, what is refused, and how waits and ends behave."""

import asyncio
import gc
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

import bitactor as ba
from bitactor.schema import make_layout
from bitactor.testing import TestEngine
from tests.c_actors import ALERT, COUNT, TRADE, make_app, vwap_app

HERE = str(Path(__file__).parent.parent)


def trades(keys, values, sizes=1, times=1):
    return ba.make_signals(TRADE, keys, values, sizes, times)


@pytest.fixture(params=[0, 1, 2], ids=["inline", "1 shard", "2 shards"])
def shards(request):
    return request.param


def run_python(code, **settings):
    return subprocess.run(
        [sys.executable, "-W", "default", "-c", f"import sys; sys.path.insert(0, {HERE!r})\n{code}"],
        capture_output=True, text=True, timeout=60, check=False, **settings,
    )  # fmt: skip


# --- in and out ---


def test_what_was_sent_is_read_back_one_by_one_and_in_batches(shards):
    with ba.Engine(vwap_app(), shards) as engine:
        assert engine.send(TRADE, 42, 10.0, 5) is True
        assert engine.send("trade", 42, 10, 5, time=7) is True
        assert engine.send(1, 2**64 - 1, 2.5) is True
        assert engine.send(trades([7], [3.0], [2])[0]) is True
        assert engine.send_batch(trades([1, 2, 3], [1.0, 2.0, 3.0], [1, 1, 1])) == 3
        assert engine.send_batch(kind=TRADE, key=[1, 2], value=[5.0, 6.0], aux=[2, 2], time=[1, 1]) == 2
        assert dict(engine.state("vwap", 42)) == {"notional": 100.0, "volume": 10.0, "last": 10.0}
        assert engine.state("vwap", 42).position == 9
        assert engine.state("vwap", 2**64 - 1).last == 2.5
        assert engine.state("vwap", 99) is None
        table = engine.table("vwap")
        assert list(table.columns) == ["key", "notional", "volume", "last"]
        got = dict(zip(table["key"].tolist(), table["notional"].tolist(), strict=True))
        assert got == {42: 100.0, 2**64 - 1: 0.0, 7: 6.0, 1: 11.0, 2: 14.0, 3: 3.0}
        assert list(engine.table("vwap", columns=["last"]).columns) == ["key", "last"]
        assert engine.table("vwap").to_numpy().dtype.names == ("key", "notional", "volume", "last")


def test_a_time_of_none_is_now():
    seen = []
    app = vwap_app(lambda state, signal, emit, wall: seen.append(int(signal["time"])))
    before = time.time_ns()
    with ba.Engine(app, 0) as engine:
        engine.send(TRADE, 1, 1.0)
    assert before <= seen[0] <= time.time_ns()


def test_a_strided_batch_gives_what_its_copy_gives():
    signals = trades(np.arange(100), np.arange(100.0))
    with ba.Engine(vwap_app(), 0) as strided, ba.Engine(vwap_app(), 0) as copied:
        assert strided.send_batch(signals[::-3]) == copied.send_batch(signals[::-3].copy()) == 34
        assert strided.table("vwap").to_numpy().tobytes() == copied.table("vwap").to_numpy().tobytes()


def test_a_batch_that_is_read_only_is_sent():
    signals = trades(np.arange(10), 1.0)
    signals.flags.writeable = False
    with ba.Engine(vwap_app(), 0) as engine:
        assert engine.send_batch(signals) == 10


def test_an_empty_batch_is_nothing():
    with ba.Engine(vwap_app(), 0) as engine:
        assert engine.send_batch(trades([], [])) == 0
        assert len(engine.table("vwap")) == 0


# --- what is refused ---


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda e: e.send("trad", 1, 1.0), "kind 'trad' is not declared.*did you mean 'trade'"),
        (lambda e: e.send(TRADE, -1, 1.0), "key of kind 'trade' is -1; u8 holds 0 to"),
        (lambda e: e.send(TRADE, 1 << 64, 1.0), "key of kind 'trade' is 18446744073709551616"),
        (lambda e: e.send(TRADE, "AAPL", 1.0), "text_key"),
        (lambda e: e.send(TRADE, 1, "x"), "value of kind 'trade' is 'x'.*declared f8"),
        (lambda e: e.send(TRADE, 1, 1.0, -1), "aux of kind 'trade' is -1; u4 holds 0 to"),
        (lambda e: e.send(COUNT, 1, 1.5), r"value of kind 'count' is 1.5 \(float\).*declared i8.*int\(...\)"),
        (lambda e: e.send(COUNT, 1, 1 << 63), "value of kind 'count'.*i8 holds"),
        (lambda e: e.send(TRADE, 1, 1.0, 0, -5), "time of kind 'trade' is -5"),
        (lambda e: e.send_batch(ba.make_signals(9, [1], [1.0])), "signal 0: kind 9 is not declared.*1 .trade."),
        (lambda e: e.send_batch(ba.make_signals(COUNT, [1], [1])[:0].view("u1")), "not a signal dtype"),
        (lambda e: e.send_batch(ba.make_signals(3, [1], [1.0])), "signal 0: kind 'count' has value 'i8' and aux 'i4'"),
        (lambda e: e.send_batch(kind=TRADE, key=[1, -2], value=[1.0, 1.0]), "'key', element 1: -2 does not fit u8"),
        (lambda e: e.send_batch(kind=COUNT, key=[1], value=[1.0]), "'value' has dtype float64 and is declared i8"),
        (lambda e: e.send_batch([1, 2]), "takes a NumPy array.*not list"),
    ],
)
def test_a_signal_that_does_not_fit_is_refused_with_its_place_and_a_fix(call, message):
    with ba.Engine(vwap_app(), 0) as engine:
        with pytest.raises((ValueError, TypeError), match=message):
            call(engine)
        assert engine.statistics().accepted == 0


def test_nothing_of_a_bad_frame_is_admitted_and_the_error_counts_what_was(shards):
    signals = trades(np.arange(25), 1.0)
    signals["flags"][17] = 4
    with ba.Engine(vwap_app(), shards, frame_signals=10) as engine:
        with pytest.raises(ba.SignalError, match="signal 17: flags are 0x0004.*10 signals before its frame") as caught:
            engine.send_batch(signals)
        assert (caught.value.index, caught.value.accepted) == (17, 10)
        assert sorted(engine.table("vwap")["key"].tolist()) == list(range(10))


def test_a_refused_record_says_what_record_is_wanted():
    with ba.Engine(vwap_app(), 0) as engine, pytest.raises(TypeError, match="one record of bitactor.SIGNAL_DTYPE"):
        engine.send(np.float64(1))


# --- full ---


def slow_app(gate):
    return vwap_app(lambda state, signal, emit, wall: gate.wait(20) and None)


def stuck(gate, full):
    """An engine with a stopped shard; its ring of 16,384 is about to be full."""
    engine = ba.Engine(slow_app(gate), 1, ring_signals=16384, full=full)
    engine.send(TRADE, 1, 1.0)
    return engine


def test_a_full_ring_refuses_and_says_how_many_it_took():
    gate = threading.Event()
    engine = stuck(gate, "refuse")
    batch = trades(np.arange(8192), 1.0)
    taken = sum(engine.send_batch(batch) for _ in range(4))
    assert taken == 8192
    assert engine.statistics().refused == 3 * 8192
    assert engine.statistics().accepted == 8193
    gate.set()
    engine.close()
    assert engine.statistics().conserved
    assert engine.statistics().processed == 8193


def test_a_full_ring_drops_and_counts():
    gate = threading.Event()
    engine = stuck(gate, "drop")
    assert engine.send_batch(trades(np.arange(32768), 1.0)) == 8192
    while engine.send(TRADE, 1, 1.0):
        pass
    statistics = engine.statistics()
    assert statistics.conserved
    assert statistics.dropped["full"] == 3 * 8192 + 1
    gate.set()
    engine.close()
    assert engine.statistics().conserved
    assert engine.statistics().queued == 0


def test_a_full_ring_waits_without_the_gil_until_there_is_room():
    gate = threading.Event()
    engine = stuck(gate, "wait")
    done = []
    sender = threading.Thread(target=lambda: done.append(engine.send_batch(trades(np.arange(32768), 1.0))))
    sender.start()
    sender.join(0.3)
    assert sender.is_alive()
    assert not engine.flush(timeout=0.05)
    gate.set()
    sender.join()
    assert done == [32768]
    engine.close()
    assert engine.statistics().processed == 32769


def test_ctrl_c_ends_a_wait_on_a_full_ring():
    code = """
import os, signal, threading, time
from tests.c_actors import *
import bitactor as ba
signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored in what a shell starts with &
gate = threading.Event()
engine = ba.Engine(vwap_app(lambda *_: gate.wait(20) and None), 1, ring_signals=16384)
begin = time.monotonic()
try:
    threading.Timer(0.4, lambda: os.kill(os.getpid(), signal.SIGINT)).start()  # inside: a busy machine may be late
    engine.send_batch(ba.make_signals(TRADE, range(65536), 1.0))
except KeyboardInterrupt:
    print("interrupted", time.monotonic() - begin < 2)
gate.set()
engine.close(discard=True)
"""
    result = run_python(code)
    assert result.stdout == "interrupted True\n", result.stderr


def test_an_inline_engine_with_unread_outputs_says_so_instead_of_waiting_for_itself():
    def echo(state, signal, emit, wall):
        emit(ALERT, signal["key"], 1.0)

    with ba.Engine(vwap_app(echo), 0, frame_signals=4) as engine:
        subscription = engine.subscribe(ALERT, capacity=8)
        with pytest.raises(ba.OutputsFullError, match="read it.*8 signals of this call were admitted") as caught:
            engine.send_batch(trades(np.arange(20), 1.0))
        assert caught.value.accepted == 8
        assert len(subscription.read(100)) == 8
        assert engine.send_batch(trades(np.arange(8), 1.0)) == 8


# --- outputs ---


def jumps(n, key=5):
    return trades(np.full(n, key), 2.0 ** np.arange(n) if n < 900 else np.arange(1, n + 1) * 1.0)


def test_outputs_come_in_order_with_position_and_index(shards):
    def three(state, signal, emit, wall):
        for i in range(3):
            emit(ALERT, signal["key"] + i, signal["value"], time=signal["time"])

    with ba.Engine(vwap_app(three), shards) as engine:
        subscription = engine.subscribe(ALERT)
        engine.send_batch(trades(np.arange(100), np.arange(100.0)))
        engine.flush()
        rows = []
        while len(rows) < 300:
            rows += subscription.read(timeout=5).tolist()
        assert [(r[6], r[7], r[3], r[5]) for r in rows] == [(p, i, p + i, p) for p in range(100) for i in range(3)]
    assert subscription.read() is None


def test_an_iterator_ends_when_the_engine_closes_and_all_was_read():
    engine = ba.Engine(vwap_app(), 2)
    subscription = engine.subscribe([ALERT])
    engine.send_batch(jumps(100))
    engine.close()
    assert sum(len(batch) for batch in subscription) == 99


def test_a_subscription_that_drops_counts_what_it_drops():
    with ba.Engine(vwap_app(), 1) as engine:
        subscription = engine.subscribe(ALERT, capacity=16, full="drop")
        engine.send_batch(jumps(101))
        engine.flush()
        assert len(subscription.read(1000)) == 16
        assert subscription.dropped == 84


def test_an_async_iterator_reads_without_a_thread():
    async def reader(engine, subscription):
        threads = threading.active_count()
        engine.send_batch(jumps(50))
        total = 0
        async for batch in subscription:
            total += len(batch)
            assert threading.active_count() == threads
            if total == 49:
                engine.close()
        return total

    engine = ba.Engine(vwap_app(), 1)
    assert asyncio.run(asyncio.wait_for(reader(engine, engine.subscribe(ALERT)), 20)) == 49


def test_an_async_reader_wakes_for_outputs_that_come_later():
    async def main(engine):
        subscription = engine.subscribe(ALERT)
        iterator = aiter(subscription)
        waiting = asyncio.ensure_future(anext(iterator))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        engine.send_batch(jumps(2))
        batch = await asyncio.wait_for(waiting, 5)
        await engine.flush_async()
        return len(batch)

    with ba.Engine(vwap_app(), 1) as engine:
        assert asyncio.run(main(engine)) == 1


def test_callbacks_get_every_output_and_an_error_in_one_does_not_end_them(monkeypatch):
    seen, errors = [], []
    monkeypatch.setattr(sys, "unraisablehook", lambda what: errors.append(what.exc_value))

    def callback(batch):
        seen.extend(batch["value"].tolist())
        if len(seen) == 1:
            raise ZeroDivisionError("mine")

    with ba.Engine(vwap_app(), 1) as engine:
        engine.subscribe(ALERT, callback=callback)
        engine.send_batch(jumps(2))
        engine.flush()
        while not errors:
            time.sleep(0.01)
        engine.send_batch(jumps(50, key=6))
    assert seen == [2.0] + [2.0**i for i in range(1, 50)]
    assert [type(e) for e in errors] == [ZeroDivisionError]


def test_callbacks_go_on_after_all_subscriptions_of_before_were_closed():
    seen = []
    with ba.Engine(vwap_app(), 1) as engine:
        for key in range(3):
            subscription = engine.subscribe(ALERT, callback=lambda batch: seen.extend(batch["key"].tolist()))
            engine.send_batch(jumps(2, key=key))
            engine.flush()
            while len(seen) <= key:
                time.sleep(0.01)
            subscription.close()
    assert seen == [0, 1, 2]


def test_flush_inside_a_callback_is_an_error(monkeypatch):
    errors = []
    monkeypatch.setattr(sys, "unraisablehook", lambda what: errors.append(str(what.exc_value)))
    with ba.Engine(vwap_app(), 1) as engine:
        engine.subscribe(ALERT, callback=lambda batch: engine.flush())
        engine.send_batch(jumps(2))
    assert len(errors) == 1
    assert "flush inside a callback" in errors[0]


# --- inside a handler ---


@pytest.mark.parametrize(
    "call",
    [
        lambda e: e.flush(),
        lambda e: e.send(TRADE, 1, 1.0),
        lambda e: e.send_batch(trades([1], [1.0])),
        lambda e: e.state("vwap", 1),
        lambda e: e.table("vwap"),
        lambda e: e.statistics(),
    ],
)
def test_a_call_that_would_wait_for_its_own_handler_is_an_error(shards, call):
    said = []

    def handler(state, signal, emit, wall):
        try:
            call(engine)
        except RuntimeError as error:
            said.append(str(error))

    engine = ba.Engine(vwap_app(handler), shards)
    engine.send(TRADE, 1, 1.0)
    engine.close()
    assert len(said) == 1
    assert "inside a handler" in said[0]


def test_a_raising_handler_leaves_a_dead_letter_with_its_place_and_the_rest_go_on(shards):
    def picky(state, signal, emit, wall):
        state["volume"] += 1
        emit(ALERT, signal["key"], 1.0)
        if signal["value"] == 3.0:
            raise ValueError(17)

    with ba.Engine(vwap_app(picky), shards) as engine:
        subscription = engine.subscribe(ALERT)
        engine.send_batch(trades(np.zeros(5, int), [1.0, 2.0, 3.0, 4.0, 5.0]))
        engine.flush()
        letters = engine.dead_letters()
        assert [(d.actor, d.reason, d.position, d.line, d.message, d.signal["value"]) for d in letters] == [
            ("vwap", "raised", 2, 17, "raised 17", 3.0)
        ]
        assert engine.dead_letters() == []
        assert engine.state("vwap", 0).volume == 4.0
        assert subscription.read()["position"].tolist() == [0, 1, 3, 4]
        statistics = engine.statistics()
        assert (statistics.processed, statistics.dropped["raised"]) == (4, 1)
        assert statistics.conserved


# --- figures ---


def test_statistics_count_each_term_and_conserve(shards):
    unhandled = ba.make_signals(COUNT, np.arange(7), np.arange(7))
    with ba.Engine(vwap_app(cap=1), shards) as engine:
        engine.send_batch(trades(np.arange(1000), 1.0))
        engine.send_batch(unhandled)
        engine.flush()
        s = engine.statistics()
        assert s.conserved
        assert s.accepted == 1007
        assert s.processed == 64  # one key a partition
        assert s.dropped == {"full": 0, "unhandled": 7, "raised": 0, "key_cap": 936, "no_memory": 0}
        assert s.queued == 0
        assert s.actors[0].keys == 64
        assert (s.actors[0].signals, s.actors[0].refused) == (64, 936)
        assert s.kinds[0].name == "trade"
        assert len(s.shards) == max(1, shards)
        with pytest.raises(AttributeError):
            s.accepted = 1


def test_shards_with_nothing_to_do_park():
    with ba.Engine(vwap_app(), 2):
        begin = time.process_time()
        time.sleep(0.5)
        assert time.process_time() - begin < 0.1


# --- the end ---


def test_after_close_calls_say_so_and_what_was_counted_stays(shards):
    engine = ba.Engine(vwap_app(), shards)
    engine.send_batch(trades(np.arange(100), 1.0))
    engine.close()
    engine.close()
    assert engine.closed
    for call in (lambda: engine.send(TRADE, 1, 1.0), lambda: engine.send_batch(trades([1], [1.0]))):
        with pytest.raises(ba.ClosedError, match="closed"):
            call()
    assert engine.statistics().processed == 100


def test_an_engine_that_is_not_closed_warns_and_closes():
    engine = ba.Engine(vwap_app(), 1)
    engine.subscribe(ALERT, callback=print)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del engine
        gc.collect()
    assert [w.category for w in caught] == [ResourceWarning]
    for _ in range(100):
        if not any(t.name == "bitactor callbacks" for t in threading.enumerate()):
            break
        time.sleep(0.02)
    else:
        pytest.fail("the callback thread goes on")


def test_the_interpreters_exit_joins_shards_and_handles_what_is_queued():
    code = """
from tests.c_actors import *
import bitactor as ba
engine = ba.Engine(vwap_app(lambda s, g, e, w: print("handled") if g["key"] == 9999 else None), 2)
engine.subscribe(ALERT, callback=print)
engine.send_batch(ba.make_signals(TRADE, range(10000), 1.0))
"""
    result = run_python(code)
    assert (result.returncode, result.stdout, result.stderr) == (0, "handled\n", "")


def test_after_a_fork_a_call_names_spawn_and_nothing_hangs():
    code = """
import os, warnings
warnings.simplefilter("ignore", DeprecationWarning)
from tests.c_actors import *
import bitactor as ba
engine = ba.Engine(vwap_app(), 2)
engine.send(TRADE, 1, 1.0)
pid = os.fork()
if pid == 0:
    calls = [lambda: engine.send(TRADE, 1, 1.0), engine.flush, engine.statistics, lambda: engine.state("vwap", 1)]
    for call in calls:
        try:
            call()
        except RuntimeError as error:
            assert 'get_context("spawn")' in str(error)
        else:
            os._exit(3)
    engine.close()
    with ba.Engine(vwap_app(), 1) as child:
        child.send(TRADE, 1, 1.0)
        child.flush()
    raise SystemExit(0)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
engine.close()
"""
    result = run_python(code)
    assert (result.stdout, result.stderr) == ("0\n", "")


def test_a_flush_returns_when_what_came_before_it_is_handled_though_others_go_on_sending():
    stop = threading.Event()
    app = ba.App("busy")  # compiled: a handler in Python would need the lock that the sender holds
    trade = app.kind("trade", 1, value="f8", aux="u4")

    @app.actor(trade, state={"n": "u8"})
    def count(state, signal):
        state.n += 1

    with ba.Engine(app, 1, ring_signals=16384) as engine:

        def send():
            while not stop.is_set():
                engine.send_batch(trades(np.arange(4096), 1.0))

        sender = threading.Thread(target=send)
        sender.start()
        begin = time.monotonic()
        assert engine.flush(timeout=10)
        stop.set()
        sender.join()
        assert time.monotonic() - begin < 5


@pytest.mark.parametrize(
    "call",
    [lambda e: e.flush(20), lambda e: e.state("vwap", 1), lambda e: e.table("vwap"), lambda e: e.subscribe(ALERT)],
)
def test_a_wait_for_shards_ends_though_the_ring_is_never_empty(call):
    stop = threading.Event()
    with ba.Engine(vwap_app(lambda *_: time.sleep(2e-5)), 1, ring_signals=16384) as engine:

        def send():
            while not stop.is_set():
                engine.send_batch(trades(np.arange(1024), 1.0))

        senders = [threading.Thread(target=send) for _ in range(2)]
        for sender in senders:
            sender.start()
        while engine.statistics().queued < 15000:
            time.sleep(0.01)
        begin = time.monotonic()
        assert call(engine) is not False
        took = time.monotonic() - begin
        stop.set()
        for sender in senders:
            sender.join()
        engine.close(discard=True)
    assert took < 15


def test_a_signal_handler_may_use_the_engine_while_its_thread_waits_for_shards():
    code = """
import os, signal, threading, time
from tests.c_actors import *
import bitactor as ba
gate = threading.Event()
engine = ba.Engine(vwap_app(lambda *_: gate.wait(20) and None), 1)
engine.send(TRADE, 1, 1.0)
def handler(*_):
    gate.set()
    engine.flush()
    print(len(engine.table("vwap")))
    engine.close()
signal.signal(signal.SIGTERM, handler)
threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGTERM)).start()
print(len(engine.table("vwap")), engine.closed)
"""
    result = run_python(code)
    assert (result.stdout, result.stderr) == ("1\n1 True\n", "")


def test_what_was_accepted_is_handled_though_an_exception_is_on_its_way():
    def fail():
        with engine:
            engine.send_batch(trades(np.arange(50000), 1.0))
            raise KeyError

    engine = ba.Engine(vwap_app(), 2)
    with pytest.raises(KeyError):
        fail()
    assert (engine.statistics().processed, engine.statistics().queued) == (50000, 0)


def test_closing_inside_a_handler_is_an_error():
    said = []

    def handler(state, signal, emit, wall):
        try:
            engine._close(False)
        except RuntimeError as error:
            said.append(str(error))

    engine = ba.Engine(vwap_app(handler), 0)
    engine.send(TRADE, 1, 1.0)
    assert not engine.closed
    engine.close()
    assert "inside a handler" in said[0]


@pytest.mark.parametrize("name", ["key", "position", "keys"])
def test_a_state_field_that_would_hide_the_states_own_is_refused(name):
    with pytest.raises(ValueError, match=f"actor 'vwap': state field '{name}': every state has"):
        make_layout("vwap", {name: "u8"})


def test_a_c_actor_says_whether_it_reads_the_wall_time():
    app = ba.App("c")
    kind = app.kind("a", 1)
    declared = [
        app.c_actor("reads", kind, state={"n": "u8"}, function=4096),
        app.c_actor("does_not", kind, state={"n": "u8"}, function=4096, reads_wall=False),
    ]
    assert [actor.reads_wall for actor in declared] == [True, False]


def test_test_engines_run_under_a_clock_that_moves_only_when_told():
    app = vwap_app(lambda state, signal, emit, wall: state.__setitem__("last", wall % 1e9), idle_ns=3600 * 10**9)
    with TestEngine(app) as engine:
        engine.send_all([(TRADE, 1, 1.0)])
        assert engine.state("vwap", 1) is not None
        engine.advance("30m")
        engine.send_all([(TRADE, 2, 1.0)])
        assert engine.state("vwap", 1) is not None
        engine.advance("45m")
        engine.send_all([(TRADE, 2, 1.0)])
        assert engine.state("vwap", 1) is None
        assert engine.state("vwap", 2) is not None
        assert engine.statistics().expired == 1
        with pytest.raises(ValueError, match="clock never goes back"):
            engine._set_wall(5)


def test_a_signal_sent_under_a_fake_clock_has_its_time():
    with TestEngine(vwap_app(lambda state, signal, emit, wall: emit(ALERT, 1, 1.0, time=signal["time"]))) as engine:
        engine.advance("1d")
        engine.send_all([(TRADE, 1, 1.0)])
        assert engine.outputs(ALERT)["time"].tolist() == [engine.clock.now_ns]


@pytest.mark.parametrize("full", ["wiat", None])
def test_settings_out_of_range_are_refused_with_the_range(full):
    with pytest.raises(ValueError, match='give "wait", "refuse" or "drop"'):
        ba.Engine(vwap_app(), full=full)
    with pytest.raises(ValueError, match="0 .inline. to 64"):
        ba.Engine(vwap_app(), 65)
    with pytest.raises(ValueError, match="power of two"):
        ba.Engine(vwap_app(), ring_signals=10000)
    with pytest.raises(ValueError, match="declares no kind"):
        ba.Engine(make_app((), ()))


def test_a_kind_or_actor_not_of_the_app_is_named():
    with ba.Engine(vwap_app(), 0) as engine:
        with pytest.raises(KeyError, match="no actor 'vwop' in app 'test'; it has vwap"):
            engine.state("vwop", 1)
        with pytest.raises(KeyError, match="no kind 'x'"):
            engine.subscribe("x")
        with pytest.raises(KeyError, match="no column 'lst'"):
            engine.table("vwap", ["lst"])
