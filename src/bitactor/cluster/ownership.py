"""Which lanes this replica takes, gives away and keeps: it makes today's owners into those that `assign` wants.

Loop thread. A lane that should be another's is given away in order: drained, a snapshot of its last state, let go; the
other takes it when it sees no owner. A lane without an owner is taken by whom `assign` names. All of this may go wrong
at any point, for each owner is held to the lane's log (lane.py): here it is decided who tries.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from bitactor.cluster.assignment import assign
from bitactor.cluster.lane import LaneCore
from bitactor.cluster.members import LaneOf
from bitactor.log.contract import CorruptionError, LogFencedError
from bitactor.runtime.recovery import OtherAppError, RecoveryError
from bitactor.state import StateError

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from bitactor.cluster.members import Member, Members

TAKES_AT_ONCE: Final = 8  # each waits for servers that may be electing the leader of its streams
REPLAYS_AT_ONCE: Final = 2
_BARRED_S: Final = 10.0  # a lane that cannot be taken is tried again after so long
_SETTLE_LEASES: Final = 0.5  # a new replica first listens for so many leases

logger = logging.getLogger("bitactor.cluster")


class Ownership:
    """The lanes of this replica. make: a LaneCore, not started. changed: called when the set of lanes has changed."""

    def __init__(
        self,
        members: "Members",
        me: str,
        lanes: int,
        make: Callable[[int, Callable[[str], None]], LaneCore],
        *,
        lease_s: float,
        changed: Callable[[], None],
    ) -> None:
        self.lanes: dict[int, LaneCore] = {}
        self.barred: dict[int, str] = {}
        self.moves = 0
        self.fatal: str | None = None
        self.draining = False
        self._members = members
        self._me = me
        self._count = lanes
        self._make = make
        self._changed = changed
        self._barred_until: dict[int, float] = {}
        self._moving: dict[int, asyncio.Task[None]] = {}
        self._taking: set[int] = set()
        self._settled_at = time.monotonic() + lease_s * _SETTLE_LEASES
        self._lease_s = lease_s

    def told(self) -> dict[int, LaneOf]:
        """What this replica tells of its lanes."""
        return {lane: told_of(core) for lane, core in self.lanes.items()}

    def step(self) -> None:
        """Look at who is there, and begin what has to move. Called at every beat and at all news."""
        now = time.monotonic()
        for lane in [lane for lane, until in self._barred_until.items() if until <= now]:
            del self._barred_until[lane]
            self.barred.pop(lane, None)
        live = self._members.live()
        told = self._members.owners()
        owners = {lane: owner.incarnation for lane, owner in told.items()}
        for lane, core in list(self.lanes.items()):
            if lane not in told or told[lane].lanes[lane].generation <= core.generation:
                owners[lane] = self._me  # also when it was taken a moment ago, and is not told yet
            elif lane not in self._moving:
                self._move(lane, self._let_go(lane))  # another claimed the log after us
        if now < self._settled_at:
            return
        for lane, member in self._wanted(live, owners).items():
            if lane in self._moving:
                continue
            if lane in self.lanes and member != self._me:
                self._move(lane, self._give(lane))
            elif lane not in self.lanes and lane not in owners and member == self._me and self._may_take():
                self._taking.add(lane)
                self._move(lane, self._take(lane))

    def _wanted(self, live: "list[Member]", owners: dict[int, str]) -> dict[int, str]:
        may = [member for member in live if not member.draining]
        barred = {(lane, member.incarnation) for member in live for lane in member.barred}
        return assign([member.incarnation for member in may], self._count, owners, barred)

    def _may_take(self) -> bool:
        return not self.draining and len(self._taking) < TAKES_AT_ONCE

    def _move(self, lane: int, coroutine: "Coroutine[Any, Any, None]") -> None:
        task = asyncio.create_task(coroutine)
        self._moving[lane] = task
        task.add_done_callback(lambda _: self._moved(lane))

    def _moved(self, lane: int) -> None:
        self._moving.pop(lane, None)
        self._taking.discard(lane)
        self._changed()

    async def _take(self, lane: int) -> None:
        begun = time.monotonic()
        core = self._make(lane, lambda why: self._failed(lane, why))
        try:
            await core.start()
        except LogFencedError as error:
            self._bar(lane, f"another replica was faster: {error}", self._lease_s)
        except OtherAppError as error:
            self._bar(lane, str(error), _BARRED_S)
        except (CorruptionError, RecoveryError, StateError) as error:
            logger.error("lane %d cannot be taken: %s", lane, error)  # noqa: TRY400
            self._bar(lane, str(error), _BARRED_S)
        except Exception as error:  # noqa: BLE001  (whatever it is, it is tried again)
            logger.warning("lane %d cannot be taken now: %s: %s", lane, type(error).__name__, error)
            self._bar(lane, f"{type(error).__name__}: {error}", self._lease_s)
        else:
            self.lanes[lane] = core
            self.moves += 1
            logger.info(
                "lane taken",
                extra={
                    "lane": lane, "generation": core.generation, "position": core.writer.place.position,
                    "replayed": core.replayed, "seconds": round(time.monotonic() - begun, 3),
                },
            )  # fmt: skip

    async def _give(self, lane: int) -> None:
        core = self.lanes[lane]
        try:
            await core.stop()
        except Exception:
            logger.exception("lane %d was not given away in order; its log has everything", lane)
        self.lanes.pop(lane, None)
        logger.info("lane given away", extra={"lane": lane, "position": core.writer.place.position})

    async def _let_go(self, lane: int) -> None:
        core = self.lanes.pop(lane)
        await core.abandon()
        logger.info("lane let go", extra={"lane": lane, "position": core.writer.place.position})

    def _failed(self, lane: int, why: str) -> None:
        """The lane's writer has ended: it is fenced, or its log cannot be reached."""
        if lane in self.lanes and lane not in self._moving:
            self._bar(lane, why, self._lease_s)
            self._move(lane, self._let_go(lane))
            self._changed()

    def _bar(self, lane: int, why: str, seconds: float) -> None:
        self.barred[lane] = why
        self._barred_until[lane] = time.monotonic() + seconds

    async def stop(self) -> None:
        """Give all lanes away in order, several at a time."""
        self.draining = True
        while self._moving or self.lanes:
            for lane in self.lanes.keys() - self._moving.keys():
                self._move(lane, self._give(lane))
            await asyncio.wait(self._moving.values())


def told_of(core: LaneCore) -> LaneOf:
    """What is told of a lane."""
    place = core.writer.place
    newest = core.snapshots.newest if core.snapshots is not None else None
    return LaneOf(
        core.generation,
        place.position,
        place.sequence,
        core.intake.pending,
        None if newest is None else newest.position,
    )
