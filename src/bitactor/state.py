"""The state of an engine at one step boundary, as arrays with a schema: what a snapshot keeps. Never objects.

An EngineState comes out of Engine.export_state and goes into Engine.import_state of a fresh engine, which goes on bit
for bit as the first one would have, with any number of shards and another secret. It is a function of the log alone:
two engines that applied the same records export equal states.

Plain data that nobody changes; any thread may use it. The arrays of a state read from a snapshot lie in its file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
import numpy.typing as npt

from bitactor._core._state import PARTITIONS, _export, _import, _prepare, first_misplaced, idle_tick_ns
from bitactor.schema import Kind, StateField, StateLayout
from bitactor.signals import check_lane

if TYPE_CHECKING:
    from bitactor.actors import Actor

__all__ = ["COUNTERS", "ActorState", "EngineState", "KindState", "StateBuffers", "StateError"]

FORMAT: Final = 1
_REASONS: Final = ("full", "unhandled", "raised", "key_cap", "no_memory", "bound", "bad_emit")

# Every counter that is a function of the log, in the order of the core; what Statistics says of each. States of older
# releases lack those of _LATER, which were 0 then.
COUNTERS: Final = (
    *("accepted", "refused", "dropped_full", "steps", "waves", "processed", "emitted", "emits_processed"),
    *("emits_outward", "emits_remote", "expired"),
    *(f"dropped.{r}" for r in _REASONS),
    *(f"emits_dropped.{r}" for r in _REASONS),
)
_LATER: Final = {"emits_remote": 0}
# Of each actor: suffix of its sections, dtype of an element. Little-endian, in order of the partitions.
_ARRAYS: Final = (("counts", "<u4"), ("keys", "<u8"), ("states", "|u1"), ("touch_order", "<u4"), ("touch_ticks", "<u4"))

Array = npt.NDArray[Any]


class StateError(ValueError):
    """A state that cannot be taken in: says what is wrong with it, where, and what to do."""


@dataclass(frozen=True, slots=True)
class KindState:
    """A kind as it was declared, and how many of its signals were given to handlers, once for each actor."""

    name: str
    number: int
    value: str
    aux: str
    signals: int


@dataclass(frozen=True, eq=False)
class ActorState:
    """All instances of one actor: n keys, partition by partition, in a partition in dense order.

    counts: u4[64], keys in each partition. keys: u8[n]. states: u1[n, stride], each laid out as `fields` say.
    touch_order, touch_ticks (actors with expiry, else None): u4[n]; within each partition the places of its rows from
    the one untouched for longest to the newest, and the tick of wall time of that touch, modulo 2**32.
    """

    name: str
    fields: tuple[StateField, ...]
    stride: int
    idle_ns: int
    counts: Array
    keys: Array
    states: Array
    touch_order: Array | None
    touch_ticks: Array | None
    signals: int
    refused: int
    raised: int

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def rows(self) -> Array:
        """The states as a structured array of n rows; no copy."""
        return self.states.reshape(-1).view(layout_dtype(self.fields, self.stride))


def layout_dtype(fields: Sequence[StateField], stride: int) -> "np.dtype[Any]":
    """Structured dtype of states of these fields, `stride` bytes each, in host order."""
    formats = [np.dtype("?" if f.type == "bool" else f.type) for f in fields]
    return np.dtype(
        {
            "names": [f.name for f in fields],
            "formats": [d if f.count is None else (d, (f.count,)) for f, d in zip(fields, formats, strict=True)],
            "offsets": [f.offset for f in fields],
            "itemsize": stride,
        }
    )


@dataclass(frozen=True, eq=False)
class EngineState:
    """Everything that an engine's future depends on, at `position`: see the head of this module.

    wall_ns: wall time of the newest step. counters: one for each of COUNTERS. lane, lanes: what the engine held.
    pause_seconds: how long the shards stood still for the export at most; no part of the state.
    """

    position: int
    wall_ns: int
    counters: dict[str, int]
    kinds: tuple[KindState, ...]
    actors: tuple[ActorState, ...]
    lane: int = 0
    lanes: int = 1
    pause_seconds: float = 0.0

    def actor(self, name: str) -> ActorState:
        """The state of one actor. KeyError names those there are."""
        for actor in self.actors:
            if actor.name == name:
                return actor
        raise KeyError(f"no actor {name!r} in this state; it has {', '.join(a.name for a in self.actors) or 'none'}")

    # --- to and from named buffers ---

    def to_sections(self) -> tuple[dict[str, Any], list[tuple[str, Array]]]:
        """(meta, [(name, array), ...]): what JSON can hold, and the arrays as little-endian buffers.

        On a little-endian machine the arrays are those of this state, not copies.
        """
        sections = []
        for index, actor in enumerate(self.actors):
            for suffix, dtype in _ARRAYS:
                array = getattr(actor, suffix)
                if array is not None:
                    little = _little(actor) if suffix == "states" else array.astype(dtype, copy=False)
                    sections.append((f"actor{index}.{suffix}", little))
        meta = {
            "format": FORMAT,
            "byte_order": "little",
            "partitions": PARTITIONS,
            "partition_hash": 1,
            "lane": self.lane,
            "lanes": self.lanes,
            "position": self.position,
            "wall_ns": self.wall_ns,
            "counters": dict(self.counters),
            "kinds": [
                {"name": k.name, "number": k.number, "value": k.value, "aux": k.aux, "signals": k.signals}
                for k in self.kinds
            ],
            "actors": [
                {
                    "name": a.name,
                    "rows": len(a),
                    "stride": a.stride,
                    "idle_ns": a.idle_ns,
                    "fields": [[f.name, f.type, f.count, f.offset] for f in a.fields],
                    "signals": a.signals,
                    "refused": a.refused,
                    "raised": a.raised,
                }
                for a in self.actors
            ],
        }
        return meta, sections

    @classmethod
    def from_sections(cls, meta: Mapping[str, Any], sections: Mapping[str, Any]) -> Self:
        """The state of to_sections' meta and buffers (bytes-like, by name), which it refers to and never copies.

        StateError for another format, byte order or partition hash, a missing section or one of a wrong length, and
        whatever a look at the meta tells. `check`, which import_state calls, looks into the arrays.
        """
        for what, known in (("byte_order", "little"), ("partitions", PARTITIONS), ("partition_hash", 1)):
            if meta.get("format") == FORMAT and meta.get(what) != known:
                raise StateError(f"the state's {what} is {meta.get(what)!r}, not {known!r}: it was damaged")
        if meta.get("format") != FORMAT:
            raise StateError(
                f"the state has format {meta.get('format')!r}; this release reads format {FORMAT}: "
                "run the release that wrote it, or a newer one"
            )
        try:
            actors = tuple(_actor_from(index, actor, sections) for index, actor in enumerate(meta["actors"]))
            kinds = tuple(KindState(k["name"], k["number"], k["value"], k["aux"], k["signals"]) for k in meta["kinds"])
            counters, lane = {**_LATER, **meta["counters"]}, (meta.get("lane", 0), meta.get("lanes", 1))
            return cls(meta["position"], meta["wall_ns"], counters, kinds, actors, *lane)
        except StateError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise StateError(f"the state's schema lacks something, or has it wrong: {error!r}") from error

    # --- is it sound ---

    def check(self) -> None:
        """Raise StateError for a state that no engine could have exported. Some ten milliseconds a million keys."""
        if tuple(self.counters) != COUNTERS and sorted(self.counters) != sorted(COUNTERS):
            differ = sorted(set(self.counters) ^ set(COUNTERS))
            raise StateError(f"the state's counters are not those of this release; they differ in {', '.join(differ)}")
        numbers = {"position": self.position, "wall_ns": self.wall_ns, "lane": self.lane, "lanes": self.lanes}
        numbers |= self.counters
        for actor in self.actors:
            for what in ("signals", "refused", "raised", "idle_ns"):
                numbers[f"{what} of actor {actor.name!r}"] = getattr(actor, what)
        for kind in self.kinds:
            numbers[f"signals of kind {kind.name!r}"] = kind.signals
        for what, number in numbers.items():
            if type(number) is not int or not 0 <= number < 1 << 64:  # what JSON held may be anything
                raise StateError(f"{what} is {number!r}; it is an unsigned number of 64 bits")
        dropped = self.counters["dropped_full"] + sum(self.counters[f"dropped.{r}"] for r in _REASONS)
        if self.counters["accepted"] != self.counters["processed"] + dropped:
            raise StateError(
                f"the state's counters lose signals: {self.counters['accepted']} accepted, but "
                f"{self.counters['processed']} processed and {dropped} dropped"
            )
        names = [actor.name for actor in self.actors]
        if len(set(names)) != len(names) or not all(isinstance(name, str) for name in names):
            raise StateError(f"the state names an actor twice, or with no text: {names}")
        try:
            check_lane(self.lane, self.lanes)
        except ValueError as error:
            raise StateError(f"the state's lane cannot be: {error}") from None
        for actor in self.actors:
            _check_actor(actor, self.wall_ns)
            elsewhere = np.flatnonzero(actor.counts[np.arange(PARTITIONS) % self.lanes != self.lane])
            if len(elsewhere):
                raise StateError(f"actor {actor.name!r}: it has keys of other lanes than {self.lane} of {self.lanes}")


def _little(actor: ActorState) -> Array:
    """States with every field little-endian: themselves, on a little-endian machine."""
    rows = actor.rows
    little = rows.astype(rows.dtype.newbyteorder("<"), copy=False)
    return little.view("u1").reshape(actor.states.shape)


def _actor_from(index: int, meta: Mapping[str, Any], sections: Mapping[str, Any]) -> ActorState:
    name, n, stride = meta["name"], meta["rows"], meta["stride"]
    fields = tuple(StateField(*field) for field in meta["fields"])

    def section(suffix: str, dtype: str, size: int) -> Array:
        named = f"actor{index}.{suffix}"
        if named not in sections:
            raise StateError(f"actor {name!r}: the state has no section {named!r}: it was damaged, or cut short")
        buffer = memoryview(sections[named]).cast("B")
        if len(buffer) != size * np.dtype(dtype).itemsize:
            told = f"{len(buffer)} bytes; {size * np.dtype(dtype).itemsize} belong there"
            raise StateError(f"actor {name!r}: section {named!r} has {told}")
        return np.frombuffer(buffer, dtype).astype(dtype.replace("<", "="), copy=False)

    sizes = {"counts": PARTITIONS, "states": n * stride}
    found = {
        suffix: section(suffix, dtype, sizes.get(suffix, n))
        for suffix, dtype in _ARRAYS
        if meta["idle_ns"] or not suffix.startswith("touch")
    }
    host = layout_dtype(fields, stride)
    states = found["states"].view(host.newbyteorder("<")).astype(host, copy=False).view("u1").reshape(n, stride)
    return ActorState(
        name, fields, stride, meta["idle_ns"], found["counts"], found["keys"], states, found.get("touch_order"),
        found.get("touch_ticks"), meta["signals"], meta["refused"], meta["raised"],
    )  # fmt: skip


def _check_actor(actor: ActorState, wall_ns: int) -> None:
    where = f"actor {actor.name!r}"
    n = len(actor.keys)
    if actor.counts.shape != (PARTITIONS,) or int(actor.counts.sum(dtype="u8")) != n:
        raise StateError(f"{where}: its partitions count {int(actor.counts.sum(dtype='u8'))} keys, and {n} are there")
    if actor.states.shape != (n, actor.stride):
        raise StateError(f"{where}: states of shape {actor.states.shape}; {n} keys of {actor.stride} bytes need others")
    row = first_misplaced(np.ascontiguousarray(actor.keys), np.ascontiguousarray(actor.counts))
    if row >= 0:
        raise StateError(f"{where}: key {actor.keys[row]} in row {row} lies in another partition than its own")
    ends = np.cumsum(actor.counts, dtype="u8").astype("i8")
    begins = ends - actor.counts
    for begin, end in zip(begins.tolist(), ends.tolist(), strict=True):
        keys = np.sort(actor.keys[begin:end])
        same = keys[1:] == keys[:-1]
        if same.any():
            raise StateError(f"{where}: key {keys[int(same.argmax())]} is there twice")
    if (actor.touch_order is None) != (actor.idle_ns == 0) or (actor.touch_ticks is None) != (actor.idle_ns == 0):
        raise StateError(f"{where}: a state has touch_order and touch_ticks if its keys expire, and not otherwise")
    if actor.touch_order is None or actor.touch_ticks is None:
        return
    if actor.touch_order.shape != (n,) or actor.touch_ticks.shape != (n,):
        raise StateError(f"{where}: {n} keys, but {len(actor.touch_order)} and {len(actor.touch_ticks)} touches")
    places = actor.touch_order + np.repeat(begins, actor.counts)
    seen = np.zeros(n, bool)
    seen[places[actor.touch_order < np.repeat(actor.counts, actor.counts)]] = True
    if not seen.all():
        raise StateError(f"{where}: the touch order leaves out row {int(seen.argmin())}")
    now = np.uint32((wall_ns // idle_tick_ns(actor.idle_ns)) % (1 << 32))
    ages = (now - actor.touch_ticks).astype("i8")  # modulo 2**32: ticks wrap, ages are far below that
    later = np.diff(ages) > 0
    later[ends[(ends > 0) & (ends < n)] - 1] = False  # from one partition to the next
    if later.any():
        raise StateError(f"{where}: touch {int(later.argmax()) + 1} is older than the one before it")


# --- with an engine; bitactor.Engine has the methods ---


class StateBuffers:
    """Memory for an export, pages and all, made before it; for one export of the engine that made it."""

    def __init__(self, engine: Any, actors: "Sequence[Actor]") -> None:
        self.actors = actors
        self.prepared = _prepare(engine, len(actors), self.allocate)

    def allocate(self, index: int, rows: int) -> tuple[Any, Any, Any, Any]:
        """Arrays for so many keys of an actor."""
        actor = self.actors[index]
        touches = [np.empty(rows, "u4") if actor.idle_ns else None for _ in range(2)]
        return np.empty(rows, "u8"), np.empty((rows, actor.layout.stride), "u1"), touches[0], touches[1]


def read_state(engine: Any, kinds: Sequence[Kind], actors: "Sequence[Actor]", buffers: StateBuffers) -> EngineState:
    """The state of an engine, in buffers that nothing else has used."""
    strides = [actor.layout.stride for actor in actors]
    prepared, buffers.prepared = buffers.prepared, []
    if len(prepared) != len(actors):
        raise ValueError("these buffers hold a state already: prepare others for each export")
    (position, wall_ns, *counters), kind_signals, copied, paused_ns = _export(
        engine, len(kinds), strides, prepared, buffers.allocate
    )
    states = []
    for actor, (counts, n, *counted, arrays) in zip(actors, copied, strict=True):
        keys, raw, order, ticks = arrays
        layout = actor.layout
        touches = (None, None) if order is None else (order[:n], ticks[:n])
        states.append(
            ActorState(actor.name, layout.fields, layout.stride, actor.idle_ns, np.frombuffer(counts, "u4"), keys[:n],
                       raw[:n], *touches, *counted)
        )  # fmt: skip
    of_kinds = (
        KindState(k.name, k.number, k.value, k.aux, signals) for k, signals in zip(kinds, kind_signals, strict=True)
    )
    named = dict(zip(COUNTERS, counters, strict=True))
    lane = engine.lane, engine.lanes
    return EngineState(position, wall_ns, named, tuple(of_kinds), tuple(states), *lane, paused_ns / 1e9)


def write_state(engine: Any, kinds: Sequence[Kind], actors: "Sequence[Actor]", state: EngineState) -> None:
    """Check a state, compare it with the app of a fresh engine, and fill the engine with it."""
    state.check()
    check_fits(state, kinds, actors)
    if (state.lane, state.lanes) != (engine.lane, engine.lanes):
        told = f"lane {state.lane} of {state.lanes}, and the engine holds lane {engine.lane} of {engine.lanes}"
        raise StateError(f"the state is of {told}: a state goes into an engine of the same lane")
    of_kinds = {kind.number: kind for kind in state.kinds}
    ordered = [state.actor(actor.name) for actor in actors]
    _import(
        engine,
        [state.position, state.wall_ns, *(state.counters[name] for name in COUNTERS)],
        [of_kinds[kind.number].signals for kind in kinds],
        [actor.stride for actor in ordered],
        [
            (
                a.counts.tobytes(),
                len(a),
                a.signals,
                a.refused,
                a.raised,
                (a.keys, a.states, a.touch_order, a.touch_ticks),
            )
            for a in ordered
        ],
    )


def check_fits(state: EngineState, kinds: Sequence[Kind], actors: "Sequence[Actor]") -> None:
    """Raise StateError unless the state is of exactly these kinds, actors, layouts and idle times."""
    hint = "bitactor.migration.migrate(state, app) makes of it a state of this app, or says why not"
    mine, theirs = {a.name: a for a in actors}, {a.name: a for a in state.actors}
    for name in mine.keys() ^ theirs.keys():
        here, there = ("the state", "the app") if name in theirs else ("the app", "the state")
        raise StateError(f"{here} has an actor {name!r}, and {there} has none; {hint}")
    for name, actor in mine.items():
        if not same_layout(theirs[name], actor.layout):
            was, now = describe(theirs[name].fields), describe(actor.layout.fields)
            raise StateError(f"actor {name!r}: the state has {was}; the app has {now}; {hint}")
        if theirs[name].idle_ns != actor.idle_ns:
            was_ns, now_ns = theirs[name].idle_ns, actor.idle_ns
            raise StateError(f"actor {name!r}: keys expired after {was_ns} ns, and do after {now_ns} ns now; {hint}")
    of_app = {(k.name, k.number, k.value, k.aux) for k in kinds}
    of_state = {(k.name, k.number, k.value, k.aux) for k in state.kinds}
    if of_app != of_state:
        differ = ", ".join(sorted({repr(kind[0]) for kind in of_app ^ of_state}))
        raise StateError(f"the kinds of the state and of the app differ in {differ}; {hint}")


def same_layout(actor: ActorState, layout: StateLayout) -> bool:
    """Whether states lie in memory as the layout says."""
    return actor.fields == layout.fields and actor.stride == layout.stride


def describe(fields: Sequence[StateField]) -> str:
    """The fields as they are declared: {notional: f8, hours: f8[24]}."""
    said = (f"{f.name}: {f.type}{'' if f.count is None else f'[{f.count}]'}" for f in fields)
    return "{" + ", ".join(said) + "}"
