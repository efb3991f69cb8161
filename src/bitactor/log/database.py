"""The embedded log's SQLite file: its tables, how it is opened, what SQLite's errors mean. One thread a connection.

    record(sequence INTEGER PRIMARY KEY, position, count, wall_ns, record BLOB)   position .. wall_ns as in its header
    meta(name, value): format; first: the oldest record; kept: records below it were there at the last checkpoint;
                       synced: whether the one who has it open syncs each commit

`kept` is written before each checkpoint. So records that reached the file itself are below it or still protected by
the WAL's checksums, and a file whose last records were lost to damage is found out when it is opened.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import apsw
import apsw.bestpractice

from bitactor.log import wal
from bitactor.log.check import Checker
from bitactor.log.contract import CorruptionError, End, FatalLogError, First, FormatError

FILE: Final = "log.sqlite"  # in the data directory
FORMAT: Final = 1
APPLICATION_ID: Final = 0x42416C67  # "BAlg", in the header of the SQLite file
PAGE_BYTES: Final = 65536
WAL_FRAME_HEADER_BYTES: Final = 24
RECORD_OVERHEAD_BYTES: Final = 4 * PAGE_BYTES  # a leaf, the end of the overflow chain, an inner page, a pointer map
# In pages, not in bytes: those SQLite would divide by the page size that it knows before it has read the file, 4 KiB.
CACHE_PAGES: Final = 256
READER_CACHE_PAGES: Final = 64
BUSY_MS: Final = 10_000  # a reader from elsewhere that opens the file takes locks for a moment

_TABLES: Final = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID, STRICT;
CREATE TABLE record (
  sequence INTEGER PRIMARY KEY, position INTEGER NOT NULL, count INTEGER NOT NULL, wall_ns INTEGER NOT NULL,
  record BLOB NOT NULL
) STRICT;
"""


_META: Final = ("format", "first", "kept", "synced")
_SELECT_ALL: Final = "SELECT sequence, position, count, wall_ns, record FROM record"


@contextmanager
def explained(path: Path, sequence: int | None = None) -> Iterator[None]:
    """Turn SQLite's errors into the log's. sequence: the record that was to be read."""
    try:
        yield
    except apsw.NotADBError as error:
        raise FormatError(f"{path} is not a BitActor log, or its first bytes are damaged: {error}") from error
    except UnicodeDecodeError as error:  # a column that was changed into a text
        raise CorruptionError(path, "a column has another type than was written", sequence=sequence) from error
    except apsw.CorruptError as error:
        raise CorruptionError(path, f"SQLite finds its pages damaged: {error}", sequence=sequence) from error
    except apsw.Error as error:
        raise FatalLogError(f"{path}: {type(error).__name__}: {error}") from error


def connect(path: Path, vfs: str = "") -> apsw.Connection:
    """Open the writing connection; everything it does at first is synced."""
    connection = apsw.Connection(str(path), vfs=vfs or None)
    connection.set_busy_timeout(BUSY_MS)
    connection.pragma("synchronous", "FULL")
    connection.pragma("cache_size", CACHE_PAGES)
    connection.pragma("trusted_schema", False)
    connection.pragma("temp_store", "MEMORY")
    connection.wal_autocheckpoint(0)
    return connection


def connect_to_read(path: Path, vfs: str = "") -> apsw.Connection:
    """Open a connection that cannot write."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY, vfs=vfs or None)
    connection.set_busy_timeout(BUSY_MS)
    connection.pragma("cache_size", READER_CACHE_PAGES)
    connection.pragma("trusted_schema", False)
    return connection


def abandon(connection: apsw.Connection) -> None:
    """Close without a checkpoint: what is in the WAL stays there for the next process to read."""
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    connection.close(True)


def prepare(connection: apsw.Connection, path: Path, in_wal: tuple[bytes, list[wal.Frame]]) -> tuple[First, End]:
    """Make the tables if the file is new, check them and the WAL otherwise; where the log begins and ends.

    in_wal: from wal.frames, before the file was opened. FormatError, CorruptionError.
    """
    if not connection.execute("SELECT count(*) FROM sqlite_schema").get:
        if connection.pragma("application_id") == APPLICATION_ID:  # set with the tables, by one transaction
            raise CorruptionError(path, "the header is of a log, and there are no tables")
        lay_out(connection)
        with connection:
            connection.pragma("application_id", APPLICATION_ID)
            connection.execute(_TABLES)
            connection.executemany(
                "INSERT INTO meta VALUES (?, ?)", [(name, FORMAT * (name == "format")) for name in _META]
            )
    first, end = extent(connection, path)
    valid, _ = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
    synced = connection.execute("SELECT value FROM meta WHERE name = 'synced'").get
    if synced and wal.damaged_after(*in_wal, valid):
        raise CorruptionError(
            f"{path}-wal", f"its frame {valid + 1} is damaged, and synced ones follow", sequence=end.sequence
        )
    return first, end


def lay_out(connection: apsw.Connection) -> None:
    """Give an empty file its pages and its WAL. Never one with tables: this writes, before the WAL was checked."""
    connection.pragma("page_size", PAGE_BYTES)
    connection.pragma("auto_vacuum", "INCREMENTAL")
    apsw.bestpractice.connection_wal(connection)


def extent(connection: apsw.Connection, path: Path) -> tuple[First, End]:
    """Where the log begins and ends, of any connection. FormatError, CorruptionError."""
    if connection.pragma("application_id") != APPLICATION_ID:
        raise FormatError(f"{path} is a SQLite file, but not a BitActor log")
    meta: dict[str, int] = dict(_rows(connection, "SELECT name, value FROM meta"))
    if meta.get("format") != FORMAT and isinstance(meta.get("format"), int):
        raise FormatError(
            f"{path} has log format {meta['format']}; this program knows {FORMAT}: use the program that wrote it, "
            "or a newer one"
        )
    if not all(isinstance(meta.get(name), int) for name in _META):
        raise CorruptionError(path, f"its table meta holds {meta}")
    first, end = First(0, 0), End(0, 0, 0)
    for order in ("ASC", "DESC"):
        row: Any = connection.execute(f"{_SELECT_ALL} ORDER BY sequence {order} LIMIT 1").get
        if row is not None:
            sequence, position, count, wall_ns, record = row
            checker = Checker(path, End(sequence, position, wall_ns))
            checker.take(sequence, record, (position, count, wall_ns))
            first = First(sequence, position) if order == "ASC" else first
            end = checker.next
    if first.sequence != meta["first"]:
        raise CorruptionError(path, f"it is missing; record {first.sequence} is the first", sequence=meta["first"])
    if end.sequence < meta["kept"]:
        raise CorruptionError(
            path, f"it is missing; records up to {meta['kept'] - 1} were kept at the last checkpoint",
            sequence=end.sequence,
        )  # fmt: skip
    return first, end


def _rows(connection: apsw.Connection, sql: str, *bindings: int) -> list[Any]:
    return connection.execute(sql, bindings).fetchall()


def set_meta(connection: apsw.Connection, name: str, value: int) -> None:
    """Set a row of meta, in a transaction of its own unless there is one."""
    connection.execute("UPDATE meta SET value = ? WHERE name = ?", (value, name))


def remove(connection: apsw.Connection, before: int, records_max: int, bytes_max: int) -> First:
    """Remove the oldest records before `before`, some of them, in one transaction; at least one. The first then."""
    oldest = "SELECT sequence, length(record) FROM record WHERE sequence < ? ORDER BY sequence LIMIT ?"
    upto = total = 0
    for sequence, length in _rows(connection, oldest, before, records_max):
        if total and total + length > bytes_max:
            break
        upto, total = sequence + 1, total + length
    with connection:
        connection.execute("DELETE FROM record WHERE sequence < ?", (upto,))
        position: Any = connection.execute("SELECT position FROM record WHERE sequence = ?", (upto,)).get
        if position is None:
            raise CorruptionError(connection.filename, "it is missing", sequence=upto)
        set_meta(connection, "first", upto)
    return First(upto, position)


def used_bytes(connection: apsw.Connection) -> int:
    """Bytes of the file's pages that are not free."""
    return PAGE_BYTES * int(connection.pragma("page_count") - connection.pragma("freelist_count"))
