"""The clients against the real service, a process with TLS and a log in SQLite that is killed and started again."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import urllib.request

import numpy as np
import pytest

import bitactor as ba

APP = """
    import bitactor as ba

    app = ba.App("counts")
    tick = app.kind("tick", 1, value="f8", aux="u4")
    even = app.kind("even", 2, value="f8")

    @app.actor(tick, state={"count": "u8", "sum": "f8"})
    def count(state, signal, emit):
        state.count += 1
        state.sum += signal.value
        if state.count % 1000 == 0:
            emit(even, signal.key, state.sum)
"""


@pytest.fixture
def service(tmp_path):
    """start() -> the process, when it is ready; the same ports and directory each time."""
    (tmp_path / "counts.py").write_text(textwrap.dedent(APP))
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
        ports = [sock.getsockname()[1] for sock in sockets]
    processes = []

    def start():
        command = [sys.executable, "-m", "bitactor", "serve", "counts.py", "--data-dir", "data"]
        command += ["--ingest-port", str(ports[0]), "--admin-port", str(ports[1]), "--engine-shards", "1"]
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        for line in process.stdout:
            if '"ready"' in line:
                return process
        raise AssertionError("the service ended before it was ready")

    start.address = f"127.0.0.1:{ports[0]}"
    start.admin = f"http://127.0.0.1:{ports[1]}"
    start.secrets = {"token_file": tmp_path / "data/dev/token", "ca_file": tmp_path / "data/dev/ca.pem"}
    yield start
    for process in processes:
        process.kill()
        process.stdout.close()
        process.wait()


def ticks(n, first):
    return ba.make_signals(1, np.arange(first, first + n) % 10, np.ones(n), 0, 7, n=n)


@pytest.mark.slow
def test_what_is_acknowledged_survives_a_killed_service_once_and_outputs_go_on(service):
    process = service()
    rng = np.random.default_rng(13)
    given = 0
    with ba.Client(service.address, producer="ticks", **service.secrets) as client:
        outputs = client.subscribe("even", after=(0, 0))
        seen = []
        for _ in range(3):
            while given < 400_000:
                n = int(rng.integers(1, 20_000))
                client.send_batch(ticks(n, given))
                given += n
                if rng.random() < 0.05:
                    break
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            process = service()
        while given % 10_000:
            client.send_batch(ticks(1, given))
            given += 1
        ack = client.flush(60)
        assert (ack.next, ack.position, ack.durability) == (given, given, 3)
        while sum(map(len, seen)) < given // 1000 and (batch := outputs.read(20)) is not None:
            seen.append(batch)
        outputs.close()
    got = np.concatenate(seen)
    for key in range(10):
        assert (got["value"][got["key"] == key] == np.arange(1000, given // 10 + 1, 1000)).all()
    with urllib.request.urlopen(f"{service.admin}/api/v1/statistics") as answer:  # loopback
        assert json.load(answer)


@pytest.mark.slow
def test_a_subscription_begins_when_it_is_made_not_when_it_is_first_read(service):
    process = service()
    with ba.Client(service.address, producer="c", **service.secrets) as client:
        client.send_batch(ba.make_signals(1, np.full(1000, 7), np.ones(1000), 0, 7, n=1000))
        client.flush(30)
        with client.subscribe("even") as outputs:
            client.send_batch(ba.make_signals(1, np.full(1000, 7), np.ones(1000), 0, 7, n=1000))
            client.flush(30)
            process.kill()  # also over a loss before anything was read
            process.wait()
            service()
            assert outputs.read(20)["value"].tolist() == [2000.0]


def send_and_flush(client):
    client.send_batch(ticks(1, 0))
    client.flush(30)


@pytest.mark.slow
def test_both_clients_share_a_service_and_a_takeover_ends_the_older(service):
    service()

    async def main():
        async with ba.AsyncClient(service.address, producer="b", **service.secrets) as client:
            await client.send_batch(kind="tick", key=["x", "y", "x"], value=[1.0, 2.0, 3.0])
            assert (await client.flush(30)).next == 3

    older = ba.Client(service.address, producer="a", **service.secrets)
    older.send_batch(ticks(10_000, 0))
    assert older.flush(30).next == 10_000
    asyncio.run(main())
    with ba.Client(service.address, producer="a", takeover=True, **service.secrets) as newer:
        assert newer.next == 10_000
        with pytest.raises(ba.ProtocolError, match="fenced"):
            send_and_flush(older)
        newer.send_batch(ticks(5, 10_000))
        assert newer.flush(30).next == 10_005
        with contextlib.suppress(ba.ProtocolError):
            older.close()
