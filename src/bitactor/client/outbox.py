"""What a producer has given and the service has not acknowledged: encoded once, kept until acked, sent again if lost.

Signals become frames in chunks of a fixed size, which are reused: nothing is copied or encoded twice, and a chunk is
sent as it lies. No I/O and no waiting here; the clients for threads and for asyncio share it. In sequences:
`acked <= next`, and `next + staged - acked <= signals_max`.

Two sides, each one thread at a time: the senders (put, seal, name) and the link (pending, sent, ack, rewind). The
senders only append, chunks to the list and marks to the last chunk, each after its bytes are there; the link takes
chunks away from the front, but never the last. How far things are is read off these lists, not counted beside them: so
an exception in any line, such as KeyboardInterrupt, leaves whole frames and right numbers.
"""

import struct
from bisect import bisect_right
from collections import deque
from operator import itemgetter
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from bitactor._core._codec import FRAME_HEADER_BYTES, SIGNAL_BYTES, frame_encode_into
from bitactor.protocol.errors import Code, ProtocolError
from bitactor.protocol.frames import BYTES_MAX, SIGNALS_MAX

Signals = npt.NDArray[Any]


class _Mark(NamedTuple):
    """After a message in a chunk: where it ends, the ack with which it is done, and the next sequence behind it."""

    end: int
    done: int
    next: int


_done: Final = itemgetter(1)
_next: Final = itemgetter(2)


class _Chunk:
    """Messages back to back, from sequence `base` on."""

    __slots__ = ("base", "marks", "view")

    def __init__(self, base: int) -> None:
        self.view = memoryview(bytearray(BYTES_MAX))
        self.begin(base)

    def begin(self, base: int) -> None:
        self.base = base
        self.marks: list[_Mark] = []

    @property
    def end(self) -> int:
        return self.marks[-1].end if self.marks else 0

    @property
    def next(self) -> int:
        return self.marks[-1].next if self.marks else self.base


class Outbox:
    """A producer's unacknowledged frames and names, in order, and what waits to become a frame."""

    def __init__(self, signals_max: int, *, producer: int, epoch: int, next: int, limit: int) -> None:
        assert signals_max >= SIGNALS_MAX, "a frame has room"
        self.signals_max = signals_max
        self.acked = next
        self.limit = limit
        self.acks = 0  # grows after each ack, when the room that it made is there
        self._producer = producer
        self._epoch = epoch
        self._stage: Signals = np.empty(SIGNALS_MAX, "V32")
        self._stage_bytes = memoryview(self._stage.view("u1").data)
        self._given = next
        self._chunks = deque([_Chunk(next)])
        self._chunks_max = 2 + -(-signals_max // SIGNALS_MAX)
        self._free: list[_Chunk] = []
        self._index = 0  # the link is at this byte of this chunk
        self._offset = 0

    @property
    def next(self) -> int:
        """The sequence behind all frames."""
        return self._chunks[-1].next

    @property
    def staged(self) -> int:
        """Signals behind `next` that wait to become a frame."""
        return max(0, self._given - self.next)

    # --- the senders ---

    def put(self, signals: Signals, first: int, trace: bytes = b"") -> int:
        """Take some of signals[first:], at most a frame; return how many, 0 when there is no room until an ack.

        signals: contiguous, 32 bytes each. Whole frames are encoded at once; less is staged, so that small pieces share
        a frame, unless there is a trace: then it becomes a frame of its own.
        """
        if (trace or self.staged == SIGNALS_MAX) and not self.seal():
            return 0
        staged = self.staged
        count = min(len(signals) - first, SIGNALS_MAX - staged, self.signals_max - (self._given_now() - self.acked))
        if count <= 0:
            return 0
        if not staged and (trace or count == SIGNALS_MAX):
            return count if self._frame(signals, first, count, trace) else 0
        self._stage[staged : staged + count] = signals[first : first + count].view("V32")
        self._given = self.next + staged + count
        if staged + count == SIGNALS_MAX:
            self.seal()
        return count

    def put_one(self, layout: struct.Struct, *fields: Any) -> bool:
        """Stage one signal, its six fields in the order of their layout. False: no room. struct.error: out of range."""
        sealed = self.next
        given = max(self._given, sealed)
        if given - sealed == SIGNALS_MAX:
            if not self.seal():
                return False
            sealed = given
        if given - self.acked >= self.signals_max:
            return False
        layout.pack_into(self._stage_bytes, SIGNAL_BYTES * (given - sealed), *fields)
        self._given = given + 1
        return True

    def seal(self) -> bool:
        """Make a frame of what is staged. False: no room until an ack."""
        staged = self.staged
        return not staged or self._frame(self._stage, 0, staged, b"")

    def name(self, message: bytes) -> bool:
        """Add an encoded Name, which goes out before every signal that is added later. False: no room until an ack."""
        chunk = self._chunk_with(len(message)) if self.seal() else None
        if chunk is None:
            return False
        begin, sequence = chunk.end, chunk.next
        chunk.view[begin : begin + len(message)] = message
        chunk.marks.append(_Mark(begin + len(message), sequence + 1, sequence))  # done when a signal behind it is
        return True

    def _given_now(self) -> int:
        return max(self._given, self.next)

    def _frame(self, signals: Signals, first: int, count: int, trace: bytes) -> bool:
        chunk = self._chunk_with(FRAME_HEADER_BYTES + SIGNAL_BYTES * count)
        if chunk is None:
            return False
        sequence = chunk.next
        end = frame_encode_into(
            *(self._producer, self._epoch, sequence, trace, signals, first, count, chunk.view, chunk.end)
        )
        chunk.marks.append(_Mark(end, sequence + count, sequence + count))
        return True

    def _chunk_with(self, room: int) -> _Chunk | None:
        """The last chunk, made anew when the last has no room for so many bytes; None: no chunk is free."""
        last = self._chunks[-1]
        if BYTES_MAX - last.end >= room:
            return last
        if self._free:
            chunk = self._free.pop()
            chunk.begin(last.next)
        elif len(self._chunks) < self._chunks_max:
            chunk = _Chunk(last.next)
        else:
            return None
        self._chunks.append(chunk)
        return chunk

    # --- the link ---

    def pending(self) -> memoryview | None:
        """The bytes to send next, within the credit, as they lie; None: nothing now. Valid until acked."""
        while True:
            # Read before the marks: to a chunk with a later one nothing is added.
            has_later = len(self._chunks) > self._index + 1
            chunk = self._chunks[self._index]
            marks = chunk.marks
            n = len(marks)
            if n and marks[n - 1].next > self.limit:
                n = bisect_right(marks, self.limit, key=_next)
            end = marks[n - 1].end if n else 0
            if end > self._offset:
                return chunk.view[self._offset : end]
            if not has_later or n < len(marks):
                return None
            self._index += 1
            self._offset = 0

    def sent(self, length: int) -> None:
        """So many bytes of what pending() gave are on their way."""
        self._offset += length

    def ack(self, next: int, limit: int) -> None:
        """Forget what lies below `next`, and know how far may be sent. ProtocolError for an impossible ack."""
        if not self.acked <= next <= self.next:
            raise ProtocolError(
                Code.SEQUENCE_GAP,
                f"the service acknowledged {next}; {self.acked} to {self.next} are open",
                sequence=next,
            )
        self.acked = next
        self.limit = limit
        while self._index and self._chunks[0].marks[-1].done <= next:
            self._free.append(self._chunks.popleft())
            self._index -= 1
        self.acks += 1

    def rewind(self, next: int, limit: int) -> None:
        """On a new connection, go on with the first message that `next` does not cover."""
        if not self.acked <= next <= self.next:
            what = (
                f"expects {next}, but had acknowledged {self.acked}: its log is not the one it had"
                if next < self.acked
                else f"has signals up to {next}, this client gave {self.next}: another one sends as the same producer"
            )
            raise ProtocolError(Code.SEQUENCE_GAP, f"the service {what}", sequence=next)
        for index, chunk in enumerate(tuple(self._chunks)):
            if chunk.end and chunk.marks[-1].done > next:
                n = bisect_right(chunk.marks, next, key=_done)
                self._index, self._offset = index, chunk.marks[n - 1].end if n else 0
                break
        else:
            self._index = len(self._chunks) - 1
            self._offset = self._chunks[-1].end
        self.ack(next, limit)
