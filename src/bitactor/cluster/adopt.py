"""Taking the state of a service on one machine into lanes: the last snapshot of its data directory, cut by key.

For an import before the first start of replicas; the loop's thread. What each lane gets is a log that begins with its
app record, and a snapshot behind that: the lane's keys, the names of its keys, and every producer with everything below
its `next` known to be everywhere. Counters of the past are lane 0's. Positions begin anew, and so do outputs.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from bitactor.engine import Engine
from bitactor.log.contract import LogError
from bitactor.log.maintenance import SNAPSHOTS
from bitactor.log.reader import LogReader
from bitactor.log.snapshots import SnapshotStore
from bitactor.runtime import recovery
from bitactor.runtime.app import describe
from bitactor.runtime.recovery import RecoveryError
from bitactor.runtime.snapshots import Boundary, write_snapshot
from bitactor.runtime.tables import Row, Tables
from bitactor.runtime.writer import Place
from bitactor.signals import lanes_of
from bitactor.state import COUNTERS, ActorState, EngineState

if TYPE_CHECKING:
    from bitactor.actors import App
    from bitactor.cluster.lane import LaneCore

_NO_OUTPUTS: Final = {"outputs": b"", "outputs_gone": np.zeros(2, "<u8").tobytes()}


def read(directory: Path | str, app: "App", warn: Callable[[str], None]) -> tuple[EngineState, Tables]:
    """State and tables of a data directory that nobody serves. RecoveryError: no snapshot covers its log to the end.

    StateError, RecoveryError: it is another app's, and no migration is there.
    """
    reader = LogReader(directory)
    start = recovery.begin(SnapshotStore(Path(directory) / SNAPSHOTS), reader, warn)
    if start.state is None or start.place.sequence != reader.end().sequence:
        raise RecoveryError(
            f"no snapshot in {directory} covers its log to the end: serve it once more with `bitactor serve` and stop "
            "it in order, which leaves one"
        )
    state, changes = recovery.fit(start, reader, app, describe(app))
    for change in changes:
        warn(f"the app has changed: {change}")
    assert state is not None
    return state, start.tables


def cut(state: EngineState, lane: int, lanes: int) -> EngineState:
    """The part of a whole state that a lane holds, at position 0."""
    mine = np.arange(64) % lanes == lane
    actors = tuple(_cut_actor(actor, mine, counts=lane == 0) for actor in state.actors)
    kinds = state.kinds if lane == 0 else tuple(replace(kind, signals=0) for kind in state.kinds)
    counters = dict(state.counters) if lane == 0 else dict.fromkeys(COUNTERS, 0)
    return replace(state, position=0, counters=counters, kinds=kinds, actors=actors, lane=lane, lanes=lanes)


def _cut_actor(actor: ActorState, mine: Any, *, counts: bool) -> ActorState:
    rows = np.repeat(mine, actor.counts)
    return replace(
        actor,
        counts=np.where(mine, actor.counts, 0).astype(actor.counts.dtype),
        keys=actor.keys[rows],
        states=actor.states[rows],
        touch_order=None if actor.touch_order is None else actor.touch_order[rows],
        touch_ticks=None if actor.touch_ticks is None else actor.touch_ticks[rows],
        signals=actor.signals if counts else 0,
        refused=actor.refused if counts else 0,
        raised=actor.raised if counts else 0,
    )


def tables_of(whole: Tables, lane: int, lanes: int) -> Tables:
    """What a lane knows of producers and names."""
    rows = {
        row.id: Row(row.id, row.name, row.identity, row.epoch, row.next, row.next) for row in whole.producers.values()
    }
    keys = np.fromiter(whole.names, "u8", len(whole.names))
    where = lanes_of(keys, lanes) if len(keys) else keys
    names = {key: whole.names[key] for key, of in zip(keys.tolist(), where.tolist(), strict=True) if of == lane}
    return Tables(rows, names)


async def into_lane(core: "LaneCore", state: EngineState, tables: Tables) -> int:
    """Begin the log of one lane with this; the keys that it holds. LogError when it has records already."""
    log, store = await core.open_for_import()
    try:
        if log.end().sequence:
            raise LogError(
                f"{log.path} has records already: an import is for a service that was never started; give it another "
                "nats.stream, or remove the streams"
            )
        part = cut(state, core.lane, core.lanes)
        _check(core.app, part)
        place = await core.in_thread(recovery.open_log_with, log, core.said, Place(0, 0, state.wall_ns), core.lane)
        own = tables_of(tables, core.lane, core.lanes)
        boundary = Boundary(place.sequence, 0, place.wall_ns, part, own, dict(_NO_OUTPUTS), 0.0)
        await core.in_thread(write_snapshot, store, boundary, core.said)
        return sum(len(actor) for actor in part.actors)
    finally:
        await core.in_thread(log.close)


def _check(app: "App", part: EngineState) -> None:
    """See that an engine of this lane takes it, before anything is written."""
    with Engine(app, 0, clock="records", lane=part.lane, lanes=part.lanes) as engine:
        engine.import_state(part)
