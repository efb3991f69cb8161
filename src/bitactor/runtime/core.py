"""The core of a service: log, engine, tables, admission, writer and snapshots of one app; everything but its sockets.

Loop thread, except where other threads are named; what waits for a disk or a shard runs in threads.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bitactor import telemetry
from bitactor.engine import Engine
from bitactor.host import default_shards
from bitactor.log.none import NoneLog
from bitactor.log.snapshots import SnapshotStore
from bitactor.log.sqlite import SqliteLog
from bitactor.protocol.errors import Code, ProtocolError
from bitactor.protocol.records import BYTES_MAX, RecordBuilder, fingerprint_number
from bitactor.runtime import recovery
from bitactor.runtime.admission import Admission
from bitactor.runtime.app import describe, reads_wall_time
from bitactor.runtime.outputs import OutputHub
from bitactor.runtime.records import OpenRecord
from bitactor.runtime.snapshots import Boundary, Snapshots, copy_boundary, write_snapshot
from bitactor.runtime.tables import Tables
from bitactor.runtime.traces import RecordTraces
from bitactor.runtime.writer import Place, Reports, Writer

if TYPE_CHECKING:
    from bitactor.actors import App
    from bitactor.config import Settings
    from bitactor.log.contract import Log
    from bitactor.runtime.reports import SnapshotInfo
    from bitactor.state import StateBuffers

_BUILDERS: Final = 3
_RECORD_BYTES_MIN: Final = 384 << 10  # the longest frame or message fits an empty record
_FULL_RETRY_S: Final = 1.0
_WATCH_S: Final = 1.0

logger = logging.getLogger("bitactor.runtime")


class Core:
    """Serves one app from one data directory. `failed` is called once, with words, when nothing may be acknowledged.

    The parts are there after start. recovery_s, compile_seconds, replayed: of start.
    """

    engine: Engine
    log: "Log"
    admission: Any  # an Admission; a lane's Intake
    writer: Writer
    snapshots: Snapshots | None
    hub: OutputHub
    lane = 0  # which one its log is of

    def __init__(self, settings: "Settings", app: "App", failed: Callable[[str], None]) -> None:
        self.settings = settings
        self.app = app
        self.said = self._describe()
        self.tables = Tables()
        self.snapshots = None
        self.traces: RecordTraces | None = None
        self.recovery_s = self.compile_seconds = 0.0
        self.replayed = 0
        self._failed = failed
        self._tasks: list[asyncio.Task[None]] = []
        self._open = contextlib.ExitStack()
        self._work = ThreadPoolExecutor(1, "bitactor recovery")  # one: the log's connection has one thread at a time

    # --- start ---

    async def start(self) -> None:
        """Compile, open, recover, begin to write. Nothing stays open when it raises."""
        self._loop = asyncio.get_running_loop()
        try:
            await self._start()
        except BaseException:
            self._detach()
            await self._do(self._open.close)
            raise

    async def _start(self) -> None:
        begun = time.perf_counter()
        self.engine = await self._do(self._make_engine)
        self._open.callback(self.engine.close, discard=True)
        self.compile_seconds = time.perf_counter() - begun
        self.hub = OutputHub(self.app, self.settings.outputs.window)
        begun = time.perf_counter()
        if self.settings.log.kind == "none":
            self.log, place, newest = NoneLog(), Place(0, 0, 0), None
            self._attach()
        else:
            place, newest = await self._recover()
        self.recovery_s = time.perf_counter() - begun
        self._serve(place, newest)

    async def _recover(self) -> "tuple[Place, SnapshotInfo | None]":
        self.log = log = await self._open_log()
        self._open.callback(log.close)
        self._store = store = await self._open_store()
        start = await self._do(recovery.begin, store, log, logger.warning)
        state, changes = await self._do(recovery.fit, start, log, self.app, self.said)
        await self._claim()
        for change in changes:
            logger.warning("the app has changed: %s", change)
        if state is not None:
            await self._do(self.engine.import_state, state)
            self._restore(start.sections)
        self._attach()
        self.tables = start.tables
        replayed = await self._do(
            lambda: recovery.replay(
                log.read(start.place.sequence), start, app=self.app, said=self.said, engine=self.engine, log=log
            )
        )  # fmt: skip
        await self._do(self.engine.flush)
        if lost := self._lost():
            raise recovery.RecoveryError(str(_short_of_memory(lost)))
        self.replayed, place, newest = replayed.signals, replayed.place, None
        if replayed.app is None or replayed.app["fingerprint"] != self.said["fingerprint"]:
            place = await self._do(recovery.open_log_with, log, self.said, place, self.lane)
            if start.state is not None:  # migrated: never to be done again from the former app's snapshot
                newest = await self._do(self._snapshot_at, place)
        logger.info(
            "recovered",
            extra={
                "snapshot": None if start.path is None else str(start.path),
                "signals": replayed.signals,
                "position": place.position,
            },
        )
        return place, newest

    def _snapshot_at(self, place: Place) -> "SnapshotInfo":
        boundary = copy_boundary(self.engine, self.tables, self._export, self.log, place)
        return write_snapshot(self._store, boundary, self.said)

    # --- what the core of a lane does in its own way ---

    def _describe(self) -> dict[str, Any]:
        return describe(self.app)

    def _make_engine(self) -> Engine:
        given = self.settings.engine
        shards = default_shards() if given.shards is None else given.shards
        return Engine(self.app, shards, ring_signals=given.ring_signals, clock="records")

    async def _open_log(self) -> "Log":
        given = self.settings.log
        return await self._do(  # type: ignore[no-any-return]
            lambda: SqliteLog.open(
                self.settings.data_dir, durability=given.durability, size_bytes_max=given.size_bytes_max
            )
        )  # fmt: skip

    async def _open_store(self) -> SnapshotStore:
        return SnapshotStore(Path(self.settings.data_dir) / "snapshots", keep=self.settings.snapshot.keep)

    async def _claim(self) -> None:
        """Nobody else can write to this log: its directory is locked."""

    def _restore(self, sections: dict[str, Any]) -> None:
        """Go on with what a snapshot holds beside engine and tables; before _attach."""
        self.hub.restore(sections)

    def _attach(self) -> None:
        """Read what the engine emits, from the next step on."""
        self.hub.attach(self.engine)

    def _detach(self) -> None:
        """Read nothing more of it. The loop's thread; also when start failed."""
        if hasattr(self, "hub"):
            self.hub.close()

    def _export(self) -> dict[str, bytes]:
        """What _restore takes, up to the engine's position. While nothing is applied; not on the loop's thread."""
        return self.hub.export()

    def _make_builders(self) -> list[RecordBuilder]:
        # A small log takes small records: it is to hold several, and the newest one always stays in it.
        record_bytes = max(_RECORD_BYTES_MIN, min(BYTES_MAX, self.settings.log.size_bytes_max // 8))
        return [RecordBuilder(bytes_max=record_bytes) for _ in range(_BUILDERS)]

    def _make_admission(self, builders: list[RecordBuilder], position: int, tracing: Any) -> Any:
        return Admission(
            self.tables,
            builders,
            self.writer.submit,
            self.hub.subscribe,
            kinds=self.app.kinds,
            app=self.app.name,
            fingerprint=self.said["fingerprint"],
            durability=self.log.durability,
            position=position,
            producers_max=self.settings.limits.producers_max,
            names_max=self.settings.limits.names_max,
            tracing=tracing,
        )

    def _start_tracing(self) -> Any:
        return telemetry.start_tracing(self.settings.telemetry)

    # --- start, the last part ---

    def _serve(self, place: Place, newest: "SnapshotInfo | None") -> None:
        settings, log, tracing = self.settings, self.log, self._start_tracing()
        self.writer = Writer(
            log, self.engine, self.tables, place,
            fingerprint=fingerprint_number(self.said["fingerprint"]),
            lane=self.lane,
            reports=Reports(self._completed, self._refused, self._broken),
            make_room=self._make_room,
        )  # fmt: skip
        self.admission = self._make_admission(self._make_builders(), place.position, tracing)
        self.writer.start()
        if tracing is not None:
            self.traces = RecordTraces(tracing, self.engine, self.hub)
            self._tasks.append(asyncio.create_task(self.traces.run()))
        if settings.log.kind != "none":
            self.snapshots = Snapshots(
                self._store, log, self.said,
                prepare=self.engine.prepare_export,
                copy=self._copy,
                call=self.writer.call,
                place=lambda: self.writer.place,
                newest=newest,
                every_s=settings.snapshot.every_s,
                every_signals=settings.snapshot.every_signals,
                failed=lambda error: logger.error("a snapshot failed; the log still holds everything: %s", error),
            )  # fmt: skip
            self._tasks.append(asyncio.create_task(self.snapshots.run()))
        self._tasks.append(asyncio.create_task(self._watch_memory()))
        if reads_wall_time(self.app):
            self._tasks.append(asyncio.create_task(self._heartbeats(settings.limits.heartbeat_s)))

    # --- while it runs ---

    async def _watch_memory(self) -> None:
        """End the service soon after a signal was dropped for want of memory: what it shows is not the log's state."""
        while True:
            if lost := self._lost():
                self._broken(_short_of_memory(lost))
                return
            await asyncio.sleep(_WATCH_S)

    def _lost(self) -> int:
        """Signals and emits dropped for want of memory."""
        engine = self.engine.statistics()
        return engine.dropped["no_memory"] + engine.emits_dropped["no_memory"]

    async def _heartbeats(self, every_s: float) -> None:
        """Records without signals, so that wall time goes on for actors that see it."""
        while True:
            before = self.writer.place.sequence
            await asyncio.sleep(every_s)
            if self.writer.place.sequence == before:
                self.admission.heartbeat()

    def _completed(self, record: OpenRecord) -> None:
        try:
            self.admission.completed(record)
            if self.traces is not None:
                self.traces.completed(record)
        except Exception as error:  # noqa: BLE001  (a record that does not come back would hold up all others)
            self._broken(error)

    def _refused(self, record: Any, error: ProtocolError) -> None:
        opened = self.admission.closed is None
        self.admission.refused(record, error)
        if opened:
            logger.error("the log is full: %s", error.message)
            asyncio.get_running_loop().call_later(_FULL_RETRY_S, self._take_again)

    def _take_again(self) -> None:
        closed = self.admission.closed
        if closed is not None and closed.code == Code.LOG_FULL:
            self.admission.closed = None

    async def _break(self, error: BaseException) -> None:
        self._broken(error)

    def _broken(self, error: BaseException) -> None:
        message = f"{type(error).__name__}: {error}"
        logger.critical("the service ends, nothing more is acknowledged: %s", message, exc_info=error)
        self.admission.fail(ProtocolError(Code.INTERNAL, "the service failed and ends; what it acknowledged is kept"))
        self._failed(message)

    def _copy(self, buffers: "StateBuffers | None") -> Boundary:
        boundary = copy_boundary(self.engine, self.tables, self._export, self.log, self.writer.place, buffers)
        counters = boundary.state.counters
        if lost := counters["dropped.no_memory"] + counters["emits_dropped.no_memory"]:
            error = _short_of_memory(lost)
            asyncio.run_coroutine_threadsafe(self._break(error), self._loop)
            raise error
        return boundary

    def _make_room(self) -> None:
        if self.snapshots is not None:
            self.snapshots.make_room()

    # --- stop ---

    async def stop(self, *, snapshot: bool = True) -> None:
        """Write what was admitted, snapshot what is new, close. After a failure: close alone."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.admission.closed is None:
            self.admission.closed = ProtocolError(Code.SHUTTING_DOWN, "the service stops")
        await self.admission.drained()
        if snapshot and self.snapshots is not None:
            newest = self.snapshots.newest
            if newest is None or newest.sequence < self.writer.place.sequence:
                try:
                    await self.snapshots.take()
                except Exception:
                    logger.exception("the last snapshot failed; the log holds everything")
            await self._do(self.snapshots.close)  # not here: one that is written may wait for this loop
        await self._do(self.writer.stop)
        await self._do(self.engine.flush)
        if self.traces is not None:
            await self.traces.stop()
        self._detach()
        await self._do(self._open.close)
        self._work.shutdown(wait=False)

    async def drain(self) -> None:
        """Wait until all that was admitted is acknowledged and its outputs are with the hub."""
        await self.admission.drained()
        await self._do(self.engine.flush)

    async def _do(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._work, function, *arguments)


def _short_of_memory(lost: int) -> MemoryError:
    """Why the service ends: the one kind of drop that no replay would make again, so this state is not the log's."""
    return MemoryError(f"{lost} signals were dropped for want of memory: give the process more and replay")
