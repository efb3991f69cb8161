"""What every log does: ordered records that survive what its durability says, and the errors it raises.

One thread, the writer, calls append, tidy, sync and close; any thread calls the rest. Records are dense: the sequence
of a record is that of the one before plus 1; position counts the signals before it; wall_ns never decreases.

    first.sequence <= end.sequence;  a record s is kept  iff  first.sequence <= s < end.sequence
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple, Protocol

from bitactor.log.durations import Seconds


class Durability(IntEnum):
    """What an acknowledged record survives. These numbers go over the wire; 16 and above are for replicated logs."""

    MEMORY = 0  # nothing: it is gone with the process
    OS = 1  # the process's death, not the machine's
    NORMAL = 2  # as OS; and after power loss the log is whole but may lack its last records
    DISK = 3  # power loss, if the disk keeps what it says it synced
    # Replicated logs. A server's disk has what it synced before it agreed; else what its kernel wrote by itself.
    SERVER = 16  # the death of this process and of the one server's; not that server's machine
    SERVER_DISK = (
        17  # power loss of the one server, if its disk keeps what it says it synced; not the loss of that disk
    )
    MAJORITY = 18  # as long as a majority of the servers neither loses power nor is lost
    MAJORITY_DISK = 19  # power loss of all servers, and the loss of a minority of them


class End(NamedTuple):
    """Where the next record goes: its sequence and position, and the wall_ns that it may not go below."""

    sequence: int
    position: int
    wall_ns: int

    def after(self, sequence: int, position: int, count: int, wall_ns: int) -> "End":
        """The end once such a record is appended here. ValueError when it does not go on from this end."""
        if sequence != self.sequence or position != self.position or wall_ns < self.wall_ns or count < 0:
            raise ValueError(
                f"a record (sequence {sequence}, position {position}, count {count}, wall_ns {wall_ns}) does not go on "
                f"from the log's end (sequence {self.sequence}, position {self.position}, wall_ns {self.wall_ns})"
            )
        return End(sequence + 1, position + count, wall_ns)


class First(NamedTuple):
    """The oldest record that is kept, or the end of a log without one."""

    sequence: int
    position: int


@dataclass(frozen=True, slots=True)
class LogFigures:
    """What a log counted since it was opened. append_seconds: whole appends; sync_seconds: their commits alone."""

    records: int
    bytes: int
    refused: int
    truncated: int
    checkpoints: int
    append_seconds: Seconds
    sync_seconds: Seconds
    checkpoint_seconds: Seconds


class LogError(Exception):
    """Something about a log."""


class FatalLogError(LogError):
    """A write or sync failed: whether the last record is kept is unknown. The log refuses everything from here on.

    The process has to end; the next one reads what the disk really holds.
    """


class LogFullError(LogError):
    """The record would take the log past its maximum size. Nothing was changed; truncate_before makes room."""


class LogFencedError(LogError):
    """Another owner has appended where this one wanted to: nothing of this append is kept, nor will be.

    The log refuses appends from here on; open it again, read what the other one wrote, and go on from there.
    """


class LogSettingsError(LogError):
    """The servers of a replicated log do not give what was asked for; the message names each setting, and both values.

    Nothing was changed, and nothing is claimed that does not hold.
    """


class LogLockedError(LogError):
    """Another process has this data directory; the message names it."""


class FormatError(LogError):
    """A file of a newer format, or of something else: the message names what it is and what is known here."""


class RemovedError(LogError):
    """The records asked for were removed by retention: read from `first`, or from an older snapshot's backup."""


class CorruptionError(LogError):
    """Kept bytes are not what was written. sequence: of the record, None if unknown; offset: in it, None if unknown.

    Restore a backup, or go on from an older snapshot; nothing was skipped.
    """

    def __init__(
        self, path: Path | str, message: str, *, sequence: int | None = None, offset: int | None = None
    ) -> None:
        where = "" if sequence is None else f": record {sequence}"
        where += "" if offset is None else f", offset {offset}"
        super().__init__(f"{path}{where}: {message}")
        self.path = Path(path)
        self.sequence = sequence
        self.offset = offset


class Log(Protocol):
    """An open log. See the module for who may call what."""

    kind: str
    path: Path | None

    @property
    def durability(self) -> int:
        """A Durability, or a number from 16 on for replicated logs: what append promises when it returns."""
        ...

    @property
    def full(self) -> bool:
        """Whether appends are refused until truncate_before made room."""
        ...

    def first(self) -> First:
        """The oldest record kept."""
        ...

    def end(self) -> End:
        """Where the next record goes. What lies before is durable as configured, also just after opening."""
        ...

    def append(self, record: memoryview | bytes, *, sequence: int, position: int, count: int, wall_ns: int) -> None:
        """Keep a record (docs/log.md), a header and its payload; returns when it is durable as configured.

        sequence and position must be those of end(), wall_ns at least its. ValueError: they are not. LogFullError: see
        there; both change nothing. FatalLogError: see there. The bytes are not needed after the return.
        """
        ...

    def read(self, from_sequence: int) -> Iterator[memoryview | bytes]:
        """Records from that sequence to the end as it is when asked, each checked: dense, CRC, position, wall time.

        RemovedError, CorruptionError, ValueError (beyond the end). Does not hinder appends however long it takes.
        """
        ...

    def truncate_before(self, sequence: int) -> None:
        """Allow the log to remove the records before `sequence`; the last one always stays. Done bit by bit in tidy."""
        ...

    def tidy(self) -> bool:
        """Do one short piece of upkeep that is due, if any: True when there is more. For the writer's idle moments.

        Nothing is lost without it: append does what is overdue.
        """
        ...

    def sync(self) -> None:
        """Make what was appended so far survive power loss, whatever the durability. The writer's thread; may wait.

        Called before a snapshot is taken, so that no snapshot is ahead of its log. FatalLogError.
        """
        ...

    def size(self) -> int:
        """Bytes that count against the maximum size."""
        ...

    def statistics(self) -> LogFigures:
        """What was counted since opening."""
        ...

    def close(self) -> None:
        """Make everything durable, whatever the durability, and let go. May be called twice."""
        ...
