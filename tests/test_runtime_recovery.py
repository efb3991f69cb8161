"""What recovery does with damage, with a log that is too short or too new, and with an app that has changed."""

import asyncio
import importlib.util
import json
from pathlib import Path

import pytest

import bitactor as ba
from bitactor.log.contract import CorruptionError
from bitactor.log.snapshots import SnapshotStore, load
from bitactor.log.sqlite import SqliteLog
from bitactor.runtime.recovery import RecoveryError
from bitactor.runtime.replay import replay
from tests.service_app import app
from tests.service_oracle import assert_same_state, read_log, stream
from tests.test_runtime_core import Session, on_loop, serving, settings_of


def app_of_version(monkeypatch, version):
    """The tests' app as another release of it declares it."""
    monkeypatch.setenv("BITACTOR_TEST_APP", version)
    path = Path(__file__).parent / "service_app.py"
    spec = importlib.util.spec_from_file_location(f"service_app_{version}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.app


async def run_turn(directory, signals, begin, end, *, snapshot=True, served=app, **given):
    """Serve, send signals [begin, end) of producer a, stop; the state at the end."""
    async with serving(settings_of(directory, **given), served, snapshot=snapshot) as core:
        session = await Session(core, "a").open()
        assert session.producer.next == begin
        await session.send_all(signals[begin:end], begin)
        await session.acked(end)
        return await asyncio.to_thread(core.engine.export_state)


def damage(path, at=-3000):
    data = bytearray(path.read_bytes())
    data[at] ^= 0x40
    path.write_bytes(data)


def test_a_damaged_snapshot_is_set_aside_and_the_one_before_it_is_taken(tmp_path, caplog):
    signals = stream("a", 4000)

    async def body():
        for turn in range(3):
            await run_turn(tmp_path, signals, 1000 * turn, 1000 * (turn + 1))
        newest, older = SnapshotStore(tmp_path / "snapshots").latest()
        damage(newest)
        async with serving(settings_of(tmp_path), snapshot=False) as core:
            assert core.replayed == 1000
            session = await Session(core, "a").open()
            assert session.producer.next == 3000
        assert "is damaged" in caplog.text
        assert not newest.exists()
        assert newest.with_suffix(".damaged").exists()
        damage(older)
        state = await run_turn(tmp_path, signals, 3000, 4000, snapshot=False)  # the log still has everything
        truth = read_log(tmp_path, app)
        assert_same_state(state, truth.state)

    on_loop(body)


def test_without_the_snapshot_that_retention_relied_on_nothing_is_guessed(tmp_path):
    signals = stream("a", 400_000)

    async def body():
        async with serving(settings_of(tmp_path)) as core:
            session = await Session(core, "a").open()
            for turn in range(4):
                begin = 100_000 * turn
                await session.send_all(signals[begin : begin + 100_000], begin, frame=8192)
                await session.acked(begin + 100_000)
                await core.snapshots.take()
        log = SqliteLog.open(tmp_path)
        while log.tidy():
            pass
        first = log.first().sequence
        log.close()
        assert first > 0
        for path in SnapshotStore(tmp_path / "snapshots").latest():
            path.unlink()
        with pytest.raises(RecoveryError, match=f"begins with record {first}.*restore a backup"):
            await run_turn(tmp_path, signals, 0, 1)

    on_loop(body)


def test_a_damaged_record_stops_recovery_and_names_it(tmp_path):
    import apsw

    signals = stream("a", 3000)

    async def body():
        await run_turn(tmp_path, signals, 0, 3000, snapshot=False)
        connection = apsw.Connection(str(tmp_path / "log.sqlite"))
        last, data = connection.execute("SELECT sequence, record FROM record ORDER BY sequence DESC LIMIT 1").get
        data = bytearray(data)
        data[-5] ^= 1
        connection.execute("UPDATE record SET record = ? WHERE sequence = ?", (bytes(data), last))
        connection.close()
        with pytest.raises(CorruptionError, match=f"record {last}"):
            await run_turn(tmp_path, signals, 0, 1)

    on_loop(body)


def test_a_snapshot_that_is_ahead_of_its_log_is_refused_and_nothing_is_removed(tmp_path):
    signals = stream("a", 3000)

    async def body():
        await run_turn(tmp_path, signals, 0, 1000)
        kept = (tmp_path / "log.sqlite").read_bytes()
        await run_turn(tmp_path, signals, 1000, 2000)
        (tmp_path / "log.sqlite").write_bytes(kept)
        newest = SnapshotStore(tmp_path / "snapshots").latest()[0]
        with pytest.raises(RecoveryError, match=f"record {int(newest.stem)}.* ends with .*restore a backup"):
            await run_turn(tmp_path, signals, 1000, 3000, snapshot=False)
        newest.unlink()
        state = await run_turn(tmp_path, signals, 1000, 3000, snapshot=False)
        assert_same_state(state, read_log(tmp_path, app).state)

    on_loop(body)


def test_a_changed_app_goes_on_from_a_snapshot_that_covers_the_log(tmp_path, monkeypatch):
    signals, changed = stream("a", 3000), app_of_version(monkeypatch, "2")

    async def body():
        before = await run_turn(tmp_path, signals, 0, 1000)
        async with serving(settings_of(tmp_path), changed, snapshot=False) as core:
            state = await asyncio.to_thread(core.engine.export_state)
            assert (state.actor("vwap").keys == before.actor("vwap").keys).all()
            assert (state.actor("vwap").rows["notional"] == before.actor("vwap").rows["notional"]).all()
            assert not state.actor("vwap").rows["trades"].any()
            assert core.snapshots.newest is not None
        after = await run_turn(tmp_path, signals, 1000, 2000, served=changed, snapshot=False)
        again = await run_turn(tmp_path, signals, 2000, 3000, served=changed, snapshot=False)
        assert again.position == 3000
        assert after.position == 2000
        log = SqliteLog.open(tmp_path)
        said = [json.loads(bytes(raw)[64:]) for raw in log.read(0) if raw[5] == 2]
        log.close()
        assert [len(each["actors"][0]["fields"]) for each in said] == [3, 4]

    on_loop(body)


def test_a_kill_between_the_new_app_record_and_its_snapshot_is_gone_on_from(tmp_path, monkeypatch):
    signals, changed = stream("a", 2000), app_of_version(monkeypatch, "2")

    async def body():
        await run_turn(tmp_path, signals, 0, 1000)
        first = await run_turn(tmp_path, signals, 1000, 2000, served=changed, snapshot=False)
        newest = SnapshotStore(tmp_path / "snapshots").latest()[0]
        assert len(load(newest).meta["app"]["actors"][0]["fields"]) == 4
        newest.unlink()  # as if the process had died before it was written
        async with serving(settings_of(tmp_path), changed, snapshot=False) as core:
            assert core.replayed == 1000
            assert_same_state(await asyncio.to_thread(core.engine.export_state), first)

    on_loop(body)


def test_a_changed_app_is_refused_while_the_log_holds_what_only_the_former_can_replay(tmp_path, monkeypatch):
    signals, changed = stream("a", 3000), app_of_version(monkeypatch, "2")

    async def body():
        await run_turn(tmp_path, signals, 0, 1000)
        await run_turn(tmp_path, signals, 1000, 2000, snapshot=False)
        with pytest.raises(RecoveryError, match="serve the former app once more"):
            await run_turn(tmp_path, signals, 2000, 3000, served=changed)
        await run_turn(tmp_path, signals, 2000, 3000)  # nothing was changed, and its last snapshot covers the log
        async with serving(settings_of(tmp_path), changed) as core:
            assert core.writer.place.position == 3000

    on_loop(body)


def test_an_app_of_another_name_does_not_take_over_a_data_directory(tmp_path):
    signals, other = stream("a", 200), ba.App("another")
    other.kind("trade", 1)

    async def body():
        await run_turn(tmp_path, signals, 0, 100)
        with pytest.raises(RecoveryError, match="is of the app '.*', and the app given is 'another'"):
            await run_turn(tmp_path, signals, 100, 200, served=other)
        assert (await run_turn(tmp_path, signals, 100, 200)).position == 200

    on_loop(body)


def test_replay_to_one_side_begins_behind_a_change_of_the_app(tmp_path, monkeypatch):
    newer = app_of_version(monkeypatch, "2")
    signals, said = stream("a", 300), []

    async def body():
        await run_turn(tmp_path, signals, 0, 100)
        await run_turn(tmp_path, signals, 100, 200, served=newer)
        await run_turn(tmp_path, signals, 200, 300, served=newer)

    on_loop(body)
    done = replay(tmp_path, newer, said.append)
    assert done.agrees and done.same
    assert (done.begun.position, done.signals, done.end.position) == (200, 100, 300)  # two snapshots are kept
    assert "what lies before record" in said[0]


def test_an_app_record_of_a_newer_format_is_refused_naming_both(tmp_path, monkeypatch):
    monkeypatch.setattr("bitactor.runtime.app.APP_FORMAT", 2)

    async def body():
        async with serving(settings_of(tmp_path), snapshot=False):
            pass
        monkeypatch.undo()
        with pytest.raises(RecoveryError, match="format 2; this release reads 1"):
            await run_turn(tmp_path, stream("a", 1), 0, 1)

    on_loop(body)
