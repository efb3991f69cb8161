"""`python -m benchmarks.cluster`: replicas over real NATS servers beside nats-py alone on the same servers; JSON lines.

Servers, replicas and producers are processes of their own on loopback. For each of R = 1 and 3, synced always and by
the servers' default, with TLS 1.3 between producers and replicas and without: signals a second published, applied and
acknowledged, in turn with the same records (their mean size, as many streams) from nats-py alone; medians. And what all
of them used of processors for a million signals, by kind of process: `bound` is the ratio of the rates that this leaves
room for when processors are all that is short. Then failovers: a replica killed with -9, a server, both. --seconds: of
each rate; --rounds: turns; --kills: of each kind; --only: parts.
"""

import argparse
import asyncio
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import machine
from benchmarks.cluster import raw, stages
from bitactor.validation.replicas import Cluster

APP = Path(__file__).with_name("app.py")
KEYS = 100_000
MI = 1e6
GOAL = 0.7


class Run:
    """Prints each figure as a JSON line when it is there."""

    def __init__(self, options):
        self.options = options
        self.head = {"commit": machine.commit(), **machine.describe()}

    def tell(self, figure, value, unit, *, at_least=None, **detail):
        goal = {} if at_least is None else {"at_least": at_least, "reached": value >= at_least}
        line = {"figure": figure, "value": round(value, 4), "unit": unit, **goal, **detail}
        print(json.dumps({**line, "machine": self.head}), flush=True)
        print(f"{figure:62} {value:10.3f} {unit:12} {goal or ''}", file=sys.stderr, flush=True)


def cpu_s(pid):
    """Processor seconds that a process has used so far."""
    times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")


def used(cluster):
    """Of all replicas, and of all servers."""
    servers = sum(cpu_s(cluster.nats.pid(i)) for i in range(cluster.nats.nodes))
    return sum(cpu_s(replica.pid) for replica in cluster.running), servers


def producers(cluster, count, seconds, ingest="tls"):
    """Producers in processes of their own, each at another replica first."""
    started = []
    for number in range(count):
        ports = [replica.port for replica in cluster.running]
        ports = ports[number % len(ports) :] + ports[: number % len(ports)]
        addresses = ",".join(f"127.0.0.1:{port}" for port in ports)
        command = [sys.executable, "-m", "benchmarks.cluster.producer", cluster.directory / "dev", addresses]
        command += [f"p{time.monotonic_ns()}-{number}", str(seconds), str(KEYS), ingest]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
    return started


def results(started, timeout_s):
    """What they tell."""
    told = []
    for process in started:
        out, _ = process.communicate(timeout=timeout_s)
        assert process.returncode == 0, f"a producer ended with {process.returncode}"
        told.append(json.loads(out))
    return told


def counted(cluster):
    """Records and bytes that the replicas appended, and the seconds that appends took, over all lanes."""
    logs = [replica.ask("statistics")["statistics"]["log"] for replica in cluster.running]
    return [sum(value(log) for log in logs) for value in (
        lambda log: log["records"], lambda log: log["bytes"], lambda log: log["append_seconds"]["sum"],
    )]  # fmt: skip


def ours(cluster, options, ingest):
    """One turn of replicas: a dict of what was measured."""
    logged, cpu = counted(cluster), used(cluster)
    told = results(producers(cluster, options.replicas, options.seconds, ingest), options.seconds + 150)
    records, size, waited = (b - a for a, b in zip(logged, counted(cluster), strict=True))
    replicas, servers = (b - a for a, b in zip(cpu, used(cluster), strict=True))
    acked, took = sum(one["acked"] for one in told), max(one["seconds"] for one in told)
    millions = acked / MI
    return {
        "acked": acked, "rate": acked / took, "bytes_per_s": size / took, "record_bytes": size / records,
        "append_ms": 1000 * waited / records, "producers": sum(one["cpu_s"] for one in told) / millions,
        "replicas": replicas / millions, "servers": servers / millions,
    }  # fmt: skip


def alone(cluster, options, record_bytes):
    """One turn of nats-py: a dict of what was measured."""
    before = used(cluster)
    records, took, client = asyncio.run(
        raw.publish(
            cluster.nats.urls, replicas=cluster.nats.nodes, lanes=options.lanes, size_bytes=int(record_bytes),
            seconds=options.seconds, in_flight=1,
        )
    )  # fmt: skip
    _, servers = (b - a for a, b in zip(before, used(cluster), strict=True))
    size = records * int(record_bytes)
    millions = size / 32 / MI
    return {"bytes_per_s": size / took, "client": client / millions, "servers": servers / millions}


def middle(turns, name):
    """The median of a figure over turns."""
    return statistics.median(turn[name] for turn in turns)


def rates(run):
    """Signals a second, acknowledged, in turn with nats-py alone, and processor time of each."""
    options = run.options
    for nodes in options.nodes:
        for sync, ingest in itertools.product(options.sync, options.ingest):
            how = f"R={nodes}, sync {sync}, {ingest}"
            plain = {"ingest_plain_text_on_loopback": True} if ingest == "plain" else {}
            with tempfile.TemporaryDirectory(prefix="bitactor-bench-") as directory, Cluster(
                directory, APP, nodes=nodes, replicas=options.replicas, sync_always=sync == "always",
                cluster_lanes=options.lanes, nats_size_bytes_max="2GiB", snapshot_every_s=1000, **plain,
            ) as cluster:  # fmt: skip
                turns = []
                for _ in range(options.rounds):
                    mine = ours(cluster, options, ingest)
                    turns.append((mine, alone(cluster, options, mine["record_bytes"])))
                applied = sum(row["count"] for row in cluster.running[0].rows("sensor").values())
                acked = sum(mine["acked"] for mine, _ in turns)
                assert applied == acked, f"{acked} acknowledged, {applied} applied"
            tell_rates(run, how, turns)


def tell_rates(run, how, turns):
    """Print what the turns of one row gave."""
    mine, theirs = [turn[0] for turn in turns], [turn[1] for turn in turns]
    each = [a["bytes_per_s"] / b["bytes_per_s"] for a, b in turns]
    run.tell(
        f"acked, {how}", middle(mine, "rate") / MI, "M signals/s", mb_per_s=middle(mine, "bytes_per_s") / MI,
        record_bytes=middle(mine, "record_bytes"), append_ms=middle(mine, "append_ms"),
    )  # fmt: skip
    run.tell(f"nats-py alone, same records, {how}", middle(theirs, "bytes_per_s") / 32 / MI, "M signals/s")
    run.tell(
        f"ratio, {how}", statistics.median(each), "", at_least=GOAL, turns=[round(one, 3) for one in each],
    )  # fmt: skip
    costs_ = {kind: middle(mine, kind) for kind in ("producers", "replicas", "servers")}
    costs_ |= {"nats-py alone": middle(theirs, "client"), "its servers": middle(theirs, "servers")}
    for kind, seconds in costs_.items():
        run.tell(f"cpu, {kind}, {how}", seconds, "s/M signals")
    ours_, raw_ = sum(list(costs_.values())[:3]), sum(list(costs_.values())[3:])
    run.tell(f"bound, {how}", raw_ / ours_, "", ours=round(ours_, 4), alone=round(raw_, 4))


def failovers(run):
    """The longest time without an acknowledgement while something dies."""
    with (
        tempfile.TemporaryDirectory(prefix="bitactor-bench-") as directory,
        Cluster(directory, APP, nodes=3, replicas=3, sync_always=True, nats_size_bytes_max="1GiB") as cluster,
    ):
        for what in ("replica", "server", "both"):
            gaps = []
            for turn in range(run.options.kills):
                started = producers(cluster, 3, 12)
                time.sleep(3)
                replica, server = cluster.replicas[turn % 3], turn % 3
                if what != "server":
                    replica.kill()
                if what != "replica":
                    cluster.nats.kill(server)
                gaps.append(max(one["gap_s"] for one in results(started, 180)))
                if what != "server":
                    cluster.start_replica(replica)
                if what != "replica":
                    cluster.nats.start(server)
                cluster.settled()
            run.tell(
                f"longest wait for an ack, {what} killed, p50",
                statistics.median(gaps),
                "s",
                most=max(gaps),
                n=len(gaps),
            )


def costs(run):
    """Processor time of each stage between a producer and the state."""
    for stage, nanoseconds in stages.stages(min(run.options.seconds, 1) / 2).items():
        run.tell(stage, nanoseconds, "ns/signal")


PARTS = {"costs": costs, "rates": rates, "failovers": failovers}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--lanes", type=int, default=16)
    parser.add_argument("--sync", nargs="+", default=["always", "default"], choices=("always", "default"))
    parser.add_argument("--ingest", nargs="+", default=["tls", "plain"], choices=("tls", "plain"))
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 3], choices=(1, 3, 5))
    parser.add_argument("--only", nargs="+", default=list(PARTS), choices=PARTS)
    run = Run(parser.parse_args())
    for part in run.options.only:
        PARTS[part](run)


if __name__ == "__main__":
    main()
