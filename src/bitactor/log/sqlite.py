"""The embedded log: one SQLite file in WAL mode, written and checkpointed by one connection (docs/log.md).

The writer's thread calls append, tidy, sync, release_free and close; any thread calls the rest. Readers have
connections of their own, read-only, and hold a read transaction for a few records only, so the WAL can start over.

    first <= floor of truncation;  meta.first = first;  meta.kept <= end.sequence  (see database.py)
    bytes in the WAL < 2 * checkpoint_bytes + one record, whether or not tidy is called
"""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NoReturn, Self

import apsw
import apsw.bestpractice

from bitactor import faults
from bitactor.log import database, wal
from bitactor.log.contract import (
    Durability,
    End,
    FatalLogError,
    First,
    LogError,
    LogFigures,
    LogFullError,
)
from bitactor.log.counters import LogCounters
from bitactor.log.directory import DirectoryLock
from bitactor.log.disk import DISK, Disk, make_directories
from bitactor.log.reader import read

CHECKPOINT_BYTES: Final = 32 << 20  # a checkpoint of so much takes some 30 ms where 1 MiB is synced in 2 ms
SIZE_BYTES_MIN: Final = 64 * database.PAGE_BYTES
TRUNCATE_BYTES: Final = 16 << 20  # removed in one transaction, at most, and at most so many records:
TRUNCATE_RECORDS: Final = 1_000
UNTIDIED_MAX: Final = 64  # appends without a removal, when there is something to remove and no idle moment for tidy

_SYNCHRONOUS: Final = {
    "full": ("FULL", Durability.DISK),
    "normal": ("NORMAL", Durability.NORMAL),
    "off": ("OFF", Durability.OS),
}
_INSERT: Final = "INSERT INTO record (sequence, position, count, wall_ns, record) VALUES (?, ?, ?, ?, ?)"


class SqliteLog:
    """An open log in a data directory, which it holds against other processes. See the module for who calls what."""

    kind = "sqlite"

    @classmethod
    def open(
        cls,
        directory: Path | str,
        *,
        durability: str = "full",
        size_bytes_max: int | None = None,
        checkpoint_bytes: int = CHECKPOINT_BYTES,
        vfs: str = "",
        disk: Disk = DISK,
    ) -> Self:
        """Open the log in that directory, or make both. durability: full, normal or off; vfs, disk: for tests.

        What it holds then is durable, also what a process that was killed had written and not yet synced. ValueError,
        LogLockedError, FormatError, CorruptionError; FatalLogError or OSError when the disk refuses.
        """
        if durability not in _SYNCHRONOUS:
            raise ValueError(f"log.durability is {durability!r}: it is full, normal or off")
        if size_bytes_max is not None and size_bytes_max < SIZE_BYTES_MIN:
            raise ValueError(f"log.size_bytes_max is {size_bytes_max}: {SIZE_BYTES_MIN} at least")
        directory = Path(directory)
        make_directories(directory, disk)
        lock = DirectoryLock(directory)
        try:
            return cls(lock, directory / database.FILE, durability, size_bytes_max, checkpoint_bytes, vfs, disk)
        except BaseException:
            lock.release()
            raise

    def __init__(
        self,
        lock: DirectoryLock,
        path: Path,
        durability: str,
        size_bytes_max: int | None,
        checkpoint_bytes: int,
        vfs: str,
        disk: Disk,
    ) -> None:
        self.path = path
        self.full = False
        self._lock = lock
        self._vfs = vfs
        self._size_bytes_max = size_bytes_max
        self._checkpoint_bytes = checkpoint_bytes
        self._failed: str | None = None
        self._closed = False
        self._wal_bytes = 0
        self._untidied = 0
        self._counted = LogCounters()
        self._synchronous, self._durability = _SYNCHRONOUS[durability]
        # A killed process may have written and not synced; after a failed sync the page cache shows what the disk
        # lacks. What is found has to be durable before it is used: the WAL is written again, then checkpointed.
        in_wal = wal.frames(path.with_name(f"{path.name}-wal"), database.PAGE_BYTES)
        disk.rewrite(path.with_name(f"{path.name}-wal"))
        with contextlib.suppress(FileExistsError):  # for its owner alone; SQLite gives its WAL the same mode
            disk.close(disk.create(path))
        with database.explained(path):
            self._connection = database.connect(path, vfs)
        try:
            with database.explained(path):
                self._first, self._end = database.prepare(self._connection, path, in_wal)
                database.set_meta(self._connection, "synced", int(self._durability == Durability.DISK))
                self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
                disk.sync_directory(path.parent)
                self._connection.pragma("synchronous", self._synchronous)
                self._size = database.used_bytes(self._connection)
        except BaseException:
            database.abandon(self._connection)
            raise
        self._floor = self._first.sequence
        self._connection.set_wal_hook(self._after_commit)

    @property
    def durability(self) -> int:
        """A Durability."""
        return self._durability

    def first(self) -> First:
        """The oldest record kept."""
        self._refuse_if_unusable()
        return self._first

    def end(self) -> End:
        """Where the next record goes."""
        self._refuse_if_unusable()
        return self._end

    def size(self) -> int:
        """Bytes of the pages in use; the file may be larger by pages that are free, and the WAL is beside it."""
        return self._size

    def statistics(self) -> LogFigures:
        """What was counted since opening."""
        return self._counted.read()

    # --- the writer

    def start_at(self, end: End) -> None:
        """Let a log without records begin with another record than 0: the copy of one that retention shortened."""
        self._refuse_if_unusable()
        if self._end != End(0, 0, 0):
            raise ValueError(f"{self.path} has records; only an empty log can begin elsewhere")
        with database.explained(self.path):
            database.set_meta(self._connection, "first", end.sequence)
        self._first, self._end, self._floor = First(end.sequence, end.position), end, end.sequence

    def append(self, record: memoryview | bytes, *, sequence: int, position: int, count: int, wall_ns: int) -> None:
        """Keep a record; see Log.append."""
        self._refuse_if_unusable()
        end = self._end.after(sequence, position, count, wall_ns)
        begun = time.perf_counter()
        faults.point("log.append.before")
        if self._wal_bytes >= 2 * self._checkpoint_bytes:
            self._checkpoint()
        elif self._untidied >= UNTIDIED_MAX and self._first.sequence < self._removable():
            self._truncate()
        self._refuse_if_full(len(record))
        execute = self._connection.execute
        try:
            execute("BEGIN IMMEDIATE")
            faults.point("log.append.begun")
            execute(_INSERT, (sequence, position, count, wall_ns, record))
            faults.point("log.append.before_commit")
            committing = time.perf_counter()
            execute("COMMIT")
        except BaseException as error:  # noqa: BLE001
            self._fail("appending", error)
        done = time.perf_counter()
        faults.point("log.append.synced")
        if self._end.sequence == self._first.sequence:
            self._first = First(sequence, position)
        self._end = end
        self._counted.records += 1
        self._untidied += 1
        self._counted.bytes += len(record)
        self._counted.sync_seconds.add(done - committing)
        self._counted.append_seconds.add(done - begun)

    def tidy(self) -> bool:
        """Checkpoint a WAL that is long enough, or remove some records before the floor. True: there is more."""
        self._refuse_if_unusable()
        if self._wal_bytes >= self._checkpoint_bytes:
            self._checkpoint()
        elif self._first.sequence < self._removable():
            self._truncate()
        return self._wal_bytes >= self._checkpoint_bytes or self._first.sequence < self._removable()

    def sync(self) -> None:
        """Sync the WAL and the file, when appends do not do it; see Log.sync."""
        self._refuse_if_unusable()
        if self._durability == Durability.DISK:
            return
        try:
            self._connection.pragma("synchronous", "FULL")
            self._checkpoint()
            self._connection.pragma("synchronous", self._synchronous)
        except apsw.Error as error:
            self._fail("syncing", error)

    def truncate_before(self, sequence: int) -> None:
        """Allow the records before `sequence` to go; tidy removes them, and append when the log is full."""
        self._refuse_if_unusable()
        self._floor = max(self._floor, sequence)

    def release_free(self, pages: int = 256) -> bool:
        """Give up to so many free pages back to the file system, in one transaction. True when there are more."""
        self._refuse_if_unusable()
        try:
            self._connection.execute(f"PRAGMA incremental_vacuum({int(pages)})").fetchall()
            self._checkpoint()
            return bool(self._connection.pragma("freelist_count"))
        except apsw.Error as error:
            self._fail("giving pages back", error)

    def close(self) -> None:
        """Make everything durable, whatever the durability, and let the directory go. After a failure: let go only."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._failed:
                database.abandon(self._connection)
            else:
                self._connection.pragma("synchronous", "FULL")
                database.set_meta(self._connection, "kept", self._end.sequence)
                self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
                self._connection.close()
        except apsw.Error as error:
            database.abandon(self._connection)
            raise FatalLogError(f"{self.path}: closing failed: {error}") from error
        finally:
            self._lock.release()

    def _refuse_if_unusable(self) -> None:
        if self._failed:
            raise FatalLogError(self._failed)
        if self._closed:
            raise LogError(f"{self.path} is closed")

    def _fail(self, doing: str, error: BaseException) -> NoReturn:
        self._failed = (
            f"{self.path}: {doing} failed ({error}); what the disk holds is unknown, so this log refuses everything: "
            "look at the disk, then start again"
        )
        raise FatalLogError(self._failed) from error

    def _after_commit(self, _connection: apsw.Connection, _name: str, pages: int) -> int:
        self._wal_bytes = pages * (database.PAGE_BYTES + database.WAL_FRAME_HEADER_BYTES)
        return apsw.SQLITE_OK

    def _refuse_if_full(self, length: int) -> None:
        try:
            self._size = database.used_bytes(self._connection)
        except apsw.Error as error:
            self._fail("measuring", error)
        if self._size_bytes_max is None:
            return
        needed = length + database.RECORD_OVERHEAD_BYTES
        while (self.full or self._size + needed > self._size_bytes_max) and self._first.sequence < self._removable():
            self._truncate()
        if self.full or self._size + needed > self._size_bytes_max:
            self.full = True
            self._counted.refused += 1
            raise LogFullError(
                f"{self.path} uses {self._size} of log.size_bytes_max = {self._size_bytes_max} bytes: a snapshot lets "
                "old records go; raise the maximum if this lasts"
            )

    def _checkpoint(self) -> None:
        begun = time.perf_counter()
        faults.point("log.checkpoint.before")
        try:
            database.set_meta(self._connection, "kept", self._end.sequence)
            self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.Error as error:
            self._fail("checkpointing", error)
        self._wal_bytes = 0  # until the next commit says: it starts over unless a reader was in the way
        faults.point("log.checkpoint.after")
        self._counted.checkpoints += 1
        self._counted.checkpoint_seconds.add(time.perf_counter() - begun)

    def _removable(self) -> int:
        """Records before this one may go; the last record stays, so that the end is known."""
        return min(self._floor, self._end.sequence - 1)

    def _truncate(self) -> None:
        """Remove some of the records before the floor, in one transaction."""
        faults.point("log.truncate.before")
        try:
            first = database.remove(self._connection, self._removable(), TRUNCATE_RECORDS, TRUNCATE_BYTES)
            self._size = database.used_bytes(self._connection)
        except BaseException as error:  # noqa: BLE001
            self._fail("removing old records", error)
        faults.point("log.truncate.after")
        self._untidied = 0
        self._counted.truncated += first.sequence - self._first.sequence
        self._first = first
        self.full = False

    # --- readers

    def read(self, from_sequence: int) -> Iterator[bytes]:
        """Records from that sequence on, checked; see Log.read. By a read-only connection, closed at the end."""
        self._refuse_if_unusable()
        return read(self.path, from_sequence, self._end.sequence, lambda: self._first.sequence, self._vfs)
