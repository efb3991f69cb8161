"""The embedded log alone: who else may have it, what it refuses to open, its maximum size, a disk that fails."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from bitactor.log import database
from bitactor.log.contract import CorruptionError, FatalLogError, FormatError, LogFullError, LogLockedError
from bitactor.log.sqlite import SqliteLog
from tests.log_contract.records import record

ROOT = Path(__file__).parent.parent


def filled(path, count=20, length=500, **options):
    with contextlib.closing(SqliteLog.open(path, **options)) as log:
        for sequence in range(count):
            record(sequence, length).to(log)
    return path / "log.sqlite"


def contents(log):
    return [bytes(each) for each in log.read(log.first().sequence)]


def writer(directory, durability, count, length, *more, environment=None, timeout=120):
    return subprocess.run(
        [sys.executable, "-m", "tests.log_contract.writer", directory, durability, str(count), str(length), *more],
        cwd=ROOT, env=os.environ | (environment or {}), capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip


def test_the_bundled_sqlite_is_past_the_wal_corruption_bug():
    version = tuple(int(part) for part in apsw.sqlite_lib_version().split("."))
    assert version >= (3, 51, 3)


def test_a_second_process_is_refused_and_told_who_has_it(tmp_path):
    with contextlib.closing(SqliteLog.open(tmp_path)):
        done = writer(tmp_path, "full", 1, 1)
        assert done.returncode == 1
        assert f"{tmp_path} is in use by process {os.getpid()} on " in done.stderr
        with pytest.raises(LogLockedError, match="stop that process first"):
            SqliteLog.open(tmp_path)
    SqliteLog.open(tmp_path).close()


def test_a_log_that_would_not_open_does_not_keep_its_directory(tmp_path):
    (tmp_path / "log.sqlite").write_bytes(b"x" * 5_000)
    for _ in range(2):
        with pytest.raises(FormatError, match="is not a BitActor log, or its first bytes are damaged"):
            SqliteLog.open(tmp_path)
    (tmp_path / "log.sqlite").unlink()
    SqliteLog.open(tmp_path).close()


def test_a_newer_format_is_refused_and_both_are_named(tmp_path):
    path = filled(tmp_path)
    with contextlib.closing(apsw.Connection(str(path))) as connection:
        connection.execute("UPDATE meta SET value = 2 WHERE name = 'format'")
    with pytest.raises(FormatError, match="has log format 2; this program knows 1: use the program that wrote it"):
        SqliteLog.open(tmp_path)


def test_another_program_s_database_is_left_alone(tmp_path):
    path = tmp_path / "log.sqlite"
    with contextlib.closing(apsw.Connection(str(path))) as connection:
        connection.execute("CREATE TABLE a (b); INSERT INTO a VALUES (1)")
    with pytest.raises(FormatError, match="a SQLite file, but not a BitActor log"):
        SqliteLog.open(tmp_path)
    with contextlib.closing(apsw.Connection(str(path))) as connection:
        assert connection.execute("SELECT b FROM a").get == 1


@pytest.mark.parametrize("left", [b"", None])
def test_a_log_whose_making_was_cut_short_is_made_again(tmp_path, left):
    path = tmp_path / "log.sqlite"
    if left is None:  # died after the header, before the tables
        with contextlib.closing(database.connect(path)) as connection:
            database.lay_out(connection)
    else:
        path.write_bytes(left)
    filled(tmp_path, 3)
    with contextlib.closing(SqliteLog.open(tmp_path)) as log:
        assert len(contents(log)) == 3


def test_wrong_options_are_refused(tmp_path):
    with pytest.raises(ValueError, match="log.durability is 'fulll': it is full, normal or off"):
        SqliteLog.open(tmp_path, durability="fulll")
    with pytest.raises(ValueError, match="log.size_bytes_max is 5: "):
        SqliteLog.open(tmp_path, size_bytes_max=5)


def test_a_full_log_refuses_until_retention_made_room_and_changes_nothing(tmp_path):
    limit = 64 * database.PAGE_BYTES
    with contextlib.closing(SqliteLog.open(tmp_path, size_bytes_max=limit)) as log:
        kept = 0
        error = None
        while error is None:
            try:
                record(kept, 300_000).to(log)
                kept += 1
            except LogFullError as caught:
                error = caught
        assert f"of log.size_bytes_max = {limit} bytes: a snapshot lets old records go" in str(error)
        assert 5 < kept < 14
        assert log.full
        before = contents(log)
        assert before == [record(sequence, 300_000).record for sequence in range(kept)]
        for length in (0, 300_000, 100):  # a smaller one does not slip in
            with pytest.raises(LogFullError):
                record(kept, length).to(log)
        assert contents(log) == before
        assert log.end().sequence == kept
        assert log.statistics().refused == 4
        log.truncate_before(3)  # no tidy: the append makes the room itself
        record(kept, 300_000).to(log)
        assert not log.full
        assert log.first().sequence == 3
        assert log.size() <= limit
        assert contents(log)[-1] == record(kept, 300_000).record


def test_the_file_stays_within_the_maximum_however_much_goes_through(tmp_path):
    limit = 64 * database.PAGE_BYTES
    with contextlib.closing(SqliteLog.open(tmp_path, size_bytes_max=limit, durability="off")) as log:
        for sequence in range(300):
            log.truncate_before(sequence - 4)
            record(sequence, 150_000).to(log)
    assert (tmp_path / "log.sqlite").stat().st_size <= limit


def test_free_pages_can_be_given_back(tmp_path):
    path = filled(tmp_path, 40, 200_000)
    size = path.stat().st_size
    with contextlib.closing(SqliteLog.open(tmp_path)) as log:
        log.truncate_before(38)
        while log.tidy():
            pass
        assert log.release_free(4)
        while log.release_free(4):
            pass
        assert contents(log) == [record(38, 200_000).record, record(39, 200_000).record]
    assert path.stat().st_size < size / 5


# --- a disk that fails


def test_a_disk_that_is_full_is_fatal_and_keeps_what_was_acknowledged(tmp_path):
    done = writer(tmp_path, "full", 500, 100_000, str(3 << 20))
    check_stopped(done, tmp_path)


def test_a_small_file_system_that_is_full_is_fatal_too(tmp_path):
    mounted = tmp_path / "small"
    mounted.mkdir()
    code = 'mount -t tmpfs -o size=4M none "$1" || exit 77; shift; "$@"; s=$?; cp -r "$0"/. "$0.left"; exit $s'
    command = [sys.executable, "-m", "tests.log_contract.writer", mounted, "full", "500", "100000"]
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", code, mounted, mounted, *command],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("no file system can be mounted here")
    check_stopped(done, tmp_path / "small.left")


def check_stopped(done, directory):
    assert done.returncode == 3, done.stderr
    *acknowledged, error = done.stdout.splitlines()
    assert "what the disk holds is unknown, so this log refuses everything" in error
    assert len(acknowledged) > 5
    with contextlib.closing(SqliteLog.open(directory)) as log:
        assert log.end().sequence in (len(acknowledged), len(acknowledged) + 1)
        first = log.first().sequence
        assert contents(log) == [record(sequence, 100_000).record for sequence in range(first, log.end().sequence)]


class FailingFile(apsw.VFSFile):
    """Does what the default does, until told to fail."""

    def __init__(self, name, flags, vfs):
        super().__init__("", name, flags)
        self.vfs, self.wal = vfs, bool(flags[0] & apsw.SQLITE_OPEN_WAL)

    def xSync(self, flags):
        if self.vfs.fail == ("sync", self.wal):
            raise apsw.IOError("planted")
        super().xSync(flags)

    def xWrite(self, data, offset):
        if self.vfs.fail == ("write", self.wal):
            raise apsw.FullError("planted")
        super().xWrite(data, offset)


class FailingVfs(apsw.VFS):
    """A disk that fails when `fail` says what, and whether of the WAL."""

    def __init__(self, name):
        super().__init__(name, "")
        self.fail = None

    def xOpen(self, name, flags):
        return FailingFile(name, flags, self)


@pytest.mark.parametrize("what", ["sync", "write"])
@pytest.mark.parametrize("wal", [True, False], ids=["wal", "file"])
def test_a_failed_write_or_sync_is_fatal_and_the_next_opening_has_every_acknowledged_record(tmp_path, what, wal):
    vfs = FailingVfs(f"failing-{what}-{wal}")
    log = SqliteLog.open(tmp_path, vfs=f"failing-{what}-{wal}",
                         checkpoint_bytes=1 << 19)  # fmt: skip
    for sequence in range(5):
        record(sequence, 1_000).to(log)
    vfs.fail = (what, wal)
    acknowledged, error = 5, None
    while error is None:
        try:
            record(acknowledged, 50_000).to(log)
            acknowledged += 1
            log.tidy()
        except FatalLogError as caught:
            error = caught
    assert "refuses everything" in str(error)
    vfs.fail = None  # it would work again, but what was written before may be gone
    for use in (lambda: record(acknowledged).to(log), log.tidy, log.end, log.first, lambda: log.read(0), log.sync):
        with pytest.raises(FatalLogError, match="refuses everything"):
            use()
    assert log.statistics().records == acknowledged
    log.close()
    with contextlib.closing(SqliteLog.open(tmp_path)) as log:
        assert log.end().sequence in (acknowledged, acknowledged + 1)
        expected = [record(sequence, 1_000 if sequence < 5 else 50_000).record for sequence in range(50)]
        assert contents(log) == expected[: log.end().sequence]


def test_a_close_that_fails_says_so_and_lets_the_directory_go(tmp_path):
    vfs = FailingVfs("failing-close")
    log = SqliteLog.open(tmp_path, vfs="failing-close")
    record(0).to(log)
    vfs.fail = ("sync", False)
    with pytest.raises(FatalLogError, match="closing failed"):
        log.close()
    vfs.fail = None
    with contextlib.closing(SqliteLog.open(tmp_path)) as log:
        assert contents(log) == [record(0).record]


def test_a_disk_that_fails_at_opening_is_told(tmp_path):
    filled(tmp_path)
    vfs = FailingVfs("failing-open")
    vfs.fail = ("write", True)
    with (
        pytest.raises(FatalLogError, match="FullError: database or disk is full"),
        contextlib.closing(SqliteLog.open(tmp_path / "new", vfs="failing-open")),
    ):
        pass
    vfs.fail = None


def test_damage_that_sqlite_finds_is_told_as_corruption(tmp_path):
    path = filled(tmp_path, 200, 2_000)
    data = bytearray(path.read_bytes())
    for page in range(1, len(data) // database.PAGE_BYTES):
        data[page * database.PAGE_BYTES : page * database.PAGE_BYTES + 8] = b"\xff" * 8
    path.write_bytes(data)
    with pytest.raises(CorruptionError, match="SQLite finds its pages damaged"):
        SqliteLog.open(tmp_path)


@pytest.mark.parametrize("was_there", [False, True])
def test_the_cache_of_pages_is_bounded(tmp_path, was_there):
    if was_there:
        SqliteLog.open(tmp_path).close()
    with contextlib.closing(SqliteLog.open(tmp_path, durability="off")) as log:
        for sequence in range(30):
            record(sequence, 1 << 20).to(log)
            log.tidy()
        used, _ = log._connection.status(apsw.SQLITE_DBSTATUS_CACHE_USED)
        assert used <= 256 * 65536 * 1.1
