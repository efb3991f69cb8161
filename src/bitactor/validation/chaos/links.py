"""Links that are cut and heal: a proxy between two processes whose bytes may wait, or whose connections may be reset.

As Proxy, one thread of its own runs it; the methods are for any thread.
"""

import asyncio
from typing import Any, Final

from bitactor.validation.chaos.proxy import CHUNK, Proxy

_LOOK_S: Final = 0.01


class Link(Proxy):
    """To 127.0.0.1:`to`, up at first. hit["held"]: chunks and connections that waited; hit["cut"]: those ended."""

    def __init__(self, to: int) -> None:
        super().__init__(to, seed=0, share=0.0)
        self._state = "up"

    @property
    def state(self) -> str:
        """One of "up", "held", "cut"."""
        return self._state

    def hold(self) -> None:
        """Nothing gets through until `heal`, and nobody is told: as when packets are dropped and sent again later."""
        self._state = "held"

    def cut(self) -> None:
        """Reset what is connected, and refuse what comes, until `heal`."""
        self._state = "cut"
        self._loop.call_soon_threadsafe(self._abort)

    def heal(self) -> None:
        """Let everything through again."""
        self._state = "up"

    def _abort(self) -> None:
        for writer in list(self._writers):
            self.hit["cut"] += 1
            writer.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._state == "cut":
            self.hit["cut"] += 1
            return
        await self._wait()
        await super()._forward(reader, writer)

    async def _wait(self) -> None:
        if self._state == "held":
            self.hit["held"] += 1
        while self._state == "held":  # noqa: ASYNC110  (set by other threads)
            await asyncio.sleep(_LOOK_S)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ends: set[Any]) -> None:
        while chunk := await reader.read(CHUNK):
            await self._wait()
            writer.write(chunk)
            await writer.drain()
        raise EOFError  # one side has closed: so does the other
