"""A lane's intake: what of a bundle is new goes into the open record, in order, exactly once.

Loop thread of the lane's owner. Per producer a row runs ahead of the durable one, as in runtime.admission: a part that
begins behind it is a gap and refused; what of a part is known is left out. Who handed a bundle in is answered when all
of it is durable and applied, also for what was known already.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from bitactor.protocol.errors import Code, ProtocolError
from bitactor.protocol.frames import BYTES_MAX, SIGNALS_MAX, FrameError, check_frame, refusal
from bitactor.protocol.messages import EraseKey, ForgetProducer, Name, Part, decode_message
from bitactor.protocol.messages import Producer as Registration
from bitactor.runtime.filling import Filling
from bitactor.runtime.names import Names
from bitactor.runtime.tables import FIRST_EPOCH, Row, Tables
from bitactor.signals import SIGNAL_DTYPE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bitactor.protocol.records import RecordBuilder
    from bitactor.runtime.records import OpenRecord

LANE_PRODUCERS: Final = 64  # numbers below are the lanes themselves, as producers of what they emit to others
PART_BYTES_MAX: Final = BYTES_MAX + (64 << 10)  # a frame and the message before it


class Ahead:
    """A producer as the intake sees it: its row with all that was admitted. pending: the last record of it."""

    __slots__ = ("pending", "row")

    def __init__(self, row: Row) -> None:
        self.row = row.copy()
        self.pending: OpenRecord | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """An item that was not taken: its place in the bundle and why. The others were."""

    item: int
    error: ProtocolError


class Intake(Filling):
    """Over a writer that takes records with `submit`. hold: awaited before anything from outside is admitted."""

    def __init__(
        self,
        tables: Tables,
        builders: "list[RecordBuilder]",
        submit: "Callable[[OpenRecord], None]",
        *,
        kinds: bytes,
        producers_max: int,
        names_max: int,
        hold: Callable[[], Awaitable[None]],
    ) -> None:
        super().__init__(builders, submit, PART_BYTES_MAX)
        self.tables = tables
        self.signals = self.duplicates = 0
        self._kinds = kinds
        self._scratch = np.empty(SIGNALS_MAX, SIGNAL_DTYPE)
        self._producers_max = producers_max
        self._hold = hold
        self._ahead = {row.id: Ahead(row) for row in tables.producers.values()}
        self._names = Names(tables, names_max)

    # --- what other replicas ask ---

    async def take(
        self, items: "Iterator[tuple[int, memoryview, memoryview | None]]", *, emits: bool = False
    ) -> list[Refused]:
        """Admit a bundle's items; returns when what was taken is durable and applied, with what was not.

        emits: they come from another lane, and are taken even while this one holds back what comes from outside.
        ProtocolError: nothing more can be taken now (log_full, not_ready, internal); what is durable stays so.
        """
        refused: list[Refused] = []
        waiting: set[OpenRecord] = set()
        for index, (kind, message, frame) in enumerate(items):
            if not emits:
                await self._hold()
            await self._wait_for_room()
            try:
                record = self._admit(kind, message, frame)
            except FrameError as error:
                refused.append(Refused(index, refusal(error)))
            except ProtocolError as error:
                refused.append(Refused(index, error))
            else:
                if record is not None:
                    waiting.add(record)
        for record in waiting:
            await asyncio.shield(record.wait())
        return refused

    async def open(self, id_: int, name: str, identity: str, epoch: int, *, takeover: bool) -> Row:
        """Register, go on with or take over a producer whose home is this lane; its row when that is durable."""
        await self._wait_for_room()
        known = self._ahead.get(id_)
        if known is None:
            self._register(Registration(id_, FIRST_EPOCH, identity, name))
        else:
            self._check_owner(known.row, name, identity)
            if takeover:
                self._register(Registration(id_, known.row.epoch + 1, identity, name))
            elif epoch not in (0, known.row.epoch):
                message = f"producer {name!r} is at epoch {known.row.epoch}, not {epoch}: it was taken over"
                raise ProtocolError(Code.FENCED, message)
        row = await self.row(id_)
        assert row is not None
        return row

    async def fence(self, id_: int, name: str, identity: str, epoch: int) -> Row:
        """See to it that nothing of an older epoch is taken from here on; the row when that is durable."""
        await self._wait_for_room()
        self._register(Registration(id_, epoch, identity, name))
        row = await self.row(id_)
        assert row is not None
        return row

    async def row(self, id_: int) -> Row | None:
        """The durable row of a producer once all that was admitted of it is durable; None: it is not known here."""
        known = self._ahead.get(id_)
        if known is not None and known.pending is not None:
            await asyncio.shield(known.pending.wait())
        return self.tables.producers.get(id_)

    async def erase(self, key: int) -> None:
        """Log the erasure of a key; returns when no actor and no name holds it."""
        await self._wait_for_room()
        record = self._add(EraseKey(key), (Tables.erase, key))
        record.erased.append(key)
        self._names.erase(key, record)
        self._seal()  # it takes effect after its record's signals: nothing may come behind it
        await record.wait()

    async def forget(self, id_: int) -> bool:
        """Log that a producer is forgotten; whether it was known."""
        await self._wait_for_room()
        if self._ahead.pop(id_, None) is None:
            return False
        await self._add(ForgetProducer(id_), (Tables.forget, id_)).wait()
        return True

    # --- what the writer reports ---

    def completed(self, record: "OpenRecord") -> None:
        """The record is durable and applied."""
        self._outstanding.remove(record)
        self._offer()
        for known in record.advanced:
            if known.pending is record:
                known.pending = None
        self._names.completed(record)
        record.settle(None)
        self._return(record)

    def refused(self, record: "OpenRecord", error: ProtocolError) -> None:
        """The log took nothing of this record: forget all that is not durable, and tell who handed it in."""
        self._outstanding.remove(record)
        if record.generation == self.generation:
            self.generation += 1
            self.closed = error
            self._begin_anew(error)
            self._names.forget_ahead()
            self._ahead = {row.id: Ahead(row) for row in list(self.tables.producers.values())}
        record.settle(error)
        self._return(record)
        self._offer()

    def fail(self, error: ProtocolError) -> None:
        """Nothing more becomes durable here."""
        self._fail(error)

    # --- inside ---

    def _admit(self, kind: int, message: memoryview, frame: memoryview | None) -> "OpenRecord | None":
        match decode_message(message):
            case Part() as part:
                return self._part(part, message, frame)
            case Registration() as registration:
                return self._register(registration)
            case Name(key, text):
                return self._name(key, text)
            case other:
                raise ProtocolError(Code.TYPE, f"{type(other).__name__} has no place in a bundle", offset=5)

    def _part(self, part: Part, message: memoryview, frame: memoryview | None) -> "OpenRecord | None":
        known = self._ahead.get(part.producer)
        if known is None or known.row.epoch < part.epoch:
            raise ProtocolError(Code.NOT_READY, f"producer {part.producer} is not registered in this lane yet")
        row = known.row
        if row.epoch != part.epoch:
            raise ProtocolError(Code.FENCED, f"a part of epoch {part.epoch}; producer {row.name!r} is at {row.epoch}")
        if part.after > row.next:
            text = f"a part follows {part.after}; of producer {row.name!r} this lane has up to {row.next}"
            raise ProtocolError(Code.SEQUENCE_GAP, text, sequence=row.next)
        offsets = np.frombuffer(part.offsets, ">u2")
        skip = int(np.searchsorted(offsets, row.next - part.begin)) if row.next > part.begin else 0
        batch = (part.begin, part.end, part.lanes)
        self.duplicates += skip
        if skip == len(offsets):
            if part.producer < LANE_PRODUCERS or batch in row.batches or part.end <= row.floor:
                return known.pending
            frame = None
        if frame is not None:
            check_frame(frame, self._kinds, self._scratch)  # damage is told before anything is added
        rest = message if not skip else replace(part, offsets=part.offsets[2 * skip :]).encode()
        record = self._with_room(len(rest) + (len(frame) if frame is not None else 0))
        record.builder.add_message(rest)
        if frame is not None:
            record.builder.add_frame(frame, self._kinds, skip)
            self.signals += len(offsets) - skip
        record.effects.append((Tables.part, row.id, row.epoch, part.after, part.floor, batch))
        row.next = max(row.next, part.end)
        row.note(batch, part.floor)
        self._note(known, record)
        self._offer_soon(record)
        return record

    def _register(self, given: Registration) -> "OpenRecord | None":
        known = self._ahead.get(given.id)
        if known is None:
            if len(self._ahead) >= self._producers_max:
                text = f"{self._producers_max} producers are known: forget some, or raise limits.producers_max"
                raise ProtocolError(Code.PRODUCERS_FULL, text)
            known = self._ahead[given.id] = Ahead(Row(given.id, given.name, given.identity, given.epoch, 0))
        else:
            self._check_owner(known.row, given.name, given.identity)
            if given.epoch < known.row.epoch:
                raise ProtocolError(Code.FENCED, f"producer {given.name!r} is at epoch {known.row.epoch}")
            if given.epoch == known.row.epoch:
                return known.pending
            known.row.epoch = given.epoch
        effect = (Tables.register, given.id, given.epoch, given.identity, given.name)
        record = self._add(given, effect)
        self._note(known, record)
        return record

    def _check_owner(self, row: Row, name: str, identity: str) -> None:
        if row.name != name:
            message = f"producers {name!r} and {row.name!r} have the same number: use another name"
            raise ProtocolError(Code.NAME_CONFLICT, message)
        if row.identity != identity:
            raise ProtocolError(Code.PRODUCER_FORBIDDEN, f"producer {name!r} belongs to another identity")

    def _name(self, key: int, text: str) -> "OpenRecord | None":
        if not self._names.is_new(key, text):
            return self._names.pending(key)
        record = self._add(Name(key, text), (Tables.name, key, text))
        self._names.add(key, text, record)
        return record

    def _note(self, known: Ahead, record: "OpenRecord") -> None:
        known.pending = record
        record.advanced[known] = known.row.next


def told(row: Row | None) -> dict[str, Any] | None:
    """A row for the router: what is durable of a producer in this lane."""
    if row is None:
        return None
    return {"epoch": row.epoch, "next": row.next, "floor": row.floor, "batches": row.batches}
