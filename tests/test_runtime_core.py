"""Admission, writer, recovery and snapshots together, over a real log and a real engine; without sockets."""

import asyncio
import contextlib
import threading
from types import SimpleNamespace

import numpy as np
import pytest

import bitactor as ba
from bitactor import faults
from bitactor.log.contract import FatalLogError
from bitactor.protocol.errors import Code, ProtocolError
from bitactor.protocol.frames import FrameError, encode_frame, kind_set
from bitactor.protocol.messages import Hello, Name, Subscribe
from bitactor.runtime.core import Core
from bitactor.runtime.recovery import RecoveryError
from bitactor.runtime.writer import SIGNALS_AT_ONCE
from tests.service_app import app
from tests.service_oracle import assert_same_state, read_log, stream, truth_of

KINDS = kind_set(app.kinds)


def settings_of(directory, **given):
    """Settings of a core; given: section__name=value."""
    made = {
        "data_dir": directory,
        "engine": {"shards": 1, "ring_signals": 65536},
        "log": {"kind": "sqlite", "durability": "off", "size_bytes_max": 1 << 30},
        "snapshot": {"every_s": 3600.0, "every_signals": 1 << 40, "keep": 2},
        "limits": {"producers_max": 100, "names_max": 100, "heartbeat_s": 3600.0},
        "outputs": {"window": 1 << 18},
        "telemetry": {"otlp_endpoint": None, "otlp_headers": None, "sample_ratio": 0.0},
    }
    for name, value in given.items():
        section, _, field = name.partition("__")
        made[section][field] = value
    return SimpleNamespace(**{k: SimpleNamespace(**v) if isinstance(v, dict) else v for k, v in made.items()})


class Session:
    """What a session is to admission: a producer, what it was acknowledged, why it lost it."""

    def __init__(self, core, name):
        self.core = core
        self.name = name
        self.acks = []
        self.lost = None
        self.producer = None

    async def open(self, identity="me", **hello):
        admission = self.core.admission
        self.producer = await admission.open_producer(identity, Hello(self.name, **hello), self._take_ack, self._lose)
        return self

    def _take_ack(self, reached, durability, position):
        """An acknowledgement is never ahead of what the log holds and the engine was given."""
        assert reached <= self.core.tables.producers[ba.text_key(self.name)].next
        assert position <= self.core.log.end().position
        assert position <= self.core.engine.statistics().accepted
        self.acks.append((reached, durability, position))

    def _lose(self, code, message):
        self.lost = (code, message)

    def send(self, signals, sequence, epoch=None, kinds=KINDS):
        epoch = self.producer.epoch if epoch is None else epoch
        frame = encode_frame(signals, producer=self.producer.id, sequence=sequence, epoch=epoch)
        return self.core.admission.admit(self.producer, memoryview(frame), kinds)

    async def send_all(self, signals, begin=0, frame=1000):
        for at in range(0, len(signals), frame):
            while not self.core.admission.has_room:
                await asyncio.sleep(0)
            self.send(signals[at : at + frame], begin + at)

    async def acked(self, sequence):
        async with asyncio.timeout(20):
            while not self.acks or self.acks[-1][0] < sequence:
                assert self.lost is None, self.lost
                await asyncio.sleep(0.0005)


@contextlib.asynccontextmanager
async def serving(settings, served=app, *, snapshot=True):
    failures = []
    core = Core(settings, served, failures.append)
    await core.start()
    core.failures = failures
    try:
        yield core
    finally:
        await core.stop(snapshot=snapshot)


def on_loop(body):
    asyncio.run(body())


def check_against_log(directory, state, sent):
    """The state is the log's, and the log has exactly these signals of each producer."""
    truth = read_log(directory, app)
    assert_same_state(state, truth.state)
    assert truth.sent.keys() == {ba.text_key(name) for name in sent}
    for name, signals in sent.items():
        assert truth.sent[ba.text_key(name)].tobytes() == signals.tobytes()
        assert truth.producers[ba.text_key(name)]["next"] == len(signals)
    return truth


def test_what_is_acknowledged_is_durable_and_applied_in_the_order_admitted(tmp_path):
    signals = {name: stream(name, 30_000) for name in ("a", "b", "c")}
    states = []

    async def body():
        async with serving(settings_of(tmp_path), snapshot=False) as core:
            sessions = [await Session(core, name).open() for name in signals]
            await asyncio.gather(*(s.send_all(signals[s.name], frame=777) for s in sessions))
            for session in sessions:
                await session.acked(30_000)
                ends = [ack[0] for ack in session.acks]
                assert ends == sorted(set(ends))
                assert {ack[1] for ack in session.acks} == {core.log.durability}
                assert session.acks[-1][2] <= core.writer.place.position
            assert core.admission.position == core.writer.place.position == 90_000
            assert core.admission.pending == 0
            states.append(await asyncio.to_thread(core.engine.export_state))

    on_loop(body)
    check_against_log(tmp_path, states[0], signals)


def test_without_a_log_small_records_are_written_on_the_loop_and_large_ones_by_the_writer_in_one_order(tmp_path):
    signals = {name: stream(name, 20_000) for name in ("small", "large")}
    records, threads, states = [], set(), []

    async def body():
        async with serving(settings_of(tmp_path, log__kind="none")) as core:
            keep = core.log.append

            def append(record, **place):
                records.append(bytes(record))
                threads.add((threading.current_thread() is threading.main_thread(), place["count"] > SIGNALS_AT_ONCE))
                keep(record, **place)

            core.log.append = append
            small, large = [await Session(core, name).open() for name in signals]

            async def send(session, frame):
                for at in range(0, 20_000, frame):
                    session.send(signals[session.name][at : at + frame], at)
                    await asyncio.sleep(0)

            await asyncio.gather(send(small, 10), send(large, 5_000))
            for session in (small, large):
                await session.acked(20_000)
                ends = [ack[0] for ack in session.acks]
                assert ends == sorted(set(ends))
            assert not core.failures
            states.append(await asyncio.to_thread(core.engine.export_state))

    on_loop(body)
    truth = truth_of(records, app)
    assert_same_state(states[0], truth.state)
    assert {name: truth.sent[ba.text_key(name)].tobytes() for name in signals} == {
        name: sent.tobytes() for name, sent in signals.items()
    }
    assert {(True, False), (False, True)} <= threads
    assert (True, True) not in threads


def test_a_signal_sent_again_in_other_cuts_is_taken_once(tmp_path):
    signals = stream("a", 5_000)
    states = []

    async def body():
        async with serving(settings_of(tmp_path), snapshot=False) as core:
            session = await Session(core, "a").open()
            rng = np.random.default_rng(1)
            reached = 0
            while reached < len(signals):
                begin = int(rng.integers(max(0, reached - 200), reached + 1))
                end = min(len(signals), begin + int(rng.integers(1, 300)))
                new = session.send(signals[begin:end], begin)
                assert new == max(0, end - reached)
                reached = max(reached, end)
                assert session.producer.next == reached
                if rng.random() < 0.3:
                    await asyncio.sleep(0)
            await session.acked(5_000)
            assert core.admission.duplicates > 1000
            states.append(await asyncio.to_thread(core.engine.export_state))

    on_loop(body)
    check_against_log(tmp_path, states[0], {"a": signals})


def test_frames_that_may_not_be_taken_change_nothing(tmp_path):
    signals = stream("a", 100)

    async def body():
        async with serving(settings_of(tmp_path)) as core:
            session = await Session(core, "a").open()
            session.send(signals[:10], 0)
            refused = [
                (Code.SEQUENCE_GAP, lambda: session.send(signals[11:20], 11)),
                (Code.FENCED, lambda: session.send(signals[10:20], 10, epoch=session.producer.epoch + 1)),
                (Code.FENCED, lambda: session.send(signals[:5], 0, epoch=session.producer.epoch - 1)),
            ]
            for code, act in refused:
                with pytest.raises(ProtocolError) as error:
                    act()
                assert error.value.code == code
            frame = encode_frame(signals[:5], producer=7, sequence=0, epoch=session.producer.epoch)
            with pytest.raises(ProtocolError) as error:
                core.admission.admit(session.producer, memoryview(frame), KINDS)
            assert error.value.code == Code.PRODUCER_FORBIDDEN
            for begin in (0, 5, 10, 30):  # duplicates, overlaps and gaps are checked as closely
                frame = bytearray(
                    encode_frame(
                        signals[begin : begin + 10], producer=session.producer.id, sequence=begin,
                        epoch=session.producer.epoch,
                    )
                )  # fmt: skip
                frame[-1] ^= 1
                with pytest.raises(FrameError, match="crc"):
                    core.admission.admit(session.producer, memoryview(frame), KINDS)
                with pytest.raises(FrameError, match="signal_kind"):
                    session.send(signals[begin : begin + 10], begin, kinds=kind_set([3]))
            assert session.producer.next == 10
            assert core.admission.pending <= 10
            await session.acked(10)
            assert core.writer.place.position == 10

    on_loop(body)


def test_a_restart_goes_on_where_the_log_ends_with_and_without_a_snapshot(tmp_path):
    signals, states = stream("a", 9_000), []

    async def body():
        for turn in range(6):
            async with serving(settings_of(tmp_path), snapshot=turn in (1, 3)) as core:
                assert core.writer.place.position == 1500 * turn
                session = await Session(core, "a").open()
                assert session.producer.next == 1500 * turn
                begin = max(0, 1500 * turn - 700)
                await session.send_all(signals[begin : 1500 * (turn + 1)], begin, frame=400)
                await session.acked(1500 * (turn + 1))
                states.append(await asyncio.to_thread(core.engine.export_state))
            assert core.replayed == {0: 0, 1: 1500, 2: 0, 3: 1500, 4: 0, 5: 1500}[turn]

    on_loop(body)
    check_against_log(tmp_path, states[-1], {"a": signals})


def test_outputs_go_on_after_a_restart_as_if_nothing_had_happened(tmp_path):
    signals, rows = stream("a", 6_000), []

    async def body():
        for turn in range(3):
            async with serving(settings_of(tmp_path), snapshot=turn == 0) as core:
                session = await Session(core, "a").open()
                await session.send_all(signals[2000 * turn : 2000 * (turn + 1)], 2000 * turn)
                await session.acked(2000 * (turn + 1))
                await core.drain()
                got = []
                core.hub.subscribe(Subscribe(1, (3,), 0, 0, live=False), lambda data, got=got: got.append(data) or True)
                await asyncio.sleep(0.05)
                rows.append(b"".join(data[32:] for data in got))

    on_loop(body)
    truth = read_log(tmp_path, app)
    wire = truth.outputs.view([(n, f"u{truth.outputs.dtype[n].itemsize}") for n in truth.outputs.dtype.names])
    assert len(wire) > 100
    assert rows[2] == wire.astype(wire.dtype.newbyteorder(">")).tobytes()
    assert rows[2].startswith(rows[1])
    assert rows[1].startswith(rows[0])


def test_a_takeover_fences_the_former_holder_and_goes_on_with_the_sequence(tmp_path):
    signals = stream("a", 30)

    async def body():
        async with serving(settings_of(tmp_path)) as core:
            old = await Session(core, "a").open()
            old.send(signals[:10], 0)
            again = await Session(core, "a").open()
            assert old.lost[0] == Code.SUPERSEDED
            assert (again.producer.epoch, again.producer.next) == (old.producer.epoch, 10)
            new = await Session(core, "a").open(takeover=True)
            assert again.lost[0] == Code.FENCED
            assert (new.producer.epoch, new.producer.next) == (old.producer.epoch + 1, 10)
            with pytest.raises(ProtocolError, match="fenced"):
                again.send(signals[10:20], 10)
            with pytest.raises(ProtocolError, match="fenced"):
                await Session(core, "a").open(epoch=old.producer.epoch)
            with pytest.raises(ProtocolError, match="producer_forbidden"):
                await Session(core, "a").open(identity="another")
            assert new.lost is None
            new.send(signals[10:30], 10)
            await new.acked(30)
        async with serving(settings_of(tmp_path)) as core:
            session = await Session(core, "a").open()
            assert (session.producer.epoch, session.producer.next) == (new.producer.epoch, 30)

    on_loop(body)


def test_names_are_logged_once_and_two_texts_never_share_a_key(tmp_path):
    async def body():
        for turn in range(2):
            async with serving(settings_of(tmp_path, limits__names_max=2), snapshot=turn == 0) as core:
                session = await Session(core, "a").open()
                for text in ("AAPL", "MSFT", "AAPL"):
                    core.admission.admit_name(session.producer, Name(ba.text_key(text), text))
                with pytest.raises(ProtocolError, match="name_mismatch"):
                    core.admission.admit_name(session.producer, Name(5, "AAPL"))
                with pytest.raises(ProtocolError, match="names_full"):
                    core.admission.admit_name(session.producer, Name(ba.text_key("X"), "X"))
                core.tables.names[ba.text_key("GOOG")] = "collides"
                with pytest.raises(ProtocolError, match="name_conflict"):
                    core.admission.admit_name(session.producer, Name(ba.text_key("GOOG"), "GOOG"))
                del core.tables.names[ba.text_key("GOOG")]
        truth = read_log(tmp_path, app)
        assert truth.names == {ba.text_key(text): text for text in ("AAPL", "MSFT")}

    on_loop(body)


def test_an_erased_key_is_gone_from_actors_and_names_for_good(tmp_path):
    key = ba.text_key("AAPL")
    signals = ba.make_signals(ba.Kind("trade", 1, "f8", "u4"), key=np.full(10, key, "u8"), value=1.0, aux=1, time=5)

    async def body():
        async with serving(settings_of(tmp_path), snapshot=False) as core:
            session = await Session(core, "a").open()
            core.admission.admit_name(session.producer, Name(key, "AAPL"))
            session.send(signals, 0)
            erasing = asyncio.ensure_future(core.admission.erase(key))
            await asyncio.sleep(0)
            assert core.admission.name_of(key) is None
            await erasing
            assert core.tables.names == {}
            assert core.engine.state("vwap", key) is None
            session.send(signals[:4], 10)  # the key may come back, and begins anew
            core.admission.admit_name(session.producer, Name(key, "AAPL"))
            await session.acked(14)
            await core.drain()
            assert core.engine.state("vwap", key).volume == 4
            state = await asyncio.to_thread(core.engine.export_state)
        async with serving(settings_of(tmp_path)) as core:
            assert core.tables.names == {key: "AAPL"}
            assert_same_state(await asyncio.to_thread(core.engine.export_state), state)
        truth = read_log(tmp_path, app)
        assert_same_state(truth.state, state)

    on_loop(body)


def test_a_forgotten_producer_begins_anew_and_its_session_ends(tmp_path):
    signals = stream("a", 20)

    async def body():
        async with serving(settings_of(tmp_path, limits__producers_max=1), snapshot=False) as core:
            session = await Session(core, "a").open()
            session.send(signals[:10], 0)
            with pytest.raises(ProtocolError, match="producers_full"):
                await Session(core, "b").open()
            await core.admission.forget(session.producer.id)
            assert session.lost[0] == Code.SUPERSEDED
            with pytest.raises(KeyError):
                await core.admission.forget(12345)
            other = await Session(core, "a").open(identity="another")
            assert other.producer.next == 0
            other.send(signals[:5], 0)
            await other.acked(5)
        async with serving(settings_of(tmp_path)) as core:
            assert [(r.name, r.identity, r.next) for r in core.tables.producers.values()] == [("a", "another", 5)]

    on_loop(body)


def test_room_ends_when_the_writer_stands_and_comes_back_when_it_goes_on(tmp_path):
    signals = stream("a", 8192)

    async def body():
        async with serving(settings_of(tmp_path)) as core:
            session = await Session(core, "a").open()
            told = []
            core.admission.on_room(lambda: told.append(core.admission.has_room))
            gate = asyncio.Event()
            loop = asyncio.get_running_loop()
            core.writer.call(lambda: asyncio.run_coroutine_threadsafe(gate.wait(), loop).result())
            sent = 0
            while core.admission.has_room:
                session.send(np.resize(signals, 8192), sent)
                sent += 8192
                await asyncio.sleep(0)
                assert sent <= 3 * 65536
            assert sent > 65536
            assert not told
            gate.set()
            await session.acked(sent)
            assert told[0] is True
            assert core.admission.has_room

    on_loop(body)


def test_a_failed_append_acknowledges_nothing_and_ends_the_service(tmp_path):
    signals = stream("a", 100)

    async def body():
        async with serving(settings_of(tmp_path), snapshot=False) as core:
            session = await Session(core, "a").open()
            session.send(signals[:50], 0)
            await session.acked(50)

            def fail(*_, **__):
                raise FatalLogError("the disk is gone")

            core.log.append = fail
            session.send(signals[50:], 50)
            async with asyncio.timeout(10):
                while not core.failures:
                    await asyncio.sleep(0.001)
            assert "the disk is gone" in core.failures[0]
            assert session.lost[0] == Code.INTERNAL
            assert session.acks[-1][0] == 50
            with pytest.raises(ProtocolError, match="internal"):
                session.send(signals[50:], 50)
            with pytest.raises(ProtocolError, match="internal"):
                await Session(core, "b").open()
            assert core.engine.state("vwap", int(signals[0]["key"])) is not None
            del core.log.append
        async with serving(settings_of(tmp_path)) as core:
            session = await Session(core, "a").open()
            assert session.producer.next == 50

    on_loop(body)


@pytest.mark.parametrize("snapshots_work", [True, False])
def test_a_full_log_makes_room_by_a_snapshot_or_refuses_and_keeps_what_it_acknowledged(tmp_path, snapshots_work):
    signals = stream("a", 400_000)

    async def body():
        given = settings_of(tmp_path, log__size_bytes_max=64 * 65536)
        async with serving(given, snapshot=False) as core:
            if not snapshots_work:
                (tmp_path / "snapshots").write_text("not a directory")
            session = await Session(core, "a").open()
            sent = 0
            async with asyncio.timeout(60):
                while sent < len(signals) and session.lost is None:
                    if not core.admission.has_room:
                        await asyncio.sleep(0.001)
                        continue
                    with contextlib.suppress(ProtocolError):
                        session.send(signals[sent : sent + 8192], sent)
                        sent += min(8192, len(signals) - sent)
                    await asyncio.sleep(0)
            if snapshots_work:
                await session.acked(len(signals))
                assert core.snapshots.taken >= 1
                assert core.log.first().sequence > 0
                return
            assert session.lost[0] == Code.LOG_FULL
            acked = session.acks[-1][0]
            assert core.writer.place.position == acked < sent
            with pytest.raises(ProtocolError, match="log_full"):
                await Session(core, "a").open()
            (tmp_path / "snapshots").unlink()
            core.snapshots._failed_at = 0.0
            await asyncio.sleep(1.2)
            session = await Session(core, "a").open()
            assert session.producer.next == acked
            await session.send_all(signals[acked:], acked)
            await session.acked(len(signals))
        async with serving(given) as core:
            assert core.tables.producers[ba.text_key("a")].next == len(signals)

    on_loop(body)


def test_state_that_lost_signals_for_want_of_memory_is_never_kept(tmp_path):
    signals = stream("a", 100)

    async def body():
        async with serving(settings_of(tmp_path), snapshot=False) as core:
            session = await Session(core, "a").open()
            session.send(signals, 0)
            await session.acked(100)
            export = core.engine.export_state

            def short_of_memory(buffers=None):
                state = export(buffers)
                state.counters["dropped.no_memory"] += 3
                return state

            core.engine.export_state = short_of_memory
            with pytest.raises(MemoryError, match="3 signals were dropped"):
                await core.snapshots.take()
            await asyncio.sleep(0.05)
            assert "for want of memory" in core.failures[0]
            assert session.lost[0] == Code.INTERNAL
            assert not core.snapshots.newest
            del core.engine.export_state

    on_loop(body)


def short_of_memory(engine):
    """The engine says from now on that it dropped three emits for want of memory."""
    read = type(engine).statistics

    def statistics():
        figures = read(engine)
        figures.emits_dropped["no_memory"] += 3
        return figures

    engine.statistics = statistics


def test_a_signal_lost_for_want_of_memory_ends_the_service_without_waiting_for_a_snapshot(tmp_path, monkeypatch):
    monkeypatch.setattr("bitactor.runtime.core._WATCH_S", 0.01)

    async def body():
        async with serving(settings_of(tmp_path), snapshot=False) as core:
            session = await Session(core, "a").open()
            await asyncio.sleep(0.05)
            assert core.failures == []
            short_of_memory(core.engine)
            async with asyncio.timeout(10):
                while not core.failures:
                    await asyncio.sleep(0.01)
            assert "3 signals were dropped for want of memory" in core.failures[0]
            assert session.lost[0] == Code.INTERNAL

    on_loop(body)


def test_a_replay_that_lacked_memory_is_not_served(tmp_path, monkeypatch):
    async def write():
        async with serving(settings_of(tmp_path), snapshot=False) as core:
            session = await Session(core, "a").open()
            session.send(stream("a", 100), 0)
            await session.acked(100)

    async def read():
        with pytest.raises(RecoveryError, match="dropped for want of memory: give the process more"):
            async with serving(settings_of(tmp_path)):
                pass

    on_loop(write)
    begin = Core._make_engine

    def made(core):
        engine = begin(core)
        short_of_memory(engine)
        return engine

    monkeypatch.setattr(Core, "_make_engine", made)
    on_loop(read)


def test_room_is_made_while_a_snapshot_of_the_same_place_is_written(tmp_path, monkeypatch):
    begun, go_on = threading.Event(), threading.Event()

    def point(name):
        if name == "snapshot.written" and threading.current_thread().name.startswith("bitactor snapshots"):
            begun.set()
            go_on.wait(20)

    monkeypatch.setattr(faults, "point", point)

    async def body():
        async with serving(settings_of(tmp_path), snapshot=False) as core:
            session = await Session(core, "a").open()
            session.send(stream("a", 100), 0)
            await session.acked(100)
            taking = asyncio.create_task(core.snapshots.take())
            await asyncio.to_thread(begun.wait, 20)
            making = asyncio.wrap_future(core.writer.call(core.snapshots.make_room))
            await asyncio.sleep(0.1)  # long enough to have removed the other's file
            go_on.set()
            await asyncio.gather(taking, making)
            assert (core.snapshots.taken, core.snapshots.failures) == (2, 0)

    on_loop(body)


def test_who_asks_the_writer_for_something_and_leaves_does_no_harm(tmp_path):
    """A snapshot is cancelled while the writer still writes, as a stop does: records go on, the stop is a good one."""
    signals = stream("a", 1_000)

    async def body():
        async with serving(settings_of(tmp_path)) as core:
            session = await Session(core, "a").open()
            session.send(signals[:500], 0)
            begun, go_on = threading.Event(), threading.Event()
            core.writer.call(lambda: (begun.set(), go_on.wait(20)))
            taking = asyncio.create_task(core.snapshots.take())
            await asyncio.to_thread(begun.wait, 20)
            while not core.writer._queue.qsize():
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.05)  # the snapshot's copy waits behind what the writer does
            taking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await taking
            go_on.set()
            session.send(signals[500:], 500)
            await session.acked(1_000)
            assert core.failures == []

    on_loop(body)
    assert read_log(tmp_path, app).sent[ba.text_key("a")].tobytes() == signals.tobytes()


def test_a_log_that_keeps_nothing_acknowledges_in_order_whichever_thread_did_the_work(tmp_path):
    signals = {name: stream(name, 40_000) for name in ("a", "b")}

    async def body():
        async with serving(settings_of(tmp_path, log__kind="none")) as core:
            rng, here, counts = np.random.default_rng(5), core.engine.try_apply, {True: 0, False: 0}

            def try_apply(*given):
                done = rng.random() < 0.7 and here(*given)  # at times there is no room just now
                counts[done] += 1
                return done

            core.engine.try_apply = try_apply
            sessions = [await Session(core, name).open() for name in signals]
            while any(session.producer.next < 40_000 for session in sessions):
                for session in sessions:
                    at = session.producer.next
                    count = int(rng.choice([1, 50, 4000]))
                    if core.admission.has_room and at < 40_000:
                        session.send(signals[session.name][at : at + count], at)
                    if rng.random() < 0.2 and session.producer.next:
                        await session.acked(session.producer.next)
                await asyncio.sleep(0)
            for session in sessions:
                await session.acked(40_000)
                ends = [ack[0] for ack in session.acks]
                assert ends == sorted(set(ends))
            assert min(counts.values()) > 0
            assert not core.failures
            await core.drain()
            trades = np.concatenate([s[s["kind"] == 1] for s in signals.values()])
            volumes = core.engine.table("vwap").columns
            got = dict(zip(volumes["key"].tolist(), volumes["volume"].tolist(), strict=True))
            keys = np.unique(trades["key"]).tolist()
            assert got == {key: int(trades["aux"][trades["key"] == key].sum()) for key in keys}
            del core.engine.try_apply

    on_loop(body)
