"""Replaying a data directory to one side: what the log says, compared with what the snapshots hold. Changes nothing.

One thread; a service may be writing to the directory meanwhile, and the log is then taken as it was at the start.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bitactor.engine import Engine
from bitactor.log.contract import CorruptionError
from bitactor.log.maintenance import SNAPSHOTS
from bitactor.log.reader import LogReader
from bitactor.log.snapshots import SnapshotStore, load
from bitactor.runtime import recovery
from bitactor.runtime.app import describe
from bitactor.runtime.recovery import OtherAppError, RecoveryError, Start
from bitactor.runtime.tables import Tables
from bitactor.runtime.writer import Place
from bitactor.state import EngineState, StateError

if TYPE_CHECKING:
    from bitactor.actors import App
    from bitactor.log.contract import End


@dataclass(frozen=True, slots=True)
class Replay:
    """What was replayed. begun: at which record; same: snapshot -> whether its state is the one that the log gives."""

    begun: Place
    end: Place
    signals: int
    seconds: float
    same: dict[Path, bool]

    @property
    def agrees(self) -> bool:
        """Whether every snapshot on the way holds, bit for bit, the state that the log gives."""
        return all(self.same.values())


def replay(directory: Path | str, app: "App", warn: Callable[[str], None]) -> Replay:
    """Apply the log to an engine in this thread, from its first record or the oldest snapshot that it goes on from.

    What lies before a change of the app is left out with a warning, and a damaged snapshot too. RecoveryError,
    CorruptionError.
    """
    reader = LogReader(directory)
    first, end = reader.extent()
    starts = _starts(directory, end.sequence, warn)
    if not first.sequence:
        starts.insert(0, Start(None, Place(0, 0, 0), None, None, Tables(), {}))
    elif not starts or starts[0].place.sequence < first.sequence:
        raise RecoveryError(
            f"{reader.path} begins with record {first.sequence}, and no good snapshot covers what was before it: "
            "restore a backup (bitactor log restore)"
        )
    while True:
        try:
            return _replay_from(starts, end, reader, app)
        except OtherAppError as error:
            if len(starts) < 2:
                raise
            warn(f"what lies before record {starts[1].place.sequence}: {error}")
            starts = starts[1:]


def _replay_from(starts: list[Start], end: "End", reader: LogReader, app: "App") -> Replay:
    """Replay from the first of the starts, and compare with the others on the way."""
    at, *starts = starts
    begun, signals, same, said = at.place, 0, {}, describe(app)
    with Engine(app, 0, clock="records") as engine:
        if at.state is not None:
            state, _ = recovery.fit(at, reader, app, said)
            engine.import_state(state if state is not None else at.state)
        begun_s = time.perf_counter()
        for target in [*starts, None]:
            upto = end.sequence if target is None else target.place.sequence
            records = reader.read(at.place.sequence, upto)
            done = recovery.replay(records, at, app=app, said=said, engine=engine, log=reader)
            signals += done.signals
            at = Start(None, done.place, done.app, None, at.tables, {})
            if target is not None and target.path is not None and target.state is not None:
                same[target.path] = _equal(target.state, engine.export_state())
        seconds = time.perf_counter() - begun_s
    return Replay(begun, at.place, signals, seconds, same)


def _starts(directory: Path | str, end: int, warn: Callable[[str], None]) -> list[Start]:
    """The good snapshots that lie within the log, oldest first."""
    starts = []
    for path in reversed(SnapshotStore(Path(directory) / SNAPSHOTS).latest()):
        try:
            start = recovery.start_of(path, load(path))
        except (CorruptionError, StateError, FileNotFoundError) as error:
            warn(str(error))
            continue
        if start.place.sequence <= end:
            starts.append(start)
    return starts


def _equal(one: EngineState, other: EngineState) -> bool:
    (one_meta, one_sections), (other_meta, other_sections) = one.to_sections(), other.to_sections()
    return one_meta == other_meta and [(name, np.asarray(data).tobytes()) for name, data in one_sections] == [
        (name, np.asarray(data).tobytes()) for name, data in other_sections
    ]
