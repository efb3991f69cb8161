"""`python -m benchmarks.service`: figures beside their goals, the raw machine and peers of the same run; JSON lines.

Client and service are processes of their own on loopback, TLS 1.3, the shipped Python client. Short by default; --full
is 30 s a rate and the sizes of the goals; --only runs parts, each of which takes under four minutes.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import environments, machine
from benchmarks.service import raw
from benchmarks.service.process import Served

MI = 1e6


class Run:
    """Collects figures and prints each as a JSON line when it is there."""

    def __init__(self, options):
        self.options = options
        self.head = {"commit": machine.commit(), **machine.describe()}
        self.raw = {}

    def tell(self, figure, value, unit, *, at_least=None, at_most=None, **detail):
        reached = (at_least is None or value >= at_least) and (at_most is None or value <= at_most)
        goal = {"at_least": at_least} if at_least is not None else {"at_most": at_most} if at_most is not None else {}
        line = {"figure": figure, "value": round(value, 4), "unit": unit, **goal, **detail}
        if goal:
            line["reached"] = reached
        print(json.dumps({**line, "machine": self.head}), flush=True)
        print(f"{figure:58} {value:12.3f} {unit:12} {goal or ''}", file=sys.stderr, flush=True)


def raw_figures(run):
    """What the machine gives."""
    seconds = run.options.seconds
    for name, secure in (("plain", False), ("TLS 1.3", True)):
        run.raw[name] = raw.receive(seconds, secure=secure)
        run.tell(f"raw uvloop receive, {name}", run.raw[name] / MI, "MB/s")
    run.raw["sqlite"] = raw.sqlite(seconds)
    run.tell("raw SQLite FULL, 256 KiB blobs", run.raw["sqlite"] / MI, "MB/s")
    p50, p99 = raw.sync(min(seconds, 3))
    run.tell("raw fdatasync of 4 KiB, p50", p50 * 1e6, "us", p99_us=p99 * 1e6)


def peers(run):
    """What brokers carry in frames of 1,000 signals, without a state; ours beside them is `rates`."""
    interpreter = environments.python("brokers", may_install=not run.options.tiny)
    for name in PEERS:
        if isinstance(interpreter, str):
            print(f"{name}: left out: {interpreter}", file=sys.stderr, flush=True)
            continue
        command = [interpreter, Path(__file__).with_name("brokers.py"), name, str(run.options.seconds)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=300, check=False)
        got = json.loads(done.stdout) if done.returncode == 0 else {"absent": f"status {done.returncode}"}
        if "absent" in got:
            print(f"{name}: left out: {got['absent']}", file=sys.stderr, flush=True)
            continue
        run.raw[name] = got["rate"]
        title = "JetStream, each message synced" if name == "jetstream" else name
        run.tell(f"peer {title}", got["rate"] / MI, "M signals/s", mb_per_s=got["rate"] * 32 / MI)


def rates(run):
    """Signals a second to applied state, acknowledged."""
    seconds = run.options.seconds
    for name, flags, goal, beside in (
        ("log none", ["--log-kind=none"], 12, "TLS 1.3"),
        ("SQLite FULL", [f"--snapshot-every-s={max(1.0, seconds / 2)}"], 5, "sqlite"),
    ):
        with Served(*flags) as served:
            before = served.cpu_s
            got = served.peer("send", seconds, 10_000)
            said = served.ask("api/v1/statistics")["statistics"]
            others = {f"over_{peer}": got["rate"] / run.raw[peer] for peer in PEERS if peer in run.raw}
            run.tell(
                f"TLS to applied state, {name}", got["rate"] / MI, "M signals/s", at_least=goal, client_cpu=got["cpu"],
                service_cpu_s=served.cpu_s - before, seconds=seconds, rss_bytes=served.rss_bytes,
                of_raw=got["rate"] * 32 / run.raw[beside] if beside in run.raw else None, beside=beside, **others,
                snapshots=said["snapshot"]["taken"], checkpoints=sum(said["log"]["checkpoint_seconds"]["counts"]),
            )  # fmt: skip


def acks(run):
    """One frame of one signal to its acknowledgement."""
    for name, flags, goal in (("log none", ["--log-kind=none"], 150), ("SQLite FULL", [], 1500)):
        with Served(*flags) as served:
            for peer, title, limit in (
                ("wire", "a blocking socket", goal),
                ("ack_async", "the asyncio client", None),
                ("ack", "the client for threads", None),
            ):
                got = served.peer(peer, run.options.rounds)
                figure = f"ack round trip p50, {name}, {title}"
                run.tell(figure, got["p50"] * 1e6, "us", at_most=limit, p99_us=got["p99"] * 1e6)


def recovery(run):
    """Replay of a killed service's log."""
    number = run.options.recovery_signals
    with tempfile.TemporaryDirectory() as directory:
        with Served("--snapshot-every-s=3600", "--log-durability=off", directory=directory) as served:
            served.peer("count", number, 10_000)
            served.kill()
        with Served("--snapshot-every-s=3600", directory=directory) as served:
            assert served.said["replayed"] == number
            run.tell(
                f"recovery, {number:,} signals replayed", served.said["recovery_s"], "s", at_most=3 * number / 10e6,
                to_ready_s=served.ready_s,
            )  # fmt: skip


def keys(run):
    """A million keys: pause of a snapshot, memory."""
    number = run.options.keys
    with Served("--snapshot-every-s=3600") as served:
        time.sleep(0.5)
        run.tell("resident memory, idle", served.rss_bytes / MI, "MB", at_most=200)
        served.peer("count", number, number)
        time.sleep(0.5)
        run.tell(f"resident memory, {number:,} keys", served.rss_bytes / MI, "MB", at_most=350)
        info = served.ask("api/v1/snapshot", "POST")["snapshot"]
        run.tell(
            f"snapshot of {number:,} keys, pause", info["pause_s"] * 1000, "ms", at_most=50, seconds=info["seconds"]
        )


def starts(run):
    """From the command to ready."""
    with tempfile.TemporaryDirectory() as cache:
        for name, goal in (("cold", 6), ("warm", 2)):
            with Served("--log-kind=none", environ={"BITACTOR_CACHE_DIR": cache}) as served:
                run.tell(f"serve to ready, JIT cache {name}", served.ready_s, "s", at_most=goal)


def idle(run):
    """Connections that say nothing."""
    number = run.options.connections
    most = number + 10
    bounds = [f"--limits-connections-max={most}", f"--limits-connections-per-peer-max={most}"]
    with Served("--log-kind=none", *bounds, "--limits-handshake-s=120") as served:
        for what, ca_file in (("silent", None), ("after their TLS handshake", served.data / "dev" / "ca.pem")):
            before = served.rss_bytes
            opened = raw.idle(served.address, number, ca_file)
            time.sleep(1)
            each = (served.rss_bytes - before) / len(opened)
            run.tell(f"{len(opened):,} connections before their hello, {what}, each", each / 1024, "KiB", at_most=64)
            took = []
            for _ in range(200):
                begun = time.perf_counter()
                served.ask("api/v1/actors")
                took.append(time.perf_counter() - begun)
            run.tell(f"admin p99 beside them, {what}", sorted(took)[197] * 1000, "ms", at_most=100)
            for connection in opened:
                connection.close()
            while served.ask("api/v1/statistics")["statistics"]["ingest"]["connections"]:
                time.sleep(0.05)


PEERS = ("nats", "redis", "mqtt", "pyzmq", "jetstream")
FIGURES = {f.__name__: f for f in (raw_figures, peers, rates, acks, recovery, keys, starts, idle)}


def main():
    """Run; status 1 when a measurement failed, goals reached or not."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.service", description=__doc__)
    parser.add_argument("--full", action="store_true", help="30 s a rate, the sizes of the goals")
    parser.add_argument("--seconds", type=float, help="of each rate (3)")
    parser.add_argument("--only", nargs="*", choices=FIGURES, default=list(FIGURES))
    parser.add_argument("--tiny", action="store_true", help="shows that it runs; no figures")
    options = parser.parse_args()
    full, tiny = options.full, options.tiny
    options.seconds = options.seconds or (30 if full else 0.3 if tiny else 3)
    options.rounds = 5000 if full else 20 if tiny else 1000
    options.recovery_signals = 10_000_000 if full else 100_000 if tiny else 2_000_000
    options.keys = 10_000 if tiny else 1_000_000
    options.connections = 40 if tiny else 2000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = options.connections + 200
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))
    run = Run(options)
    for name in options.only:
        FIGURES[name](run)


if __name__ == "__main__":
    main()
