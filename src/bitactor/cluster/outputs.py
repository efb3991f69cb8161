"""Outputs of all lanes for one reader: each lane's owner is asked for what comes behind the reader's place there.

Loop thread. Within a lane outputs come in the lane's order; between lanes there is none. The lane stands in the top
byte of an output's index, so (position, index) names an output of the whole app, and tells which are known.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from bitactor.cluster.queries import ask
from bitactor.protocol.errors import Code, ProtocolError
from bitactor.protocol.messages import LANE_SHIFT, Outputs, Subscribe

if TYPE_CHECKING:
    from bitactor.cluster.calls import Calls

INDEX_MASK: Final = (1 << LANE_SHIFT) - 1
_RETRY_S: Final = 0.5
_ROW: Final = np.dtype([("signal", "V32"), ("position", ">u8"), ("index", ">u8")])

logger = logging.getLogger("bitactor.cluster")


class OutputReader:
    """A subscription (ingest's Subscription) over all lanes."""

    def __init__(self, calls: "Calls", lanes: int, subscribe: Subscribe, write: Callable[[bytes], bool]) -> None:
        self._calls = calls
        self._subscribe = subscribe
        self._write = write
        self._may_write = asyncio.Event()
        self._may_write.set()
        self._dropped = 0
        self._lanes = lanes
        self._tasks: list[asyncio.Task[None]] = []
        self._closed = False

    async def begin(self) -> None:
        """Find where to begin in every lane, and begin to read. ProtocolError: a lane cannot be asked."""
        given = self._subscribe
        places = {index >> LANE_SHIFT: (position, index & INDEX_MASK) for position, index in given.places}
        rest = None if given.live else (given.from_position, given.from_index & INDEX_MASK)
        begins = await asyncio.gather(*(self._place(lane, places.get(lane, rest)) for lane in range(self._lanes)))
        self._tasks = [asyncio.create_task(self._run(lane, place)) for lane, place in enumerate(begins)]

    async def _place(self, lane: int, place: tuple[int, int] | None) -> tuple[int, int]:
        if place is not None:
            return place
        head, _ = await ask(self._calls, lane, "outputs", self._question(None, wait=False))
        return head["next"][0], head["next"][1]

    def _question(self, place: tuple[int, int] | None, *, wait: bool) -> dict[str, Any]:
        position, index = place or (0, 0)
        kinds = self._subscribe.kinds
        return {"kinds": kinds, "live": place is None, "position": position, "index": index, "wait": wait}

    def resume(self) -> None:
        """Write again."""
        self._may_write.set()

    def close(self) -> None:
        """Write nothing more."""
        self._closed = True
        for task in self._tasks:
            task.cancel()

    async def _run(self, lane: int, place: tuple[int, int]) -> None:
        while not self._closed:  # a cancellation may be lost in what a library waits with
            await self._may_write.wait()
            try:
                head, rows = await ask(self._calls, lane, "outputs", self._question(place, wait=True))
            except ProtocolError as error:
                if error.code == Code.OUTPUT_GONE:  # the window went past this reader while it did not read
                    self._dropped += 1  # how many there were, nobody knows any more
                    place = await self._place(lane, None)
                logger.warning("outputs of lane %d wait: %s", lane, error)
                await asyncio.sleep(_RETRY_S)
                continue
            place = (head["next"][0], head["next"][1])
            self._dropped += head["dropped"]
            if len(rows):
                self._give(lane, rows)

    def _give(self, lane: int, rows: memoryview) -> None:
        marked = np.frombuffer(rows, _ROW).copy()
        marked["index"] |= np.uint64(lane << LANE_SHIFT)
        message = Outputs(self._subscribe.id, self._dropped, marked.tobytes())
        if not self._write(message.encode()):
            self._may_write.clear()
