"""Recovery: the newest good snapshot, then the records behind it. The state is what the log says, and nothing else.

Nothing here guesses: damage falls back to the snapshot before, and what no snapshot and no record covers is refused
with what to do. The log of one app is never run by another's code: a changed app goes on only from a snapshot that
covers the log to its end, migrated; a new app record and a new snapshot follow.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from bitactor._core._record import RECORD_SIGNALS_MAX
from bitactor.log.contract import CorruptionError
from bitactor.migration import migrate
from bitactor.protocol.frames import kind_set
from bitactor.protocol.records import (
    RecordType,
    encode_app_record,
    fingerprint_number,
    read_record,
    verify_record,
)
from bitactor.runtime.app import APP_FORMAT, canonical
from bitactor.runtime.records import effects_of, take_effect
from bitactor.runtime.snapshots import FORMAT, STATE_PREFIX
from bitactor.runtime.tables import Tables
from bitactor.runtime.writer import Place
from bitactor.signals import SIGNAL_DTYPE
from bitactor.state import EngineState, StateError

if TYPE_CHECKING:
    from bitactor.actors import App
    from bitactor.engine import Engine
    from bitactor.log.contract import End, First, Log
    from bitactor.log.snapshots import Snapshot, SnapshotStore

_TYPE_AT, _FINGERPRINT_AT, _HEADER_BYTES = 5, 56, 64


class Readable(Protocol):
    """What recovery asks of a log, its own or one that another process is writing; each as in `Log`."""

    @property
    def path(self) -> Path | None:
        """The file, named in messages."""
        ...

    def first(self) -> "First":
        """The oldest record kept."""
        ...

    def end(self) -> "End":
        """Where the next record goes."""
        ...

    def read(self, from_sequence: int) -> Iterator[memoryview | bytes]:
        """Records from that sequence on, each checked."""
        ...


class RecoveryError(RuntimeError):
    """The data directory cannot be gone on from; the message says why, and what to do."""


class OtherAppError(RecoveryError):
    """The log holds records of another app, or of another release of this one, that this one cannot run."""


@dataclass(frozen=True, slots=True)
class Start:
    """Where recovery begins: a snapshot, or (path None) the log's first record with nothing before it."""

    path: Path | None
    place: Place
    app: dict[str, Any] | None  # what the state's app record said
    state: EngineState | None
    tables: Tables
    sections: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Replayed:
    """What replay found. app: what the newest app record said, else the snapshot; None for an empty log."""

    place: Place
    signals: int
    app: dict[str, Any] | None


def begin(store: "SnapshotStore", log: Readable, warn: Callable[[str], None]) -> Start:
    """Choose the newest snapshot that is whole and that the log goes on from; without one, the log's beginning.

    A damaged one is set aside with the suffix .damaged. RecoveryError when neither is there, or the newest snapshot is
    of a newer format.
    """
    end = log.end()
    for path in store.latest():
        try:
            start = start_of(path, store.load(path))
        except (CorruptionError, StateError) as error:
            warn(f"a snapshot is damaged, the one before it is tried: {error}")
            path.rename(path.with_suffix(".damaged"))
            continue
        if start.place.sequence > end.sequence:
            raise RecoveryError(
                f"snapshot {path} is of record {start.place.sequence}, the log {log.path} ends with {end.sequence}: "
                "the log is another one, or was damaged (it is synced before each snapshot); restore a backup "
                "(bitactor log restore), or move the snapshot away to go on with what the log says alone"
            )
        break
    else:
        start = Start(None, Place(0, 0, 0), None, None, Tables(), {})
    if start.place.sequence < log.first().sequence:
        raise RecoveryError(
            f"the log {log.path} begins with record {log.first().sequence}, and no good snapshot covers what was "
            "before it: restore a backup (bitactor log restore)"
        )
    return start


def start_of(path: Path, snapshot: "Snapshot") -> Start:
    """The beginning that a loaded snapshot is. RecoveryError: of another format; StateError: it makes no sense."""
    meta = snapshot.meta
    if meta.get("format") != FORMAT:
        raise RecoveryError(
            f"snapshot {path} has format {meta.get('format')!r}; this release reads {FORMAT}: run the one that wrote it"
        )
    inner = {
        name.removeprefix(STATE_PREFIX): data
        for name, data in snapshot.sections.items()
        if name.startswith(STATE_PREFIX)
    }
    state = EngineState.from_sections(meta["state"], inner)
    place = Place(meta["sequence"], meta["position"], meta["wall_ns"])
    return Start(path, place, meta["app"], state, Tables.from_sections(snapshot.sections), dict(snapshot.sections))


def fit(start: Start, log: Readable, app: "App", said: dict[str, Any]) -> tuple[EngineState | None, list[str]]:
    """The state to begin with as this app's, and what was changed for that; (None, []): nothing to import.

    RecoveryError for an app of another name: its actors would drop all that is here, by a slip of the command line.
    Migrated when the app changed where this snapshot lies. RecoveryError when the log goes on with records of the
    former app; StateError says what no migration is there for.
    """
    if start.state is None or start.app is None or start.app["fingerprint"] == said["fingerprint"]:
        return start.state, []
    if start.app["name"] != said["name"]:
        raise OtherAppError(
            f"{log.path} is of the app {start.app['name']!r}, and the app given is {said['name']!r}: serve that one "
            "from a data directory of its own (--data-dir); if it is the same app, it has to keep its name"
        )
    if start.app["lanes"] != said["lanes"]:
        raise OtherAppError(
            f"{log.path} is one of {start.app['lanes']} lanes, and cluster.lanes is {said['lanes']}: it is fixed with "
            "the first start"
        )
    if start.place.sequence < log.end().sequence:
        following = verify_record(next(iter(log.read(start.place.sequence))))
        if following.type != RecordType.APP or following.fingerprint != fingerprint_number(said["fingerprint"]):
            raise _changed(start.app, said, start.place.sequence, log)
    state, report = migrate(start.state, app)
    return state, list(report.changes)


def replay(
    records: Iterable[bytes | memoryview],
    start: Start,
    *,
    app: "App",
    said: dict[str, Any],
    engine: "Engine",
    log: Readable,
) -> Replayed:
    """Apply the records behind `start` to the engine and to `start.tables`, as the writer did when they were new.

    RecoveryError at the first data record of another app; RecordError and TableError name what does not follow.
    """
    kinds, ours = kind_set(app.kinds), fingerprint_number(said["fingerprint"])
    signals = np.empty(RECORD_SIGNALS_MAX, SIGNAL_DTYPE)
    place, current = start.place, start.app
    for raw in records:
        if raw[_TYPE_AT] == RecordType.APP:
            current = _app_of(raw, log)
            header = verify_record(raw)
            place = Place(header.sequence + 1, header.position, header.wall_ns)
            continue
        if raw[_FINGERPRINT_AT:_HEADER_BYTES] != ours.to_bytes(8, "big"):
            raise _changed(current, said, place.sequence, log)
        record = read_record(raw, kinds, signals)
        effects, erased = effects_of(record.items)
        engine.apply(record.signals, record.wall_ns)
        for key in erased:
            engine.erase(key)
        take_effect(start.tables, effects)
        place = Place(record.sequence + 1, record.position + record.count, record.wall_ns)
    return Replayed(place, place.position - start.place.position, current)


def open_log_with(log: "Log", said: dict[str, Any], place: Place, lane: int = 0) -> Place:
    """Append an app record: from here on the log is this app's."""
    wall_ns = max(time.time_ns(), place.wall_ns)
    record = encode_app_record(
        canonical(said).encode(),
        sequence=place.sequence,
        position=place.position,
        wall_ns=wall_ns,
        fingerprint=fingerprint_number(said["fingerprint"]),
        lane=lane,
    )
    log.append(record, sequence=place.sequence, position=place.position, count=0, wall_ns=wall_ns)
    return Place(place.sequence + 1, place.position, wall_ns)


def _app_of(raw: bytes | memoryview, log: Readable) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(bytes(raw[_HEADER_BYTES:]))
    if said.get("format") != APP_FORMAT:
        raise RecoveryError(
            f"the log {log.path} has an app record of format {said.get('format')!r}; this release reads {APP_FORMAT}: "
            "run the release that wrote it"
        )
    return said


def _changed(former: dict[str, Any] | None, said: dict[str, Any], sequence: int, log: Readable) -> OtherAppError:
    name, fingerprint = (former["name"], former["fingerprint"]) if former else ("?", "?")
    return OtherAppError(
        f"the log {log.path} holds records from {sequence} on of the app {name!r} with the fingerprint "
        f"{fingerprint[:16]}, and the app given is {said['name']!r} with {said['fingerprint'][:16]}: serve the former "
        "app once more and stop it (its last snapshot then covers the log), and serve this one after that"
    )
