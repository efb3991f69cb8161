"""Checking records on their way out of a log: each by its CRC, and each against the one before. Pure; one thread.

Layout of a record's header: docs/log.md. What the payload means is not checked here; the CRC covers it.
"""

import struct
from pathlib import Path
from typing import Final

from bitactor._core._codec import crc32c
from bitactor.log.contract import CorruptionError, End

HEADER: Final = struct.Struct(">4sBBHQQQIIIIII8s")  # magic .. fingerprint, 64 bytes
MAGIC: Final = b"BAR1"
VERSION: Final = 1


class Checker:
    """Takes records in their order. `next` says what the following one must be."""

    def __init__(self, path: Path | str, start: End) -> None:
        self.path = path
        self.next = start

    def _bad(self, sequence: int, offset: int | None, message: str) -> CorruptionError:
        return CorruptionError(self.path, message, sequence=sequence, offset=offset)

    def take(self, sequence: int, record: object, filed: tuple[int, int, int] | None = None) -> None:
        """Check the record filed under `sequence` with (position, count, wall_ns); CorruptionError says what and where.

        The record's own header is the truth; what it is filed under must agree with it.
        """
        if sequence != self.next.sequence:
            raise self._bad(self.next.sequence, None, f"it is missing: record {sequence} comes where it was expected")
        if not isinstance(record, bytes | memoryview):
            raise self._bad(sequence, None, f"a {type(record).__name__} stands where its bytes should be")
        if len(record) < HEADER.size:
            raise self._bad(sequence, len(record), f"it has {len(record)} bytes; a header alone has {HEADER.size}")
        magic, version, _, _, said, position, wall_ns, crc, count, _, length, *_ = HEADER.unpack_from(record)
        if magic != MAGIC:
            raise self._bad(sequence, 0, f"it begins with {magic!r} instead of {MAGIC!r}")
        if version != VERSION:
            raise self._bad(sequence, 4, f"its version is {version}; {VERSION} is the one known here")
        if length != len(record) - HEADER.size:
            raise self._bad(sequence, 44, f"its payload should have {length} bytes and has {len(record) - HEADER.size}")
        view = memoryview(record)
        found = crc32c(view[36:], crc32c(view[:32]))
        if found != crc:
            raise self._bad(sequence, 32, f"its CRC says {crc:#010x} and its bytes make {found:#010x}")
        if said != sequence:
            raise self._bad(sequence, 8, f"its header says that it is record {said}")
        if position != self.next.position:
            raise self._bad(sequence, 16, f"its position is {position}; {self.next.position} is where it must go on")
        if wall_ns < self.next.wall_ns:
            raise self._bad(
                sequence, 24, f"its wall time {wall_ns} ns is before {self.next.wall_ns} ns, the last one's"
            )
        if filed is not None and filed != (position, count, wall_ns):
            raise self._bad(sequence, None, f"filed as (position, count, wall_ns) {filed}; its header differs")
        self.next = End(sequence + 1, position + count, wall_ns)
