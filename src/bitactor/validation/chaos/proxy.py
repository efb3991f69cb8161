"""A proxy that does to connections what networks do: cut, half-open, delay, duplicate, truncate, change a byte.

One thread of its own runs it; `fault` may be set by any thread at any time and holds for every chunk that passes then.
"""

import asyncio
import random
import threading
from collections import Counter
from types import TracebackType
from typing import Any, Final, Self

FAULTS: Final = ("cut", "half-open", "delay", "duplicate", "truncate", "flip")
CHUNK: Final = 16_384
_QUIET_TURNS: Final = 4
HALF_OPEN_S: Final = 3.0  # then a router somewhere forgets it, and both ends are reset


class Proxy:
    """Listens on 127.0.0.1:`port` and forwards to 127.0.0.1:`to`. hit: how often each fault was done to a chunk."""

    def __init__(self, to: int, seed: int, share: float = 0.05) -> None:
        """share: of chunks that meet the fault that is set."""
        self.to = to
        self.port = 0
        self.fault = ""
        self.hit: Counter[str] = Counter()
        self.connections = 0
        self._share = share
        self._random = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._server: Any = None
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="fault-proxy")
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        self._loop.set_exception_handler(lambda _loop, _context: None)  # what is cut off here is no news
        self._stopping = True
        for listening in self._server.sockets:
            self._loop.remove_reader(listening.fileno())
        for _ in range(_QUIET_TURNS):  # what was accepted becomes a transport, which a closed server fails to make
            await asyncio.sleep(0)
        self._server.close()
        quiet = 0
        while quiet < _QUIET_TURNS:  # what was just accepted becomes a task, what was aborted closes, a turn later
            for writer in self._writers:
                writer.transport.abort()
            for task in self._tasks:  # no others: one that is cancelled before it began drops the socket it was given
                task.cancel()
            await asyncio.sleep(0)
            quiet = 0 if len(asyncio.all_tasks()) > 1 else quiet + 1

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._writers.add(writer)
        self._tasks.add(task)
        try:
            if not self._stopping:
                await self._forward(reader, writer)
        finally:
            writer.transport.abort()
            self._writers.discard(writer)
            self._tasks.discard(task)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            there, upstream = await asyncio.open_connection("127.0.0.1", self.to)
        except OSError:
            return
        ends = {writer, upstream}
        self._writers.add(upstream)
        try:
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump(reader, upstream, ends))
                pumps.create_task(self._pump(there, writer, ends))
        except* (OSError, EOFError):
            pass
        finally:
            for end in ends:
                end.transport.abort()
            self._writers.discard(upstream)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ends: set[Any]) -> None:
        while chunk := await reader.read(CHUNK):
            fault = self.fault
            if fault and self._random.random() < self._share:
                self.hit[fault] += 1
                chunk = await self._do(fault, chunk, writer, ends)
            writer.write(chunk)
            await writer.drain()
        raise EOFError  # one side has closed: so does the other

    async def _do(self, fault: str, chunk: bytes, writer: asyncio.StreamWriter, ends: set[Any]) -> bytes:
        """What goes on of the chunk. ConnectionError ends the connection."""
        if fault == "cut":
            for end in ends:
                end.transport.abort()
            raise ConnectionError
        if fault == "half-open":
            await asyncio.sleep(HALF_OPEN_S)
            raise ConnectionError
        if fault == "delay":
            await asyncio.sleep(self._random.random() * 0.2)
        elif fault == "duplicate":
            return chunk + chunk
        elif fault == "truncate":
            writer.write(chunk[: self._random.randrange(len(chunk))])
            await writer.drain()
            writer.write_eof() if writer.can_write_eof() else None
            await asyncio.sleep(0.01)
            raise ConnectionError
        elif fault == "flip":
            at = self._random.randrange(len(chunk))
            return chunk[:at] + bytes([chunk[at] ^ 1 << self._random.randrange(8)]) + chunk[at + 1 :]
        return chunk
