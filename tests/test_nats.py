"""Connections to real NATS servers: who is let in, what is not sent in the clear, and losses that are made good."""

import asyncio
import json
import logging
import time

import nkeys
import pytest

from bitactor.config import Nats
from bitactor.ingest.certs import make_ca, make_client, make_server
from bitactor.log.nats import NatsError, connect
from bitactor.validation.nats import NatsServers
from tests.nats_jwt import Operator

PASSWORD = "a-pass-phrase"
SEED = nkeys.encode_seed(bytes(range(32)), nkeys.PREFIX_BYTE_USER)


def file_with(path, text):
    path.write_text(text)
    path.chmod(0o600)
    return path


async def answers(connection):
    """Whether the server takes part in a round trip."""
    return await connection.rtt(timeout=5) < 5


async def until(condition, timeout_s=30):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


def test_users_are_known_by_password_or_key_and_others_are_refused_at_once(tmp_path):
    pair = nkeys.from_seed(SEED)
    users = [{"user": "app", "password": PASSWORD}, {"nkey": pair.public_key.decode()}]
    password, seed = file_with(tmp_path / "p", PASSWORD + "\n"), file_with(tmp_path / "s", SEED.decode())
    wrong = file_with(tmp_path / "w", "another")

    async def use(**settings):
        connection = await connect(Nats(urls=servers.urls, **settings), name="a test")
        assert await answers(connection)
        (seen,) = servers.monitor(0, "/connz")["connections"]
        assert seen["name"] == "a test"
        await connection.close()

    with NatsServers(tmp_path, users=users) as servers:
        asyncio.run(use(user="app", password_file=password))
        asyncio.run(use(nkey_file=seed))
        for settings in ({"user": "app", "password_file": wrong}, {}):
            begun = time.monotonic()
            with pytest.raises(NatsError, match="refuses who this is.*see nats.credentials_file") as caught:
                asyncio.run(use(**settings))
            assert time.monotonic() - begun < 20  # of 30 that it would try
            assert "another" not in str(caught.value)
        with pytest.raises(NatsError, match="nats.password_file: .*/none: No such file"):
            asyncio.run(use(user="app", password_file=tmp_path / "none"))
        for text in ("", "SUA", SEED.decode()[:-9], f"seed: {SEED.decode()}"):
            with pytest.raises(NatsError, match="nats.nkey_file: .*/s holds no seed of an nkey") as caught:
                asyncio.run(use(nkey_file=file_with(seed, text)))
            assert SEED.decode()[:8] not in str(caught.value)


def test_a_credentials_file_lets_in_until_it_expires_and_only_whom_the_account_has_signed(tmp_path, caplog):
    operator = Operator()
    good, secrets = operator.credentials(tmp_path / "good")
    late, more = operator.credentials(tmp_path / "late", expires_s=-5)
    other, too = operator.credentials(tmp_path / "other", signer=operator.key)

    async def use(file):
        connection = await connect(Nats(urls=servers.urls, credentials_file=file), name="a test")
        answer = json.loads((await connection.request("$JS.API.INFO", b"")).data)
        await connection.close()
        return answer["limits"]["max_storage"]

    with NatsServers(tmp_path, **operator.settings) as servers:
        assert asyncio.run(use(good)) == -1
        for file in (late, other):
            with pytest.raises(NatsError, match="refuses who this is.*see nats.credentials_file") as caught:
                asyncio.run(use(file))
            assert not any(secret in str(caught.value) for secret in (*more, *too))
        whole = good.read_text()
        for text in ("", whole.replace("JWT", "KEY"), whole[: whole.index("SEED")], whole.replace(secrets[0], "SUA")):
            with pytest.raises(NatsError, match="nats.credentials_file: .* holds no user's JWT and seed") as caught:
                asyncio.run(use(file_with(good, text)))
            assert not any(secret in str(caught.value) for secret in secrets)
        told = caplog.text + "".join(servers.output(0))
        assert not any(secret in told for secret in (*secrets, *more, *too))


def test_tls_is_used_when_asked_for_and_nothing_is_sent_without_it(tmp_path):
    ca, other = make_ca(tmp_path / "ca"), make_ca(tmp_path / "other")
    server = make_server(tmp_path / "ca", ["localhost", "127.0.0.1"])
    client = make_client(tmp_path / "ca", "app")
    tls = {"cert_file": server.cert_file, "key_file": server.key_file, "ca_file": ca.cert_file, "verify": True}
    password = file_with(tmp_path / "p", PASSWORD)

    async def use(urls, ca_file, **settings):
        connection = await connect(Nats(urls=urls, tls_ca_file=ca_file, **settings), name="a test")
        assert await answers(connection)
        assert connection._transport._io_writer.get_extra_info("ssl_object").version() == "TLSv1.3"
        await connection.close()

    shown = {"tls_cert_file": client.cert_file, "tls_key_file": client.key_file}
    with NatsServers(tmp_path / "with", tls=tls) as servers:
        asyncio.run(use(servers.urls, ca.cert_file, **shown))
        with pytest.raises(NatsError, match=r"no TLS with a NATS server.*certificate verify failed.*nats.tls_ca_file"):
            asyncio.run(use(servers.urls, other.cert_file, **shown))
        with pytest.raises(NatsError, match=r"answered within|no TLS with"):
            asyncio.run(asyncio.wait_for(use(servers.urls, ca.cert_file), 60))
    users = [{"user": "app", "password": PASSWORD}]
    with NatsServers(tmp_path / "without", users=users, trace=True, debug=True) as servers:
        with pytest.raises(NatsError, match="does not speak TLS, and the settings ask for it"):
            asyncio.run(use(servers.urls, ca.cert_file, user="app", password_file=password))
        assert "[CONNECT" not in servers.output(0)  # no line with who this is has come over


def test_a_lost_connection_is_made_again_for_ever_and_told_in_log_lines(tmp_path, caplog):
    caplog.set_level(logging.INFO)

    async def main():
        connection = await connect(Nats(urls=servers.urls), name="a test")
        told = []

        async def again():
            told.append(servers.runs(0))

        connection.on_reconnect.append(again)
        for times in range(1, 4):
            servers.kill(0)
            await asyncio.sleep(0.3)
            await asyncio.to_thread(servers.start, 0)
            await until(lambda times=times: len(told) == times)
            assert connection.reconnects == times
            assert await answers(connection)
        await connection.close()
        assert told == [True] * 3

    with NatsServers(tmp_path) as servers:
        asyncio.run(main())
    events = [record.getMessage() for record in caplog.records if record.name == "bitactor.nats"]
    assert events[0] == "nats connected"
    assert events.count("nats connection lost, connecting again") == 3
    assert events.count("nats connected again") == 3


def test_a_server_that_stands_still_is_left_for_another_one_though_it_takes_no_bytes(tmp_path):
    async def main():
        connection = await connect(Nats(urls=servers.urls), name="a test")
        here = next(i for i in range(3) if servers.ports[i] == connection.connected_url.port)
        servers.pause(here)
        for _ in range(20):
            await connection.publish("nobody", bytes(1 << 20))  # more than the sockets between take
        await until(lambda: connection.is_connected and connection.connected_url.port != servers.ports[here])
        assert await answers(connection)
        await connection.close()

    with NatsServers(tmp_path, nodes=3) as servers:
        asyncio.run(main())


def test_an_error_that_ends_a_connection_ends_only_that_one(tmp_path):
    async def main():
        connection = await connect(Nats(urls=servers.urls), name="a test")
        await connection._process_err("'Maximum Connections Exceeded'")
        await until(lambda: connection.reconnects == 1)
        assert await answers(connection)
        connection._max_payload = 1 << 30
        await connection.publish("nobody", bytes(2 << 20))  # the server closes who sends more than it takes
        await until(lambda: connection.reconnects == 2)
        assert await answers(connection)
        await connection.close()

    with NatsServers(tmp_path, max_payload=1 << 20) as servers:
        asyncio.run(main())


def test_without_a_server_it_is_told_which_ones_were_tried():
    async def main():
        await connect(Nats(urls="nats://127.0.0.1:1"), name="a test", connect_s=0.5)

    with pytest.raises(
        NatsError, match=r"\(nats://127.0.0.1:1\) answered within 0.5 s; the last error: .*Connect call failed"
    ):
        asyncio.run(main())


def test_the_servers_for_tests_are_configured_as_asked(tmp_path):
    with NatsServers(tmp_path, sync_always=True, max_payload=123456) as servers:
        said = servers.monitor(0, "/varz")
        assert said["jetstream"]["config"]["sync_always"] and said["max_payload"] == 123456
        assert json.loads((tmp_path / "n0" / "conf").read_text())["server_name"] == "n0"
        pid = servers.processes[0].pid
        servers.kill(0)
        servers.start(0)
        assert servers.processes[0].pid != pid
