"""The measurements of `bitactor profile`: the app's signals through the real engine, log and service, timed by stage.

Each run uses fresh parts; nothing of one is in another. The engine's stages come from its own counters
(ShardStatistics, ActorStatistics), the log's from the log's, the rest from clocks around calls.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from bitactor.cli.run import Failed
from bitactor.engine import Engine
from bitactor.schema import AUX_TYPES, VALUE_TYPES
from bitactor.signals import signal_dtype

if TYPE_CHECKING:
    from bitactor.actors import App
    from bitactor.statistics import Statistics, Ticks

RECORD_SIGNALS: Final = 65536
FRAME_SIGNALS: Final = 8192
HOTTEST: Final = 10


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage: seconds of it, in all threads together, and what it covers."""

    name: str
    seconds: float
    covers: str


@dataclass(frozen=True, slots=True)
class ActorFigures:
    """One actor in one run. ns: mean and percentiles of its handler for a signal. histogram: (from ns, how many)."""

    name: str
    signals: int
    keys: int
    handler_seconds: float
    ns_mean: float
    ns_p50: float
    ns_p99: float
    ns_p999: float
    timed: int
    raised: int
    refused: int
    histogram: list[tuple[float, int]]


@dataclass(frozen=True, slots=True)
class Run:
    """One run over all signals. seconds: from the first signal in until the last is done, by the clock."""

    name: str
    shards: int
    signals: int
    seconds: float
    stages: list[Stage]
    actors: list[ActorFigures]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class HotKey:
    """A key and how many of the input's signals are its own."""

    key: int
    signals: int
    share: float


def hottest(signals: npt.NDArray[Any]) -> list[HotKey]:
    """The keys with the most signals, exactly counted; of equals the smaller first."""
    keys, counts = np.unique(signals["key"], return_counts=True)
    order = np.lexsort((keys, -counts))[:HOTTEST]
    return [HotKey(int(keys[at]), int(counts[at]), int(counts[at]) / len(signals)) for at in order]


def run_engine(app: "App", signals: npt.NDArray[Any], shards: int) -> Run:
    """The engine alone, records of 65,536 signals as the service's writer gives them; 0 shards: inline."""
    with Engine(app, shards, clock="records") as engine:
        begin = time.perf_counter()
        for at in range(0, len(signals), RECORD_SIGNALS):
            engine.apply(signals[at : at + RECORD_SIGNALS], time.time_ns())
        engine.flush()
        seconds = time.perf_counter() - begin
        found = engine.statistics()
    name = "inline" if shards == 0 else f"{shards} shard{'s' if shards > 1 else ''}"
    return Run(name, shards, len(signals), seconds, engine_stages(found), actor_figures(found), _lost(found))


def run_logged(app: "App", signals: npt.NDArray[Any], shards: int) -> Run:
    """Decode frames, append records to a SQLite log (durability full) in a temporary directory, apply them."""
    from bitactor.log.sqlite import SqliteLog
    from bitactor.protocol.frames import encode_frame
    from bitactor.protocol.records import RecordBuilder

    frames = [
        encode_frame(signals[at : at + FRAME_SIGNALS], producer=1, sequence=at)
        for at in range(0, len(signals), FRAME_SIGNALS)
    ]
    spent = {"decode": 0.0, "finish": 0.0, "append": 0.0, "apply": 0.0}
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bitactor-profile-")))
        log = SqliteLog.open(directory, durability="full")
        stack.callback(log.close)
        engine = stack.enter_context(Engine(app, shards, clock="records"))
        builder, place = RecordBuilder(), log.end()
        sequence, position = place.sequence, place.position
        begin = time.perf_counter()
        for first in range(0, len(frames), RECORD_SIGNALS // FRAME_SIGNALS):
            clocks = [time.perf_counter()]
            for frame in frames[first : first + RECORD_SIGNALS // FRAME_SIGNALS]:
                builder.add_frame(frame, None)
            clocks.append(time.perf_counter())
            wall_ns = time.time_ns()
            data = builder.finish(sequence, position, wall_ns, 0, 0)
            clocks.append(time.perf_counter())
            log.append(data, sequence=sequence, position=position, count=builder.count, wall_ns=wall_ns)
            clocks.append(time.perf_counter())
            engine.apply(builder.signals, wall_ns)
            clocks.append(time.perf_counter())
            for stage, before, after in zip(spent, clocks, clocks[1:], strict=False):
                spent[stage] += after - before
            sequence, position = sequence + 1, position + builder.count
            builder.clear()
            log.tidy()
        engine.flush()
        seconds = time.perf_counter() - begin
        found, figures = engine.statistics(), log.statistics()
    synced = figures.sync_seconds.sum
    stages = [
        Stage("decode", spent["decode"], "frames into the open record: checks, CRC, byte order"),
        Stage("seal", spent["finish"], "the record's header and CRC"),
        Stage("log", spent["append"] - synced, "SQLite's append, without the sync"),
        Stage("sync", synced, "commit: WAL write and fdatasync"),
        *engine_stages(found),
    ]
    how = f"disk: {_disk(Path(tempfile.gettempdir()))}; {figures.records} records of up to {RECORD_SIGNALS} signals"
    return Run(f"SQLite log, {_shards(shards)}", shards, len(signals), seconds, stages, actor_figures(found), [how])


def run_network(app: "App", target: str, signals: npt.NDArray[Any], shards: int, log: str) -> Run:
    """`bitactor serve` in a process of its own, fed by the shipped client over TLS on loopback, all acknowledged."""
    batches = _batches(app, signals)
    with (
        tempfile.TemporaryDirectory(prefix="bitactor-profile-") as directory,
        subprocess.Popen(  # noqa: S603
            [
                *(sys.executable, "-m", "bitactor", "serve", target, "--data-dir", directory, "--log-kind", log),
                *("--ingest-port", "0", "--admin-port", "0", "--engine-shards", str(shards)),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as serving,
    ):
        try:
            sent = _sent(serving, Path(directory) / "dev", batches)
        finally:
            serving.terminate()
    kept, found = sent.told.log, sent.told.engine
    stages = [
        Stage("client", sent.client_s, "another process: encode, CRC, TLS, socket; processor time"),
        Stage("network", sent.loop_s, "the service's loop: TLS, sockets, frames into records, acks; processor time"),
    ]
    if log == "sqlite":
        synced = kept.sync_seconds.sum
        stages += [
            Stage("log", kept.append_seconds.sum - synced, "SQLite's append, without the sync"),
            Stage("sync", synced, "commit: WAL write and fdatasync"),
        ]
    stages += engine_stages(found)
    notes = [
        f"{kept.records} records; the service took {sent.service_s:.3f} s of processor time in all its threads",
        "client and service are processes of this machine and share its cores",
    ]
    if len(batches) > -(-len(signals) // RECORD_SIGNALS):
        notes.append("kinds of other value types were sent in batches of their own")
    name = f"network, log {log}, {_shards(shards)}"
    return Run(name, shards, len(signals), sent.seconds, stages, [], notes)


@dataclass(frozen=True, slots=True)
class _Sent:
    """A run through a service: by the clock, then processor seconds. told: its statistics, as its API gives them."""

    seconds: float
    client_s: float
    loop_s: float
    service_s: float
    told: Any


def _sent(serving: "subprocess.Popen[str]", development: Path, batches: list[npt.NDArray[Any]]) -> _Sent:
    """Send it all until it is acknowledged."""
    from bitactor.client import Client

    said, token, ca = _ready(serving), development / "token", development / "ca.pem"
    with Client(said["ingest"][0], producer="profile", token_file=token, ca_file=ca) as client:
        loop, service = _cpu_seconds(serving.pid, main_thread=True), _cpu_seconds(serving.pid)
        own, begin = time.process_time(), time.perf_counter()
        for batch in batches:
            client.send_batch(batch)
        client.flush(timeout=600)
        seconds = time.perf_counter() - begin
        own = time.process_time() - own
        loop, service = _cpu_seconds(serving.pid, main_thread=True) - loop, _cpu_seconds(serving.pid) - service
    with urllib.request.urlopen(f"{said['admin']}api/v1/statistics", timeout=60) as answer:  # noqa: S310  (our own)
        told = json.loads(answer.read(), object_hook=lambda members: SimpleNamespace(**members)).statistics
    return _Sent(seconds, own, loop, service, told)


def _batches(app: "App", signals: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    """The signals in batches of a record, each of kinds with the same types, as the client takes them."""
    types = np.zeros(65536, np.uint8)
    for kind in app.kinds:
        types[kind.number] = VALUE_TYPES.index(kind.value) * len(AUX_TYPES) + AUX_TYPES.index(kind.aux)
    batches = []
    for at in range(0, len(signals), RECORD_SIGNALS):
        record = signals[at : at + RECORD_SIGNALS]
        of = types[record["kind"]]
        for one in np.unique(of):
            dtype = signal_dtype(VALUE_TYPES[one // len(AUX_TYPES)], AUX_TYPES[one % len(AUX_TYPES)])
            batches.append(np.ascontiguousarray(record[of == one]).view(dtype))
    return batches


def engine_stages(found: Any) -> list[Stage]:
    """Where the engine's threads spent their time. found: Statistics, or what an API says of them."""
    shards = found.shards
    handlers = sum(actor.handler_seconds for actor in found.actors)
    step, dispatch, emit, barrier = (
        sum(getattr(shard, f"{name}_seconds") for shard in shards) for name in ("step", "dispatch", "emit", "barrier")
    )
    return [
        Stage("ring", max(0.0, step - dispatch - emit - barrier), "taking signals from the ring, by partition"),
        Stage("resolve", max(0.0, dispatch - handlers), "finding actors and the states of keys"),
        *(Stage(f"actor {one.name}", one.handler_seconds, "its handler") for one in found.actors),
        Stage("emit", emit, "keeping, ordering and delivering emits"),
        Stage("barrier", barrier, "shards that wait for one another between waves"),
        Stage("idle", sum(shard.idle_seconds for shard in shards), "shards without work"),
    ]


def actor_figures(found: "Statistics") -> list[ActorFigures]:
    """The actors of a run."""
    return [
        ActorFigures(
            name=one.name,
            signals=one.signals,
            keys=one.keys,
            handler_seconds=one.handler_seconds,
            ns_mean=one.handler_seconds * 1e9 / one.signals if one.signals else 0.0,
            ns_p50=one.ticks.ns(one.ticks.p50),
            ns_p99=one.ticks.ns(one.ticks.p99),
            ns_p999=one.ticks.ns(one.ticks.p999),
            timed=one.ticks.samples,
            raised=one.raised,
            refused=one.refused,
            histogram=_histogram(one.ticks),
        )
        for one in found.actors
    ]


def _histogram(ticks: "Ticks") -> list[tuple[float, int]]:
    """By octave: where it begins in ns, and how many of the timed signals are in it; from the first that has any."""
    from bitactor._core._engine import histogram_floors

    octaves: dict[int, int] = {}
    for floor, count in zip(histogram_floors(), ticks.counts, strict=False):
        if count:
            octave = int(floor).bit_length()
            octaves[octave] = octaves.get(octave, 0) + count
    if not octaves:
        return []
    return [(ticks.ns((1 << octave) >> 1), octaves.get(octave, 0)) for octave in range(min(octaves), max(octaves) + 1)]


def _lost(found: "Statistics") -> list[str]:
    dropped = {reason: count for reason, count in found.dropped.items() if count}
    return [f"dropped: {', '.join(f'{count} {reason}' for reason, count in dropped.items())}"] if dropped else []


def _shards(shards: int) -> str:
    return "inline" if shards == 0 else f"{shards} shard{'s' if shards > 1 else ''}"


def _ready(serving: "subprocess.Popen[str]") -> dict[str, Any]:
    """What a service says when it is ready."""
    assert serving.stdout is not None
    assert serving.stderr is not None
    line = serving.stdout.readline()
    if not line:
        told = serving.stderr.read().strip().splitlines()
        raise Failed(f"the service did not start: {told[-1] if told else 'it said nothing'}")
    said: dict[str, Any] = json.loads(line)
    return said


def _cpu_seconds(pid: int, *, main_thread: bool = False) -> float:
    """Processor time of a process so far, of all its threads or of the first alone."""
    path = f"/proc/{pid}/task/{pid}/stat" if main_thread else f"/proc/{pid}/stat"
    fields = Path(path).read_text(encoding="ascii").rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _disk(directory: Path) -> str:
    from bitactor.host import file_system

    return f"{file_system(directory)} under {directory}"
