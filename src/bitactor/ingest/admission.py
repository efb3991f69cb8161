"""Admission: what a session asks of the side that owns the log. The runtime implements it; sessions know only this.

Everything here is called on the loop's thread and returns at once, but for the two coroutines. Per producer
`acked <= next`: what is admitted is acknowledged later, once durable and applied.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from bitactor.protocol.errors import Code
    from bitactor.protocol.messages import Hello, Name, Subscribe, Welcome

# (next, durability, position): everything of the producer below `next` is durable and applied. `next` never falls.
OnAck = Callable[[int, int, int], None]
# (code, message): another holds the producer now, or nobody can (fenced, superseded, log_full, internal).
OnLost = Callable[["Code", str], None]


class Producer(Protocol):
    """A producer as one session holds it, from open_producer to close_producer."""

    @property
    def id(self) -> int:
        """The number in its frames: text_key of its name."""

    @property
    def epoch(self) -> int:
        """The epoch in its frames."""

    @property
    def next(self) -> int:
        """The sequence that its next frame is expected to begin with: behind all that was admitted."""


class Subscription(Protocol):
    """A reader's place in the outputs."""

    def resume(self) -> None:
        """Write again: the buffer that made `write` return False is empty enough. Harmless when not waiting."""

    def close(self) -> None:
        """Write nothing more. May be called twice."""


class Admission(Protocol):
    """The way from a session into the log. Loop thread only; refusals are ProtocolError and change nothing."""

    @property
    def kinds(self) -> Mapping[str, int]:
        """Name and number of every kind that the app declares; constant while serving."""

    @property
    def has_room(self) -> bool:
        """Whether a frame of 8,192 signals fits now. While False, sessions read nothing and give no credit."""

    def on_room(self, callback: Callable[[], None]) -> None:
        """Call back on the loop each time has_room turns from False to True. One callback, for the whole server."""

    def welcome(self, producer: Producer | None) -> "Welcome":
        """What to greet with; `limit` is overwritten by the session. None: a reader, whose producer fields are 0."""

    async def open_producer(self, identity: str, hello: "Hello", on_ack: OnAck, on_lost: OnLost) -> Producer:
        """Register, go on with or take over the producer `hello.producer` for this identity.

        Returns when what it logs (a first registration, a takeover) is durable, and when all that was admitted for
        it earlier is too, so that `next` survives a crash. Whoever held this producer before has its on_lost called
        (superseded, or fenced after a takeover) before this returns. on_ack is called on the loop's thread, at most
        once a record, never after close_producer.
        ProtocolError: producer_forbidden (another identity's), fenced, producers_full, not_ready, log_full.
        Cancelled (the peer left): the producer is closed again.
        """

    def close_producer(self, producer: Producer) -> None:
        """The session is over; what it admitted goes on its way. May be called twice, and after on_lost."""

    def admit(self, producer: Producer, frame: memoryview, kinds: bytes) -> int:
        """Decode one whole frame into the open record; the number of signals that were new.

        frame: valid during the call only. kinds: 8,192 bytes, bit k set for each kind that this identity may send.
        Wholly below `next`: 0, counted as duplicates; overlapping: the rest is taken. Call only with has_room.
        FrameError as the decoder gives it (a kind outside `kinds` is its signal_kind; the session tells forbidden
        from unknown). ProtocolError: fenced, producer_forbidden (the id is not this producer's), sequence_gap,
        log_full, shutting_down. After either nothing has changed.
        """

    def admit_name(self, producer: Producer, name: "Name") -> None:
        """Bind a text to its key in the log, before its first use; a known pair is taken again silently.

        Call only with has_room. ProtocolError: name_mismatch (key is not text_key(text)), name_conflict, names_full.
        """

    async def subscribe(self, identity: str, subscribe: "Subscribe", write: Callable[[bytes], bool]) -> Subscription:
        """Write encoded Outputs messages with `write`, in order, from the place that `subscribe` names.

        write returns False when the peer's buffer is above its limit: write no more until `resume`.
        ProtocolError: output_gone, signal_kind.
        """
