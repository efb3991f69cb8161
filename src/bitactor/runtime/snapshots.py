"""Snapshots in the background: engine, tables and outputs at one record's boundary, then the log's retention.

The writer's thread takes the copy between two records (nothing is applied meanwhile), the snapshot thread writes it.
One at a time. The log is kept from the oldest snapshot kept on, so that recovery may fall back to that.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from bitactor.runtime.reports import SnapshotInfo, SnapshotStatistics
from bitactor.runtime.tables import Tables

if TYPE_CHECKING:
    from concurrent.futures import Future

    from bitactor.engine import Engine
    from bitactor.log.contract import Log
    from bitactor.log.snapshots import SnapshotStore
    from bitactor.runtime.writer import Place
    from bitactor.state import EngineState, StateBuffers

FORMAT: Final = 1
STATE_PREFIX: Final = "state."
_RETRY_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Boundary:
    """Everything behind one record and before the next. pause_s: how long taking the copy held up the writer."""

    sequence: int
    position: int
    wall_ns: int
    state: "EngineState"
    tables: Tables
    outputs: dict[str, bytes]
    pause_s: float


def copy_boundary(
    engine: "Engine",
    tables: Tables,
    export: "Callable[[], dict[str, bytes]]",
    log: "Log",
    place: "Place",
    buffers: "StateBuffers | None" = None,
) -> Boundary:
    """Copy it all. Between two records, on the thread that applies them; not on the loop. export: of the outputs.

    buffers: memory for the engine's state, made before on another thread, so that this one does not wait for it.
    The log is synced first, so that no snapshot is ahead of its log, whatever the log's durability.
    """
    begun = time.perf_counter()
    log.sync()
    state = engine.export_state(buffers)
    outputs = export()
    copied = tables.copy()
    pause = time.perf_counter() - begun
    return Boundary(place.sequence, place.position, place.wall_ns, state, copied, outputs, pause)


def write_snapshot(store: "SnapshotStore", boundary: Boundary, app: dict[str, Any]) -> SnapshotInfo:
    """Write a boundary to disk; returns when it is durable. The snapshot thread, or the writer in need."""
    begun = time.perf_counter()
    state_meta, sections = boundary.state.to_sections()
    meta = {
        "format": FORMAT,
        "sequence": boundary.sequence,
        "position": boundary.position,
        "wall_ns": boundary.wall_ns,
        "created_ns": time.time_ns(),
        "app": app,
        "state": state_meta,
    }
    everything: list[tuple[str, Any]] = [
        *((STATE_PREFIX + name, array) for name, array in sections),
        *boundary.tables.to_sections().items(),
        *boundary.outputs.items(),
    ]
    path = store.write(meta, everything)
    seconds = time.perf_counter() - begun + boundary.pause_s
    size = path.stat().st_size
    return SnapshotInfo(str(path), boundary.position, boundary.sequence, size, seconds, boundary.pause_s)


class Snapshots:
    """Takes snapshots of a running service: by time, by count of signals, when asked. Loop thread but for make_room.

    prepare: makes memory for a copy, on the snapshot thread. copy: gives a Boundary, called on the writer's thread
    through `call`. failures: of those taken by time or count;
    they are tried again, as the log still holds everything.
    """

    def __init__(
        self,
        store: "SnapshotStore",
        log: "Log",
        app: dict[str, Any],
        *,
        prepare: "Callable[[], StateBuffers]",
        copy: "Callable[[StateBuffers | None], Boundary]",
        call: "Callable[[Callable[[], Boundary]], Future[Boundary]]",
        place: "Callable[[], Place]",
        newest: SnapshotInfo | None,
        every_s: float,
        every_signals: int,
        failed: Callable[[Exception], None],
    ) -> None:
        self.newest = newest
        self.taken = self.failures = 0
        self.running = False
        self._store = store
        self._log = log
        self._app = app
        self._prepare = prepare
        self._copy = copy
        self._call = call
        self._place = place
        self._every_s = every_s
        self._every_signals = every_signals
        self._failed = failed
        self._newest_at = time.time()
        self._room_made_for = -1  # the sequence of the log's end when room was made last
        self._failed_at = -_RETRY_S
        self._lock = asyncio.Lock()
        self._files = threading.Lock()  # one thread at a time writes files: they share names until they are whole
        self._thread = ThreadPoolExecutor(1, "bitactor snapshots")

    async def take(self, *, again: bool = True) -> SnapshotInfo:
        """Write a snapshot of everything applied so far; returns when it is durable and retention is told.

        again: also when the newest one is of this very record already.
        """
        async with self._lock:
            if not again and self.newest is not None and self.newest.sequence == self._place().sequence:
                return self.newest
            self.running = True
            try:
                loop = asyncio.get_running_loop()
                buffers = await loop.run_in_executor(self._thread, self._prepare)
                boundary = await asyncio.wrap_future(self._call(lambda: self._copy(buffers)))
                info = await loop.run_in_executor(self._thread, self._write, boundary)
                await loop.run_in_executor(self._thread, self._retain)
            except Exception:
                self.failures += 1
                raise
            finally:
                self.running = False
            self._note(info)
            return info

    async def run(self) -> None:
        """Take snapshots when they are due, for ever. A failure is told and tried again when the next is due."""
        due_at = time.monotonic() + self._every_s
        tried = self.newest.position if self.newest is not None else 0
        while True:
            await asyncio.sleep(min(1.0, self._every_s))
            now = self._place()
            moved = self.newest is None or now.sequence > self.newest.sequence
            if moved and (time.monotonic() >= due_at or now.position - tried >= self._every_signals):
                tried, due_at = now.position, time.monotonic() + self._every_s
                try:
                    await self.take(again=False)
                except Exception as error:  # noqa: BLE001  (a full disk, say; whatever it is, serving goes on)
                    self._failed(error)

    def make_room(self) -> None:
        """The log is full: write a snapshot now, read it back, keep only the log behind it. The writer's thread.

        Errors are told and counted, and the log stays full; it is tried again after a while.
        """
        sequence = self._place().sequence
        if sequence == self._room_made_for or time.monotonic() - self._failed_at < _RETRY_S:
            return
        try:
            info = self._write(self._copy(None))
            self._store.load(self._store.latest()[0])
            self._log.truncate_before(info.sequence)
            while self._log.tidy():
                pass
            self._room_made_for = sequence
        except Exception as error:  # noqa: BLE001  (whatever it is, what is there stays)
            self._failed_at = time.monotonic()
            self.failures += 1
            self._failed(error)
        else:
            self._note(info)

    def statistics(self) -> SnapshotStatistics:
        """Figures, now."""
        newest = self.newest
        age = None if newest is None else time.time() - self._newest_at
        if newest is None:
            return SnapshotStatistics(None, None, None, None, None, self.taken, self.failures, self.running)
        return SnapshotStatistics(
            newest.position, age, newest.seconds, newest.pause_s, newest.bytes, self.taken, self.failures, self.running
        )

    def close(self) -> None:
        """Wait for a snapshot that is being written."""
        self._thread.shutdown()

    def _write(self, boundary: Boundary) -> SnapshotInfo:
        """The snapshot thread, or the writer's, which then waits for that one's file."""
        with self._files:
            return write_snapshot(self._store, boundary, self._app)

    def _note(self, info: SnapshotInfo) -> None:
        self.newest, self._newest_at = info, time.time()
        self.taken += 1

    def _retain(self) -> None:
        paths = self._store.latest()
        if len(paths) >= self._store.keep:
            self._log.truncate_before(int(paths[-1].stem))  # a snapshot's name is the record it goes on with
