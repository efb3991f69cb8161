"""Traces of a service's records: what sampled frames went through, told once their outputs are with the hub.

Loop thread. Admission marks frames, the writer notes the times of records that have marks, and this waits, off the data
path, until the shards are past such records, so that what they emitted is known. At most RECORDS_MAX records wait;
with more, the oldest are not told.
"""

import asyncio
import dataclasses
import time
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from bitactor.engine import Engine
    from bitactor.runtime.outputs import OutputHub
    from bitactor.runtime.records import OpenRecord
    from bitactor.telemetry import FrameMark, RecordTimes, Tracing

RECORDS_MAX: Final = 256


class RecordTraces:
    """Tells the traces of records that are done. `run` is a task of the loop until `stop`."""

    def __init__(self, tracing: "Tracing", engine: "Engine", hub: "OutputHub") -> None:
        self._tracing = tracing
        self._engine = engine
        self._hub = hub
        self._done: deque[tuple[list[FrameMark], RecordTimes]] = deque(maxlen=RECORDS_MAX)
        self._some = asyncio.Event()

    def completed(self, record: "OpenRecord") -> None:
        """The record is durable and applied; nothing is done for one without marks."""
        if record.marks and record.times is not None:
            self._done.append((record.marks, record.times))
            self._some.set()

    async def run(self) -> None:
        """Tell, until cancelled."""
        while True:
            await self._some.wait()
            await self._tell()

    async def stop(self) -> None:
        """Tell what is left and send it. After the last record, while the engine is open."""
        await self._tell()
        await asyncio.to_thread(self._tracing.close)

    async def _tell(self) -> None:
        self._some.clear()
        count = len(self._done)
        await asyncio.to_thread(self._engine.flush)  # cancelled here, nothing is lost: stop tells it
        done = [self._done.popleft() for _ in range(min(count, len(self._done)))]
        self._hub.catch_up()
        emitted_ns = time.time_ns()
        for marks, times in done:
            outputs = self._hub.emitted(times.position, times.position + times.signals)
            emit_ns = (times.apply_ns[1], emitted_ns) if outputs else None
            self._tracing.record(marks, dataclasses.replace(times, emit_ns=emit_ns, outputs=outputs))
