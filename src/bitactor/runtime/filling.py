"""Records being filled: one is open, the others are with the writer or free. So memory is bounded by their number.

Loop thread only. What is added goes into the open record; that one is handed over when the writer has none, so what
comes while one append runs is the next record. Who wants to add asks `has_room` first, and is called back when there is
room again.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from bitactor.protocol.errors import ProtocolError
from bitactor.runtime.records import Effect, OpenRecord

if TYPE_CHECKING:
    from bitactor.protocol.messages import Message
    from bitactor.protocol.records import RecordBuilder


class Filling:
    """The records of one log. submit: hands one to the writer, which calls `done` or its error's way back.

    closed: why nothing is added now, or None. generation: grows when the log refused a record and everything admitted
    behind it was forgotten. room_bytes: what the largest frame needs, so that `has_room` means it fits.
    """

    def __init__(self, builders: "list[RecordBuilder]", submit: Callable[[OpenRecord], None], room_bytes: int) -> None:
        self.closed: ProtocolError | None = None
        self.generation = 0
        self._failed = False
        self._room_bytes: Final = room_bytes
        self._submit = submit
        self._free = list(builders)
        self._open: OpenRecord | None = OpenRecord(self._free.pop(), 0)
        self._outstanding: list[OpenRecord] = []
        self._offering = False
        self._on_room: Callable[[], None] | None = None
        self._said_no = False
        self._changed: asyncio.Future[None] | None = None  # done when a record comes back
        self._loop = asyncio.get_running_loop()

    @property
    def has_room(self) -> bool:
        """Whether the largest frame fits now. Who is told no is called back."""
        room = bool(self._free) or (self._open is not None and self._open.builder.fits(self._room_bytes))
        self._said_no |= not room
        return room

    def on_room(self, callback: Callable[[], None]) -> None:
        """Call back each time has_room turns from False to True."""
        self._on_room = callback

    @property
    def pending(self) -> int:
        """Signals that are admitted and not yet durable and applied."""
        waiting = sum(record.builder.count for record in self._outstanding)
        return waiting + (self._open.builder.count if self._open is not None else 0)

    async def drained(self) -> None:
        """Wait until all that was admitted is durable and applied, or has failed."""
        self._offer()
        while self._outstanding or (self._open is not None and self._open.effects):
            if self._failed:
                return
            await self._change()

    def heartbeat(self) -> None:
        """Log a record without signals, so that wall time goes on; not when one is on its way."""
        if not self._outstanding and self._open is not None and self.closed is None:
            self._open.since = time.perf_counter()
            self._seal()

    # --- for who fills ---

    def _add(self, message: "Message", effect: Effect) -> OpenRecord:
        data = message.encode()
        record = self._with_room(len(data))
        record.builder.add_message(data)
        record.effects.append(effect)
        self._offer_soon(record)
        return record

    def _with_room(self, length: int) -> OpenRecord:
        """The open record, or the next one when so many bytes do not fit any more."""
        record = self._opened()
        return record if record.builder.fits(length) else self._next_record()

    def _opened(self) -> OpenRecord:
        if self._open is None:
            raise RuntimeError("a record was asked for without room: has_room is False")
        return self._open

    def _next_record(self) -> OpenRecord:
        if not self._free:
            raise RuntimeError("a record was asked for without room: has_room is False")
        self._seal()
        return self._opened()

    def _seal(self) -> None:
        """Hand the open record to the writer and open another, or none until one comes back."""
        record = self._opened()
        self._open = OpenRecord(self._free.pop(), self.generation) if self._free else None
        self._outstanding.append(record)
        self._submit(record)

    def _offer_soon(self, record: OpenRecord) -> None:
        if not record.since:
            record.since = time.perf_counter()
        if not self._offering and not self._outstanding:
            self._offering = True
            self._loop.call_soon(self._offer)  # after all that can be read now: it shares one append

    def _offer(self) -> None:
        """Hand over the open record when the writer has none and there is something in it."""
        self._offering = False
        if not self._outstanding and self._open is not None and self._open.effects:
            self._seal()

    def _return(self, record: OpenRecord) -> None:
        """A record that is done with: it may be filled again."""
        record.builder.clear()
        if self._open is None:
            self._open = OpenRecord(record.builder, self.generation)
        else:
            self._free.append(record.builder)
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)
        if self._said_no and self.has_room:
            self._said_no = False
            if self._on_room is not None:
                self._on_room()

    def _begin_anew(self, error: ProtocolError) -> None:
        """Forget what the open record holds; who waits for it is told `error`."""
        if self._open is not None:
            self._open.settle(error)
            self._open.builder.clear()
            self._open = OpenRecord(self._open.builder, self.generation)

    def _fail(self, error: ProtocolError) -> None:
        """Nothing more becomes durable: tell all who wait, for good."""
        self.closed, self._failed = error, True
        for record in [*self._outstanding, *([self._open] if self._open is not None else [])]:
            record.settle(error)
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)

    def _change(self) -> Awaitable[None]:
        if self._changed is None or self._changed.done():
            self._changed = self._loop.create_future()
        return asyncio.shield(self._changed)

    async def _wait_for_room(self) -> None:
        while self.closed is None and not self.has_room:
            await self._change()
        if self.closed is not None:
            raise self.closed
