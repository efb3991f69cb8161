"""How many records a lane is known to have, noted apart from its stream: a stream that lost its end shows against it.

JetStream drops what follows a damaged place of a file when it starts, and then says that the stream was never longer
(docs/guarantees.md). The note is a key of its own bucket, written at most every MARK_S while records are appended and
once after the last, so what may be lost unseen is what was appended since. It only grows. The loop's thread.

    noted <= records acknowledged
"""

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final, Self

from bitactor.log import streams
from bitactor.log.contract import LogError
from bitactor.telemetry import get_logger

if TYPE_CHECKING:
    from bitactor.log.nats import Connection

MARK_S: Final = 1.0
_WRITE_S: Final = 10.0
_BUCKET_BYTES: Final = 4 << 20

_log = get_logger("bitactor.log")


def stream(prefix: str) -> str:
    """The name of the bucket's stream."""
    return f"KV_{bucket(prefix)}"


def subject(prefix: str, key: str) -> str:
    """Where a value of that key is published."""
    return f"$KV.{bucket(prefix)}.{key}"


def bucket(prefix: str) -> str:
    """The name of the bucket."""
    return f"{prefix}-marks"


async def ensure(connection: "Connection", prefix: str, *, replicas: int, deadline: float) -> None:
    """Make the bucket if there is none. LogSettingsError: it is weaker than asked for; LogError without an answer."""
    wanted = streams.bucket(bucket(prefix), replicas=replicas, size_bytes_max=_BUCKET_BYTES)
    await streams.ensure(connection, wanted, deadline=deadline)


class Mark:
    """The note of one lane. records: what it says."""

    def __init__(self, connection: "Connection", prefix: str, lane: int) -> None:
        self.records = 0
        self._connection = connection
        self._stream = stream(prefix)
        self._key = subject(prefix, f"lane-{lane}")
        self._revision = 0
        self._known = 0
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, connection: "Connection", prefix: str, *, lane: int, replicas: int, deadline: float) -> Self:
        """Read the note; makes the bucket that all lanes share. LogSettingsError, LogError without an answer."""
        mark = cls(connection, prefix, lane)
        await ensure(connection, prefix, replicas=replicas, deadline=deadline)
        await mark._read(deadline)
        return mark

    async def _read(self, deadline: float) -> None:
        found = await streams.last(self._connection, self._stream, self._key, deadline)
        if found is not None:
            self.records, self._revision = int(found[0]), found[1]

    def note(self, records: int) -> None:
        """So many records are acknowledged: written soon."""
        self._known = max(self._known, records)
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        self._changed.set()

    async def _run(self) -> None:
        while True:
            await self._changed.wait()
            await asyncio.sleep(MARK_S)
            await self.write()

    async def write(self) -> None:
        """Write what is known now, if it is more than the note says. No error: it is told, and tried again later."""
        self._changed.clear()
        deadline = streams.from_now(_WRITE_S)
        try:
            while self._known > self.records:
                text, known = str(self._known).encode(), self._known
                if await streams.put(self._connection, self._stream, self._key, text, self._revision, deadline):
                    self.records = known
                await self._read(deadline)  # its revision, or what another owner noted
        except (LogError, ValueError) as error:
            self._changed.set()
            _log.warning("how many records a lane has is not noted yet", key=self._key, error=error)

    async def close(self) -> None:
        """Write a last time and stop."""
        if self._task is not None:
            task, self._task = self._task, None
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            await self.write()
