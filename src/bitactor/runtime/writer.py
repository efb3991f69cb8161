"""The writer: one thread that appends records, applies them, and reports back. Nothing else writes the log.

For each record, in this order: stamp its wall time, append it (returns when it is durable as configured), apply it to
the engine and the tables, report once on the loop. So `applied <= durable`, and what is acknowledged is both. A failed
append ends the service: nothing of it is acknowledged, and recovery reads what the log really holds.
"""

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from bitactor import faults
from bitactor.log.contract import Durability, LogFullError
from bitactor.protocol.errors import Code, ProtocolError
from bitactor.runtime.records import OpenRecord, take_effect
from bitactor.runtime.reports import SecondsCounter
from bitactor.runtime.tables import Tables
from bitactor.telemetry import RecordTimes

if TYPE_CHECKING:
    from bitactor.engine import Engine
    from bitactor.log.contract import Log

SIGNALS_AT_ONCE: Final = 1024  # more than that are better decoded by one thread while another applies


@dataclass(slots=True)
class Place:
    """Where the log is: the next record's sequence, the signals before it, the last record's wall time."""

    sequence: int
    position: int
    wall_ns: int


@dataclass(frozen=True, slots=True)
class Reports:
    """What the writer calls on the loop."""

    completed: Callable[[OpenRecord], None]
    refused: Callable[[OpenRecord, ProtocolError], None]
    failed: Callable[[BaseException], None]


@dataclass(frozen=True, slots=True)
class _Call:
    """What somebody wants done between two records."""

    function: Callable[[], Any]
    future: "Future[Any]"

    def run(self) -> None:
        """Do it, unless who asked has left."""
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            self.future.set_result(self.function())
        except BaseException as error:  # noqa: BLE001  (whatever it is, it belongs to who asked)
            self.future.set_exception(error)


@dataclass(frozen=True, slots=True)
class _Appended:
    """A record that the loop's thread appended, and for which the ring had no room just then."""

    record: OpenRecord


class Writer:
    """Owns the log's writing connection from start to stop.

    place: read by others for figures only. make_room: called when the log is full, on this thread, at a record's
    boundary; the append is tried once more after it.
    """

    def __init__(
        self,
        log: "Log",
        engine: "Engine",
        tables: Tables,
        place: Place,
        *,
        fingerprint: int,
        lane: int = 0,
        reports: Reports,
        make_room: Callable[[], None],
    ) -> None:
        self.place = place
        self.applied_time_ns = 0  # of the last signal applied
        self.ingest_to_done = SecondsCounter()
        self._log = log
        self._engine = engine
        self._tables = tables
        self._fingerprint = fingerprint
        self._lane = lane
        self._reports = reports
        self._make_room = make_room
        self._refused_generation = -1
        self._queued = 0  # records on their way to the thread and back; the loop's thread alone
        self._ended = False
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[OpenRecord | _Appended | _Call | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="bitactor writer", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def submit(self, record: OpenRecord) -> None:
        """Write this record behind those before it. Loop thread.

        A small one goes no further than this thread when the log never waits: its acknowledgement need not wait for
        two changes of thread.
        """
        small = record.builder.count <= SIGNALS_AT_ONCE and not record.erased and not record.marks
        if small and not self._queued and self._log.durability == Durability.MEMORY:
            self._write_here(record)
        else:
            self._queued += 1
            self._queue.put(record)

    def call(self, function: Callable[[], Any]) -> "Future[Any]":
        """Call the function on the writer's thread between two records; not if cancelled before that. Any thread.

        The future has a RuntimeError when the writer has ended, or ends before.
        """
        future: Future[Any] = Future()
        self._queue.put(_Call(function, future))
        if self._ended:
            self._give_up()
        return future

    def stop(self) -> None:
        """Finish what was submitted and end the thread. Waits; not on the writer's thread."""
        self._queue.put(None)
        if self._thread.is_alive():
            self._thread.join()

    def _write_here(self, record: OpenRecord) -> None:
        try:
            self._append(record)
            if not self._engine.try_apply(record.builder.signals, self.place.wall_ns):
                self._queued += 1
                self._queue.put(_Appended(record))
                return
            self._applied(record)
        except BaseException as error:  # noqa: BLE001  (as in _run)
            self._reports.failed(error)
            return
        self._reports.completed(record)

    def _run(self) -> None:
        try:
            while (item := self._next()) is not None:
                self._do(item)
        except BaseException as error:  # noqa: BLE001  (whatever it is, nothing more may be acknowledged)
            self._tell(self._reports.failed, error)
        self._ended = True  # before the last look at the queue: who puts something there after it looks again
        self._give_up()

    def _next(self) -> "OpenRecord | _Appended | _Call | None":
        while self._queue.empty() and self._log.tidy():
            pass
        return self._queue.get()

    def _do(self, item: "OpenRecord | _Appended | _Call") -> None:
        if isinstance(item, OpenRecord):
            self._write(item)
        elif isinstance(item, _Appended):
            self._finish(item.record)
        else:
            item.run()

    def _give_up(self) -> None:
        """Tell who called that the writer has ended; the fate of records is told by `failed`."""
        with contextlib.suppress(queue.Empty):
            while True:
                item = self._queue.get_nowait()
                if isinstance(item, _Call) and item.future.set_running_or_notify_cancel():
                    item.future.set_exception(RuntimeError("the service stops, or failed, and writes nothing more"))

    def _write(self, record: OpenRecord) -> None:
        if record.generation == self._refused_generation:
            self._refuse(record)
            return
        begun_ns = time.time_ns()
        try:
            self._append(record)
        except LogFullError:
            self._make_room()
            try:
                self._append(record)
            except LogFullError:
                self._refused_generation = record.generation
                self._refuse(record)
                return
        durable_ns = time.time_ns()
        self._apply(record)
        if record.marks:
            count = record.builder.count
            record.times = RecordTimes(
                self.place.sequence - 1,
                record.position - count,
                count,
                append_ns=(begun_ns, durable_ns),
                apply_ns=(durable_ns, time.time_ns()),
            )
        self._tell(self._back, self._reports.completed, record)

    def _finish(self, record: OpenRecord) -> None:
        """Apply what is appended, and report."""
        self._apply(record)
        self._tell(self._back, self._reports.completed, record)

    def _back(self, report: Callable[..., None], *arguments: Any) -> None:
        """A record comes back to the loop's thread. What its report submits goes to the thread: it is acked later."""
        report(*arguments)
        self._queued -= 1

    def _refuse(self, record: OpenRecord) -> None:
        error = ProtocolError(
            Code.LOG_FULL, f"the log holds {self._log.size()} bytes, as many as it may: raise log.size_bytes_max"
        )
        self._tell(self._back, self._reports.refused, record, error)

    def _append(self, record: OpenRecord) -> None:
        place, builder = self.place, record.builder
        wall_ns = max(time.time_ns(), place.wall_ns)
        data = builder.finish(place.sequence, place.position, wall_ns, self._lane, self._fingerprint)
        self._log.append(
            data, sequence=place.sequence, position=place.position, count=builder.count, wall_ns=wall_ns
        )  # fmt: skip
        self.place = Place(place.sequence + 1, place.position + builder.count, wall_ns)

    def _apply(self, record: OpenRecord) -> None:
        faults.point("apply.before")
        self._engine.apply(record.builder.signals, self.place.wall_ns)
        for key in record.erased:
            self._engine.erase(key)
        self._applied(record)

    def _applied(self, record: OpenRecord) -> None:
        """Everything behind the engine's part."""
        take_effect(self._tables, record.effects)
        signals = record.builder.signals
        if len(signals):
            self.applied_time_ns = int(signals[-1]["time"])
        record.position = self.place.position
        if record.effects:
            self.ingest_to_done.add(time.perf_counter() - record.since)
        faults.point("apply.after")

    def _tell(self, report: Callable[..., None], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(report, *arguments)
        except RuntimeError:  # the loop is closed: the service has ended without waiting for us
            self._queue.put(None)
