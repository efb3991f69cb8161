"""Looking at a data directory, verifying, compacting, backing up and restoring it, beside a writer and alone."""

import contextlib
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from bitactor.log import maintenance
from bitactor.log.contract import CorruptionError, End, First, LogLockedError
from bitactor.log.reader import LogReader
from bitactor.log.snapshots import SnapshotStore
from bitactor.log.sqlite import SqliteLog
from tests.log_contract.records import record

ROOT = Path(__file__).parent.parent


def snapshot(directory, sequence):
    meta = {"sequence": sequence, "position": sequence * 10}
    return SnapshotStore(directory / "snapshots", keep=9).write(meta, [("state", b"s" * sequence)])


def fill(directory, count=60, length=3_000):
    with contextlib.closing(SqliteLog.open(directory)) as log:
        for sequence in range(log.end().sequence, count):
            record(sequence, length).to(log)


def contents(directory):
    with contextlib.closing(SqliteLog.open(directory)) as log:
        return [bytes(each) for each in log.read(log.first().sequence)]


def expected(first, end, length=3_000):
    return [record(sequence, length).record for sequence in range(first, end)]


def flip(path, found, offset=0):
    """Change a bit of it wherever it stands: SQLite may have moved a record and left its old bytes behind."""
    data = path.read_bytes()
    changed = bytearray(found)
    changed[offset] ^= 1
    assert found in data
    path.write_bytes(data.replace(found, changed))


@pytest.fixture
def data(tmp_path):
    fill(tmp_path / "data")
    snapshot(tmp_path / "data", 20)
    snapshot(tmp_path / "data", 50)
    return tmp_path / "data"


def test_inspection_tells_where_the_log_and_its_snapshots_are(data):
    found = maintenance.inspect(data)
    assert (found.format, found.first, found.end) == (1, First(0, 0), End(60, 600, 1_029))
    assert found.file_bytes == (data / "log.sqlite").stat().st_size
    assert [(each.sequence, each.position, each.problem) for each in found.snapshots] == [
        (50, 500, None),
        (20, 200, None),
    ]


def test_inspection_and_verification_work_beside_the_writer(data):
    with contextlib.closing(SqliteLog.open(data)) as log:
        record(60, 3_000).to(log)
        assert maintenance.inspect(data).end.sequence == 61
        found = maintenance.verify(data)
        assert found.problems == []
        assert (found.records, found.signals, found.snapshots) == (61, 610, 2)
        record(61, 3_000).to(log)


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="name the data directory of a service"):
        maintenance.inspect(tmp_path)


def test_verification_goes_on_behind_damage_and_names_all_of_it(data):
    for sequence in (7, 31):
        flip(data / "log.sqlite", record(sequence, 3_000).record, 100)
    flip(SnapshotStore(data / "snapshots").latest()[0], b"ssssss")
    steps = []
    found = maintenance.verify(data, lambda done, total: steps.append((done, total)))
    assert found.records == 58
    assert len(found.problems) == 3
    for part, problem in zip(
        ("record 7, offset 32", "record 31, offset 32", "section 'state'"), found.problems, strict=True
    ):
        assert part in problem


def test_verification_finds_a_log_that_no_snapshot_leads_up_to(data):
    with contextlib.closing(SqliteLog.open(data)) as log:
        log.truncate_before(30)
        while log.tidy():
            pass
    assert maintenance.verify(data).problems == [
        f"{data / 'log.sqlite'} begins with record 30; a good snapshot covers only 20"
    ]
    snapshot(data, 70)
    assert any("is of record 70; the log ends with 60" in problem for problem in maintenance.verify(data).problems)


def test_compacting_removes_what_the_oldest_good_snapshot_covers(data):
    fill(data, 120, 90_000)
    snapshot(data, 110)
    for path in SnapshotStore(data / "snapshots").latest()[1:]:
        path.unlink()
    before, after = maintenance.compact(data)
    assert (before.first.sequence, after.first.sequence, after.end) == (0, 110, before.end)
    assert after.file_bytes < before.file_bytes / 3
    assert contents(data) == expected(110, 120, 90_000)


def test_compacting_without_a_good_snapshot_removes_nothing(data):
    for path in SnapshotStore(data / "snapshots").latest():
        path.write_bytes(b"")
    maintenance.compact(data)
    assert contents(data) == expected(0, 60)


def test_compacting_beside_a_writer_is_refused(data):
    with contextlib.closing(SqliteLog.open(data)), pytest.raises(LogLockedError, match=f"process {os.getpid()}"):
        maintenance.compact(data)


@pytest.mark.parametrize("name", ["saved", "saved.tar"])
def test_a_backup_restores_to_the_same_records_and_snapshots(data, tmp_path, name):
    made = maintenance.backup(data, tmp_path / name)
    assert (made.first, made.end, made.snapshots) == (First(0, 0), End(60, 600, 1_029), 2)
    restored = maintenance.restore(tmp_path / name, tmp_path / "elsewhere" / "new")
    assert restored.end == made.end
    assert contents(tmp_path / "elsewhere" / "new") == contents(data)
    for path in SnapshotStore(data / "snapshots").latest():
        assert (tmp_path / "elsewhere" / "new" / "snapshots" / path.name).read_bytes() == path.read_bytes()
    assert not list(tmp_path.rglob("*.partial"))
    fill(tmp_path / "elsewhere" / "new", 70)  # and it goes on
    assert contents(tmp_path / "elsewhere" / "new") == expected(0, 70)


def test_what_is_no_backup_is_not_restored(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "letter.txt").write_text("hello")
    with tarfile.open(tmp_path / "folder.tar", "w") as archive:
        archive.add(tmp_path / "folder", ".")
    for source in ("folder", "folder.tar"):
        with pytest.raises(CorruptionError, match="no backup is here: it has no log.sqlite"):
            maintenance.restore(tmp_path / source, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_backup_of_a_log_that_retention_shortened_begins_where_it_does(data, tmp_path):
    with contextlib.closing(SqliteLog.open(data)) as log:
        log.truncate_before(20)
        while log.tidy():
            pass
    made = maintenance.backup(data, tmp_path / "b")
    assert made.first == First(20, 200)
    maintenance.restore(tmp_path / "b", tmp_path / "new")
    assert contents(tmp_path / "new") == expected(20, 60)


def test_an_empty_log_can_be_backed_up(tmp_path):
    SqliteLog.open(tmp_path / "data").close()
    maintenance.backup(tmp_path / "data", tmp_path / "b.tar")
    assert maintenance.restore(tmp_path / "b.tar", tmp_path / "new").end == End(0, 0, 0)


def test_a_backup_beside_a_busy_process_is_whole(tmp_path):
    data = tmp_path / "data"
    command = [sys.executable, "-m", "tests.log_contract.writer", data, "off", "100000", "20000"]
    environment = os.environ | {"KEEP": "20000"}  # more than it writes while a backup is made, on a busy machine too
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        for _ in range(50):
            process.stdout.readline()
        for number in range(3):
            made = maintenance.backup(data, tmp_path / f"b{number}")
            assert made.end.sequence > made.first.sequence
            assert contents(tmp_path / f"b{number}") == expected(made.first.sequence, made.end.sequence, 20_000)
        assert process.poll() is None
        process.kill()
        process.stdout.read()


def test_nothing_is_ever_overwritten(data, tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(FileExistsError, match="name a new backup"):
        maintenance.backup(data, tmp_path / "there")
    maintenance.backup(data, tmp_path / "b")
    with pytest.raises(FileExistsError, match="restore into a new data directory"):
        maintenance.restore(tmp_path / "b", data)
    maintenance.restore(tmp_path / "b", tmp_path / "there")  # empty: its owner made it for this


@pytest.mark.parametrize("name", ["../outside", "/outside", "snapshots/../../outside", "link"])
def test_a_tar_that_reaches_outside_is_no_backup(tmp_path, name):
    fill(tmp_path / "data", 3)
    maintenance.backup(tmp_path / "data", tmp_path / "b.tar")
    with tarfile.open(tmp_path / "b.tar", "a") as archive:
        member = tarfile.TarInfo(name)
        if name == "link":
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(member)
    with pytest.raises(CorruptionError, match="is no file of a backup"):
        maintenance.restore(tmp_path / "b.tar", tmp_path / "new")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["b.tar", "data"]


def test_restoring_needs_nothing_that_an_older_python_lacks(tmp_path, monkeypatch):
    fill(tmp_path / "data", 3)
    maintenance.backup(tmp_path / "data", tmp_path / "b.tar")
    monkeypatch.delattr(tarfile, "data_filter", raising=False)  # as in Python 3.11.2
    monkeypatch.delattr(tarfile.TarFile, "extractall")
    maintenance.restore(tmp_path / "b.tar", tmp_path / "new")
    assert contents(tmp_path / "new") == contents(tmp_path / "data")


@pytest.mark.parametrize("what", ["record", "snapshot", "tar", "missing"])
def test_a_damaged_backup_is_refused_and_leaves_nothing(data, tmp_path, what):
    saved = tmp_path / "b"
    maintenance.backup(data, saved)
    if what == "record":
        flip(saved / "log.sqlite", record(30, 3_000).record, 200)
    elif what == "snapshot":
        flip(SnapshotStore(saved / "snapshots").latest()[0], b"sssss")
    elif what == "missing":
        (saved / "log.sqlite").rename(saved / "other")
    else:
        with tarfile.open(tmp_path / "b.tar", "w") as archive:
            archive.add(saved, ".")
        whole = (tmp_path / "b.tar").read_bytes()
        saved = tmp_path / "cut.tar"
        saved.write_bytes(whole[: len(whole) // 2])
    with pytest.raises((CorruptionError, FileNotFoundError)):
        maintenance.restore(saved, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    assert not list(tmp_path.glob("*.partial"))


def test_a_damaged_log_gives_no_backup(data, tmp_path):
    flip(data / "log.sqlite", record(30, 3_000).record, 200)
    with pytest.raises(CorruptionError, match="record 30, offset 32"):
        maintenance.backup(data, tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_a_reader_follows_a_log_that_another_writes(data):
    reader = LogReader(data)
    with contextlib.closing(SqliteLog.open(data)) as log:
        record(60, 3_000).to(log)
        assert reader.end().sequence == 61
        assert [bytes(each) for each in reader.read(58)] == expected(58, 61)
        with pytest.raises(ValueError, match="record 62 is beyond the end, 61"):
            reader.read(62)


def test_only_an_empty_log_can_begin_elsewhere(data):
    with contextlib.closing(SqliteLog.open(data)) as log, pytest.raises(ValueError, match="has records"):
        log.start_at(End(5, 50, 0))
