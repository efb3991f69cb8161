"""Admission: decides which signals of a frame are new and puts them into the open record, exactly once.

Loop thread only. What is admitted runs ahead of what is durable: per producer `acked <= next`, both never fall while
the log takes records. When it refuses one (it is full), everything admitted behind it is forgotten: `next = acked`,
a new generation begins, and its producers are told; their clients send again what was never acknowledged.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from bitactor import faults
from bitactor.protocol.errors import Code, ProtocolError
from bitactor.protocol.frames import BYTES_MAX, decode_frame, kind_set
from bitactor.protocol.messages import EraseKey, ForgetProducer, Hello, Name, Subscribe, Welcome
from bitactor.protocol.messages import Producer as Registration
from bitactor.runtime.filling import Filling
from bitactor.runtime.names import Names
from bitactor.runtime.records import OpenRecord, frame_place
from bitactor.runtime.tables import FIRST_EPOCH, Row, Tables
from bitactor.signals import text_key
from bitactor.telemetry import MARKS_MAX

if TYPE_CHECKING:
    from bitactor.ingest.admission import OnAck, OnLost, Producer, Subscription
    from bitactor.protocol.records import RecordBuilder
    from bitactor.schema import Kind
    from bitactor.telemetry import Tracing

Subscriber = Callable[[Subscribe, Callable[[bytes], bool]], "Subscription"]


class Entry:
    """A producer as admission sees it: its row, running ahead. pending: the last record that has something of it."""

    __slots__ = ("acked", "epoch", "holder", "id", "identity", "name", "next", "pending")

    def __init__(self, row: Row) -> None:
        self.id, self.name, self.identity, self.epoch = row.id, row.name, row.identity, row.epoch
        self.next = self.acked = row.next
        self.holder: Held | None = None
        self.pending: OpenRecord | None = None


class Held:
    """A producer as one session holds it (ingest's Producer). lost: why it is no longer its own, or None.

    opened: whether open_producer has returned it; before that, losing it is that call's error.
    """

    __slots__ = ("entry", "epoch", "id", "lost", "on_ack", "on_lost", "opened")

    def __init__(self, entry: Entry, on_ack: "OnAck", on_lost: "OnLost") -> None:
        self.entry = entry
        self.id = entry.id
        self.epoch = entry.epoch
        self.on_ack = on_ack
        self.on_lost = on_lost
        self.lost: ProtocolError | None = None
        self.opened = False

    @property
    def next(self) -> int:
        """The sequence that its next frame is expected to begin with."""
        return self.entry.next


class Admission(Filling):
    """Implements bitactor.ingest.admission.Admission over a writer that takes records with `submit`.

    tables: what is durable, changed by the writer; only single rows are read here. `closed`: why nothing is admitted
    now, or None; set before the log is ready, while it is full, when it stops.
    """

    def __init__(
        self,
        tables: Tables,
        builders: "list[RecordBuilder]",
        submit: Callable[[OpenRecord], None],
        subscribe: Subscriber,
        *,
        kinds: "tuple[Kind, ...]",
        app: str,
        fingerprint: str,
        durability: int,
        position: int,
        producers_max: int,
        names_max: int,
        tracing: "Tracing | None" = None,
    ) -> None:
        super().__init__(builders, submit, BYTES_MAX)
        self.tables = tables
        self.kinds: Mapping[str, int] = {kind.name: kind.number for kind in kinds}
        self.position = position  # of the log, durable and applied
        self.frames = self.signals = self.bytes = self.duplicates = self.acks = 0
        self._declared = kind_set(kinds)
        self._greeting = {
            "app": app, "fingerprint": fingerprint, "kinds": kinds, "durability": durability,
        }  # fmt: skip
        self._durability = durability
        self._producers_max = producers_max
        self._names = Names(tables, names_max)
        self._tracing = tracing
        self._subscribe = subscribe
        self._entries = {row.id: Entry(row) for row in tables.producers.values()}

    # --- what sessions ask ---

    def welcome(self, producer: "Producer | None") -> Welcome:
        """What to greet with; the session sets the limit."""
        if producer is None:
            return Welcome(position=self.position, **self._greeting)  # type: ignore[arg-type]
        return Welcome(producer.id, producer.epoch, producer.next, position=self.position, **self._greeting)  # type: ignore[arg-type]

    def admit(self, producer: "Producer", frame: memoryview, kinds: bytes) -> int:
        """Decode one whole frame into the open record; how many of its signals were new."""
        assert isinstance(producer, Held)
        entry = producer.entry
        if producer.lost is not None:
            raise producer.lost
        if self.closed is not None:
            raise self.closed
        mark = self._tracing.frame(frame) if self._tracing is not None else None
        id_, epoch, count, sequence = frame_place(frame)
        known = entry.next - sequence
        if known or epoch != producer.epoch or id_ != entry.id:
            decode_frame(frame, kinds)  # damage is told first
            self._check_place(producer, id_, epoch, sequence)
            if known >= count:
                self.duplicates += count
                return 0
            self.duplicates += known
        record = self._with_room(len(frame))
        record.builder.add_frame(frame, kinds, known)
        faults.point("ingest.decoded")
        fresh = count - known
        if mark is not None and len(record.marks) < MARKS_MAX:
            record.marks.append(mark.admitted(entry.name, entry.next, fresh))
        record.effects.append((Tables.frame, id_, epoch, entry.next, fresh))
        entry.next += fresh
        entry.pending = record
        record.advanced[entry] = entry.next
        self.frames += 1
        self.signals += fresh
        self.bytes += len(frame)
        self._offer_soon(record)
        return fresh

    def admit_name(self, producer: "Producer", name: Name) -> None:
        """Bind a text to its key in the log; a known pair is taken again silently."""
        assert isinstance(producer, Held)
        if producer.lost is not None:
            raise producer.lost
        if self.closed is not None:
            raise self.closed
        if self._names.is_new(name.key, name.text):
            self._names.add(name.key, name.text, self._add(name, (Tables.name, name.key, name.text)))

    def name_of(self, key: int) -> str | None:
        """The text of a key, as admitted so far."""
        return self._names.text_of(key)

    async def subscribe(self, identity: str, subscribe: Subscribe, write: Callable[[bytes], bool]) -> "Subscription":
        """Write outputs from the place that `subscribe` names."""
        return self._subscribe(subscribe, write)

    async def open_producer(self, identity: str, hello: Hello, on_ack: "OnAck", on_lost: "OnLost") -> Held:
        """Register, go on with or take over a producer; returns when all that was admitted for it is durable."""
        await self._wait_for_room()
        id_ = text_key(hello.producer)
        entry = self._entries.get(id_)
        if entry is None:
            entry = self._register(id_, identity, hello.producer)
        else:
            self._check_owner(entry, identity, hello)
            code = Code.FENCED if hello.takeover else Code.SUPERSEDED
            self._lose(entry, ProtocolError(code, f"producer {entry.name!r} is held by a newer connection"))
            if hello.takeover:
                entry.epoch += 1
                self._log_row(entry)
        held = entry.holder = Held(entry, on_ack, on_lost)
        try:
            while entry.pending is not None and held.lost is None:
                await asyncio.shield(entry.pending.wait())
        except BaseException:
            self.close_producer(held)
            raise
        if held.lost is not None:
            raise held.lost
        held.opened = True
        return held

    def close_producer(self, producer: "Producer") -> None:
        """The session is over; what it admitted goes on its way."""
        assert isinstance(producer, Held)
        if producer.entry.holder is producer:
            producer.entry.holder = None

    # --- what the operator asks ---

    async def erase(self, key: int) -> None:
        """Log the erasure of a key; returns when no actor and no name holds it."""
        await self._wait_for_room()
        record = self._add(EraseKey(key), (Tables.erase, key))
        record.erased.append(key)
        self._names.erase(key, record)
        self._seal()  # it takes effect after its record's signals: nothing may come behind it
        await record.wait()

    async def forget(self, id_: int) -> None:
        """Log that a producer is forgotten. KeyError when it is not known."""
        await self._wait_for_room()
        entry = self._entries.pop(id_)
        self._lose(entry, ProtocolError(Code.SUPERSEDED, f"producer {entry.name!r} was forgotten by an operator"))
        await self._add(ForgetProducer(id_), (Tables.forget, id_)).wait()

    def connected(self, id_: int) -> bool:
        """Whether a session holds the producer."""
        entry = self._entries.get(id_)
        return entry is not None and entry.holder is not None

    # --- what the writer reports ---

    def completed(self, record: OpenRecord) -> None:
        """The record is durable and applied: acknowledge it, give its builder back, hand over what came meanwhile."""
        self._outstanding.remove(record)
        self._offer()
        self.position = record.position
        faults.point("ack.before")
        for entry, reached in record.advanced.items():
            entry.acked = reached
            if entry.pending is record:
                entry.pending = None
            if entry.holder is not None and entry.holder.opened:
                entry.holder.on_ack(reached, self._durability, record.position)
                self.acks += 1
        faults.point("ack.sent")
        self._names.completed(record)
        self._return(record)
        record.settle(None)

    def refused(self, record: OpenRecord, error: ProtocolError) -> None:
        """The log took nothing of this record: forget all that is not durable, tell the producers, begin anew."""
        self._outstanding.remove(record)
        if record.generation == self.generation:
            self.generation += 1
            self.closed = error
            self._forget_ahead(error)
        self._return(record)
        record.settle(error)
        self._offer()  # what came in the new generation, while records of the old one were on their way back

    def fail(self, error: ProtocolError) -> None:
        """Nothing more becomes durable: tell everybody, admit nothing again."""
        self.closed = error
        for entry in self._entries.values():
            self._lose(entry, error)
        self._fail(error)

    # --- inside ---

    def _check_place(self, producer: Held, id_: int, epoch: int, sequence: int) -> None:
        entry = producer.entry
        if id_ != entry.id:
            message = f"a frame of producer {id_} in a connection of {entry.name!r}, which is {entry.id}"
            raise ProtocolError(Code.PRODUCER_FORBIDDEN, message, offset=8)
        if epoch != producer.epoch:
            message = f"a frame of epoch {epoch}; producer {entry.name!r} is at epoch {entry.epoch}"
            raise ProtocolError(Code.FENCED, message, offset=16)
        if sequence > entry.next:
            message = f"a frame begins at {sequence}; producer {entry.name!r} is expected to go on at {entry.next}"
            raise ProtocolError(Code.SEQUENCE_GAP, message, offset=24, sequence=entry.next)

    def _check_owner(self, entry: Entry, identity: str, hello: Hello) -> None:
        if entry.name != hello.producer:
            message = f"producers {hello.producer!r} and {entry.name!r} have the same number: use another name"
            raise ProtocolError(Code.NAME_CONFLICT, message)
        if entry.identity != identity:
            raise ProtocolError(Code.PRODUCER_FORBIDDEN, f"producer {hello.producer!r} belongs to another identity")
        if hello.epoch not in (0, entry.epoch) and not hello.takeover:
            message = f"producer {entry.name!r} is at epoch {entry.epoch}, not {hello.epoch}: it was taken over"
            raise ProtocolError(Code.FENCED, message)

    def _register(self, id_: int, identity: str, name: str) -> Entry:
        if len(self._entries) >= self._producers_max:
            message = f"{self._producers_max} producers are known: forget some, or raise limits.producers_max"
            raise ProtocolError(Code.PRODUCERS_FULL, message)
        entry = self._entries[id_] = Entry(Row(id_, name, identity, FIRST_EPOCH, 0))
        self._log_row(entry)
        return entry

    def _log_row(self, entry: Entry) -> None:
        message = Registration(entry.id, entry.epoch, entry.identity, entry.name)
        record = self._add(message, (Tables.register, entry.id, entry.epoch, entry.identity, entry.name))
        record.advanced.setdefault(entry, entry.next)
        entry.pending = record

    def _lose(self, entry: Entry, error: ProtocolError) -> None:
        held, entry.holder = entry.holder, None
        if held is not None:
            held.lost = error
            if held.opened:
                held.on_lost(error.code, error.message)

    def _forget_ahead(self, error: ProtocolError) -> None:
        self._begin_anew(error)
        self._names.forget_ahead()
        before, self._entries = self._entries, {}
        for row in list(self.tables.producers.values()):
            self._entries[row.id] = Entry(row)
        for entry in before.values():
            self._lose(entry, error)
