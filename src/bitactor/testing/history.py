"""What a service's log says: read back record by record into an inline engine. For tests of services; one thread.

Written apart from the service's own recovery, so that the two can be compared: it knows the log's files, the codec and
Engine.apply, and no code of the runtime. Needs the whole log, from record 0 on (keep all snapshots, or take none).
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from bitactor.engine import Engine
from bitactor.protocol.frames import SIGNALS_MAX as FRAME_SIGNALS_MAX
from bitactor.protocol.messages import EraseKey, ForgetProducer, Name, Producer, decode_message
from bitactor.protocol.records import RecordType, read_record
from bitactor.signals import OUTPUT_DTYPE
from bitactor.state import EngineState

if TYPE_CHECKING:
    from bitactor.actors import App

__all__ = [
    "HistoryError",
    "Truth",
    "assert_same_state",
    "end_of",
    "load_snapshot",
    "newest_snapshot",
    "read_log",
    "records_of",
    "refusals",
    "truth_of",
]

OnFrame = Callable[[int, int, npt.NDArray[Any]], None]

OUTPUTS_KEPT: Final = 1 << 18  # of one record, at most


class HistoryError(AssertionError):
    """The log contradicts itself; the message names the record and what does not go on from the one before."""


@dataclass
class Truth:
    """What a log says. sent: by producer's number, its signals in their order, from when it was forgotten last.

    producers: number -> name, identity, epoch, next; names: key -> text; apps: the app records' JSON, in order.
    """

    state: EngineState
    outputs: npt.NDArray[Any]
    producers: dict[int, dict[str, Any]]
    names: dict[int, str]
    sent: dict[int, npt.NDArray[Any]]
    position: int
    records: int
    apps: list[Any]


def read_log(directory: Path | str, app: "App", on_frame: OnFrame | None = None) -> Truth:
    """The truth of the log in that data directory, which nobody serves now. HistoryError; what reading a log raises.

    on_frame: called with (producer, sequence, signals) of each frame in place of keeping them, for logs that are large;
    `sent` and `outputs` are then empty.
    """
    from bitactor.log.reader import LogReader

    return truth_of(LogReader(directory).read(0), app, on_frame)


def truth_of(records: Iterable[bytes | memoryview], app: "App", on_frame: OnFrame | None = None) -> Truth:
    """The truth of these records, the first of which is record 0. HistoryError, RecordError."""
    handled = {kind.number for actor in app.actors for kind in actor.kinds}
    outward = [] if on_frame else [kind for kind in app.kinds if kind.number not in handled]
    log = _Log(on_frame)
    outputs = []
    with Engine(app, shards=0, clock="records") as engine:
        reader = engine.subscribe(outward, capacity=OUTPUTS_KEPT) if outward else None
        for number, raw in enumerate(records):
            signals, erased, wall_ns = log.take(number, bytes(raw))
            if signals is None:
                continue
            for begin in range(0, max(len(signals), 1), FRAME_SIGNALS_MAX):  # as the service cuts it into steps
                engine.apply(signals[begin : begin + FRAME_SIGNALS_MAX], wall_ns)
                if reader is not None:
                    outputs += _read(reader)
            for key in erased:
                engine.erase(key)
        state = engine.export_state()
    everything = np.concatenate(outputs) if outputs else np.empty(0, OUTPUT_DTYPE)
    sent = {producer: np.concatenate(parts) for producer, parts in log.sent.items()}
    return Truth(state, everything, log.producers, log.names, sent, log.position, log.records, log.apps)


def _read(reader: Any) -> list[npt.NDArray[Any]]:
    found = []
    while len(batch := reader.read(timeout=0)):
        found.append(batch)
    return found


class _Log:
    """A log as it is read: what was said so far, against which the next record is checked."""

    def __init__(self, on_frame: OnFrame | None = None) -> None:
        self.on_frame = on_frame
        self.producers: dict[int, dict[str, Any]] = {}
        self.names: dict[int, str] = {}
        self.sent: dict[int, list[npt.NDArray[Any]]] = {}
        self.apps: list[Any] = []
        self.position = self.records = self.wall_ns = 0

    def take(self, number: int, raw: bytes) -> tuple[npt.NDArray[Any] | None, list[int], int]:
        """(signals, keys erased, wall_ns) of the next record; None for signals in an app record."""
        record = read_record(raw)
        place = (record.sequence, record.position)
        if place != (number, self.position) or record.wall_ns < self.wall_ns:
            raise HistoryError(
                f"record {number}: it says {place} at {record.wall_ns}, and ({number}, {self.position}) at "
                f"{self.wall_ns} or later was expected"
            )
        self.wall_ns, self.records = record.wall_ns, number + 1
        if record.type == RecordType.APP:
            self.apps.append(json.loads(bytes(record.payload)))
            return None, [], record.wall_ns
        erased: list[int] = []
        at = 0
        for kind, data in record.items:
            if kind == 1:
                at += self._frame(number, bytes(data[:64]), record.signals[at:])
            else:
                self._command(number, decode_message(data), erased)
        self.position += record.count
        return record.signals, erased, record.wall_ns

    def _frame(self, number: int, head: bytes, signals: npt.NDArray[Any]) -> int:
        producer, epoch = int.from_bytes(head[8:16], "big"), int.from_bytes(head[16:20], "big")
        count, sequence = int.from_bytes(head[20:24], "big"), int.from_bytes(head[24:32], "big")
        known = self.producers.get(producer)
        if known is None or (known["epoch"], known["next"]) != (epoch, sequence):
            raise HistoryError(
                f"record {number}: a frame of producer {producer} begins at {sequence} in epoch {epoch}, and the log "
                f"knows {known}: a frame is there twice, or one is missing"
            )
        known["next"] += count
        if self.on_frame is not None:
            self.on_frame(producer, sequence, signals[:count])
        else:
            self.sent.setdefault(producer, []).append(signals[:count].copy())
        return count

    def _command(self, number: int, message: Any, erased: list[int]) -> None:
        match message:
            case Producer(id_, epoch, identity, name):
                row = self.producers.setdefault(id_, {"name": name, "identity": identity, "next": 0, "epoch": 0})
                if epoch <= row["epoch"]:
                    raise HistoryError(f"record {number}: epoch {epoch} of {name!r} after {row['epoch']}")
                row["epoch"] = epoch
            case Name(key, text):
                self.names[key] = text
            case ForgetProducer(id_):
                self.producers.pop(id_)
                self.sent.pop(id_, None)
            case EraseKey(key):
                erased.append(key)
                self.names.pop(key, None)
            case other:
                raise HistoryError(f"record {number}: {other} has no place in a log")


def end_of(directory: Path | str) -> tuple[int, int]:
    """(sequence of the oldest record kept, position at the end) of a log; what opening one raises."""
    from bitactor.log.reader import LogReader

    first, end = LogReader(directory).extent()
    return first.sequence, end.position


def records_of(directory: Path | str) -> list[bytes]:
    """All records of a log, opened as the next start of a service opens it, and closed again. Raises refusals()."""
    from bitactor.log.sqlite import SqliteLog

    log = SqliteLog.open(directory)
    try:
        return [bytes(record) for record in log.read(log.first().sequence)]
    finally:
        log.close()


def load_snapshot(path: Path) -> dict[str, bytes]:
    """The sections of a snapshot file, every byte checked. Raises refusals()."""
    from bitactor.log.snapshots import load

    return {name: bytes(data) for name, data in load(path).sections.items()}


def refusals() -> tuple[type[Exception], ...]:
    """What reading damaged files raises, when the damage is detected as it should be."""
    from bitactor.log.contract import LogError
    from bitactor.protocol.records import RecordError

    return (LogError, RecordError, HistoryError)


def newest_snapshot(directory: Path | str) -> tuple[Any, EngineState]:
    """The newest snapshot of a data directory, every byte checked, and the state in it. FileNotFoundError if none."""
    from bitactor.log.snapshots import SnapshotStore

    store = SnapshotStore(Path(directory) / "snapshots")
    paths = store.latest()
    if not paths:
        raise FileNotFoundError(f"{store.directory} holds no snapshot")
    snapshot = store.load(paths[0])
    state = {n.removeprefix("state."): data for n, data in snapshot.sections.items() if n.startswith("state.")}
    return snapshot, EngineState.from_sections(snapshot.meta["state"], state)


def assert_same_state(left: EngineState, right: EngineState) -> None:
    """AssertionError unless two states are the same bit for bit: every array, and their counters."""
    (meta, mine), (other_meta, theirs) = left.to_sections(), right.to_sections()
    if meta != other_meta:
        raise AssertionError(f"the states' headers differ: {meta} and {other_meta}")
    for (name, a), (other, b) in zip(mine, theirs, strict=True):
        if name != other or a.tobytes() != b.tobytes():
            raise AssertionError(f"section {name} of the states differs" + (f" from {other}" if name != other else ""))
