"""The state of one version of an app as the state of another: what recovery runs when the app has changed.

| what changed | what becomes of the state |
|---|---|
| a handler's code alone | kept as it is |
| a field of a state added, removed, moved | it gets its default, is dropped, is moved |
| a field's type or shape | refused, unless App.migration names how |
| a kind's types | refused, unless App.kind_migration names it |
| an actor added, removed | it begins empty, is dropped with its keys |
| expire_after | times of the last touch are kept; where there were none, everything was touched just now |
| keys_max | kept; a partition with more keys than now allowed keeps them and takes no new ones |

A pure function of the old state and the app; nothing here touches an engine.
"""

import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from bitactor._core._state import PARTITIONS, idle_tick_ns
from bitactor.schema import Kind, StateField, StateLayout
from bitactor.state import ActorState, EngineState, KindState, StateError, describe, layout_dtype, same_layout

if TYPE_CHECKING:
    from bitactor.actors import Actor, App
    from bitactor.actors.app import Migration

__all__ = ["Report", "migrate"]

Array = npt.NDArray[Any]
_TICKS: Final = 1 << 32  # ticks are kept modulo this


@dataclass(frozen=True)
class Report:
    """What migrate did. changes: a sentence each; empty: the state is as it was.

    migrations: names of those that ran. dropped: keys that went with each actor that is no more.
    """

    changes: tuple[str, ...]
    migrations: tuple[str, ...]
    dropped: dict[str, int]


def migrate(state: EngineState, app: "App") -> tuple[EngineState, Report]:
    """The state as that of `app`, and what was done. StateError names what was and what is where it cannot be."""
    changes: list[str] = []
    migrations: list[str] = []
    kinds = tuple(_kind(state.kinds, kind, app, changes, migrations) for kind in app.kinds)
    old = {actor.name: actor for actor in state.actors}
    actors = []
    for actor in app.actors:
        if actor.name in old:
            actors.append(_actor(old.pop(actor.name), actor, app, state.wall_ns, changes, migrations))
        else:
            changes.append(f"actor {actor.name!r} is new and begins empty")
            actors.append(_empty(actor))
    dropped = {name: len(gone) for name, gone in old.items()}
    changes += [f"actor {name!r} is no more: {keys} keys dropped" for name, keys in dropped.items()]
    made = replace(state, kinds=kinds, actors=tuple(actors), pause_seconds=0.0)
    return made, Report(tuple(changes), tuple(migrations), dropped)


def _kind(known: Sequence[KindState], kind: Kind, app: "App", changes: list[str], migrations: list[str]) -> KindState:
    was = next((k for k in known if k.number == kind.number), None) or next(
        (k for k in known if k.name == kind.name), None
    )
    now = KindState(kind.name, kind.number, kind.value, kind.aux, was.signals if was else 0)
    if was is None:
        changes.append(f"kind {kind.name!r} is new")
        return now
    if (was.name, was.number) != (kind.name, kind.number):
        changes.append(f"kind {was.name!r} ({was.number}) is {kind.name!r} ({kind.number}) now")
    if (was.value, was.aux) == (kind.value, kind.aux):
        return now
    for migration in app.kind_migrations:
        if migration.kind == kind.name and (migration.value, migration.aux) == (was.value, was.aux):
            changes.append(f"kind {kind.name!r}: migration {migration.name!r}")
            migrations.append(migration.name)
            return now
    raise StateError(
        f"kind {kind.name!r} had value {was.value} and aux {was.aux}; now value {kind.value} and aux {kind.aux}: "
        f"say that its states are good all the same with app.kind_migration({kind.name}, name=..., "
        f'value="{was.value}", aux="{was.aux}"), or declare the new types under another name and number'
    )


def _empty(actor: "Actor") -> ActorState:
    layout = actor.layout
    touches = np.empty(0, "u4") if actor.idle_ns else None
    return ActorState(
        actor.name, layout.fields, layout.stride, actor.idle_ns, np.zeros(PARTITIONS, "u4"), np.empty(0, "u8"),
        np.empty((0, layout.stride), "u1"), touches, touches, 0, 0, 0,
    )  # fmt: skip


def _actor(
    old: ActorState, actor: "Actor", app: "App", wall_ns: int, changes: list[str], migrations: list[str]
) -> ActorState:
    made = old
    if not same_layout(old, actor.layout):
        made = _laid_out(old, actor, app.migrations, changes, migrations)
    if old.idle_ns != actor.idle_ns:
        changes.append(
            f"actor {actor.name!r}: keys expired after {old.idle_ns} ns, and do after {actor.idle_ns} ns now"
        )
        order, ticks = _touches(old, actor.idle_ns, wall_ns)
        made = replace(made, idle_ns=actor.idle_ns, touch_order=order, touch_ticks=ticks)
    most = actor.partition_keys_max
    full = int((old.counts > most).sum()) if most else 0
    if full:
        changes.append(f"actor {actor.name!r}: {full} partitions hold more than {most} keys; they take no new ones")
    return made


def _laid_out(
    old: ActorState, actor: "Actor", known: "Sequence[Migration]", changes: list[str], migrations: list[str]
) -> ActorState:
    """The states with the fields that the actor has now."""
    layout = actor.layout
    was, now = _shapes(old.fields), _shapes(layout.fields)
    fresh = np.frombuffer(layout.init, "u1")
    states = np.broadcast_to(fresh, (len(old), layout.stride)).copy()
    rows = states.reshape(-1).view(layout_dtype(layout.fields, layout.stride))
    for name, shape in now.items():
        if was.get(name) == shape:
            rows[name] = old.rows[name]
    migration = next((m for m in known if m.actor == actor.name and m.from_fields == was), None)
    if migration is not None:
        before = old.rows.view()
        before.flags.writeable = False
        _run(migration, before, rows)
        changes.append(f"actor {actor.name!r}: migration {migration.name!r} of {len(old)} keys")
        migrations.append(migration.name)
    else:
        changed = [name for name in now if name in was and was[name] != now[name]]
        if changed:
            raise StateError(_no_migration(old, layout, changed))
        added, removed = [n for n in now if n not in was], [n for n in was if n not in now]
        said = [f"{what} {', '.join(names)}" for what, names in (("added", added), ("removed", removed)) if names]
        changes.append(f"actor {actor.name!r}: {'; '.join(said) or 'fields moved'}")
    return replace(old, fields=layout.fields, stride=layout.stride, states=states)


def _run(migration: "Migration", old: Array, new: Array) -> None:
    """StateError with file and line when the migration raises: it is the app's, as handlers are."""
    try:
        migration.function(old, new)
    except Exception as error:
        code = migration.function.__code__
        lines = [one.lineno for one in traceback.extract_tb(error.__traceback__) if one.filename == code.co_filename]
        raise StateError(
            f"{code.co_filename}:{lines[-1] if lines else code.co_firstlineno}: migration {migration.name!r}: "
            f"{type(error).__name__}: {error}; old and new are structured arrays with a row for each key: "
            'new["field"] = old["field"]; nothing was changed'
        ) from error


def _no_migration(old: ActorState, layout: StateLayout, changed: list[str]) -> str:
    return (
        f"actor {old.name!r}: the state has {describe(old.fields)} and the app {describe(layout.fields)}; "
        f"{', '.join(changed)} changed type or shape: declare @app.migration({old.name}, name=..., from_fields=...) "
        "with the old fields, or give the new ones other names"
    )


def _shapes(fields: Sequence[StateField]) -> dict[str, tuple[str, int | None]]:
    return {field.name: (field.type, field.count) for field in fields}


def _touches(old: ActorState, idle_ns: int, wall_ns: int) -> tuple[Array | None, Array | None]:
    """Touch order and ticks for another idle time; what would be long due is just due."""
    if not idle_ns:
        return None, None
    tick_ns = idle_tick_ns(idle_ns)
    now = wall_ns // tick_ns
    if old.touch_order is None or old.touch_ticks is None:
        begins = np.cumsum(old.counts, dtype="u8") - old.counts
        order = np.arange(len(old), dtype="u8") - np.repeat(begins, old.counts)
        return order.astype("u4"), np.full(len(old), now % _TICKS, "u4")
    old_tick_ns = idle_tick_ns(old.idle_ns)
    old_now = wall_ns // old_tick_ns
    age = (np.uint32(old_now % _TICKS) - old.touch_ticks).astype("u8")
    touched = (np.uint64(old_now) - np.minimum(age, np.uint64(old_now))) * np.uint64(old_tick_ns) // np.uint64(tick_ns)
    age = np.minimum(np.uint64(now) - touched, np.uint64(-(-idle_ns // tick_ns)))
    return old.touch_order, ((np.uint64(now) - age) % np.uint64(_TICKS)).astype("u4")
