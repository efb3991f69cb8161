"""Metrics for Prometheus: read when scraped, from counters that are kept anyway; nothing is counted for them.

METRICS is the whole list: docs/admin.md shows it and a test holds the two equal. Label values are names of the app's
actors, reasons and codes of BitActor, numbers of shards and lanes: bounded by the program, never a key or a producer.
Any thread.
"""

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector, CollectorRegistry

import bitactor
from bitactor._core._engine import histogram_floors
from bitactor.ingest.tls import HANDSHAKE_REASONS
from bitactor.protocol.errors import Code
from bitactor.runtime.reports import ClusterStatistics, Health, Seconds, ServiceStatistics
from bitactor.statistics import Ticks

# Buckets of ticks: up to 2**n - 1 of them, which are exact edges of the histogram that the shards keep.
TICK_BOUNDS: Final = tuple((1 << n) - 1 for n in range(3, 25))

Value = float | Seconds | Ticks | None
Figures = Mapping[str, Value] | Value


@dataclass(frozen=True, slots=True)
class View:
    """What a scrape sees: one reading of everything. statistics: None before the service has started."""

    health: Health
    statistics: ServiceStatistics | None


@dataclass(frozen=True, slots=True)
class Definition:
    """A metric: its name without suffix, type, meaning, label, and how it is read: a value, or one for each label."""

    name: str
    type: Literal["counter", "gauge", "histogram"]
    help: str
    read: Callable[[ServiceStatistics], Figures]
    label: str | None = None


# Every reason is there from the start: a rate that begins with the first refusal would not see it.
_NEVER: Final = dict.fromkeys([*(code.name.lower() for code in Code), *HANDSHAKE_REASONS], 0)


def _refused(s: ServiceStatistics) -> Figures:
    return {**_NEVER, **s.ingest.refused}


def _actors(what: str) -> Callable[[ServiceStatistics], Figures]:
    return lambda s: {actor.name: getattr(actor, what) for actor in s.engine.actors}


def _shards(what: str) -> Callable[[ServiceStatistics], Figures]:
    return lambda s: {str(n): getattr(shard, what) for n, shard in enumerate(s.engine.shards)}


def _cluster(read: Callable[[ClusterStatistics], float]) -> Callable[[ServiceStatistics], Figures]:
    return lambda s: None if s.cluster is None else read(s.cluster)


def _lanes(what: str) -> Callable[[ServiceStatistics], Figures]:
    return lambda s: None if s.cluster is None else {n: getattr(lane, what) for n, lane in s.cluster.lanes.items()}


def counter(name: str, help: str, read: Callable[[ServiceStatistics], Figures], label: str | None = None) -> Definition:
    """A count since the log began, or since start where it says so; scraped with _total behind its name."""
    return Definition(name, "counter", help, read, label)


def gauge(name: str, help: str, read: Callable[[ServiceStatistics], Figures], label: str | None = None) -> Definition:
    """A value now."""
    return Definition(name, "gauge", help, read, label)


def histogram(
    name: str, help: str, read: Callable[[ServiceStatistics], Figures], label: str | None = None
) -> Definition:
    """A distribution."""
    return Definition(name, "histogram", help, read, label)


METRICS: Final[tuple[Definition, ...]] = (
    # promise 1: accepted = processed + queued + dropped
    counter("bitactor_signals_accepted", "Signals that the engine took.", lambda s: s.engine.accepted),
    counter("bitactor_signals_processed", "Signals handled by actors.", lambda s: s.engine.processed),
    gauge("bitactor_signals_queued", "Signals taken and not yet handled.", lambda s: s.engine.queued),
    counter("bitactor_signals_dropped", "Signals given up, by reason.", lambda s: s.engine.dropped, "reason"),
    gauge("bitactor_ring_capacity_signals", "Room between log and shards.", lambda s: s.engine.ring_signals),
    gauge("bitactor_ring_used_signals", "How much of the ring is taken.", lambda s: s.engine.ring_used),
    gauge("bitactor_ring_fill_ratio", "Share of the ring in use, 0 to 1.",
        lambda s: s.engine.ring_used / s.engine.ring_signals if s.engine.ring_signals else 0.0),
    counter("bitactor_emits", "Signals that actors emitted.", lambda s: s.engine.emitted),
    counter("bitactor_emits_outward", "Emits that went to readers.", lambda s: s.engine.emits_outward),
    counter("bitactor_emits_remote", "Emits to actors' keys of other lanes.", lambda s: s.engine.emits_remote),
    counter("bitactor_emits_dropped", "Emits given up, by reason.", lambda s: s.engine.emits_dropped, "reason"),
    counter("bitactor_steps", "Steps of the engine.", lambda s: s.engine.steps),
    counter("bitactor_keys_expired", "Keys removed because they were idle.", lambda s: s.engine.expired),
    # actors
    counter("bitactor_actor_signals", "Signals given to an actor's handler.", _actors("signals"), "actor"),
    counter("bitactor_actor_errors", "Signals that the handler raised on.", _actors("raised"), "actor"),
    counter("bitactor_actor_refused", "Signals that found no room for a new key.", _actors("refused"), "actor"),
    counter("bitactor_actor_tick_budget_exceeded", "Signals of calls whose mean ticks were above the budget.",
        _actors("exceeded"), "actor"),
    counter("bitactor_actor_handler_seconds", "Time in an actor's handler.", _actors("handler_seconds"), "actor"),
    gauge("bitactor_actor_keys", "Keys that have a state.", _actors("keys"), "actor"),
    gauge("bitactor_actor_key_bytes", "Memory of keys and states.", _actors("key_bytes"), "actor"),
    histogram("bitactor_actor_ticks_per_signal", "Ticks for a signal, one in 256; see bitactor_ticks_hertz.",
        _actors("ticks"), "actor"),
    gauge("bitactor_ticks_hertz", "Ticks in a second.",
        lambda s: s.engine.actors[0].ticks.hz if s.engine.actors else None),
    # shards
    counter("bitactor_shard_processed", "Signals that a shard handled.", _shards("processed"), "shard"),
    counter("bitactor_shard_idle_seconds", "Time a shard waited for work.", _shards("idle_seconds"), "shard"),
    counter("bitactor_shard_parked_seconds", "Time a shard slept, of it.", _shards("parked_seconds"), "shard"),
    counter("bitactor_shard_step_seconds", "Time a shard spent in steps.", _shards("step_seconds"), "shard"),
    counter("bitactor_shard_dispatch_seconds", "Of steps: keys and handlers.", _shards("dispatch_seconds"), "shard"),
    counter("bitactor_shard_emit_seconds", "Of steps: delivering emits.", _shards("emit_seconds"), "shard"),
    counter("bitactor_shard_barrier_seconds", "Of steps: waiting for others.", _shards("barrier_seconds"), "shard"),
    # ingest
    gauge("bitactor_ingest_connections", "Open connections.", lambda s: s.ingest.connections),
    counter("bitactor_ingest_connections_opened", "Connections since start.", lambda s: s.ingest.connections_total),
    counter("bitactor_ingest_frames", "Frames admitted since start.", lambda s: s.ingest.frames),
    counter("bitactor_ingest_signals", "Signals admitted since start.", lambda s: s.ingest.signals),
    counter("bitactor_ingest_bytes", "Bytes received since start.", lambda s: s.ingest.bytes),
    counter("bitactor_ingest_duplicate_signals", "Signals that had come before.", lambda s: s.ingest.duplicates),
    counter("bitactor_ingest_refused", "Refusals by code of error.", _refused, "reason"),
    counter("bitactor_ingest_acks", "Acknowledgements sent.", lambda s: s.ingest.acks),
    gauge("bitactor_ingest_credit_signals", "What producers may still send.", lambda s: s.ingest.credit),
    gauge("bitactor_ingest_pending_signals", "Signals admitted and not yet acknowledged.", lambda s: s.ingest.pending),
    gauge("bitactor_ingest_has_room", "1 while sessions may read, 0 under backpressure.", lambda s: s.ingest.has_room),
    histogram("bitactor_ingest_to_done_seconds", "From admission to acknowledgement, durable and applied.",
        lambda s: s.ingest_to_done),
    gauge("bitactor_event_time_lag_seconds", "Wall time less the time of the last signal applied.",
        lambda s: s.event_time_lag_s),
    gauge("bitactor_certificate_expiry_timestamp_seconds", "When the server's certificate ends, Unix time.",
        lambda s: s.certificate_expires),
    # log
    counter("bitactor_log_records", "Records appended since start.", lambda s: s.log.records),
    counter("bitactor_log_bytes", "Bytes appended since start.", lambda s: s.log.bytes),
    gauge("bitactor_log_size_bytes", "The log on the disk.", lambda s: s.log.size_bytes),
    gauge("bitactor_log_size_limit_bytes", "What the log may take on the disk.", lambda s: s.log.size_bytes_max),
    gauge("bitactor_log_full", "1 while appends are refused for want of room.", lambda s: s.log.full),
    gauge("bitactor_log_durability", "What an acknowledgement means: 0 memory, 1 os, 2 normal, 3 disk.",
        lambda s: s.log.durability),
    gauge("bitactor_log_position_signals", "Signals admitted, over the whole log.", lambda s: s.log.position),
    gauge("bitactor_log_durable_lag_signals", "Signals admitted and not yet in the log.",
        lambda s: max(0, s.log.position - s.log.durable_position)),
    histogram("bitactor_log_append_seconds", "A record's whole append.", lambda s: s.log.append_seconds),
    histogram("bitactor_log_fsync_seconds", "The commit of an append, with its sync.",
        lambda s: s.log.sync_seconds),
    # replicas over NATS
    gauge("bitactor_replicas", "Replicas that were heard within the lease.", _cluster(lambda c: c.replicas)),
    gauge("bitactor_lanes_owned", "Lanes that this replica owns.", _cluster(lambda c: len(c.lanes))),
    gauge("bitactor_lanes_without_owner", "Lanes that no replica owns, as this one sees it.",
        _cluster(lambda c: c.lanes_without_owner)),
    counter("bitactor_lane_moves", "Lanes that this replica took since it started.", _cluster(lambda c: c.moves)),
    gauge("bitactor_emits_waiting", "Emits for other lanes that are not known to be in their logs.",
        _cluster(lambda c: c.emits_waiting)),
    counter("bitactor_nats_reconnects", "Connections to NATS after the first.", _cluster(lambda c: c.reconnects)),
    gauge("bitactor_lane_generation", "The owner's claim of a lane; of lanes that this replica owns, as all below.",
        _lanes("generation"), "lane"),
    gauge("bitactor_lane_position_signals", "Signals applied in a lane.", _lanes("position"), "lane"),
    gauge("bitactor_lane_lag_signals", "Signals taken for a lane and not yet applied.", _lanes("lag"), "lane"),
    gauge("bitactor_lane_snapshot_age_seconds", "Age of a lane's newest snapshot.", _lanes("snapshot_age_s"), "lane"),
    # snapshots and life
    counter("bitactor_snapshots", "Snapshots written since start.", lambda s: s.snapshot.taken),
    counter("bitactor_snapshot_failures", "Snapshots that failed.", lambda s: s.snapshot.failures),
    gauge("bitactor_snapshot_age_seconds", "Age of the newest snapshot.", lambda s: s.snapshot.age_s),
    gauge("bitactor_snapshot_duration_seconds", "Time that the newest snapshot took.", lambda s: s.snapshot.seconds),
    gauge("bitactor_snapshot_pause_seconds", "How long ingest stood for a snapshot.", lambda s: s.snapshot.pause_s),
    gauge("bitactor_snapshot_size_bytes", "Size of the newest snapshot.", lambda s: s.snapshot.bytes),
    gauge("bitactor_compile_seconds", "Time to compile or load handlers.", lambda s: s.compile_seconds),
    gauge("bitactor_recovery_seconds", "Time to recover at start.", lambda s: s.recovery_s),
    gauge("bitactor_replayed_signals", "Signals replayed at start.", lambda s: s.replayed),
    gauge("bitactor_start_timestamp_seconds", "When it was ready first, Unix time.", lambda s: s.started_at),
)  # fmt: skip

# Always there, started or not.
STATES: Final = {
    "bitactor_live": "1 when the process can do its work.",
    "bitactor_ready": "1 when it takes signals now.",
    "bitactor_started": "1 when recovery is over.",
}
BUILD: Final = ("bitactor_build_info", "Version of BitActor, of Python, and the machine's kind; always 1.")


def tick_buckets(ticks: Ticks) -> tuple[list[int], float]:
    """Cumulative counts up to each of TICK_BOUNDS and in all; and the sum of ticks, each as its bucket's middle."""
    floors = histogram_floors()
    edges = [*floors[1:], floors[-1]]
    counts, running, bound = [], 0, 0
    total = 0.0
    for floor, edge, count in zip(floors, edges, ticks.counts, strict=False):
        while bound < len(TICK_BOUNDS) and floor > TICK_BOUNDS[bound]:
            counts.append(running)
            bound += 1
        running += count
        total += count * (floor + max(edge - 1, floor)) / 2
    counts += [running] * (len(TICK_BOUNDS) + 1 - len(counts))
    return counts, total


def _buckets(value: Seconds | Ticks) -> tuple[list[tuple[str, float]], float]:
    if isinstance(value, Ticks):
        counts, total = tick_buckets(value)
        return [(str(b), n) for b, n in zip([*TICK_BOUNDS, "+Inf"], counts, strict=True)], total
    running, rows = 0, []
    for bound, count in zip([*value.bounds, "+Inf"], value.counts, strict=True):
        running += count
        rows.append((str(bound), float(running)))
    return rows, value.sum


def _family(definition: Definition, figures: Figures) -> Metric | None:
    labels = [definition.label] if definition.label else []
    if figures is None:
        return None
    by_label = figures if isinstance(figures, Mapping) else {"": figures}
    rows = [([label] if labels else [], value) for label, value in by_label.items() if value is not None]
    if not rows and not labels:
        return None
    if definition.type == "histogram":
        shape = HistogramMetricFamily(definition.name, definition.help, labels=labels)
        for values, value in rows:
            assert isinstance(value, (Seconds, Ticks))
            buckets, total = _buckets(value)
            shape.add_metric(values, buckets, total)
        return shape
    kind = CounterMetricFamily if definition.type == "counter" else GaugeMetricFamily
    family = kind(definition.name, definition.help, labels=labels)
    for values, value in rows:
        assert isinstance(value, (int, float))
        family.add_metric(values, value)
    return family


class _Once(Collector):
    """One reading as metric families."""

    def __init__(self, view: View) -> None:
        self._view = view

    def collect(self) -> Iterator[Metric]:
        health = self._view.health
        for (name, help_), value in zip(STATES.items(), (health.live, health.ready, health.started), strict=True):
            yield GaugeMetricFamily(name, help_, value)
        build = {"version": bitactor.__version__, "python": platform.python_version(), "machine": platform.machine()}
        yield InfoMetricFamily(BUILD[0].removesuffix("_info"), BUILD[1], build)
        if self._view.statistics is not None:
            for definition in METRICS:
                family = _family(definition, definition.read(self._view.statistics))
                if family is not None:
                    yield family


class Exposition:
    """The text of /metrics."""

    def __init__(self) -> None:
        self._process: Final = ProcessCollector(registry=None)

    def text(self, view: View) -> bytes:
        """All metrics of a reading, in Prometheus' text format 0.0.4."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Once(view))
        registry.register(self._process)
        return generate_latest(registry)


def shown_name(definition: Definition) -> str:
    """The name as it is scraped."""
    return definition.name + "_total" * (definition.type == "counter")


def documentation() -> Iterable[tuple[str, str, str, str]]:
    """Rows (name, type, label, meaning) of every metric of BitActor, for the page that lists them."""
    for name, help_ in STATES.items():
        yield name, "gauge", "", help_
    yield BUILD[0], "gauge", "version, python, machine", BUILD[1]
    for one in METRICS:
        yield shown_name(one), one.type, one.label or "", one.help


CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


def statistics_or_none(service: Any) -> ServiceStatistics | None:
    """The service's statistics once it has an engine to count."""
    return service.statistics() if service.health().started else None
