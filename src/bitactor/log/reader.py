"""Reading the embedded log: by connections that cannot write, also of a log that another process is writing.

A read transaction is held for a few records only, so the writer's WAL can start over meanwhile. Any thread; one thread
at a time for one iterator.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from bitactor.log import database
from bitactor.log.check import Checker
from bitactor.log.contract import CorruptionError, End, First, RemovedError

READ_RECORDS: Final = 16  # fetched in one read transaction
_SELECT: Final = (
    "SELECT sequence, position, count, wall_ns, record FROM record "
    "WHERE sequence >= ? AND sequence < ? ORDER BY sequence LIMIT ?"
)


class LogReader:
    """A log as another process may be writing it; asks the file each time. Needs no lock and changes nothing."""

    kind = "sqlite"

    def __init__(self, directory: Path | str) -> None:
        self.path = Path(directory) / database.FILE
        if not self.path.exists():
            raise FileNotFoundError(f"{self.path} is not there: name the data directory of a service")

    def extent(self) -> tuple[First, End]:
        """Where the log begins and ends now. FormatError, CorruptionError."""
        with database.explained(self.path):
            connection = database.connect_to_read(self.path)
            try:
                return database.extent(connection, self.path)
            finally:
                connection.close()

    def first(self) -> First:
        """The oldest record kept."""
        return self.extent()[0]

    def end(self) -> End:
        """Where the next record will go."""
        return self.extent()[1]

    def read(self, from_sequence: int, end: int | None = None) -> Iterator[bytes]:
        """Records from that sequence on, checked, up to `end` or the end as it is now; see Log.read."""
        end = self.end().sequence if end is None else end
        return read(self.path, from_sequence, end, lambda: self.first().sequence)

    def pages_are_whole(self) -> list[str]:
        """What SQLite finds wrong with its pages: nothing, usually. Reads the whole file."""
        with database.explained(self.path):
            connection = database.connect_to_read(self.path)
            try:
                said = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(20)")]
            finally:
                connection.close()
        return [] if said == ["ok"] else said


def read(path: Path, at: int, end: int, first: Callable[[], int], vfs: str = "") -> Iterator[bytes]:
    """Records [at, end) of the file, each checked. first: the oldest record that is kept, asked when one is missing.

    RemovedError and ValueError at once; RemovedError and CorruptionError on the way.
    """
    if at > end:
        raise ValueError(f"{path}: record {at} is beyond the end, {end}")
    if at < first():
        raise _removed(path, at, first())
    return _read(path, at, end, first, vfs)


def _removed(path: Path, sequence: int, first: int) -> RemovedError:
    return RemovedError(f"{path}: record {sequence} was removed by retention; the first one kept is {first}")


def _read(path: Path, at: int, end: int, first: Callable[[], int], vfs: str) -> Iterator[bytes]:
    with database.explained(path):
        connection = database.connect_to_read(path, vfs)
    checker: Checker | None = None
    try:
        while at < end:
            with database.explained(path, at):
                rows: list[Any] = connection.execute(_SELECT, (at, end, READ_RECORDS)).fetchall()
            if (not rows or rows[0][0] != at) and at < first():
                raise _removed(path, at, first())
            if not rows:
                raise CorruptionError(path, f"it is missing, and {end} is the end", sequence=at)
            if checker is None:
                checker = Checker(path, End(at, rows[0][1], rows[0][3]))
            for sequence, position, count, wall_ns, record in rows:
                checker.take(sequence, record, (position, count, wall_ns))
                yield record
            at = checker.next.sequence
    finally:
        connection.close()
