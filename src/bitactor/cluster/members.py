"""Who is there: each replica says so on one subject, several times a second, with the lanes that it owns.

Loop thread. Nothing durable rests on it. Two replicas may for a moment both believe that a lane is theirs; which of
them is right is decided by the lane's log, where the other's append is refused (lane.py). `generation` is the sequence
of the record with which an owner claimed the lane there: the higher one is the owner.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg

    from bitactor.cluster.names import Names

BEATS_A_LEASE: Final = 10


@dataclass(frozen=True, slots=True)
class LaneOf:
    """A lane as its owner tells of it. position: signals applied; lag: signals taken and not yet applied."""

    generation: int
    position: int = 0
    sequence: int = 0
    lag: int = 0
    snapshot: int | None = None  # position of the newest


@dataclass(frozen=True, slots=True)
class Member:
    """A replica as it tells of itself. barred: lanes that it cannot own, and why (their logs are another app's)."""

    incarnation: str
    replica: str
    fingerprint: str
    started: float
    ingest: tuple[str, ...] = ()
    admin: str = ""
    draining: bool = False
    lanes: dict[int, LaneOf] = field(default_factory=dict)
    barred: dict[int, str] = field(default_factory=dict)
    moves: int = 0

    def encode(self) -> bytes:
        """As JSON."""
        return json.dumps(asdict(self), separators=(",", ":")).encode()

    @classmethod
    def decode(cls, data: bytes) -> "Member":
        """What encode gave. ValueError, TypeError or KeyError for what it did not."""
        said = json.loads(data)
        said["lanes"] = {int(lane): LaneOf(**of) for lane, of in said["lanes"].items()}
        said["barred"] = {int(lane): str(why) for lane, why in said["barred"].items()}
        said["ingest"] = tuple(said["ingest"])
        return cls(**said)


class Members:
    """Hears the others and speaks for this replica. me: what this one says of itself now. changed: called after news.

    lease_s: who was not heard for so long is gone.
    """

    def __init__(
        self,
        client: "Client",
        names: "Names",
        me: Callable[[], Member],
        *,
        lease_s: float,
        changed: Callable[[], None],
    ) -> None:
        self._client = client
        self._subject = names.members
        self._me = me
        self._lease_s = lease_s
        self._changed = changed
        self._heard: dict[str, tuple[Member, float]] = {}
        self._subscription: Any = None
        self._task: asyncio.Task[None] | None = None
        self._stopping = False

    async def start(self) -> None:
        """Begin to listen and to speak."""
        self._subscription = await self._client.subscribe(self._subject, cb=self._on_message)
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Say that this replica is gone, and speak no more."""
        self._stopping = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        with contextlib.suppress(Exception):
            await self._client.publish(self._subject, b'{"gone":"%s"}' % self._me().incarnation.encode())
            await self._client.flush(timeout=1)
            await self._subscription.unsubscribe()

    async def speak(self) -> None:
        """Say now what would be said at the next beat."""
        me = self._me()
        self._heard[me.incarnation] = (me, time.monotonic())
        with contextlib.suppress(Exception):  # cut off: the others will notice
            await self._client.publish(self._subject, me.encode())

    def live(self) -> list[Member]:
        """Who was heard within the lease, this replica among them, in order of incarnation."""
        since = time.monotonic() - self._lease_s
        return [self._heard[key][0] for key in sorted(self._heard) if self._heard[key][1] >= since]

    def owners(self) -> dict[int, Member]:
        """Who owns each lane, of those that are live: the highest generation."""
        best: dict[int, Member] = {}
        for member in self.live():
            for lane, of in member.lanes.items():
                if lane not in best or of.generation > best[lane].lanes[lane].generation:
                    best[lane] = member
        return best

    async def _run(self) -> None:
        while not self._stopping:  # a cancellation may be lost in what a library waits with
            await self.speak()
            self._forget()
            self._changed()
            await asyncio.sleep(self._lease_s / BEATS_A_LEASE)

    def _forget(self) -> None:
        since = time.monotonic() - 10 * self._lease_s
        self._heard = {key: value for key, value in self._heard.items() if value[1] >= since}

    async def _on_message(self, message: "Msg") -> None:
        with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):
            if message.data.startswith(b'{"gone":'):
                self._heard.pop(json.loads(message.data)["gone"], None)
                self._changed()
                return
            member = Member.decode(message.data)
            before = self._heard.get(member.incarnation)
            self._heard[member.incarnation] = (member, time.monotonic())
            if before is None or before[0].lanes.keys() != member.lanes.keys() or before[0].draining != member.draining:
                self._changed()
