"""A lane as the router sees it: what is to go there, in order, one bundle at a time until it is durable.

Loop thread. While a bundle is on its way the next one grows, so the rate of bundles follows the log's, and a lane that
moves only waits. An item may reach the lane twice; it knows.
"""

import asyncio
import json
import logging
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from bitactor.cluster.calls import Calls
from bitactor.cluster.parts import Bundle
from bitactor.protocol.errors import Code, ProtocolError

BUNDLE_BYTES: Final = 480 << 10  # below the smallest usual limit of a NATS message, with a longest part beside
_RETRY_S: Final = 0.2

logger = logging.getLogger("bitactor.cluster")


class Item(NamedTuple):
    """Bytes for the lane; done: called once, with None when it is durable and applied there, or with the refusal."""

    data: bytes
    done: Callable[[ProtocolError | None], None]


class Channel:
    """To one lane. durability, position: as its owner last told. queued: bytes that wait for the next bundles.

    released: called with the bytes that are done with; wants: with the lane, when less than a bundle waits.
    """

    def __init__(self, lane: int, calls: Calls, released: Callable[[int], None], wants: Callable[[int], None]) -> None:
        self.lane = lane
        self.durability: int | None = None
        self.position = 0
        self.queued = 0
        self._calls = calls
        self._released = released
        self._wants = wants
        self._items: deque[Item] = deque()
        self._some = asyncio.Event()
        self._stopping = False
        self._task = asyncio.create_task(self._run())

    def put(self, item: Item) -> None:
        """Send it behind what was put before."""
        self._items.append(item)
        self.queued += len(item.data)
        self._some.set()

    async def stop(self) -> None:
        """Send nothing more; what is left is told so."""
        self._stopping = True
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        error = ProtocolError(Code.SHUTTING_DOWN, "the replica stops")
        while self._items:
            self._finish(self._items.popleft(), error)

    async def _run(self) -> None:
        while not self._stopping:  # a cancellation may be lost in what a library waits with
            await self._some.wait()
            taken = self._take()
            try:
                await self._deliver(taken)
            except asyncio.CancelledError:
                self._put_back(taken)
                raise
            except ProtocolError as error:
                for item in taken:
                    self._finish(item, error)
            except Exception:
                logger.exception("a bundle for lane %d failed and is sent again", self.lane)
                self._put_back(taken)
                await asyncio.sleep(_RETRY_S)

    def _take(self) -> list[Item]:
        taken: list[Item] = []
        length = 0
        while self._items and (not taken or length + len(self._items[0].data) <= BUNDLE_BYTES):
            taken.append(self._items.popleft())
            length += len(taken[-1].data)
        self.queued -= length
        if not self._items:
            self._some.clear()
        if self.queued < BUNDLE_BYTES:
            self._wants(self.lane)
        return taken

    def _put_back(self, taken: list[Item]) -> None:
        self._items.extendleft(reversed(taken))
        self.queued += sum(len(item.data) for item in taken)
        self._some.set()

    async def _deliver(self, taken: list[Item]) -> None:
        data = Bundle(self.lane, tuple(item.data for item in taken)).encode()
        told = json.loads(await self._calls.ask(self.lane, "bundle", data, within_s=None))
        self.durability, self.position = told["durability"], max(self.position, told["position"])
        refused = {place: ProtocolError(Code(code), text, sequence=at) for place, code, text, at in told["refused"]}
        for place, item in enumerate(taken):
            self._finish(item, refused.get(place))

    def _finish(self, item: Item, error: ProtocolError | None) -> None:
        self._released(len(item.data))
        item.done(error)
