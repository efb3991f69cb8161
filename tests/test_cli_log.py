"""`bitactor log`: what an operator is told about a data directory that a service has written."""

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest

from bitactor.cli import run as frame
from bitactor.log.snapshots import SnapshotStore
from tests.service_app import app
from tests.service_oracle import stream
from tests.test_runtime_core import Session, on_loop, serving, settings_of

APP = str(Path(__file__).parent / "service_app.py")


@pytest.fixture
def bitactor(capsys):
    def run(*arguments):
        status = frame.main(["log", *(str(each) for each in arguments)])
        told = capsys.readouterr()
        return status, told.out, told.err

    return run


@pytest.fixture
def data(tmp_path):
    signals = stream("a", 6000)

    async def body():
        for turn in range(2):
            async with serving(settings_of(tmp_path / "data"), app) as core:
                session = await Session(core, "a").open()
                await session.send_all(signals[turn * 3000 : (turn + 1) * 3000], turn * 3000)
                await session.acked((turn + 1) * 3000)
                await asyncio.to_thread(core.engine.flush)

    on_loop(body)
    return tmp_path / "data"


def test_inspect_and_verify_tell_what_a_service_wrote(bitactor, data):
    status, out, _ = bitactor("inspect", data)
    assert status == 0
    assert "format 1" in out
    assert "signals   0 to 6,000" in out
    assert out.count("\nsnapshot  ") == 2
    status, out, _ = bitactor("verify", data)
    assert status == 0
    assert "records with 6,000 signals in " in out
    assert "2 snapshots: all is well" in out
    found = json.loads(bitactor("inspect", data, "--json")[1])
    assert found["end"][1] == 6000


def test_damage_is_told_with_status_1(bitactor, data):
    newest = SnapshotStore(data / "snapshots").latest()[0]
    content = bytearray(newest.read_bytes())
    content[-100] ^= 1
    newest.write_bytes(content)
    status, out, _ = bitactor("verify", data)
    assert status == 1
    assert f"wrong  {newest}, offset" in out
    assert "1 problems" in out
    assert json.loads(bitactor("verify", data, "--json")[1])["problems"]


def test_replay_gives_the_state_of_every_snapshot(bitactor, data):
    status, out, err = bitactor("replay", APP, data)
    assert (status, err) == (0, "")
    assert out.count("same ") == 2
    assert "6,000 signals in " in out


def test_replay_finds_a_snapshot_whose_state_is_not_the_log_s(bitactor, data):
    store = SnapshotStore(data / "snapshots", keep=9)
    newest = store.load(store.latest()[0])
    sections = {name: np.frombuffer(view, "u1").copy() for name, view in newest.sections.items()}
    name = max((each for each in sections if "states" in each), key=lambda each: len(sections[each]))
    sections[name][0] ^= 1
    store.write(newest.meta, sections.items())
    status, out, _ = bitactor("replay", APP, data)
    assert status == 1
    assert f"DIFFERENT  {newest.path}" in out


def test_a_backup_is_restored_elsewhere_and_replays_to_the_same(bitactor, data, tmp_path):
    status, out, _ = bitactor("backup", tmp_path / "saved.tar", data)
    assert status == 0
    assert "2 snapshots" in out
    status, out, _ = bitactor("restore", tmp_path / "saved.tar", tmp_path / "new")
    assert status == 0
    assert f"serve it with --data-dir {tmp_path / 'new'}" in out
    assert bitactor("replay", APP, tmp_path / "new")[0] == 0
    status, _, err = bitactor("restore", tmp_path / "saved.tar", data)
    assert status == 1
    assert "restore into a new data directory" in err


def test_compact_leaves_what_the_oldest_snapshot_needs(bitactor, data):
    status, out, _ = bitactor("compact", data)
    assert status == 0
    assert "records removed" in out
    assert bitactor("replay", APP, data)[0] == 0
    assert bitactor("verify", data)[0] == 0


def test_a_directory_without_a_log_is_named(bitactor, tmp_path):
    for verb in ("inspect", "verify"):
        status, _, err = bitactor(verb, tmp_path)
        assert status == 1
        assert f"{tmp_path}/log.sqlite is not there: name the data directory" in err
    status, _, err = bitactor("restore", tmp_path / "none.tar", tmp_path / "new")
    assert status == 1
    assert "no such backup" in err
