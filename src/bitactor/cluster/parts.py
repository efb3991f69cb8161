"""A frame cut by lane, and the bytes in which its parts travel and are logged. Pure; any thread.

A part of a batch is a `part` message and a data frame of the lane's signals (docs/protocol.md); it goes into the lane's
log as it is. A bundle is a header and items back to back: parts, names, registrations.
"""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bitactor._core._codec import crc32c
from bitactor.protocol.errors import Code, ProtocolError
from bitactor.protocol.messages import Part
from bitactor.protocol.wire import IN_LOG, MAGIC, VERSION, Type, message_length

_HEAD: Final = struct.Struct(">4sBBHQIIQ")  # of a data frame, up to its CRC
_TAIL: Final = bytes(4 + 24)  # reserved, no trace
_BUNDLE: Final = struct.Struct(">4sHHI")  # "BAB2", lane, flags 0, items
_OFFSETS: Final = np.dtype(">u2")
_HEADER_OF_MESSAGE: Final = 24  # enough to tell its length
_COUNT_AT: Final = 72  # of the signals that follow, in a part

Offsets = npt.NDArray[Any]


def frame_of(producer: int, epoch: int, sequence: int, rows: Iterable[bytes]) -> bytes:
    """A data frame of signals that are in wire form already."""
    body = b"".join(rows)
    head = _HEAD.pack(MAGIC, VERSION, Type.DATA, 0, producer, epoch, len(body) // 32, sequence)
    crc = crc32c(body, crc32c(_TAIL, crc32c(head)))
    return head + crc.to_bytes(4, "big") + _TAIL + body


def part_of(
    producer: int,
    epoch: int,
    *,
    begin: int,
    end: int,
    after: int,
    floor: int,
    lanes: int,
    rows: list[bytes],
    offsets: list[Offsets],
) -> bytes:
    """The item that carries these signals of a batch: see protocol.messages.Part."""
    places = offsets[0] if len(offsets) == 1 else np.concatenate(offsets)
    part = Part(producer, epoch, begin, end, after, floor, lanes, places.astype(_OFFSETS).tobytes())
    return part.encode() + frame_of(producer, epoch, begin + int(places[0]), rows)


@dataclass(frozen=True, slots=True)
class Bundle:
    """What a replica hands to a lane's owner at once. Any owner may take it: what a lane knows it leaves out."""

    lane: int
    items: tuple[bytes | memoryview, ...]

    def encode(self) -> bytes:
        """Header and items."""
        return b"".join([_BUNDLE.pack(b"BAB2", self.lane, 0, len(self.items)), *self.items])


def bundle_head(data: memoryview) -> tuple[int, int]:
    """(lane, items) of an encoded bundle. ProtocolError when these bytes are none."""
    if len(data) < _BUNDLE.size or bytes(data[:4]) != b"BAB2":
        raise ProtocolError(Code.MAGIC, "these bytes are no bundle")
    _, lane, flags, items = _BUNDLE.unpack_from(data)
    if flags:
        raise ProtocolError(Code.FLAGS, "a bundle with flags: a newer release wrote it", offset=6)
    return lane, items


def bundle_items(data: memoryview) -> Iterator[tuple[int, memoryview, memoryview | None]]:
    """(type, message, frame) of each item in order; the frame is the one that a part brings, else None."""
    at, whole = _BUNDLE.size, len(data)
    while at < whole:
        message = _message(data, at)
        at += len(message)
        frame = None
        if message[5] == Type.PART and any(message[_COUNT_AT : _COUNT_AT + 4]):
            frame = _message(data, at)
            if frame[5] != Type.DATA:
                raise ProtocolError(Code.TYPE, "a part is not followed by its frame", offset=at + 5)
            at += len(frame)
        yield message[5], message, frame


def _message(data: memoryview, at: int) -> memoryview:
    length = message_length(data[at : at + _HEADER_OF_MESSAGE], IN_LOG)
    if not length or at + length > len(data):
        raise ProtocolError(Code.LENGTH, "a bundle ends within an item", offset=at)
    return data[at : at + length]
