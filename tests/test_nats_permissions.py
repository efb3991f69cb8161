"""The permissions that docs/cluster-nats.md says are enough are, and without them it is told what is missing."""

import asyncio
import json
import re
from pathlib import Path

import nats.errors
import numpy as np
import pytest

import bitactor as ba
from bitactor.cli import cluster_demo
from bitactor.log import streams
from bitactor.log.contract import LogError
from bitactor.log.objects import ObjectSnapshots
from bitactor.validation.replicas import Cluster
from tests.jetstream_tools import JetStream
from tests.log_contract.records import record
from tests.nats_jwt import Operator

PAGE = Path(__file__).parent.parent / "docs" / "cluster-nats.md"


def documented(app="market"):
    """The permissions on the page, for an app of that name."""
    (block,) = re.findall(r"<!-- permissions -->\n```json\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return json.loads(block.replace("market", app))


@pytest.fixture(scope="module")
def js(tmp_path_factory):
    without_create = documented()
    without_create["publish"]["allow"].remove("$JS.API.STREAM.CREATE.*")
    users = [
        {"user": "admin", "password": "secret"},
        {"user": "app", "password": "secret", "permissions": documented()},
        {"user": "less", "password": "secret", "permissions": without_create},
    ]
    directory = tmp_path_factory.mktemp("nats")
    (directory / "password").write_text("secret")
    with JetStream(directory, users=users) as jetstream:
        yield jetstream


def connect(js, user):
    return js.connect(user=user, password_file=js.servers.directory / "password")


def use(js, connection, tmp_path, lane):
    """All that a service does with a lane."""
    log = js.open("bitactor-market", connection, lane=lane)
    for sequence in range(20):
        record(sequence).to(log)
    log.truncate_before(5)
    log.tidy()
    assert [bytes(each) for each in log.read(5)] == [record(sequence).record for sequence in range(5, 20)]
    js.loop(log._mark.write())
    assert js.open("bitactor-market", connection, lane=lane)._mark.records == 20
    opening = ObjectSnapshots.open(
        connection, "bitactor-market", lane=lane, directory=tmp_path, keep=1, replicas=1, size_bytes_max=32 << 20
    )
    snapshots = js.loop(opening)
    for sequence in (7, 9):
        snapshots.write({"sequence": sequence, "position": 0, "app": {"fingerprint": "f"}}, [("a", b"x" * 500_000)])
    (path,) = snapshots.latest()
    path.unlink()
    assert snapshots.load(path).meta["sequence"] == 9
    assert connection.denied is None


def test_what_the_page_allows_is_enough_and_what_it_does_not_is_refused(js, tmp_path):
    connection = connect(js, "app")
    use(js, connection, tmp_path, 0)
    for subject in (
        "$JS.API.STREAM.DELETE.bitactor-market-lane-0",
        "$JS.API.STREAM.UPDATE.bitactor-market-lane-0",
        "other.lane.0",
    ):
        with pytest.raises(nats.errors.TimeoutError):
            js.loop(connection.request(subject, b"{}", 0.2))
        assert f'permissions violation for publish to "{subject}"'.lower() in connection.denied

    async def listen():
        await connection.subscribe("bitactor-market.lane.0")
        async with asyncio.timeout(10):  # what was denied is told by a task of the client's own
            while "subscription" not in connection.denied:
                await asyncio.sleep(0.01)

    js.loop(listen())
    assert 'permissions violation for subscription to "bitactor-market.lane.0"' in connection.denied
    assert connection.reconnects == 0


def test_streams_that_an_administrator_made_need_no_right_to_make_them(js, tmp_path, monkeypatch):
    use(js, connect(js, "admin"), tmp_path / "a", 1)
    less = connect(js, "less")
    log = js.open("bitactor-market", less, lane=1)
    record(20).to(log)
    assert log.end().sequence == 21
    monkeypatch.setattr(streams, "OPEN_S", 0.5)
    with pytest.raises(
        LogError,
        match=r'the servers say: permissions violation for publish to "\$js.api.stream.create.bitactor-market-lane-2"',
    ):
        js.open("bitactor-market", less, lane=2)


def test_replicas_that_share_lanes_need_no_more_either(tmp_path):
    operator = Operator()
    file, secrets = operator.credentials(tmp_path / "demo.creds", documented("demo"))
    flags = {"nats_credentials_file": file, "cluster_lanes": 4, "snapshot_every_s": 1}
    cluster = Cluster(tmp_path, cluster_demo.APP, nodes=1, replicas=2, **flags)
    cluster.nats.settings = operator.settings
    with cluster:
        dev = tmp_path / "dev"
        keys = np.arange(5_000, dtype="u8") % 100
        with ba.Client(
            cluster.addresses, producer="p", token_file=dev / "token", ca_file=dev / "ca.pem", server_name="localhost"
        ) as client:
            client.send_batch(kind="reading", key=keys, value=np.ones(len(keys)), aux=keys % 7)
            client.flush(60)
        for replica in cluster.replicas:  # each gathers from the other
            rows = replica.rows("sensor")
            assert {key: row["count"] for key, row in rows.items()} == dict.fromkeys(range(100), 50)
        arguments = Path(f"/proc/{cluster.replicas[0].pid}/cmdline").read_text()
        assert str(file) in arguments
        cluster.replicas[0].stop()
        cluster.settled()
        for replica in cluster.replicas:
            assert "permissions violation" not in replica.error.read_text().lower()
        told = [arguments, cluster.nats.output(0), *(replica.error.read_text() for replica in cluster.replicas)]
        assert not any(secret in text for text in told for secret in secrets)
