"""A producer at the replica that it is connected to: what of it is on its way into which lane. Loop thread.

Its stream is cut into batches [begin, end), each of them by lane into parts. A batch is there when all its parts are;
what is acknowledged is the end of the longest row of such batches:

    acked <= next;   acked = begin of the first batch in `batches` that is not there

`resume` says where a stream goes on that other replicas cut before, from what the lanes know of it.
"""

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bitactor.cluster.parts import Offsets
    from bitactor.ingest.admission import OnAck, OnLost
    from bitactor.protocol.errors import ProtocolError
    from bitactor.runtime.tables import Batch


class Sent:
    """A batch on its way: how many of its parts are not known to be durable."""

    __slots__ = ("end", "left")

    def __init__(self, end: int, left: int) -> None:
        self.end = end
        self.left = left


class Open:
    """A batch that still grows: by lane the rows of its signals, and their offsets from its begin.

    waits: its time is over, and it grows on because all its lanes have enough to do.
    """

    __slots__ = ("begin", "counts", "end", "pieces", "waits")

    def __init__(self, begin: int) -> None:
        self.begin = self.end = begin
        self.pieces: dict[int, tuple[list[bytes], list[Offsets]]] = {}
        self.counts: dict[int, int] = {}
        self.waits = False

    def add(self, lane: int, rows: bytes, offsets: "Offsets") -> None:
        """Signals behind those that the lane has in this batch."""
        to = self.pieces.setdefault(lane, ([], []))
        to[0].append(rows)
        to[1].append(offsets)
        self.counts[lane] = self.counts.get(lane, 0) + len(offsets)


class Held:
    """A producer as one session holds it (ingest's Producer). lost: why it is no longer its own, or None.

    after: for each lane the end of this producer's part there before the next one. registered: lanes that know it.
    """

    def __init__(
        self, id_: int, name: str, identity: str, epoch: int, next_: int, on_ack: "OnAck", on_lost: "OnLost"
    ) -> None:
        self.id = id_
        self.name = name
        self.identity = identity
        self.epoch = epoch
        self.next = self.acked = next_
        self.after: dict[int, int] = {}
        self.registered: set[int] = set()
        self.batch: Open | None = None
        self.sent: deque[Sent] = deque()
        self.lost: ProtocolError | None = None
        self.closed = False
        self.on_ack = on_ack
        self.on_lost = on_lost

    def advance(self) -> bool:
        """Go past the batches that are there; whether there was one."""
        moved = False
        while self.sent and not self.sent[0].left:
            self.acked = self.sent.popleft().end
            moved = True
        return moved


def resume(rows: Iterable[dict[str, Any] | None], lanes: int) -> int:
    """Where a producer's stream goes on: everything below is in every lane that it belongs to.

    rows: what each lane knows, in order of lanes (None: nothing). A batch is there when every lane that it touches
    has the producer up to the batch's end. From the floor on, batches that are there are followed one to the next; the
    first place that none covers is the answer. So it is never below what was acknowledged: that was such a row.
    """
    known = list(rows)
    at = [row["next"] if row else 0 for row in known]
    reached = max((row["floor"] for row in known if row), default=0)
    batches: set[Batch] = {tuple(batch) for row in known if row for batch in row["batches"]}
    there = sorted(
        (begin, end) for begin, end, mask in batches if all(at[i] >= end for i in range(lanes) if mask >> i & 1)
    )
    for begin, end in there:
        if begin <= reached < end:
            reached = end
    return reached
