"""`python -m benchmarks.cluster`: replicas over real NATS servers beside nats-py alone on the same servers; JSON lines.

Servers, replicas and producers are processes of their own on loopback, TLS 1.3 between producers and replicas. For each
of R = 1 and 3, synced always and by the servers' default: signals a second published, applied and acknowledged, and the
same records (their mean size, as many streams) from nats-py alone. Then failovers: a replica killed with -9, a server,
both. --seconds: of each rate; --kills: of each kind; --only: parts.
"""

import argparse
import asyncio
import json
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


def producers(cluster, count, seconds):
    """Producers in processes of their own, each at another replica first."""
    started = []
    for number in range(count):
        ports = [replica.port for replica in cluster.running]
        ports = ports[number % len(ports) :] + ports[: number % len(ports)]
        addresses = ",".join(f"127.0.0.1:{port}" for port in ports)
        command = [sys.executable, "-m", "benchmarks.cluster.producer", cluster.directory / "dev", addresses]
        command += [f"p{time.monotonic_ns()}-{number}", str(seconds), str(KEYS)]
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


def rates(run):
    """Signals a second, acknowledged, beside nats-py alone."""
    options = run.options
    for nodes in options.nodes:
        for sync in (kind == "always" for kind in options.sync):
            how = f"R={nodes}, {'sync always' if sync else 'default sync'}"
            with tempfile.TemporaryDirectory(prefix="bitactor-bench-") as directory, Cluster(
                directory, APP, nodes=nodes, replicas=options.replicas, sync_always=sync, cluster_lanes=options.lanes,
                nats_size_bytes_max="1GiB", snapshot_every_s=1000,
            ) as cluster:  # fmt: skip
                before = counted(cluster)
                told = results(producers(cluster, options.replicas, options.seconds), options.seconds + 150)
                records, size, waited = (b - a for a, b in zip(before, counted(cluster), strict=True))
                acked, took = sum(one["acked"] for one in told), max(one["seconds"] for one in told)
                applied = sum(row["count"] for row in cluster.running[0].rows("sensor").values())
                assert applied == acked, f"{acked} acknowledged, {applied} applied"
                mean = size / records
                alone = asyncio.run(
                    raw.publish(
                        cluster.nats.urls, replicas=nodes, lanes=options.lanes, size_bytes=int(mean),
                        seconds=options.seconds, in_flight=1,
                    )
                )  # fmt: skip
            run.tell(
                f"acked, {how}", acked / took / MI, "M signals/s", mb_per_s=size / took / MI,
                record_bytes=mean, append_ms=1000 * waited / records,
            )  # fmt: skip
            run.tell(f"nats-py alone, same records, {how}", alone * mean / 32 / MI, "M signals/s")
            run.tell(f"ratio, {how}", (size / took) / (alone * mean), "", at_least=GOAL)


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
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--lanes", type=int, default=16)
    parser.add_argument("--sync", nargs="+", default=["always", "default"], choices=("always", "default"))
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 3], choices=(1, 3, 5))
    parser.add_argument("--only", nargs="+", default=list(PARTS), choices=PARTS)
    run = Run(parser.parse_args())
    for part in run.options.only:
        PARTS[part](run)


if __name__ == "__main__":
    main()
