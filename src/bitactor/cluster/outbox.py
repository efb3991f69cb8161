"""What a lane's actors emit to keys of other lanes, on its way into their logs, exactly once.

Each (this lane, target) is a producer of its own in the target's table: its number is this lane's, its sequence counts
the emits from here to there. Which emit has which number is a function of this lane's log, so an owner that makes an
emit again after a replay gives it the same number, and so does a former owner that does not know that it is one: the
target takes each number once.

    stored[t] <= made[t];  rows[t] holds the emits [made[t] - len(rows[t]), made[t])

A snapshot holds `made` and the rows that were not known to be stored, so a new owner goes on from there. Loop thread,
but for `export`.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from bitactor import faults
from bitactor.cluster.link import AbsentError
from bitactor.cluster.parts import part_of
from bitactor.protocol.errors import ProtocolError
from bitactor.protocol.frames import SIGNALS_MAX
from bitactor.protocol.messages import Producer as Registration
from bitactor.runtime.tables import FIRST_EPOCH
from bitactor.signals import SIGNAL_DTYPE, lanes_of

if TYPE_CHECKING:
    from bitactor.engine import Engine
    from bitactor.outputs import Subscription

HOLD_SIGNALS: Final = 1 << 18  # above so many unsent ones the lane takes nothing from outside
_AT_ONCE: Final = 4096
_RETRY_S: Final = 0.1
_NATIVE: Final = np.dtype([(n, f"u{SIGNAL_DTYPE[n].itemsize}") for n in SIGNAL_DTYPE.names or ()])
_WIRE: Final = _NATIVE.newbyteorder(">")

Rows = npt.NDArray[Any]
# Hands items to a lane's owner until they are durable there: (target lane, items).
Send = Callable[[int, tuple[bytes, ...]], Awaitable[None]]

logger = logging.getLogger("bitactor.cluster")


class Outbox:
    """Of one lane. lanes: how many there are. epoch: the emits' producer epoch, always the first."""

    def __init__(self, lane: int, lanes: int, send: Send) -> None:
        self.lane = lane
        self.lanes = lanes
        self.made = [0] * lanes
        self.stored = [0] * lanes
        self._rows: list[list[Rows]] = [[] for _ in range(lanes)]  # in wire form, `V32`
        self._send = send
        self._subscription: Subscription | None = None
        self._loop = asyncio.get_running_loop()
        self._fd = -1
        self._some = [asyncio.Event() for _ in range(lanes)]
        self._less: asyncio.Event = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False

    @property
    def waiting(self) -> int:
        """Emits that are not known to be in their target's log."""
        return sum(self.made) - sum(self.stored)

    def attach(self, engine: "Engine") -> None:
        """Read what this engine emits to other lanes, from the next step on."""
        self._subscription = engine.subscribe_remote(capacity=1 << 16)
        self._fd = self._subscription.fileno()
        self._loop.add_reader(self._fd, self._readable)
        self._drain()

    def start(self) -> None:
        """Begin to send."""
        self._tasks = [
            asyncio.create_task(self._run(target)) for target in range(self.lanes) if target != self.lane
        ]  # fmt: skip

    async def hold(self) -> None:
        """Wait while too much is on its way."""
        while self.waiting > HOLD_SIGNALS:
            self._less.clear()
            await self._less.wait()

    async def stop(self) -> None:
        """Send nothing more; what is not stored stays in the snapshot."""
        self._stopping = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    def close(self) -> None:
        """Read nothing more."""
        if self._subscription is not None:
            self._loop.remove_reader(self._fd)
            self._subscription.close()
            self._subscription = None

    def export(self) -> dict[str, bytes]:
        """As named buffers, up to the engine's position. While nothing is applied; not the loop's thread."""

        async def on_loop() -> dict[str, bytes]:
            self._drain()
            kept = [b"".join(rows.tobytes() for rows in self._rows[t]) for t in range(self.lanes)]
            return {
                "remote_made": np.array(self.made, "<u8").tobytes(),
                "remote_kept": np.array([len(rows) // 32 for rows in kept], "<u8").tobytes(),
                "remote_rows": b"".join(kept),
            }

        return asyncio.run_coroutine_threadsafe(on_loop(), self._loop).result()

    def restore(self, sections: Mapping[str, Any]) -> None:
        """Go on with what was exported; before attach. Nothing in it: nothing was emitted before."""
        if "remote_made" not in sections:
            return
        self.made = np.frombuffer(sections["remote_made"], "<u8").tolist()
        kept = np.frombuffer(sections["remote_kept"], "<u8").tolist()
        rows = np.frombuffer(sections["remote_rows"], "V32")
        at = 0
        for target, count in enumerate(kept):
            if count:
                self._rows[target] = [rows[at : at + count].copy()]
                at += count
            self.stored[target] = self.made[target] - count
            if count:
                self._some[target].set()

    def _readable(self) -> None:
        assert self._subscription is not None
        self._subscription.clear_news()
        self._drain()

    def _drain(self) -> None:
        while self._subscription is not None:
            batch = self._subscription.read(_AT_ONCE, timeout=0)
            if batch is None or not len(batch):
                if not self._subscription.has_news():
                    return
                continue
            self._keep(batch)

    def _keep(self, batch: Rows) -> None:
        signals = np.empty(len(batch), _NATIVE)
        for name in _NATIVE.names or ():
            signals[name] = batch[name].view(_NATIVE[name]) if batch[name].dtype != _NATIVE[name] else batch[name]
        wire = signals.astype(_WIRE).view("V32")
        where = lanes_of(np.ascontiguousarray(signals["key"]), self.lanes)
        for target in np.unique(where).tolist():
            rows = wire[where == target]
            self._rows[target].append(rows)
            self.made[target] += len(rows)
            self._some[target].set()

    async def _run(self, target: int) -> None:
        """Send to one lane, a part at a time, for ever."""
        register = Registration(self.lane, FIRST_EPOCH, "", f"lane {self.lane}").encode()
        while not self._stopping:  # a cancellation may be lost in what a library waits with
            await self._some[target].wait()
            rows = self._first(target)
            begin = self.stored[target]
            end = begin + len(rows)
            part = part_of(
                self.lane, FIRST_EPOCH,
                begin=begin, end=end, after=begin, floor=begin, lanes=1 << target,
                rows=[rows.tobytes()], offsets=[np.arange(len(rows), dtype=">u2")],
            )  # fmt: skip
            faults.point("emits.before")
            try:
                await self._send(target, (register, part))
            except (ProtocolError, AbsentError) as error:
                logger.warning("emits of lane %d to lane %d wait: %s", self.lane, target, error)
                await asyncio.sleep(_RETRY_S)
                continue
            self._stored(target, len(rows))

    def _first(self, target: int) -> Rows:
        rows = self._rows[target]
        if len(rows) > 1:
            rows[:] = [np.concatenate(rows)]
        return rows[0][:SIGNALS_MAX]

    def _stored(self, target: int, count: int) -> None:
        self.stored[target] += count
        rows = self._rows[target]
        rest = [rows[0][count:], *rows[1:]]
        self._rows[target] = [some for some in rest if len(some)]
        if not self._rows[target]:
            self._some[target].clear()
        self._less.set()
