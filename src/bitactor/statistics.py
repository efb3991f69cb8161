"""What an engine counted: frozen figures, each term counted where it happens, none derived from the others."""

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from bitactor._core._engine import histogram_floors, ticks_hz
from bitactor.signals import signal_dtype

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bitactor.actors import Actor
    from bitactor.schema import Kind

_REASONS = ("full", "unhandled", "raised", "key_cap", "no_memory", "bound", "bad_emit")


@dataclass(frozen=True, slots=True)
class Ticks:
    """Ticks of the machine's counter that a handler took for a signal; `hz` of them are a second. Not core cycles.

    mean is over all signals; the percentiles are of the signals timed alone, one in 256 (each includes some tens of
    ticks of reading the counter), as the floor of their bucket (8 buckets an octave). Nothing timed yet: zeros.
    counts: those timed alone, by bucket; bucket i begins at bitactor._core._engine.histogram_floors()[i] ticks.
    """

    samples: int
    mean: float
    p50: int
    p99: int
    p999: int
    hz: int
    counts: tuple[int, ...] = field(default=(), repr=False)

    def ns(self, ticks: float) -> float:
        """Ticks as nanoseconds."""
        return ticks * 1e9 / self.hz


@dataclass(frozen=True, slots=True)
class ShardStatistics:
    """One shard, as of the end of the step at `position`.

    Where its time went: idle_seconds between steps (of them parked_seconds asleep), step_seconds in steps. Of the
    latter dispatch_seconds finding actors, resolving keys and calling handlers; emit_seconds keeping, ordering and
    delivering emits, which includes waiting for readers; barrier_seconds waiting for other shards between waves; the
    rest for the ring. Handlers alone: ActorStatistics.handler_seconds.
    """

    position: int
    processed: int
    queued: int
    idle_seconds: float
    parked_seconds: float
    steps: int
    waves: int
    step_seconds: float
    dispatch_seconds: float
    emit_seconds: float
    barrier_seconds: float


@dataclass(frozen=True, slots=True)
class ActorStatistics:
    """One actor over all shards. signals: given to its handler, those that it raised on included.

    refused: signals for it that found no room for a new key (the key cap, or no memory).
    exceeded: signals of calls whose mean ticks were above the tick budget.
    """

    name: str
    signals: int
    refused: int
    raised: int
    exceeded: int
    keys: int
    key_bytes: int
    handler_seconds: float
    ticks: Ticks


@dataclass(frozen=True, slots=True)
class KindStatistics:
    """One kind: signals given to handlers, counted once for each of its actors."""

    name: str
    signals: int
    ticks: Ticks


@dataclass(frozen=True, slots=True)
class Statistics:
    """An engine at a moment. accepted = processed + queued + the sum of dropped, at step boundaries: `conserved`.

    emitted = emits_processed (handled by actors) + emits_outward (for readers) + emits_remote (for actors, to keys of
    other lanes) + the sum of emits_dropped.
    ring_signals: what the ring has room for, ring_used: how much of it is taken (inline: both 0).
    """

    accepted: int
    refused: int
    processed: int
    queued: int
    dropped: dict[str, int]
    emitted: int
    emits_processed: int
    emits_outward: int
    emits_remote: int
    emits_dropped: dict[str, int]
    expired: int
    position: int
    steps: int
    send_waits: int
    ring_signals: int
    ring_used: int
    shards: tuple[ShardStatistics, ...]
    actors: tuple[ActorStatistics, ...]
    kinds: tuple[KindStatistics, ...]

    @property
    def conserved(self) -> bool:
        """Whether nothing is lost unseen: accepted = processed + queued + dropped."""
        return self.accepted == self.processed + self.queued + sum(self.dropped.values())


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A signal that an actor did not handle. line and message: of the raise statement; None for other reasons."""

    signal: np.void
    position: int
    wave: int
    actor: str
    reason: str
    filename: str | None
    line: int | None
    message: str | None


def _ticks(histogram: list[int], mean: float) -> Ticks:
    counts = np.asarray(histogram, np.uint64)
    samples = int(counts.sum())
    if not samples:
        return Ticks(0, mean, 0, 0, 0, ticks_hz(), tuple(histogram))
    floors = histogram_floors()
    running = np.cumsum(counts)
    at = [floors[int(np.searchsorted(running, max(1, share * samples)))] for share in (0.5, 0.99, 0.999)]
    return Ticks(samples, mean, at[0], at[1], at[2], ticks_hz(), tuple(histogram))


def read_statistics(engine: Any, kinds: "Sequence[Kind]", actors: "Sequence[Actor]") -> Statistics:
    """Statistics of an engine: the shards and the totals in one consistent reading, the histograms beside it."""
    (accepted, refused, dropped_full, position, steps, waits, ring_signals, ring_used), rows = engine._statistics()
    hz = ticks_hz()
    dropped = {reason: sum(row[2][i] for row in rows) for i, reason in enumerate(_REASONS[:5])}
    dropped["full"] += dropped_full
    of_actors = []
    for index, actor in enumerate(actors):
        signals, timed, turned_away, ticks, exceeded, raised, keys, key_bytes, histogram = engine._actor_statistics(
            index
        )
        mean = ticks / timed if timed else 0.0
        of_actors.append(
            ActorStatistics(
                actor.name, signals, turned_away, raised, exceeded, keys, key_bytes, ticks / hz, _ticks(histogram, mean)
            )
        )
    of_kinds = []
    for index, kind in enumerate(kinds):
        signals, histogram = engine._kind_statistics(index)
        samples = sum(histogram)
        mean = sum(f * n for f, n in zip(histogram_floors(), histogram, strict=True)) / samples if samples else 0.0
        of_kinds.append(KindStatistics(kind.name, signals, _ticks(histogram, mean)))
    return Statistics(
        accepted=accepted,
        refused=refused,
        processed=sum(row[1] for row in rows),
        queued=sum(row[13] for row in rows),
        dropped=dropped,
        emitted=sum(row[3] for row in rows),
        emits_processed=sum(row[4] for row in rows),
        emits_outward=sum(row[5] for row in rows),
        emits_remote=sum(row[6] for row in rows),
        emits_dropped={reason: sum(row[7][i] for row in rows) for i, reason in enumerate(_REASONS)},
        expired=sum(row[8] for row in rows),
        position=position,
        steps=steps,
        send_waits=waits,
        ring_signals=ring_signals,
        ring_used=ring_used,
        shards=tuple(
            ShardStatistics(
                row[0], row[1], row[13], row[11] / hz, row[12] / hz, row[9], row[10], *(t / hz for t in row[14:])
            )
            for row in rows
        ),
        actors=tuple(of_actors),
        kinds=tuple(of_kinds),
    )


def merged(each: "Sequence[Statistics]", kinds: "Sequence[Kind]", actors: "Sequence[Actor]") -> Statistics:
    """The statistics of several engines of one app, such as those of lanes, as of one engine: sums, all shards."""

    def total(name: str) -> int:
        return sum(getattr(one, name) for one in each)

    def by_reason(name: str) -> dict[str, int]:
        return {reason: sum(getattr(one, name).get(reason, 0) for one in each) for reason in _REASONS}

    dropped = by_reason("dropped")
    of_actors = []
    for index, actor in enumerate(actors):
        rows = [one.actors[index] for one in each]
        counted = {
            name: sum(getattr(row, name) for row in rows)
            for name in ("signals", "refused", "raised", "exceeded", "keys", "key_bytes", "handler_seconds")
        }
        of_actors.append(ActorStatistics(name=actor.name, **counted, ticks=_merged_ticks([row.ticks for row in rows])))
    of_kinds = []
    for index, kind in enumerate(kinds):
        kind_rows = [one.kinds[index] for one in each]
        ticks = _merged_ticks([row.ticks for row in kind_rows])
        of_kinds.append(KindStatistics(kind.name, sum(row.signals for row in kind_rows), ticks))
    summed = {
        field.name: total(field.name)
        for field in fields(Statistics)
        if field.name not in ("dropped", "emits_dropped", "shards", "actors", "kinds")
    }
    return Statistics(
        **summed,
        dropped={reason: dropped[reason] for reason in _REASONS[:5]},
        emits_dropped=by_reason("emits_dropped"),
        shards=tuple(shard for one in each for shard in one.shards),
        actors=tuple(of_actors),
        kinds=tuple(of_kinds),
    )


def _merged_ticks(each: "Sequence[Ticks]") -> Ticks:
    """One distribution of several; the mean is weighted by the signals timed alone."""
    counts = [sum(column) for column in zip(*(ticks.counts for ticks in each if ticks.counts), strict=True)]
    samples = sum(ticks.samples for ticks in each)
    mean = sum(ticks.mean * ticks.samples for ticks in each) / samples if samples else 0.0
    return _ticks(counts or [0] * len(histogram_floors()), mean)


def read_dead_letters(engine: Any, actors: "Sequence[Actor]") -> list[DeadLetter]:
    """The sampled dead letters of an engine, which forgets them."""
    letters = []
    for raw, position, index, error, drop, wave in engine._dead_letters():
        actor = actors[index]
        signal = np.frombuffer(raw, signal_dtype(actor.kinds[0].value, actor.kinds[0].aux))[0]
        kind = next((k for k in actor.kinds if k.number == signal["kind"]), actor.kinds[0])
        signal = np.frombuffer(raw, signal_dtype(kind.value, kind.aux))[0]
        site = actor.raise_site(error) if _REASONS[drop] == "raised" else None
        filename, line, message = site if site is not None else (None, None, None)
        letters.append(DeadLetter(signal, position, wave, actor.name, _REASONS[drop], filename, line, message))
    return letters
