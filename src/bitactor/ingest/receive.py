"""The receive buffer of a connection: where bytes go, and where in them the next whole message is. Loop thread only.

0 <= _at <= _fill <= capacity. Before authentication capacity <= HELLO_ROOM. After it, the buffer grows to what the
next message's checked head declares (at most a frame), and to READ_BYTES once a read filled it.
"""

import struct
from typing import Final

import numpy as np

from bitactor.ingest.limits import Counters
from bitactor.protocol.frames import SIGNALS_MAX
from bitactor.protocol.messages import FROM_CLIENT, Types, message_length
from bitactor.protocol.wire import HEAD_BYTES, HELLO_BYTES_MAX

HELLO_ROOM: Final = HEAD_BYTES + HELLO_BYTES_MAX
READ_BYTES: Final = 64 * 1024
_LARGE: Final = READ_BYTES // 2  # a message as long as this is read to its end and no further: nothing is moved
_DATA_HEAD: Final = int.from_bytes(b"BAF1\1\1\0\0", "big")
_DATA: Final = struct.Struct(">Q12xI")
_NONE: Final = memoryview(bytearray())


class ReceiveBuffer:
    """Bytes received and not yet handled."""

    __slots__ = ("_at", "_counters", "_fill", "_length", "_view")

    def __init__(self, counters: Counters) -> None:
        """Allocate nothing until the first byte comes; counters.receive_bytes follows what is allocated."""
        self._counters = counters
        self._view = _NONE
        self._at = self._fill = 0
        self._length = 0  # of the message at _at; 0: not known yet

    def __len__(self) -> int:
        return self._fill - self._at

    @property
    def first(self) -> int:
        """The first byte not handled; -1: there is none."""
        return self._view[self._at] if self else -1

    def room(self) -> memoryview:
        """Where to put what comes next, never empty. Call after `message` gave None."""
        if not self._view:
            self._resize(HELLO_ROOM)
        return self._view[self._fill : self._length if self._length > _LARGE else len(self._view)]

    def add(self, n: int) -> None:
        """So many bytes were put into room()."""
        self._fill += n

    def message(self, types: Types) -> memoryview | None:
        """The next whole message, in place until `drop`, or None. ProtocolError as soon as its head must be refused."""
        have = self._fill - self._at
        if not self._length and have:
            if have >= 24 and types is FROM_CLIENT:
                head, count = _DATA.unpack_from(self._view, self._at)
                if head == _DATA_HEAD and 0 < count <= SIGNALS_MAX:
                    self._length = 64 + 32 * count
            if not self._length:
                self._length = message_length(self._view[self._at : self._fill][:24], types)
        if 0 < self._length <= have:
            return self._view[self._at : self._at + self._length]
        self._settle(have)
        return None

    def drop(self) -> None:
        """Go past the message."""
        self._at += self._length
        self._length = 0

    def release(self) -> None:
        """Give the memory back; what was not handled is lost."""
        self._at = self._fill = self._length = 0
        self._resize(0)

    def _settle(self, have: int) -> None:
        """Move the part of a message to the front, and make room for the rest."""
        was_full = self._fill == len(self._view)
        if self._at:
            self._view[:have] = self._view[self._at : self._fill]
            self._at, self._fill = 0, have
        if self._length > len(self._view):
            self._resize(self._length)
        elif was_full and len(self._view) < READ_BYTES:  # never before authentication: the longest hello fits
            self._resize(READ_BYTES)

    def _resize(self, capacity: int) -> None:
        self._counters.receive_bytes += capacity - len(self._view)
        # Not zeroed: pages that nothing was received into stay untouched.
        view = np.empty(capacity, np.uint8).data if capacity else _NONE
        view[: self._fill] = self._view[: self._fill]
        self._view = view
