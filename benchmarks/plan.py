"""What `make bench` runs, in which groups, and the goals of the figures.

The members of a group take turns within each round, so a ratio's two sides are measured seconds apart. A goal is a
bound on a figure itself, or on its ratio to another figure of its group.
"""

from dataclasses import dataclass

from benchmarks.runner import Measure

SIZES = {"1 thousand keys": 1_000, "1 million keys": 1_000_000, "10 million keys": 10_000_000}


@dataclass(frozen=True)
class Goal:
    """A row of the table that has a bound; `of`: the figure that it is divided by, or empty.

    `alone`: the least that the figure itself must be where `of` was not run.
    """

    figure: str
    at_least: float | None = None
    at_most: float | None = None
    of: str = ""
    alone: float | None = None


@dataclass(frozen=True)
class Group:
    """Measures that take turns."""

    name: str
    measures: tuple[Measure, ...]


def vwap_peers(size: str, keys: int) -> list[Measure]:
    """The common task by peers in Rust and Java, at up to a million keys."""
    events = "8000000"
    rust = [
        Measure(f"VWAP, {size}: {title}", "keyed", (by, workers, str(keys), events, "5"), kind="cargo")
        for title, by, workers in (
            ("Rust hashbrown", "hashbrown", "1"),
            ("timely, 1 worker", "timely", "1"),
            ("timely, 2 workers", "timely", "2"),
        )
    ]
    java = [
        Measure(f"VWAP, {size}: Java HashMap", "HashMapLoop", (str(keys), events, "5"), kind="java"),
        Measure(f"VWAP, {size}: Hazelcast Jet", "Jet", (str(keys), "4000000", "3"), kind="java"),
        Measure(f"VWAP, {size}: Flink, 1 slot, chained", "Flink", ("1", str(keys), "4000000", "3"), kind="java"),
        Measure(f"VWAP, {size}: Flink, 2 slots", "Flink", ("2", str(keys), "4000000", "3"), kind="java"),
    ]
    return rust + java


def vwap_groups(quick: bool, peers: bool) -> list[Group]:
    """The common task by everybody: one group for each number of keys."""
    groups = []
    for size, full_keys in SIZES.items():
        if quick and full_keys > 1_000:
            continue
        keys = 50 if quick else full_keys
        fast = 20_000 if quick else max(8_000_000, 2 * keys)

        def peer(
            title: str, runs: str, environment: str, events: int, *more: str, size: str = size, keys: int = keys
        ) -> Measure:
            arguments = ("--keys", str(keys), "--events", str(events), *more)
            return Measure(f"VWAP, {size}: {title}", runs, arguments, environment)

        passes = ("--passes", "1" if quick else "5")
        once = ("--passes", "1")
        measures = [
            peer("Numba row loop", "numba_loop", "numba", fast, *passes),
            peer("engine, 1 shard", "engine_vwap", "", fast, *passes, "--shards", "1"),
            peer("engine, inline", "engine_vwap", "", fast, *passes, "--shards", "0"),
        ]
        if full_keys <= 1_000_000:
            measures += [
                peer("Numba row loop, scattered keys", "numba_loop", "numba", fast, *passes, "--scattered"),
                peer(
                    "engine, 1 shard, scattered keys", "engine_vwap", "", fast, *passes, "--shards", "1", "--scattered"
                ),
                peer("Python dict", "dict_loop", "", 2_000 if quick else 1_000_000, *once),
                peer(
                    "engine, inline, scattered keys", "engine_vwap", "", fast, *passes, "--shards", "0", "--scattered"
                ),
            ]
            measures += vwap_peers(size, keys) if peers else []
        if full_keys <= 1_000 and not peers:
            slow = 2_000 if quick else 500_000
            measures += [
                peer("csp", "csp_vwap", "csp", slow, *once),
                peer("Bytewax", "bytewax_vwap", "bytewax", slow, *once),
                peer("Quix Streams", "quix_vwap", "quix", slow, *once),
                peer("Faust", "faust_vwap", "faust", slow // 10, *once),
                peer("Pathway", "pathway_vwap", "pathway", slow, *once),
            ]
        groups.append(Group(f"vwap-{keys}", tuple(measures)))
    return groups


def engine_group(quick: bool) -> Group:
    """The engine's figures that have no peer."""
    events = "20000" if quick else "2000000"
    rows = ("dispatch", "feedback", "send")
    return Group(
        "engine", tuple(Measure(f"engine, {row}", "engine_rows", ("--row", row, "--events", events)) for row in rows)
    )


def state_group(quick: bool) -> Group:
    """State out and in: the pause of a snapshot, and what recovery begins with."""
    measures = []
    for size, full_keys in SIZES.items():
        if full_keys < 1_000_000 or (quick and full_keys > 1_000_000):
            continue
        keys = ("--keys", str(1_000 if quick else full_keys))
        measures.append(Measure(f"state, {size}", "engine_state", keys))
        measures.append(Measure(f"state, {size}, expiring", "engine_state", (*keys, "--expiring")))
    return Group("state", tuple(measures))


def start_group(quick: bool) -> Group:
    """Import, first compile, compile from cache: fresh processes."""
    del quick
    return Group("start", (Measure("start", "start"),))


def core(name: str, program: str, *arguments: str) -> Measure:
    """A program of the core."""
    return Measure(name, program, arguments, kind="core")


def handover_group(quick: bool, peers: bool) -> Group:
    """Between two threads and between two processes."""
    seconds = "0.3"
    measures = []
    if not quick:
        measures = [
            core("ring, two threads", "bench_ring", seconds, "spsc_"),
            core("ring, two processes", "bench_ring", seconds, "two_processes_"),
        ]
    if peers:
        measures.append(Measure("rtrb", "rtrb", (seconds,), kind="cargo"))
        measures += [
            Measure(f"{title}: batch {batch}", "Handover", (title.lower(), batch, items), kind="java")
            for title in ("Agrona", "Disruptor")
            for batch, items in (("1", "5000000"), ("1024", "50000000"))
        ]
    for title, by in (("multiprocessing.Queue", "queue"), ("multiprocessing.Pipe", "pipe"), ("pyzmq", "zmq")):
        for batch, events in (("1", 100_000), ("1024", 4_000_000)):
            count = str(2_048 if quick else events)
            arguments = ("--by", by, "--batch", batch, "--events", count)
            environment = "pyzmq" if by == "zmq" else ""
            measures.append(Measure(f"two processes, batch {batch}: {title}", "handover", arguments, environment))
    return Group("handover", tuple(measures))


def ingest_group(quick: bool) -> Group:
    """The receiving side alone, and what a connection costs that says nothing."""
    signals, connections = ("300000", "50") if quick else ("40000000", "2000")
    idle = tuple(
        Measure(f"ingest, idle, {row}", "ingest", ("--row", row, "--connections", connections))
        for row in ("connected", "handshaken")
    )
    return Group("ingest", (Measure("ingest", "ingest", ("--row", "rate", "--signals", signals)), *idle))


def log_group(quick: bool) -> Group:
    """The embedded log beside raw writes and syncs of the same bytes; on the disk of the current directory."""
    measures = []
    for title, size, records in (("256 KiB", 1 << 18, 600), ("1 MiB", 1 << 20, 250), ("one signal", 160, 400)):
        arguments = ("--bytes", str(size), "--records", str(3 if quick else records))
        for by, name in (("raw", "pwrite and fdatasync"), ("log", "SQLite FULL")):
            measures.append(Measure(f"log, {title}: {name}", "log_append", ("--by", by, *arguments)))
    return Group("log", tuple(measures))


def core_group() -> Group:
    """The core's own benchmark programs; what two threads and two processes do has a group of its own."""
    return Group(
        "core",
        (
            core("ring, many threads", "bench_ring", "0.3", "100_threads_"),
            core("ring, latency", "bench_ring", "0.3", "latency_"),
            core("dispatch", "bench_dispatch"),
            core("codec", "bench_codec"),
            core("store, memory", "bench_store", "m"),
            core("store, growth", "bench_store", "g"),
            core("store, chosen keys", "bench_store", "c"),
            core("core engine", "bench_engine", "16", "3"),
        ),
    )


def groups(*, quick: bool, peers: bool = False) -> list[Group]:
    """Everything, in the order of the table; `peers`: with those in Rust and Java, and only the groups they are in."""
    with_peers = [*vwap_groups(quick, peers), handover_group(quick, peers)]
    if peers:
        return [group for group in with_peers if group.name != f"vwap-{SIZES['10 million keys']}"]
    others = [group(quick) for group in (engine_group, state_group, start_group, ingest_group, log_group)]
    return [*with_peers, *others, *([] if quick else [core_group()])]


GOALS = [
    *(
        Goal(f"VWAP, {size}: engine, 1 shard", at_least=least, of=f"VWAP, {size}: Numba row loop")
        for size, least in zip(SIZES, (0.5, 1.0, 1.2), strict=True)
    ),
    Goal("VWAP, 1 thousand keys: engine, 1 shard", at_least=25, of="VWAP, 1 thousand keys: csp"),
    Goal("VWAP, 1 thousand keys: engine, 1 shard", at_least=40, of="VWAP, 1 thousand keys: Bytewax"),
    Goal("VWAP, 1 thousand keys: engine, inline", at_least=0.5, of="VWAP, 1 thousand keys: Numba row loop"),
    Goal("VWAP, 1 thousand keys: engine, 1 shard", at_least=1, of="VWAP, 1 thousand keys: timely, 1 worker"),
    Goal("dispatch: look-up and call", at_most=8),
    Goal("ring, two threads: spsc_batch", at_least=0.9, of="rtrb: batch", alone=300),
    Goal("ring, two threads: spsc_single", at_least=0.5, of="rtrb: single", alone=30),
    Goal("ring, two processes: two_processes_batch", at_least=0.8, of="ring, two threads: spsc_batch"),
    Goal("ring, many threads: 100_threads_single", at_least=15),
    Goal("ring, many threads: 100_threads_batch", at_least=100),
    Goal("engine, feedback", at_least=25),
    Goal("engine, send", at_least=5),
    Goal("codec: byteorder to_be", at_least=1_000),
    Goal("codec: byteorder ratio", at_least=0.6),
    Goal("ring, latency: latency_one_way p50", at_most=150),
    Goal("ring, latency: latency_one_way p99", at_most=400),
    Goal("ring, latency: latency_round_trip p50", at_most=314),
    Goal("store, memory: bytes a key beyond the state, mean", at_most=48),
    Goal("store, memory: bytes a key beyond the state, peak", at_most=72),
    Goal("store, growth: growing by random keys: longest call, not preempted", at_most=5),
    Goal("store, chosen keys: keys that collide under the mix over random ones of one partition", at_most=2),
    Goal("store, chosen keys: keys that collide under another secret over random ones", at_most=2),
    Goal("state, 1 million keys: pause", at_most=50),
    Goal("ingest: TLS, frames of 8,192, session: by the server's processor time", at_least=20),
    Goal(
        "ingest: TLS, frames of 8,192, session, counting: by the server's processor time",
        at_least=0.8,
        of="ingest: TLS, frames of 8,192, raw: by the server's processor time",
    ),
    Goal("ingest, idle, handshaken: TLS done, no hello: resident memory a connection", at_most=64),
    Goal("log, 256 KiB: SQLite FULL: signals", at_least=5),
    Goal("log, 1 MiB: SQLite FULL: signals", at_least=5),
    Goal("log, one signal: SQLite FULL: p50", at_most=1.5),
    Goal("start: import", at_most=0.3),
    Goal("start: first compile", at_most=1.5),
    Goal("start: compile from cache", at_most=0.5),
]
