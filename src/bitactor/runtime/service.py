"""The service: one object that recovers, takes signals, and is seen and operated from outside.

Made and awaited on the event loop's thread. `health`, `statistics`, `producers` and `name_of` return at once and may be
called on the loop; the coroutines wait without blocking it. Engine calls that wait for shards (`engine.state`,
`engine.table`) belong into an executor.
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bitactor.runtime.core import Core
from bitactor.runtime.listen import make_server
from bitactor.runtime.reports import (
    Health,
    IngestStatistics,
    LogStatistics,
    ProducerInfo,
    Seconds,
    ServiceStatistics,
    SnapshotInfo,
    SnapshotStatistics,
)

if TYPE_CHECKING:
    from bitactor.actors import App
    from bitactor.config import Settings
    from bitactor.engine import Engine
    from bitactor.ingest.auth import Identities
    from bitactor.ingest.server import Server

__all__ = [
    "Health",
    "IngestStatistics",
    "LogStatistics",
    "ProducerInfo",
    "Seconds",
    "Service",
    "ServiceStatistics",
    "SnapshotInfo",
    "SnapshotStatistics",
]

logger = logging.getLogger("bitactor.runtime")
_NO_SNAPSHOT = SnapshotStatistics(None, None, None, None, None, 0, 0, running=False)


class Service:
    """An app served with these settings. `engine` and everything that asks for figures: after start alone.

    ended: done when the service cannot go on (its result says why) or has stopped (None).
    """

    def __init__(self, settings: "Settings", app: "App") -> None:
        self.settings = settings
        self.app = app
        self.core = Core(settings, app, self._fail)
        self.ingest: Server | None = None
        self.fatal: str | None = None
        self.started_at: float | None = None
        self.ended: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._phase = "made"

    @property
    def engine(self) -> "Engine":
        """The running engine."""
        return self.core.engine

    async def start(self) -> None:
        """Compile, recover from snapshots and log, listen. Raises what says why it cannot; nothing is left open."""
        self._phase = "recovering"
        try:
            await self.core.start()
            try:
                self.ingest = make_server(self.settings, self.core.admission)
                await self.ingest.start()
            except BaseException:
                await self.core.stop(snapshot=False)
                raise
        except BaseException:
            self._phase = "stopped"
            raise
        self._phase = "ready"
        self.started_at = time.time()

    async def stop(self) -> None:
        """Take no more, drain, acknowledge, snapshot, close. Returns when everything is closed; later calls too."""
        if self._phase in ("stopping", "stopped", "made"):
            await asyncio.shield(self.ended) if self._phase == "stopping" else None
            return
        self._phase = "stopping"
        try:
            assert self.ingest is not None
            await self.ingest.stop(0.1 if self.fatal is not None else self.settings.shutdown.grace_s / 2)
            await self.core.stop(snapshot=self.fatal is None)
        finally:
            self._phase = "stopped"
            if not self.ended.done():
                self.ended.set_result(self.fatal)

    def health(self) -> Health:
        """Whether it lives, takes signals, has started; and why not."""
        reasons = []
        if self.fatal is not None:
            reasons.append(self.fatal)
        elif self._phase != "ready":
            reasons.append(
                {"made": "not started", "recovering": "compiling and recovering"}.get(self._phase, self._phase)
            )
        else:
            closed = self.core.admission.closed
            if closed is not None:
                reasons.append(closed.message)
            elif not self.core.admission.has_room:
                reasons.append("the ring and all records are full")
        live = self.fatal is None and self._phase != "stopped"
        return Health(live, not reasons, self.started_at is not None, tuple(reasons))

    def statistics(self) -> ServiceStatistics:
        """Everything that is counted, now. Waits for nothing."""
        core = self.core
        place, admission, figures = core.writer.place, core.admission, core.log.statistics()
        assert self.ingest is not None
        served = self.ingest.counters
        applied_ns = core.writer.applied_time_ns
        return ServiceStatistics(
            engine=core.engine.statistics(),
            ring_signals=self.settings.engine.ring_signals,
            ingest=IngestStatistics(
                connections=served.connections,
                connections_total=served.connections_total,
                frames=admission.frames,
                signals=admission.signals,
                bytes=served.bytes,
                duplicates=admission.duplicates,
                refused=dict(served.refused),
                acks=admission.acks,
                credit=self.ingest.credit,
                pending=admission.pending,
                has_room=admission.has_room,
            ),
            log=LogStatistics(
                kind=self.settings.log.kind,
                durability=core.log.durability,
                sequence=place.sequence,
                position=place.position + admission.pending,
                durable_position=place.position,
                records=figures.records,
                bytes=figures.bytes,
                size_bytes=core.log.size(),
                size_bytes_max=self.settings.log.size_bytes_max,
                full=core.log.full,
                append_seconds=figures.append_seconds,
                sync_seconds=figures.sync_seconds,
                checkpoint_seconds=figures.checkpoint_seconds,
            ),
            snapshot=core.snapshots.statistics() if core.snapshots is not None else _NO_SNAPSHOT,
            ingest_to_done=core.writer.ingest_to_done.read(),
            event_time_lag_s=(time.time_ns() - applied_ns) / 1e9 if applied_ns else None,
            certificate_expires=None if self.ingest.tls is None else self.ingest.tls.value.expires,
            compile_seconds=core.compile_seconds,
            recovery_s=core.recovery_s,
            replayed=core.replayed,
            started_at=self.started_at,
            fatal=self.fatal,
        )

    async def snapshot_now(self) -> SnapshotInfo:
        """Write a snapshot of everything applied; returns when it is durable. RuntimeError with a log of kind none."""
        if self.core.snapshots is None:
            raise RuntimeError("log.kind is none: there is no log whose position a snapshot could be at")
        return await self.core.snapshots.take()

    async def erase_key(self, key: int) -> None:
        """Log the erasure of a key; returns when it is durable and applied: no actor, no name holds the key then."""
        await self.core.admission.erase(key)

    async def forget_producer(self, producer: int) -> None:
        """Log that a producer is forgotten: its next hello begins anew at 0. KeyError when it is not known."""
        await self.core.admission.forget(producer)

    def producers(self) -> list[ProducerInfo]:
        """The producer table, by name."""
        connected = self.core.admission.connected
        rows = sorted(self.core.tables.producers.copy().values(), key=lambda row: row.name)
        return [ProducerInfo(r.id, r.name, r.identity, r.epoch, r.next, connected(r.id)) for r in rows]

    def name_of(self, key: int) -> str | None:
        """The text whose key this is, where the log has its name."""
        return self.core.tables.names.get(key)

    @property
    def names(self) -> Mapping[int, str]:
        """The live texts by key: for looking up single ones; copy it to go through it. It is the writer's."""
        return self.core.tables.names

    @property
    def identities(self) -> "Identities | None":
        """Who is known to the ingest port now, as last read from the files; None before it listens."""
        return None if self.ingest is None else self.ingest.identities.value

    def ready_line(self) -> dict[str, Any]:
        """What the process says when it is ready."""
        core = self.core
        return {
            "log": self.settings.log.kind,
            "durability": core.log.durability,
            "position": core.writer.place.position,
            "replayed": core.replayed,
            "recovery_s": round(core.recovery_s, 3),
            "compile_s": round(core.compile_seconds, 3),
        }

    def _fail(self, message: str) -> None:
        self.fatal = message
        if not self.ended.done():
            self.ended.set_result(message)
