"""The log of a lane in NATS JetStream: a stream that one owner at a time appends to (docs/adr/0018).

Record n is message n + 1 of the stream, whose messages are these alone: the stream is dense, and a gap is loss. Each
append says which message must be the last one (`Nats-Expected-Last-Sequence`), so that of two owners only one goes on.

The connection lives on an event loop. `open` and the methods that end in `_async` are awaited there; the others, those
of the contract, are for other threads (append, tidy, sync and close for one of them, the writer's) and wait for the
loop. first, end, durability, full, size and statistics wait for nothing.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import nats.errors

from bitactor import faults
from bitactor.log import streams
from bitactor.log.check import HEADER
from bitactor.log.contract import (
    CorruptionError,
    Durability,
    End,
    FatalLogError,
    First,
    LogError,
    LogFencedError,
    LogFigures,
    LogFullError,
    RemovedError,
)
from bitactor.log.counters import LogCounters
from bitactor.log.jetstream_read import Batches, Source
from bitactor.log.marks import Mark
from bitactor.log.nats import LEAVE_S
from bitactor.telemetry import get_logger

if TYPE_CHECKING:
    from bitactor.log.nats import Connection
    from bitactor.log.nats_sync import SyncWatch

FORMAT: Final = "1"
APPEND_S: Final = 30.0
_EXPECTED: Final = "Nats-Expected-Last-Sequence"
_HEADERS_BYTES: Final = 256  # room for the headers of a message, within what the servers take at once
_OVERHEAD_BYTES: Final = 34  # of a message in a stream's file, beside subject, headers and payload
_LATE_S: Final = 15.0  # a server that lost its followers knows it within 10 s
_UNTIDIED_S: Final = 10.0  # after a purge that did not work
_TOO_LARGE: Final = 10054

_log = get_logger("bitactor.log")


class JetStreamLog:
    """An open log of one lane. See the module for who calls what."""

    kind = "jetstream"

    @classmethod
    async def open(
        cls,
        connection: "Connection",
        prefix: str,
        *,
        lane: int,
        replicas: int,
        size_bytes_max: int,
        append_s: float = APPEND_S,
        sync: "SyncWatch | None" = None,
        records_min: int = 0,
    ) -> Self:
        """Open the stream of that lane, or make it; reads its ends. On the connection's loop.

        replicas, size_bytes_max: as nats.replicas and nats.size_bytes_max; append_s: how long an append is tried. sync:
        tells which servers sync always; without it none is said to. records_min: how many records this lane is known to
        have had from elsewhere (a snapshot, an owner's note); fewer are CorruptionError.

        The end is what the stream's leader says, checked against its last record. A server that does not know yet that
        another leads may say too little: then the first append fails with LogFencedError, and nothing else happens.
        LogSettingsError, FormatError, CorruptionError, LogError without an answer.
        """
        stream, subject = f"{prefix}-lane-{lane}", f"{prefix}.lane.{lane}"
        wanted = streams.configuration(stream, [subject], replicas=replicas, size_bytes_max=size_bytes_max)
        wanted["metadata"] = {"bitactor.format": FORMAT}
        deadline = streams.from_now(streams.OPEN_S)
        info = await streams.ensure(connection, wanted, deadline=deadline)
        mark = await Mark.open(connection, prefix, lane=lane, replicas=replicas, deadline=deadline)
        log = cls(connection, stream, subject, append_s, sync, mark)
        records_min = max(records_min, mark.records)
        late = streams.from_now(_LATE_S)
        while int(info["state"]["last_seq"]) < records_min and time.monotonic() < late:
            await asyncio.sleep(0.5)  # a server may still think that it leads, and another one does
            info = await log._info(deadline)
        await log._learn(info, records_min)
        connection.on_reconnect.append(log._refresh)
        return log

    def __init__(
        self, connection: "Connection", stream: str, subject: str, append_s: float, sync: "SyncWatch | None", mark: Mark
    ) -> None:
        self.path = Path(f"nats:{stream}")  # no file: what messages name
        self.stream = stream
        self.full = False
        self.retried = 0  # appends that were sent again, because no answer came or it was not clear
        self._connection = connection
        self._source = Source(connection, stream, self.path)
        self._subject = subject
        self._append_s = append_s
        self._sync = sync
        self._mark = mark
        self._failed: LogError | None = None
        self._closed = False
        self._first, self._end = First(0, 0), End(0, 0, 0)
        self._floor = 0
        self._size = 0
        self._peers: frozenset[str] = frozenset()
        self._replicas = 1
        self._tidy_again_at = 0.0
        self._counted = LogCounters()

    async def _learn(self, info: dict[str, Any], records_min: int) -> None:
        """Ends, size and servers of the stream, from what its leader says."""
        state = info["state"]
        first, last = int(state["first_seq"]), int(state["last_seq"])
        self._size = int(state["bytes"])
        self._take_servers(info)
        if last < records_min:
            raise CorruptionError(
                self.path, f"the stream ends before it, with {last} records, and {records_min} were acknowledged: "
                "the servers lost them", sequence=last,
            )  # fmt: skip
        if last == 0:
            return
        if int(state["messages"]) == 0:
            raise CorruptionError(self.path, f"all of its {last} records are gone", sequence=last - 1)
        final = HEADER.unpack_from(await self._source.one(last - 1))
        self._end = End(last, final[5] + final[8], final[6])
        await self._learn_first(first - 1)
        self._floor = self._first.sequence

    def _take_servers(self, info: dict[str, Any]) -> None:
        self._peers = streams.peers(info, self._connection)
        self._replicas = int(info["config"]["num_replicas"])

    async def _learn_first(self, sequence: int) -> None:
        header = HEADER.unpack_from(await self._source.one(sequence))
        self._first = First(sequence, header[5])

    async def _refresh(self) -> None:
        """After a reconnection: which servers keep the stream may have changed."""
        try:
            self._take_servers(await self._info(streams.from_now(streams.TRY_S)))
        except LogError as error:
            _log.warning("what a stream's servers are is not known just now", stream=self.stream, error=error)

    async def _info(self, deadline: float) -> dict[str, Any]:
        return await streams.ask(self._connection, f"STREAM.INFO.{self.stream}", deadline=deadline)

    # --- what is known at once, on any thread

    @property
    def durability(self) -> int:
        """A Durability from 16 on; what it says may grow and shrink, as servers are found to sync or not."""
        disk = self._sync is not None and self._sync.covers(self._peers)
        if self._replicas >= 3:
            return Durability.MAJORITY_DISK if disk else Durability.MAJORITY
        return Durability.SERVER_DISK if disk else Durability.SERVER

    @property
    def record_bytes_max(self) -> int:
        """The longest record that the servers take (their max_payload)."""
        return int(self._connection.max_payload) - _HEADERS_BYTES

    def first(self) -> First:
        """The oldest record kept."""
        self._refuse_if_closed()
        return self._first

    def end(self) -> End:
        """Where the next record goes, as far as this owner knows."""
        self._refuse_if_closed()
        return self._end

    def size(self) -> int:
        """Bytes of the stream on each of its servers, as JetStream counts them."""
        return self._size

    def statistics(self) -> LogFigures:
        """What was counted since opening. sync_seconds: from sending a record to the answer that it is kept."""
        return self._counted.read()

    # --- appending

    def append(self, record: memoryview | bytes, *, sequence: int, position: int, count: int, wall_ns: int) -> None:
        """Keep a record; see Log.append and append_async. Not on the loop's thread."""
        self._connection.wait(
            self.append_async(record, sequence=sequence, position=position, count=count, wall_ns=wall_ns)
        )

    async def append_async(
        self, record: memoryview | bytes, *, sequence: int, position: int, count: int, wall_ns: int
    ) -> None:
        """Keep a record; returns when the servers have acknowledged it. One at a time.

        ValueError: it does not go on from the end, or is longer than servers take. LogFullError: as in the contract.
        LogFencedError: another owner has appended there. FatalLogError: not decided within append_s, or the stream is
        not what it was; the record may or may not be kept.
        """
        self._refuse_if_unusable()
        end = self._end.after(sequence, position, count, wall_ns)
        if len(record) > self.record_bytes_max:
            raise ValueError(
                f"a record of {len(record)} bytes; the NATS servers take {self.record_bytes_max} at most (max_payload)"
            )
        begun = time.perf_counter()
        faults.point("log.append.before")
        data = bytes(record)
        try:
            await self._store(data, sequence)
        except LogFullError:
            if not await self._make_room():
                self.full = True
                self._counted.refused += 1
                raise
            await self._store(data, sequence)
        faults.point("log.append.synced")
        if self._first.sequence == sequence:
            self._first = First(sequence, position)
        self._end = end
        self._mark.note(end.sequence)
        self._counted.records += 1
        self._counted.bytes += len(data)
        self._size += len(data) + len(self._subject) + _OVERHEAD_BYTES + len(self._headers(sequence))
        self._counted.append_seconds.add(time.perf_counter() - begun)

    def _headers(self, sequence: int) -> bytes:
        return f"NATS/1.0\r\n{_EXPECTED}: {sequence}\r\n\r\n".encode()

    async def _store(self, data: bytes, sequence: int) -> None:
        """Send it until it is decided whether message `sequence + 1` is this one."""
        deadline = streams.from_now(self._append_s)
        leave_at = streams.from_now(LEAVE_S)
        unclear = False  # whether a former try may yet be kept
        why = "no connection"
        while True:
            try:
                why = await self._try(data, sequence, deadline, unclear=unclear)
                if not why:
                    return
            except (nats.errors.Error, TimeoutError, streams.NoAnswerError) as error:
                why = str(error) or type(error).__name__
            unclear = True
            if self._connection.is_closed or time.monotonic() >= deadline:
                break
            self.retried += 1
            if time.monotonic() >= leave_at:
                await streams.leave_if_cut_off(self._connection, self._connection.streams, why)
                leave_at = streams.from_now(LEAVE_S)
            await asyncio.sleep(0.05)
        raise self._fail(
            FatalLogError(
                f"{self.path}: appending record {sequence} is not decided after {self._append_s:g} s: "
                f"{streams.unanswered(self._connection, self._subject, why)}; whether it is kept is unknown, so this "
                "log refuses everything: see what the NATS servers say, then start again"
            )
        )

    async def _try(self, data: bytes, sequence: int, deadline: float, *, unclear: bool) -> str:
        """Send it once. Empty: it is kept. Else why that is not known."""
        await streams.connected(self._connection, deadline)
        faults.point("log.append.begun")
        sent = time.perf_counter()
        answer = await self._connection.publish_and_hear(self._subject, data, {_EXPECTED: str(sequence)}, streams.TRY_S)
        error = answer.get("error")
        if error is None:
            if answer.get("stream") != self.stream or answer.get("seq") != sequence + 1:
                raise self._fail(
                    FatalLogError(
                        f"{self.path}: record {sequence} was acknowledged as message {answer.get('seq')} of "
                        f"{answer.get('stream')!r}: this stream is not the one that was opened"
                    )
                )
            self._counted.sync_seconds.add(time.perf_counter() - sent)
            return ""
        refused = streams.ApiError(self._subject, error)
        if refused.code in (streams.WRONG_LAST, streams.WRONG_LAST_TOO):
            return await self._compare(data, sequence, deadline, refused)
        if streams.is_full(refused) and not unclear:
            raise LogFullError(
                f"{self.path} uses {self._size} bytes, the servers take no more ({refused.description}): a snapshot "
                "lets old records go; raise nats.size_bytes_max if this lasts"
            )
        if refused.code == _TOO_LARGE:
            raise self._fail(FatalLogError(f"{self.path}: a record of {len(data)} bytes: {refused}"))
        return str(refused)

    async def _compare(self, data: bytes, sequence: int, deadline: float, refused: "streams.ApiError") -> str:
        """Another message is expected: see whose record stands where this one was to go."""
        there = await self._source.direct(sequence, deadline)
        if there == data:
            return ""
        if there is None:
            there = await self._source.from_leader(sequence, deadline)
            if there == data:
                return ""
        if there is None:
            state = (await self._info(deadline))["state"]
            if int(state["last_seq"]) < sequence:
                return f"the stream ends with {state['last_seq']} records, and {sequence} were acknowledged"
            if int(state["first_seq"]) <= sequence + 1:
                return f"{refused}, and nothing is decided"
        raise self._fail(
            LogFencedError(f"{self.path}: another owner has appended record {sequence}; nothing of this one's is kept")
        )

    # --- removing

    def truncate_before(self, sequence: int) -> None:
        """Allow the records before `sequence` to go; tidy removes them, and append when the stream is full."""
        self._refuse_if_unusable()
        self._floor = max(self._floor, sequence)

    def tidy(self) -> bool:
        """Remove what may go, all at once. False: nothing is left to do, or it did not work and is tried later."""
        self._refuse_if_unusable()
        if not self._removable() or time.monotonic() < self._tidy_again_at:
            return False
        return self._connection.wait(self.tidy_async())

    async def tidy_async(self) -> bool:
        """As tidy, on the loop."""
        self._refuse_if_unusable()
        if self._removable() and time.monotonic() >= self._tidy_again_at:
            try:
                await self._purge()
            except LogError as error:
                self._tidy_again_at = time.monotonic() + _UNTIDIED_S
                _log.warning("old records are not removed yet", stream=self.stream, error=error)
        return False

    async def _make_room(self) -> bool:
        if not self._removable():
            return False
        await self._purge()
        return True

    def _removable(self) -> int:
        """How many records may go; the last one stays, so that the end is known."""
        return max(min(self._floor, self._end.sequence - 1) - self._first.sequence, 0)

    async def _purge(self) -> None:
        faults.point("log.truncate.before")
        first = min(self._floor, self._end.sequence - 1)
        deadline = streams.from_now(self._append_s)
        await streams.ask(self._connection, f"STREAM.PURGE.{self.stream}", {"seq": first + 1}, deadline=deadline)
        faults.point("log.truncate.after")
        before = self._first.sequence
        await self._learn_first(first)
        self._size = int((await self._info(deadline))["state"]["bytes"])
        self._counted.truncated += first - before
        self.full = False

    def sync(self) -> None:
        """Nothing to do: what append has returned from is as durable as it will be; see durability."""
        self._refuse_if_unusable()

    # --- reading

    def read(self, from_sequence: int) -> Iterator[bytes]:
        """Records from that sequence on, checked; see Log.read. Not on the loop's thread; one thread an iterator."""
        batches = self._batches(from_sequence)
        return self._read(batches)

    def _read(self, batches: Batches) -> Iterator[bytes]:
        try:
            while records := self._connection.wait(batches.next()):
                yield from records
        finally:
            self._connection.begin(batches.close())

    async def read_async(self, from_sequence: int) -> AsyncIterator[list[bytes]]:
        """As read, on the loop: some records at a time."""
        batches = self._batches(from_sequence)
        try:
            while records := await batches.next():
                yield records
        finally:
            await batches.close()

    def _batches(self, at: int) -> Batches:
        self._refuse_if_closed()
        if at > self._end.sequence:
            raise ValueError(f"{self.path}: record {at} is beyond the end, {self._end.sequence}")
        if at < self._first.sequence:
            raise RemovedError(
                f"{self.path}: record {at} was removed by retention; the first one kept is {self._first.sequence}"
            )
        return Batches(self._source, at, self._end.sequence)

    # --- the rest

    def close(self) -> None:
        """Let go; the connection stays open, for others. May be called twice."""
        if not self._closed:
            self._closed = True
            self._connection.on_reconnect.remove(self._refresh)
            self._connection.begin(self._mark.close())

    def _fail(self, error: LogError) -> LogError:
        self._failed = error
        return error

    def _refuse_if_closed(self) -> None:
        if isinstance(self._failed, FatalLogError):
            raise self._failed
        if self._closed:
            raise LogError(f"{self.path} is closed")

    def _refuse_if_unusable(self) -> None:
        if self._failed is not None:
            raise self._failed
        self._refuse_if_closed()
