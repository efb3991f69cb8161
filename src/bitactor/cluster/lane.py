"""A lane that this replica owns: the runtime's core of one service, over a log in JetStream that others can write too.

To own a lane is to have appended the last claim to its log. A claim is an empty record, appended by compare-and-set
behind all that was there; from then on every append of a former owner is refused by the server, because the log is not
where it thinks it is. The claim's sequence is the owner's generation. So `state = f(log)` holds whoever writes it, and
two owners at once cost time, not truth.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from bitactor.cluster.intake import PART_BYTES_MAX, Intake
from bitactor.cluster.names import Names
from bitactor.cluster.outbox import Outbox, Send
from bitactor.engine import Engine
from bitactor.log.contract import LogError, LogFencedError, LogSettingsError
from bitactor.log.jetstream import JetStreamLog
from bitactor.log.objects import ObjectSnapshots
from bitactor.protocol.errors import Code, ProtocolError
from bitactor.protocol.frames import kind_set
from bitactor.protocol.records import RecordBuilder, fingerprint_number, verify_record
from bitactor.runtime.app import describe
from bitactor.runtime.core import Core

if TYPE_CHECKING:
    from bitactor.actors import App
    from bitactor.config import Settings
    from bitactor.log.contract import Log
    from bitactor.log.nats import Connection
    from bitactor.log.nats_sync import SyncWatch
    from bitactor.log.snapshots import SnapshotStore

RECORD_BYTES: Final = 512 << 10  # a full record
assert RECORD_BYTES > PART_BYTES_MAX, "the longest part fits an empty record"
_BUILDERS: Final = 3

logger = logging.getLogger("bitactor.cluster")


class LaneCore(Core):
    """One lane's log, engine, intake, writer, snapshots. failed: called once when the lane cannot be gone on with here.

    client: a NATS connection of this loop; sync: what is known of its servers. send: hands emits to other lanes. turn:
    held from the claim to the end of start, by as many lanes at once as it lets. generation: after start.
    """

    def __init__(
        self,
        settings: "Settings",
        app: "App",
        failed: Callable[[str], None],
        *,
        client: "Connection",
        lane: int,
        sync: "SyncWatch",
        send: Send,
        turn: "asyncio.Semaphore",
    ) -> None:
        self.lane = lane
        self.lanes = settings.cluster.lanes
        super().__init__(settings, app, failed)
        self.generation = 0
        self.outbox = Outbox(lane, self.lanes, send)
        self._client = client
        self._sync = sync
        self._turn = turn
        self._has_turn = False

    @property
    def intake(self) -> Intake:
        """Where bundles go."""
        intake: Intake = self.admission
        return intake

    def _describe(self) -> dict[str, Any]:
        return describe(self.app, lanes=self.lanes)

    def _make_engine(self) -> Engine:
        ring = self.settings.engine.ring_signals
        return Engine(self.app, 0, ring_signals=ring, clock="records", lane=self.lane, lanes=self.lanes)

    async def _open_log(self) -> "Log":
        given = self.settings.nats
        log = await JetStreamLog.open(
            self._client,
            Names(given.stream, self.app.name).streams,
            lane=self.lane,
            replicas=given.replicas,
            size_bytes_max=given.size_bytes_max,
            append_s=given.append_s,
            sync=self._sync,
        )
        if log.record_bytes_max < RECORD_BYTES:
            raise LogSettingsError(
                f"the NATS servers take messages of {log.record_bytes_max} bytes beside headers, and a record has "
                f"up to {RECORD_BYTES}: raise max_payload (its default, 1 MiB, is enough)"
            )
        return cast("Log", log)

    async def _open_store(self) -> "SnapshotStore":
        directory = Path(self.settings.data_dir) / "lanes" / str(self.lane)
        given = self.settings.nats
        store = await ObjectSnapshots.open(
            self._client,
            Names(given.stream, self.app.name).streams,
            lane=self.lane,
            directory=directory,
            keep=self.settings.snapshot.keep,
            replicas=given.replicas,
            size_bytes_max=given.size_bytes_max,
        )
        return cast("SnapshotStore", store)

    async def _claim(self) -> None:
        """Append an empty record: who owned this lane before owns it no more.

        In front of recovery, so that nothing comes behind what it reads. Not in a log whose records are another app's:
        there the app record does it, behind a migrated state. LogFencedError: another replica was faster.
        """
        await self._turn.acquire()
        self._has_turn = True
        end = self.log.end()
        self.generation = end.sequence
        if not end.sequence:
            return
        ours = fingerprint_number(self.said["fingerprint"])
        last = await self._do(lambda: verify_record(next(iter(self.log.read(end.sequence - 1)))))
        if last.fingerprint != ours:
            return
        wall_ns = max(time.time_ns(), end.wall_ns)
        record = bytes(RecordBuilder(1, 4096).finish(end.sequence, end.position, wall_ns, self.lane, ours))
        await self._do(
            lambda: self.log.append(
                record, sequence=end.sequence, position=end.position, count=0, wall_ns=wall_ns
            )
        )  # fmt: skip

    def _restore(self, sections: dict[str, Any]) -> None:
        super()._restore(sections)
        self.outbox.restore(sections)

    def _attach(self) -> None:
        super()._attach()
        if self._may_emit_inward():
            self.outbox.attach(self.engine)

    def _may_emit_inward(self) -> bool:
        """Whether an actor emits what an actor handles, so that something may go to another lane."""
        handled = {kind.number for actor in self.app.actors for kind in actor.kinds}
        return any(kind.number in handled for actor in self.app.actors for kind in actor.emits)

    def _detach(self) -> None:
        super()._detach()
        self.outbox.close()

    def _export(self) -> dict[str, bytes]:
        return super()._export() | self.outbox.export()

    def _make_builders(self) -> list[RecordBuilder]:
        return [RecordBuilder(bytes_max=RECORD_BYTES) for _ in range(_BUILDERS)]

    def _make_admission(self, builders: list[RecordBuilder], position: int, tracing: Any) -> Intake:
        return Intake(
            self.tables,
            builders,
            self.writer.submit,
            kinds=kind_set(self.app.kinds),
            producers_max=self.settings.limits.producers_max,
            names_max=self.settings.limits.names_max,
            hold=self.outbox.hold,
        )

    def _start_tracing(self) -> None:
        return None  # a lane sees parts of many frames; see docs/cluster.md, limits

    async def open_for_import(self) -> "tuple[Log, SnapshotStore]":
        """The lane's log and its snapshots alone: nothing is claimed, recovered or served."""
        self._loop = asyncio.get_running_loop()
        return await self._open_log(), await self._open_store()

    async def in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call what waits for disk or servers, on the one thread that may use the log."""
        return await self._do(function, *arguments)

    async def start(self) -> None:
        """Open, claim, recover, begin to write and to send."""
        try:
            await super().start()
        finally:
            if self._has_turn:
                self._turn.release()
        self.outbox.start()

    def _broken(self, error: BaseException) -> None:
        """The writer has ended; what it acknowledged is kept. The replica goes on with its other lanes."""
        how = logger.info if isinstance(error, LogFencedError) else logger.error
        how("lane %d is not gone on with here: %s: %s", self.lane, type(error).__name__, error)
        self.admission.fail(ProtocolError(Code.NOT_READY, "the lane is not owned here any more"))
        self._failed(f"{type(error).__name__}: {error}")

    async def stop(self, *, snapshot: bool = True) -> None:
        """Write what was admitted, snapshot what is new, let go of the lane."""
        self.admission.closed = self.admission.closed or ProtocolError(Code.NOT_READY, "this lane moves")
        await self.outbox.stop()
        await super().stop(snapshot=snapshot)

    async def abandon(self) -> None:
        """Let go of a lane that another owns now, or whose log cannot be reached: nothing more is written."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.outbox.stop()
        self.admission.fail(ProtocolError(Code.NOT_READY, "another replica owns this lane now"))
        await self._do(self.writer.stop)
        if self.snapshots is not None:
            await self._do(self.snapshots.close)  # not here: one that is written waits for this loop
        self._detach()
        await self._do(self._close_quietly)
        self._work.shutdown(wait=False)

    def _close_quietly(self) -> None:
        try:
            self._open.close()
        except LogError as error:
            logger.info("lane %d was let go: %s", self.lane, error)
