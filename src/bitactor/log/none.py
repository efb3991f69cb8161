"""A log that keeps nothing: signals are gone with the process, and an acknowledgement says so (durability 0)."""

from collections.abc import Iterator
from pathlib import Path

from bitactor.log.contract import Durability, End, First, LogFigures, RemovedError
from bitactor.log.counters import LogCounters


class NoneLog:
    """Counts records and forgets them. The writer's thread appends; any thread asks."""

    kind = "none"
    path: Path | None = None
    durability = Durability.MEMORY
    full = False

    def __init__(self) -> None:
        self._end = End(0, 0, 0)
        self._counted = LogCounters()
        self._closed = False

    def first(self) -> First:
        """The end: nothing is kept."""
        return First(self._end.sequence, self._end.position)

    def end(self) -> End:
        """Where the next record goes."""
        return self._end

    def append(self, record: memoryview | bytes, *, sequence: int, position: int, count: int, wall_ns: int) -> None:
        """Count a record. ValueError when it does not go on from the end."""
        if self._closed:
            raise ValueError("the log is closed")
        self._end = self._end.after(sequence, position, count, wall_ns)
        self._counted.records += 1
        self._counted.bytes += len(record)

    def read(self, from_sequence: int) -> Iterator[memoryview | bytes]:
        """No records; RemovedError if there were any."""
        if from_sequence > self._end.sequence:
            raise ValueError(f"record {from_sequence} is beyond the end, {self._end.sequence}")
        if from_sequence < self._end.sequence:
            raise RemovedError("this log keeps no records (log.kind = none)")
        return iter(())

    def truncate_before(self, sequence: int) -> None:
        """Nothing to remove."""

    def tidy(self) -> bool:
        """Nothing to do."""
        return False

    def sync(self) -> None:
        """Nothing to do."""

    def size(self) -> int:
        """0."""
        return 0

    def statistics(self) -> LogFigures:
        """Records and bytes that went by."""
        return self._counted.read()

    def close(self) -> None:
        """Refuse appends from now on."""
        self._closed = True
