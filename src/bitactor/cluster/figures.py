"""What a replica tells of itself, put together from its lanes and from what came in. Plain data; the loop's thread."""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from bitactor.cluster.producers import resume
from bitactor.log.durations import Seconds, SecondsCounter
from bitactor.runtime.reports import (
    ClusterStatistics,
    IngestStatistics,
    LaneStatistics,
    LogStatistics,
    ProducerInfo,
    ServiceStatistics,
    SnapshotStatistics,
)
from bitactor.statistics import merged

if TYPE_CHECKING:
    from bitactor.cluster.lane import LaneCore
    from bitactor.cluster.members import Members
    from bitactor.cluster.replica import Replica


def statistics(replica: "Replica") -> ServiceStatistics:
    """A replica at a moment: the lanes that it owns, and what came in here."""
    cores = list(replica.owned.lanes.values())
    assert replica.ingest is not None
    served, router = replica.ingest.counters, replica.router
    logs = [core.log.statistics() for core in cores]
    engine = merged([core.engine.statistics() for core in cores], replica.app.kinds, replica.app.actors)
    applied_ns = max((core.writer.applied_time_ns for core in cores), default=0)
    place = sum(core.writer.place.position for core in cores)
    return ServiceStatistics(
        engine=engine,
        ring_signals=0,
        ingest=IngestStatistics(
            connections=served.connections,
            connections_total=served.connections_total,
            frames=router.frames,
            signals=router.signals,
            bytes=served.bytes,
            duplicates=router.duplicates + sum(core.intake.duplicates for core in cores),
            refused=dict(served.refused),
            acks=router.acks,
            credit=replica.ingest.credit,
            pending=router.pending,
            has_room=router.has_room,
        ),
        log=LogStatistics(
            kind="jetstream",
            durability=router.durability,
            sequence=sum(core.writer.place.sequence for core in cores),
            position=place + sum(core.intake.pending for core in cores),
            durable_position=place,
            records=sum(log.records for log in logs),
            bytes=sum(log.bytes for log in logs),
            size_bytes=sum(core.log.size() for core in cores),
            size_bytes_max=replica.settings.nats.size_bytes_max * max(1, len(cores)),
            full=any(core.log.full for core in cores),
            append_seconds=_sum([log.append_seconds for log in logs]),
            sync_seconds=_sum([log.sync_seconds for log in logs]),
            checkpoint_seconds=_sum([log.checkpoint_seconds for log in logs]),
        ),
        snapshot=_snapshots([core.snapshots.statistics() for core in cores if core.snapshots is not None]),
        ingest_to_done=_sum([core.writer.ingest_to_done.read() for core in cores]),
        event_time_lag_s=(time.time_ns() - applied_ns) / 1e9 if applied_ns else None,
        certificate_expires=None if replica.ingest.tls is None else replica.ingest.tls.value.expires,
        compile_seconds=replica.compile_seconds,
        recovery_s=max((core.recovery_s for core in cores), default=0.0),
        replayed=sum(core.replayed for core in cores),
        started_at=replica.started_at,
        fatal=replica.fatal,
        cluster=_cluster(replica),
    )


def _cluster(replica: "Replica") -> ClusterStatistics:
    owned = sorted(replica.owned.lanes.items())
    return ClusterStatistics(
        replicas=len(replica.members.live()),
        lanes_without_owner=replica.lanes - len(replica.members.owners()),
        moves=replica.owned.moves,
        emits_waiting=sum(core.outbox.waiting for _, core in owned),
        reconnects=replica.client.reconnects,
        lanes={str(lane): _lane(core) for lane, core in owned},
    )


def _lane(core: "LaneCore") -> LaneStatistics:
    age_s = None if core.snapshots is None else core.snapshots.statistics().age_s
    return LaneStatistics(core.generation, core.writer.place.position, core.intake.pending, age_s)


def lanes(members: "Members", count: int) -> list[dict[str, Any]]:
    """Each lane with its owner, or with owner None."""
    owners, told = members.owners(), []
    for lane in range(count):
        owner = owners.get(lane)
        if owner is None:
            why = next((m.barred[lane] for m in members.live() if lane in m.barred), None)
            told.append({"lane": lane, "owner": None, "why": why})
            continue
        of = owner.lanes[lane]
        told.append(
            {
                "lane": lane, "owner": owner.replica, "incarnation": owner.incarnation, "generation": of.generation,
                "position": of.position, "sequence": of.sequence, "lag": of.lag, "snapshot": of.snapshot,
            }
        )  # fmt: skip
    return told


def members(known: "Members", me: str) -> list[dict[str, Any]]:
    """Each replica that is there."""
    return [
        {
            "replica": member.replica, "incarnation": member.incarnation, "fingerprint": member.fingerprint,
            "started": member.started, "ingest": list(member.ingest), "admin": member.admin,
            "draining": member.draining, "lanes": sorted(member.lanes), "moves": member.moves,
            "answering": member.incarnation == me, "barred": {str(k): v for k, v in member.barred.items()},
        }
        for member in known.live()
    ]  # fmt: skip


def producers(lanes_: Sequence[list[list[Any]]], count: int, connected: Callable[[int], bool]) -> list[ProducerInfo]:
    """The producers that any lane knows, by name."""
    known: dict[int, list[dict[str, Any] | None]] = {}
    about: dict[int, tuple[str, str, int]] = {}
    for lane, rows in enumerate(lanes_):
        for id_, name, identity, epoch, next_, floor, batches in rows:
            known.setdefault(id_, [None] * count)[lane] = {"next": next_, "floor": floor, "batches": batches}
            about[id_] = (name, identity, max(epoch, about.get(id_, ("", "", 0))[2]))
    told = [
        ProducerInfo(id_, about[id_][0], about[id_][1], about[id_][2], resume(rows, count), connected(id_))
        for id_, rows in known.items()
    ]
    return sorted(told, key=lambda producer: producer.name)


def _snapshots(each: list[SnapshotStatistics]) -> SnapshotStatistics:
    """Of several lanes: sums, and the oldest newest one."""
    have = [one for one in each if one.position is not None]
    taken, failures = sum(one.taken for one in each), sum(one.failures for one in each)
    running = any(one.running for one in each)
    if not have:
        return SnapshotStatistics(None, None, None, None, None, taken, failures, running=running)
    return SnapshotStatistics(
        sum(one.position or 0 for one in have),
        max(one.age_s or 0.0 for one in have),
        max(one.seconds or 0.0 for one in have),
        max(one.pause_s or 0.0 for one in have),
        sum(one.bytes or 0 for one in have),
        taken,
        failures,
        running=running,
    )


def _sum(each: Sequence[Seconds]) -> Seconds:
    total = SecondsCounter().read()
    for one in each:
        total = total + one
    return total
