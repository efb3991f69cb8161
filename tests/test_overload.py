"""Too much, and the end: ten producers as fast as they can, SIGTERM with signals in flight, a second signal."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from bitactor.log.sqlite import SqliteLog
from bitactor.protocol.messages import Hello
from bitactor.protocol.records import RecordType, read_record
from tests.admin_service import ask
from tests.service_app import app
from tests.service_oracle import assert_same_state, read_log
from tests.service_process import Producer, Served, number_of
from tests.test_crash import newest_snapshot

SECONDS = float(os.environ.get("BITACTOR_OVERLOAD_S", "2"))
RSS_BYTES_MAX = 300 << 20  # the process, three records, the ring, ten windows of unread bytes
SLOW = Path(__file__).parent / "slow_app.py"


def rss_bytes(pid):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) << 10
    raise AssertionError("no VmRSS")


def counted(directory):
    """How many signals of each producer a log holds, each in its place and once; read without keeping them."""
    log, reached = SqliteLog.open(directory), {}
    for raw in log.read(0):
        record, at = read_record(raw), 0
        if record.type != RecordType.DATA:
            continue
        for kind, data in record.items:
            if kind == 1:
                producer, count = int.from_bytes(data[8:16], "big"), int.from_bytes(data[20:24], "big")
                begin = reached.get(producer, 0)
                assert int.from_bytes(data[24:32], "big") == begin
                values = record.signals["value"][at : at + count]
                assert (values == np.arange(begin, begin + count)).all()
                reached[producer] = begin + count
                at += count
    log.close()
    return reached


def offer(served, seconds, producers, rate):
    """Let sources offer so much; what each offered and had acknowledged, and what was seen of the service meanwhile."""
    arguments = map(str, (served.directory / "data", served.port, seconds, producers, rate))
    command = [sys.executable, Path(__file__).parent / "overload_sender.py", *arguments]
    seen = {"rss": 0, "ring": 0.0, "refusing": 0}
    with subprocess.Popen(command, stdout=subprocess.PIPE) as sender:
        while sender.poll() is None:
            told = ask(served.admin_port, "/api/v1/statistics").json()["statistics"]
            engine = told["engine"]
            seen["rss"] = max(seen["rss"], rss_bytes(served.process.pid))
            seen["ring"] = max(seen["ring"], engine["ring_used"] / engine["ring_signals"])
            seen["refusing"] += not told["ingest"]["has_room"]
            assert not any(engine["dropped"].values()), engine["dropped"]
            time.sleep(0.05)
        done = json.loads(sender.stdout.read())
    assert sender.returncode == 0
    return done, seen


def test_ten_producers_at_ten_times_capacity_lose_nothing_acknowledged_in_bounded_memory(tmp_path):
    flags = {"snapshot_every_s": 3600, "engine_ring_signals": 16384, "engine_shards": 1, "shutdown_grace_s": 120}
    with Served(tmp_path, SLOW, **flags) as served:
        ready = served.start().ready()
        served.admin_port = int(ready["admin"].rstrip("/").rpartition(":")[2])
        alone, _ = offer(served, 1, 1, 0)
        _, first, took = alone["p0"]
        done, seen = offer(served, SECONDS, 10, first / took)
        offered, taken = (sum(row[at] for row in done.values()) for at in (0, 1))
        taken -= first
        print(f"capacity {first / took:,.0f} signals/s; offered {offered:,}, taken {taken:,}, seen {seen}")
        assert len(done) == 10 and offered > taken, "no source had to wait"
        assert SECONDS < 30 or offered > 5 * taken  # in short runs much of it waited in the clients when they ended
        assert seen["ring"] > 0.9 and seen["refusing"]  # the ring was full, and sessions were told to wait
        assert seen["rss"] < RSS_BYTES_MAX
        assert served.stop() == 0
        _, state = newest_snapshot(served)
    acked = {number_of(name): reached for name, (_, reached, _) in done.items()}
    assert min(acked.values()) > 0
    assert counted(tmp_path / "data") == acked
    assert int(state.actor("vwap").rows["volume"].sum()) == state.position == sum(acked.values())


def test_sigterm_drains_acknowledges_and_snapshots_within_the_grace_period(tmp_path):
    with Served(tmp_path, snapshot_every_s=3600) as served:
        served.start().ready()
        producers = [Producer(served, name, 1_000_000, 1, frame_max=200) for name in ("a", "b")]
        for producer in producers:
            producer.start()
        while min(producer.acked for producer in producers) < 2_000:
            time.sleep(0.01)
        begun = time.monotonic()
        assert served.stop() == 0
        assert time.monotonic() - begun < 20
        acked = {producer.label: producer.acked for producer in producers}
        snapshot, state = newest_snapshot(served)
        truth = read_log(tmp_path / "data", app)
        assert snapshot.meta["sequence"] == truth.records
        assert_same_state(state, truth.state)
        for name, reached in acked.items():
            assert truth.producers[number_of(name)]["next"] >= reached
        assert served.start().ready()["replayed"] == 0
        for producer in producers:
            producer.total = producer.acked + 1_000
        for producer in producers:
            producer.finished()


def test_a_second_signal_ends_the_process_at_once_and_the_log_has_everything(tmp_path):
    with Served(tmp_path, snapshot_every_s=3600) as served:
        served.start().ready()
        producer = Producer(served, "a", 1_000_000, 1)
        producer.start()
        while producer.acked < 1_000:
            time.sleep(0.01)
        with producer.connect() as idle:  # a peer that does not answer the goodbye holds up an orderly end
            idle.sendall(Hello("b", token=producer.token(), client="idle").encode())
            idle.recv(1000)
            served.process.send_signal(signal.SIGTERM)
            time.sleep(0.8)
            assert served.process.poll() is None
            begun = time.monotonic()
            served.process.send_signal(signal.SIGTERM)
            assert served.process.wait(10) == 130
            assert time.monotonic() - begun < 5  # the grace period is longer
        served.process.stdout.close()
        reached = producer.acked
        assert not list((tmp_path / "data" / "snapshots").glob("*"))
        truth = read_log(tmp_path / "data", app)
        assert truth.producers[number_of("a")]["next"] >= reached
        producer.total = 0
