"""What a running service tells about itself: frozen figures, each counted where it happens. Plain data; any thread."""

from dataclasses import dataclass

from bitactor.log.durations import SECONDS_BOUNDS, Seconds, SecondsCounter
from bitactor.statistics import Statistics

__all__ = [
    "SECONDS_BOUNDS",
    "ClusterStatistics",
    "Health",
    "IngestStatistics",
    "LaneStatistics",
    "LogStatistics",
    "ProducerInfo",
    "Seconds",
    "SecondsCounter",
    "ServiceStatistics",
    "SnapshotInfo",
    "SnapshotStatistics",
]


@dataclass(frozen=True, slots=True)
class Health:
    """live: the process can do its work. ready: it takes signals now. started: recovery is over, once and for all.

    reasons: why it is not live or not ready, in words for an operator; empty when it is.
    """

    live: bool
    ready: bool
    started: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class IngestStatistics:
    """What came over the wire. frames and signals: admitted; duplicates: signals dropped as known already.

    refused: by the name of the error code. credit: signals that connected producers may still send.
    pending: signals admitted and not yet acknowledged; has_room: False while sessions must not read.
    """

    connections: int
    connections_total: int
    frames: int
    signals: int
    bytes: int
    duplicates: int
    refused: dict[str, int]
    acks: int
    credit: int
    pending: int
    has_room: bool


@dataclass(frozen=True, slots=True)
class LogStatistics:
    """The log. position: signals admitted so far; durable_position: of them in the log as its durability says.

    sequence: the next record's. records, bytes: appended by this process. full: appends are refused now. Durations: of
    whole appends; of their commits alone, with the sync; of pieces of upkeep.
    """

    kind: str
    durability: int
    sequence: int
    position: int
    durable_position: int
    records: int
    bytes: int
    size_bytes: int
    size_bytes_max: int
    full: bool
    append_seconds: Seconds
    sync_seconds: Seconds
    checkpoint_seconds: Seconds


@dataclass(frozen=True, slots=True)
class SnapshotStatistics:
    """Snapshots. position, age_s, seconds, bytes: of the newest, None without one. pause_s: how long ingest stood."""

    position: int | None
    age_s: float | None
    seconds: float | None
    pause_s: float | None
    bytes: int | None
    taken: int
    failures: int
    running: bool


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """A snapshot that was written and is durable. seconds: all of it; pause_s: while nothing was applied."""

    path: str
    position: int
    sequence: int
    bytes: int
    seconds: float
    pause_s: float


@dataclass(frozen=True, slots=True)
class ProducerInfo:
    """A row of the producer table. next: the sequence below which everything is durable and applied."""

    id: int
    name: str
    identity: str
    epoch: int
    next: int
    connected: bool


@dataclass(frozen=True, slots=True)
class LaneStatistics:
    """A lane that this replica owns. generation: of its claim. position: signals applied; lag: taken and not applied.

    snapshot_age_s: since its newest snapshot; None without one.
    """

    generation: int
    position: int
    lag: int
    snapshot_age_s: float | None


@dataclass(frozen=True, slots=True)
class ClusterStatistics:
    """A replica among others. replicas: heard within the lease. moves: lanes that this one took since it started.

    lanes_without_owner: as seen from here. emits_waiting: for lanes of others, not known to be stored. reconnects: to
    NATS. lanes: those that this replica owns, by number.
    """

    replicas: int
    lanes_without_owner: int
    moves: int
    emits_waiting: int
    reconnects: int
    lanes: dict[str, LaneStatistics]


@dataclass(frozen=True, slots=True)
class ServiceStatistics:
    """A service at a moment.

    ingest_to_done: from a frame's admission to its acknowledgement, durable and applied; one sample a record.
    event_time_lag_s: wall time less the time of the last signal applied; None before the first.
    certificate_expires: seconds since the Unix epoch; None without TLS. started_at: the same; None before ready.
    recovery_s: how long recovery took. replayed: signals replayed by it. fatal: why the process ends, or None.
    cluster: of a replica; None for a service alone.
    """

    engine: Statistics
    ring_signals: int
    ingest: IngestStatistics
    log: LogStatistics
    snapshot: SnapshotStatistics
    ingest_to_done: Seconds
    event_time_lag_s: float | None
    certificate_expires: float | None
    compile_seconds: float
    recovery_s: float
    replayed: int
    started_at: float | None
    fatal: str | None
    cluster: ClusterStatistics | None = None
