"""Reading a lane's stream: batches from whichever server answers, every record checked, a bad copy read elsewhere.

A batch comes from any server that keeps the stream. What it sends was committed; it may be late, and its disk may have
rotted. So a record that is missing or damaged is asked for one by one, of others and of the leader, before it is called
missing or damaged: a good copy proves itself by its CRC. The loop's thread.

    records given so far are [start, next);  0 <= records fetched and not given <= BATCH_MAX * 2
"""

import asyncio
import base64
import json
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import nats.errors

from bitactor.log import streams
from bitactor.log.check import HEADER, Checker
from bitactor.log.contract import CorruptionError, End, RemovedError
from bitactor.log.direct import DirectBatches
from bitactor.telemetry import get_logger

if TYPE_CHECKING:
    from bitactor.log.nats import Connection

BATCH_MIN: Final = 16  # records of the first batch; each next one is twice as long, up to:
BATCH_MAX: Final = 512
COPIES_TRIED: Final = 8  # servers are chosen at random: so many tries reach each of five with 0.83, then the leader
ROUNDS: Final = 4  # of such tries, half a second apart: a server that follows may be late

_log = get_logger("bitactor.log")


def alone(path: Path, sequence: int, record: bytes) -> Checker:
    """A checker behind that record, which is the first that is read. CorruptionError."""
    start = HEADER.unpack_from(record) if len(record) >= HEADER.size else (0,) * 7
    checker = Checker(path, End(sequence, start[5], start[6]))
    checker.take(sequence, record)
    return checker


class Source:
    """A stream to read from, by one connection. path: what messages name."""

    def __init__(self, connection: "Connection", stream: str, path: Path) -> None:
        self.connection = connection
        self.stream = stream
        self.path = path

    async def direct(self, sequence: int, deadline: float) -> bytes | None:
        """The bytes of a record, from any server; None when that one does not have it."""
        request = json.dumps({"seq": sequence + 1}).encode()
        while True:
            try:
                await streams.connected(self.connection, deadline)
                message = await self.connection.request(
                    f"{streams.API}.DIRECT.GET.{self.stream}", request, streams.TRY_S
                )
            except (nats.errors.Error, TimeoutError) as error:
                why = str(error) or type(error).__name__
            else:
                headers = message.headers or {}
                if "Status" not in headers:
                    return bytes(message.data) if headers.get("Nats-Sequence") == str(sequence + 1) else None
                if headers["Status"] == "404":
                    return None
                why = f"{headers['Status']} {headers.get('Description', '')}"
            if time.monotonic() >= deadline:
                raise streams.NoAnswerError(streams.unanswered(self.connection, f"DIRECT.GET.{self.stream}", why))
            await asyncio.sleep(0.05)

    async def from_leader(self, sequence: int, deadline: float) -> bytes | None:
        """The bytes of a record as the stream's leader has it; None when it has none."""
        try:
            answer = await streams.ask(
                self.connection, f"STREAM.MSG.GET.{self.stream}", {"seq": sequence + 1}, deadline=deadline
            )
        except streams.ApiError as error:
            if error.code == streams.NO_MESSAGE:
                return None
            raise
        return base64.b64decode(answer["message"].get("data", ""))

    async def any_good(self, sequence: int, take: Callable[[bytes], None]) -> bytes:
        """A record that `take` accepts, of whichever server has one. CorruptionError says what was wrong otherwise."""
        problem: CorruptionError | None = None
        deadline = streams.from_now(streams.OPEN_S)
        for _ in range(ROUNDS):
            for attempt in range(COPIES_TRIED + 1):
                ask = self.from_leader if attempt == COPIES_TRIED else self.direct
                data = await ask(sequence, deadline)
                if data is None:
                    continue
                try:
                    take(data)
                except CorruptionError as error:
                    problem = error
                    continue
                if problem is not None:
                    _log.warning("a server's copy of a record is damaged", stream=self.stream, error=problem)
                return data
            if problem is not None:
                break
            await asyncio.sleep(0.5)
        if problem is not None:
            raise problem
        raise CorruptionError(self.path, f"it is missing (message {sequence + 1} of the stream)", sequence=sequence)

    async def one(self, sequence: int) -> bytes:
        """One record alone, checked by itself."""

        def take(data: bytes) -> None:
            alone(self.path, sequence, data)

        return await self.any_good(sequence, take)

    async def first(self) -> int:
        """The oldest record that the stream has now."""
        info = await streams.ask(
            self.connection, f"STREAM.INFO.{self.stream}", deadline=streams.from_now(streams.OPEN_S)
        )
        return max(int(info["state"]["first_seq"]) - 1, 0)


class Batches:
    """Records [start, end) in their order, some at a time; the next ones come while the caller works on these."""

    def __init__(self, source: Source, start: int, end: int) -> None:
        self._source = source
        self._at = self._fetched = start
        self._end = end
        self._checker: Checker | None = None
        self._size = BATCH_MIN
        self._direct = DirectBatches(source.connection, source.stream)
        self._fetching: asyncio.Task[list[tuple[int, bytes]]] | None = None

    async def next(self) -> list[bytes]:
        """The next records, each checked; an empty list at the end. RemovedError, CorruptionError, LogError."""
        if self._at >= self._end:
            return []
        got = dict(await (self._fetching or self._fetch()))
        self._fetched = max(got, default=self._at + 1)  # message n is record n - 1
        if self._fetched < self._end:
            self._fetching = asyncio.create_task(self._fetch())
        return [await self._checked(got.get(self._at + 1)) for _ in range(self._at, self._fetched)]

    def _fetch(self) -> Coroutine[Any, Any, list[tuple[int, bytes]]]:
        """What some server has from `_fetched` on."""
        count = min(self._size, self._end - self._fetched)
        self._size = min(self._size * 2, BATCH_MAX)
        return self._direct.get({"seq": self._fetched + 1, "batch": count})

    async def _checked(self, record: bytes | None) -> bytes:
        sequence = self._at
        try:
            if record is not None:
                self._take(record)
        except CorruptionError:
            record = None
        if record is None:
            if sequence < (first := await self._source.first()):
                raise RemovedError(
                    f"{self._source.path}: record {sequence} was removed by retention; the first one kept is {first}"
                )
            record = await self._source.any_good(sequence, self._take)
        self._at += 1
        return record

    def _take(self, record: bytes) -> None:
        if self._checker is None:
            self._checker = alone(self._source.path, self._at, record)
        else:
            self._checker.take(self._at, record)

    async def close(self) -> None:
        """Ask for no more. May be called twice."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.gather(self._fetching, return_exceptions=True)
            self._fetching = None
        await self._direct.close()
