"""The router: takes what producers send to this replica and brings each signal to its lane (ingest's Admission).

Loop thread only. A frame is cut by lane at once; what came within `linger_ms` of one producer is one batch. Memory is
bounded by ROUTE_BYTES_MAX: above it sessions read no more. Which signals are new is decided by the lanes: what is sent
twice, by this replica or another, is taken once.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from bitactor.cluster.channel import BUNDLE_BYTES, Channel, Item
from bitactor.cluster.parts import part_of
from bitactor.cluster.producers import Held, Open, Sent, resume
from bitactor.log.contract import Durability
from bitactor.protocol.errors import Code, ProtocolError
from bitactor.protocol.frames import SIGNALS_MAX, decode_frame, split_frame
from bitactor.protocol.logged import BATCH_SIGNALS_MAX
from bitactor.protocol.messages import Hello, Name, Subscribe, Welcome
from bitactor.protocol.messages import Producer as Registration
from bitactor.runtime.records import frame_place
from bitactor.signals import lanes_of, text_key

if TYPE_CHECKING:
    from bitactor.cluster.calls import Calls
    from bitactor.cluster.link import Link
    from bitactor.ingest.admission import OnAck, OnLost, Producer, Subscription
    from bitactor.schema import Kind

ROUTE_BYTES_MAX: Final = 48 << 20
_OPEN_S: Final = 20.0  # a producer waits so long for lanes that move; then it is told to come again
_NAMES_KEPT: Final = 1 << 20
Subscriber = Callable[[str, Subscribe, Callable[[bytes], bool]], Any]

logger = logging.getLogger("bitactor.cluster")


class Router:
    """Over the lanes' owners. closed: why nothing is admitted now, or None.

    position: signals in all lanes, as far as this replica was told. positions: of each lane, as far as it is known.
    """

    def __init__(
        self,
        calls: "Calls",
        link: "Link",
        subscribe: Subscriber,
        *,
        kinds: "tuple[Kind, ...]",
        app: str,
        fingerprint: str,
        lanes: int,
        linger_s: float,
        positions: Callable[[], tuple[int, ...]],
    ) -> None:
        self.kinds: Mapping[str, int] = {kind.name: kind.number for kind in kinds}
        self.closed: ProtocolError | None = None
        self.frames = self.signals = self.bytes = self.duplicates = self.acks = 0
        self.lanes = lanes
        self._greeting = {"app": app, "fingerprint": fingerprint, "kinds": kinds}
        self._calls = calls
        self._link = link
        self._subscribe = subscribe
        self._linger_s = linger_s
        self._positions = positions
        self._held: dict[int, Held] = {}
        self._dirty: dict[Held, None] = {}  # those with an open batch, in order
        self._flushing: asyncio.TimerHandle | None = None
        self._bytes = 0  # of items that are not known to be durable
        self._said_no = False
        self._on_room: Callable[[], None] | None = None
        self._names: set[int] = set()  # known to be in the log
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._me = secrets.token_hex(8)
        self.channels = [Channel(lane, calls, self._released, self._wants) for lane in range(lanes)]

    async def start(self) -> None:
        """Hear who opens producers at other replicas."""
        await self._link.listen("opened", self._opened_elsewhere)

    async def stop(self) -> None:
        """Send nothing more."""
        for channel in self.channels:
            await channel.stop()

    # --- what sessions ask ---

    @property
    def has_room(self) -> bool:
        """Whether a frame of 8,192 signals is taken now. Who is told no is called back."""
        room = self._bytes < ROUTE_BYTES_MAX
        self._said_no |= not room
        return room

    def on_room(self, callback: Callable[[], None]) -> None:
        """Call back each time has_room turns from False to True."""
        self._on_room = callback

    def welcome(self, producer: "Producer | None") -> Welcome:
        """What to greet with; the session sets the limit."""
        known: dict[str, Any] = {**self._greeting, "durability": self.durability, "position": self.position}
        known["lanes"] = self._positions()
        if producer is None:
            return Welcome(**known)
        return Welcome(producer.id, producer.epoch, producer.next, **known)

    def admit(self, producer: "Producer", frame: memoryview, kinds: bytes) -> int:
        """Cut one whole frame into its producer's open batch; how many of its signals were new to this replica."""
        assert isinstance(producer, Held)
        if producer.lost is not None:
            raise producer.lost
        if self.closed is not None:
            raise self.closed
        id_, epoch, count, sequence = frame_place(frame)
        known = producer.next - sequence
        if known or epoch != producer.epoch or id_ != producer.id:
            decode_frame(frame, kinds)  # damage is told first
            _check_place(producer, id_, epoch, sequence)
            if known >= count:
                self.duplicates += count
                return 0
            self.duplicates += known
        pieces = split_frame(frame, self.lanes, kinds).pieces
        end = sequence + count
        batch = producer.batch
        if batch is not None and (
            end - batch.begin > BATCH_SIGNALS_MAX
            or any(batch.counts.get(lane, 0) + len(offsets) > SIGNALS_MAX for lane, _, offsets in pieces)
        ):
            self._flush(producer)
            batch = None
        if batch is None:
            batch = producer.batch = Open(producer.next)
            self._dirty[producer] = None
        for lane, rows, offsets in pieces:
            if known:
                skip = int(np.searchsorted(offsets, known))
                rows, offsets = rows[32 * skip :], offsets[skip:]
                if not rows:
                    continue
            batch.add(lane, rows, offsets.astype("i4") + (sequence - batch.begin))
            self._bytes += len(rows)
        batch.end = producer.next = end
        fresh = count - max(known, 0)
        self.frames += 1
        self.signals += fresh
        self.bytes += len(frame)
        self._flush_soon()
        return fresh

    def admit_name(self, producer: "Producer", name: Name) -> None:
        """Bring a text to its key's lane, in front of every signal that comes behind it."""
        assert isinstance(producer, Held)
        if producer.lost is not None:
            raise producer.lost
        if self.closed is not None:
            raise self.closed
        if text_key(name.text) != name.key:
            raise ProtocolError(Code.NAME_MISMATCH, f"{name.text!r} is key {text_key(name.text)}, not {name.key}")
        if name.key in self._names:
            return
        data = name.encode()
        self._put(self.lane_of(name.key), data, partial(self._named, producer, name.key))

    async def subscribe(self, identity: str, subscribe: Subscribe, write: Callable[[bytes], bool]) -> "Subscription":
        """Write outputs of all lanes from the place that `subscribe` names."""
        return await self._subscribe(identity, subscribe, write)  # type: ignore[no-any-return]

    async def open_producer(self, identity: str, hello: Hello, on_ack: "OnAck", on_lost: "OnLost") -> Held:
        """Register, go on with or take over a producer, and find where it goes on."""
        if self.closed is not None:
            raise self.closed
        id_ = text_key(hello.producer)
        home = self.lane_of(id_)
        about = {"id": id_, "name": hello.producer, "identity": identity}
        row = await self._calls.ask_json(
            home, "open", about | {"epoch": hello.epoch, "takeover": hello.takeover}, within_s=_OPEN_S
        )
        epoch = row["epoch"]
        code = Code.FENCED if hello.takeover else Code.SUPERSEDED
        self._lose(id_, ProtocolError(code, f"producer {hello.producer!r} is held by a newer connection"))
        await self._link.tell_all("opened", {"by": self._me, "id": id_, "code": int(code), "name": hello.producer})
        # A takeover is known to every lane before anything goes on; else each is only asked what it has.
        about |= {"epoch": epoch, "fence": hello.takeover}
        rows = await asyncio.gather(
            *(self._calls.ask_json(lane, "producer", about, within_s=_OPEN_S) for lane in range(self.lanes))
        )
        for known in rows:
            if known and known["epoch"] > epoch:
                raise ProtocolError(Code.FENCED, f"producer {hello.producer!r} was taken over meanwhile")
        held = Held(id_, hello.producer, identity, epoch, resume(rows, self.lanes), on_ack, on_lost)
        for lane, known in enumerate(rows):
            if known:
                held.after[lane] = known["next"]
                if known["epoch"] == epoch:
                    held.registered.add(lane)
        self._held[id_] = held
        return held

    def close_producer(self, producer: "Producer") -> None:
        """The session is over; what it admitted goes on its way."""
        assert isinstance(producer, Held)
        producer.closed = True
        if self._held.get(producer.id) is producer:
            del self._held[producer.id]

    # --- what others ask ---

    def lane_of(self, key: int) -> int:
        """The lane that a key belongs to."""
        return int(lanes_of(np.array([key], "u8"), self.lanes)[0])

    def connected(self, id_: int) -> bool:
        """Whether a session here holds the producer."""
        return id_ in self._held

    @property
    def durability(self) -> int:
        """The least that a lane's owner told; before any did, the least that a log in JetStream gives."""
        return min((c.durability for c in self.channels if c.durability is not None), default=Durability.SERVER)

    @property
    def position(self) -> int:
        """Signals in all lanes, as far as this replica was told."""
        return sum(channel.position for channel in self.channels)

    @property
    def pending(self) -> int:
        """Signals admitted here and not yet acknowledged."""
        return sum(held.next - held.acked for held in self._held.values())

    async def drained(self) -> None:
        """Wait until all that was admitted is durable, or lost with its producer."""
        self._flush_all(at_once=True)
        while self._bytes:
            self._changed.clear()
            await self._changed.wait()

    # --- inside ---

    def _flush_soon(self) -> None:
        if self._flushing is None:
            self._flushing = self._loop.call_later(self._linger_s, self._flush_all)

    def _flush_all(self, *, at_once: bool = False) -> None:
        """Send the open batches, but for those that would lie about: they go on growing, until a lane wants more."""
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        for held in list(self._dirty):
            batch = held.batch
            if at_once or batch is None or any(self.channels[lane].queued < BUNDLE_BYTES for lane in batch.pieces):
                self._flush(held)
            else:
                batch.waits = True

    def _wants(self, lane: int) -> None:
        """A channel has less than a bundle left."""
        for held in list(self._dirty):
            if held.batch is not None and held.batch.waits and lane in held.batch.pieces:
                self._flush(held)

    def _flush(self, held: Held) -> None:
        """Send the open batch of a producer to its lanes."""
        batch, held.batch = held.batch, None
        self._dirty.pop(held, None)
        if batch is None:
            return
        mask = sum(1 << lane for lane in batch.pieces)
        sent = Sent(batch.end, len(batch.pieces))
        held.sent.append(sent)
        for lane, (rows, offsets) in batch.pieces.items():
            if lane not in held.registered:
                held.registered.add(lane)
                registration = Registration(held.id, held.epoch, held.identity, held.name)
                self._put(lane, registration.encode(), partial(self._registered, held))
            after = held.after.get(lane, 0)  # the lane may have more than this stream, sent through another replica
            data = part_of(
                held.id, held.epoch,
                begin=batch.begin, end=batch.end, after=min(after, batch.end), floor=held.acked, lanes=mask,
                rows=rows, offsets=offsets,
            )  # fmt: skip
            held.after[lane] = max(after, batch.end)
            self._bytes -= sum(map(len, rows))
            self._put(lane, data, partial(self._stored, held, sent))

    def _put(self, lane: int, data: bytes, done: Callable[[ProtocolError | None], None]) -> None:
        self._bytes += len(data)
        self.channels[lane].put(Item(data, done))

    def _released(self, length: int) -> None:
        self._bytes -= length
        self._changed.set()
        if self._said_no and self._bytes < ROUTE_BYTES_MAX - (ROUTE_BYTES_MAX >> 2):
            self._said_no = False
            if self._on_room is not None:
                self._on_room()

    def _stored(self, held: Held, sent: Sent, error: ProtocolError | None) -> None:
        if error is not None:
            self._refused(held, error)
            return
        sent.left -= 1
        if held.advance() and held.lost is None and not held.closed:
            self.acks += 1
            held.on_ack(held.acked, self.durability, self.position)

    def _registered(self, held: Held, error: ProtocolError | None) -> None:
        if error is not None:
            self._refused(held, error)

    def _named(self, held: Held, key: int, error: ProtocolError | None) -> None:
        if error is not None:
            self._refused(held, error)
            return
        if len(self._names) >= _NAMES_KEPT:
            self._names.clear()  # a name may go out twice
        self._names.add(key)

    def _refused(self, held: Held, error: ProtocolError) -> None:
        """A lane did not take something of this producer: its session ends, and its client goes on from the lanes."""
        if error.code == Code.SEQUENCE_GAP:  # of a part, not of what the producer sent
            error = ProtocolError(Code.NOT_READY, f"a lane has to be asked where it is: {error.message}")
        if held.lost is None and not held.closed:
            logger.warning("producer %r is refused: %s", held.name, error)
        self._lose_held(held, error)

    def _lose(self, id_: int, error: ProtocolError) -> None:
        held = self._held.pop(id_, None)
        if held is not None:
            self._lose_held(held, error)

    def _lose_held(self, held: Held, error: ProtocolError) -> None:
        if held.lost is None:
            held.lost = error
            if self._held.get(held.id) is held:
                del self._held[held.id]
            if not held.closed:
                held.on_lost(error.code, error.message)

    def lose_all(self, error: ProtocolError) -> None:
        """Let go of every producer."""
        for id_ in list(self._held):
            self._lose(id_, error)

    def _opened_elsewhere(self, told: dict[str, Any]) -> None:
        if told["by"] != self._me:
            message = f"producer {told['name']!r} is held by a newer connection"
            self._lose(int(told["id"]), ProtocolError(Code(told["code"]), message))


def _check_place(producer: Held, id_: int, epoch: int, sequence: int) -> None:
    if id_ != producer.id:
        message = f"a frame of producer {id_} in a connection of {producer.name!r}, which is {producer.id}"
        raise ProtocolError(Code.PRODUCER_FORBIDDEN, message, offset=8)
    if epoch != producer.epoch:
        message = f"a frame of epoch {epoch}; producer {producer.name!r} is at epoch {producer.epoch}"
        raise ProtocolError(Code.FENCED, message, offset=16)
    if sequence > producer.next:
        message = f"a frame begins at {sequence}; producer {producer.name!r} is expected to go on at {producer.next}"
        raise ProtocolError(Code.SEQUENCE_GAP, message, offset=24, sequence=producer.next)
