"""What the lanes of a replicated service say: each lane's log read back record by record into an inline engine.

For tests of replicas; written apart from what runs in them, so that the two can be compared. A lane's log is read with
nats-py alone; snapshots with the store that wrote them. Needs whole logs, from record 0 on: keep many snapshots.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from bitactor.engine import Engine
from bitactor.protocol.frames import SIGNALS_MAX as FRAME_SIGNALS_MAX
from bitactor.protocol.messages import ForgetProducer, Part
from bitactor.signals import OUTPUT_DTYPE, SIGNAL_DTYPE, lanes_of
from bitactor.state import EngineState
from bitactor.testing.history import OUTPUTS_KEPT, HistoryError, Truth, _Log, _read

if TYPE_CHECKING:
    from bitactor.actors import App

__all__ = ["LANE_PRODUCERS", "Came", "LaneSnapshot", "LaneTruth", "lane_truth", "read_lane", "read_snapshots"]

LANE_PRODUCERS: Final = 64  # producers below are lanes, with what their actors emit to others
READ_S: Final = 30.0

Signals = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Came:
    """What a lane has of one producer, in the order of its log: the sequence of each signal, and the signals."""

    sequences: npt.NDArray[np.uint64]
    signals: Signals


@dataclass
class LaneTruth(Truth):
    """What a lane's log says. came: by producer's number. emitted: by target lane, what this lane's actors emit to it.

    states: at the boundaries asked for, by the number of records before it; made: how many emits to each lane by then.
    """

    lane: int = 0
    lanes: int = 1
    came: dict[int, Came] = field(default_factory=dict)
    emitted: dict[int, Signals] = field(default_factory=dict)
    states: dict[int, EngineState] = field(default_factory=dict)
    made: dict[int, list[int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LaneSnapshot:
    """A snapshot of a lane as the store has it: before record `sequence`. sections: all of them, as bytes."""

    sequence: int
    position: int
    state: EngineState
    sections: dict[str, bytes]


def lane_truth(
    records: Iterable[bytes | memoryview], app: "App", lane: int, lanes: int, at: Iterable[int] = ()
) -> LaneTruth:
    """The truth of a lane's records, the first of which is record 0. at: boundaries of which the state is kept.

    HistoryError: the log contradicts itself. RecordError; LaneError for a signal that belongs to another lane.
    """
    handled = {kind.number for actor in app.actors for kind in actor.kinds}
    outward = [kind for kind in app.kinds if kind.number not in handled]
    log, wanted = _LaneLog(lane, lanes), set(at)
    outputs: list[Signals] = []
    remote: list[Signals] = []
    states: dict[int, EngineState] = {}
    made: dict[int, list[int]] = {}
    with Engine(app, 0, clock="records", lane=lane, lanes=lanes) as engine:
        reader = engine.subscribe(outward, capacity=OUTPUTS_KEPT) if outward else None
        others = engine.subscribe_remote(capacity=OUTPUTS_KEPT) if lanes > 1 else None
        for number, raw in enumerate(records):
            signals, erased, wall_ns = log.take(number, bytes(raw))
            if signals is not None:
                for begin in range(0, max(len(signals), 1), FRAME_SIGNALS_MAX):  # as the service cuts it into steps
                    engine.apply(signals[begin : begin + FRAME_SIGNALS_MAX], wall_ns)
                    outputs += _read(reader) if reader is not None else []
                    remote += _read(others) if others is not None else []
                for key in erased:
                    engine.erase(key)
            if number + 1 in wanted:
                states[number + 1] = engine.export_state()
                made[number + 1] = _counts(remote, lanes)
        state = engine.export_state()
    sent = {producer: np.concatenate(parts) for producer, parts in log.sent.items()}
    came = {id_: Came(np.concatenate(log.sequences[id_]), signals) for id_, signals in sent.items()}
    everything = np.concatenate(outputs) if outputs else np.empty(0, OUTPUT_DTYPE)
    emitted = _by_lane(remote, lanes)
    return LaneTruth(
        state, everything, log.producers, log.names, sent, log.position, log.records, log.apps,
        lane, lanes, came, emitted, states, made,
    )  # fmt: skip


class _LaneLog(_Log):
    """A lane's log as it is read: of a producer it has parts, each with the sequences of its signals."""

    def __init__(self, lane: int, lanes: int) -> None:
        super().__init__()
        self.lane, self.lanes = lane, lanes
        self.sequences: dict[int, list[npt.NDArray[np.uint64]]] = {}
        self._part: Part | None = None

    def _command(self, number: int, message: Any, erased: list[int]) -> None:
        if self._part is not None:
            raise HistoryError(f"record {number}: a part of {self._part.count} signals is not followed by them")
        if not isinstance(message, Part):
            super()._command(number, message, erased)
            if isinstance(message, ForgetProducer):
                self.sequences.pop(message.id, None)
            return
        known = self.producers.get(message.producer)
        if known is None or known["epoch"] != message.epoch or message.after > known["next"]:
            raise HistoryError(
                f"record {number}: a part of producer {message.producer} in epoch {message.epoch} follows "
                f"{message.after}, and the lane knows {known}: one is missing, or out of order"
            )
        if message.count and int(message.sequences[0]) < known["next"]:
            raise HistoryError(
                f"record {number}: a part of producer {message.producer} begins at {int(message.sequences[0])}, and "
                f"the lane has all below {known['next']}: it is there twice"
            )
        if not message.lanes >> self.lane & 1:
            raise HistoryError(f"record {number}: a part of a batch that has nothing for lane {self.lane}")
        known["next"] = max(known["next"], message.end)
        self._part = message if message.count else None

    def _frame(self, number: int, head: bytes, signals: Signals) -> int:
        part, self._part = self._part, None
        if part is None:
            raise HistoryError(f"record {number}: signals that no part tells of")
        producer, count = int.from_bytes(head[8:16], "big"), int.from_bytes(head[20:24], "big")
        if (producer, count) != (part.producer, part.count):
            raise HistoryError(f"record {number}: {count} signals of producer {producer} behind {part}")
        mine = signals[:count].copy()
        if count and (lanes_of(np.ascontiguousarray(mine["key"]), self.lanes) != self.lane).any():
            raise HistoryError(f"record {number}: signals of producer {producer} that belong to another lane")
        self.sent.setdefault(producer, []).append(mine)
        self.sequences.setdefault(producer, []).append(part.sequences)
        return count


def _by_lane(batches: list[Signals], lanes: int) -> dict[int, Signals]:
    """What was emitted, as signals, by the lane that it goes to; in order."""
    if not batches:
        return {}
    everything = np.concatenate(batches)
    signals = np.empty(len(everything), SIGNAL_DTYPE)
    for name in SIGNAL_DTYPE.names or ():
        signals[name] = everything[name]
    where = lanes_of(np.ascontiguousarray(signals["key"]), lanes)
    return {int(target): signals[where == target] for target in np.unique(where)}


def _counts(batches: list[Signals], lanes: int) -> list[int]:
    counts = np.zeros(lanes, "i8")
    for batch in batches:
        counts += np.bincount(lanes_of(np.ascontiguousarray(batch["key"]), lanes), minlength=lanes)
    return counts.tolist()


async def read_lane(urls: str, prefix: str, lane: int) -> list[bytes]:
    """All records of a lane, read with nats-py from the servers at `urls`. prefix: nats.stream, "-", the app's name.

    HistoryError: the stream does not begin with record 0, or has a gap. What nats-py raises without servers.
    """
    import nats

    client = await nats.connect([url.strip() for url in urls.split(",")], connect_timeout=5)
    try:
        jetstream = client.jetstream(timeout=READ_S)
        stream = f"{prefix}-lane-{lane}"
        state = (await jetstream.stream_info(stream)).state
        if state.messages and state.first_seq != 1:
            raise HistoryError(f"stream {stream} begins with message {state.first_seq}: the rest was removed")
        records: list[bytes] = []
        if not state.messages:
            return records
        reader = await jetstream.subscribe(f"{prefix}.lane.{lane}", stream=stream, ordered_consumer=True)
        while len(records) < state.last_seq:
            message = await reader.next_msg(timeout=READ_S)
            if message.metadata.sequence.stream != len(records) + 1:
                raise HistoryError(
                    f"stream {stream}: message {message.metadata.sequence.stream} comes after {len(records)}"
                )
            records.append(message.data)
        await reader.unsubscribe()
        return records
    finally:
        await client.close()


async def read_snapshots(urls: str, prefix: str, lane: int, directory: Path, keep: int = 1000) -> list[LaneSnapshot]:
    """The snapshots of a lane that its pointer names, newest first, every byte checked. directory: for their files."""
    from bitactor.config import Nats
    from bitactor.log.nats import connect
    from bitactor.log.objects import ObjectSnapshots

    connection = await connect(Nats(urls=urls), name="oracle")
    try:
        store = ObjectSnapshots(connection, prefix, lane, directory / str(lane), keep)

        def load() -> list[LaneSnapshot]:
            return [_snapshot(store.load(path)) for path in store.latest()]

        return await asyncio.to_thread(load)
    finally:
        await connection.close()


def _snapshot(found: Any) -> LaneSnapshot:
    sections = {name: bytes(data) for name, data in found.sections.items()}
    state = {n.removeprefix("state."): data for n, data in found.sections.items() if n.startswith("state.")}
    meta = found.meta
    return LaneSnapshot(meta["sequence"], meta["position"], EngineState.from_sections(meta["state"], state), sections)
