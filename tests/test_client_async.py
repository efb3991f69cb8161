"""The client for asyncio, against a small service over real sockets and real TLS; with asyncio's loop and uvloop's."""

import asyncio
import ssl
import time

import numpy as np
import pytest
import uvloop

import bitactor as ba
from bitactor.ingest.certs import make_ca, make_server
from bitactor.protocol.errors import Code, ProtocolError

from .reference_server import ReferenceServer
from .test_client import tls_of, trades


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request):
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop

    def go(coroutine):
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(asyncio.wait_for(coroutine, 60))

    return go


@pytest.fixture
def server():
    with ReferenceServer() as server:
        yield server


def connect(server, **more):
    return ba.AsyncClient(server.address, **{"producer": "desk-1", "plain_text": True, **more})


def keys(server):
    return server.streams["desk-1"].signals["key"]


def test_signals_over_tls_arrive_once_in_order_while_other_tasks_run(run, tmp_path):
    make_ca(tmp_path)
    make_server(tmp_path)
    ticks = []

    async def tick():
        while True:
            ticks.append(time.monotonic())
            await asyncio.sleep(0.001)

    async def main(address):
        ticking = asyncio.create_task(tick())
        async with ba.AsyncClient(address, producer="desk-1", ca_file=tmp_path / "ca.pem") as client:
            assert await client.send_batch(trades(200_000)) == 200_000
            ack = await client.flush(30)
            assert (ack.next, ack.durability, client.acked, client.connected) == (200_000, 3, 200_000, True)
        ticking.cancel()

    with ReferenceServer(tls_of(tmp_path)) as server:
        run(main(server.address))
        assert (keys(server) == np.arange(200_000)).all()
        assert server.events[-1] == ("close", None)
    assert len(ticks) > 5


def test_small_pieces_share_frames_and_texts_become_keys(run, server):
    async def main():
        async with connect(server, linger_s=0.05) as client:
            for i in range(500):
                await client.send("trade", i, 1.0)
            await client.send("trade", "AAPL", 1.0)
            await client.send_batch(kind="trade", key=["MSFT", "AAPL"], value=[1.0, 2.0])
            while client.acked < 503:
                await asyncio.sleep(0.01)

    run(main())
    assert list(keys(server)) == [*range(500), *(ba.text_key(t) for t in ("AAPL", "MSFT", "AAPL"))]
    assert server.names == {ba.text_key(t): t for t in ("AAPL", "MSFT")}
    assert server.frames < 20


def test_a_lost_connection_is_taken_up_again_and_nothing_is_lost_or_doubled(run, server):
    async def main():
        rng = np.random.default_rng(12)
        given = 0
        async with connect(server, buffer_signals=50_000) as client:
            for _ in range(40):
                n = int(rng.integers(1, 20_000))
                if rng.random() < 0.4:
                    server.drop_after_frames = int(rng.integers(1, 4))
                await client.send_batch(trades(n, given))
                given += n
            await client.flush(30)
        return given

    given = run(main())
    assert (keys(server) == np.arange(given)).all()
    assert server.connections > 3 and server.streams["desk-1"].duplicates > 0


def test_a_full_buffer_makes_senders_wait_and_several_keep_their_batches_together(run, server):
    server.acking.clear()

    async def main():
        async with connect(server, buffer_signals=16384) as client:
            senders = [asyncio.create_task(client.send_batch(trades(20_000, first))) for first in (0, 100_000)]
            await asyncio.sleep(0.3)
            assert client.next == 16384
            with pytest.raises(TimeoutError, match=r"the buffer is full|acknowledged"):
                await client._wait(lambda: False, 0.05, "the buffer is full")
            server.acking.set()
            await asyncio.gather(*senders)

    run(main())
    assert (keys(server) == np.concatenate([np.arange(20_000), np.arange(100_000, 120_000)])).all()


def test_refusals_are_raised_where_they_are_awaited(run, server):
    async def refused_hello():
        with pytest.raises(ProtocolError, match="because of this"):
            async with connect(server):
                pass

    async def refused_frame():
        client = await connect(server).__aenter__()
        server.refuse = ProtocolError(Code.SUPERSEDED, "newer")
        await client.send_batch(trades(10))
        with pytest.raises(ProtocolError, match="superseded: newer"):
            await client.flush(10)
        with pytest.raises(ProtocolError, match="superseded: newer"):
            await client.close()
        with pytest.raises(ValueError, match="closed"):
            await client.send("trade", 1, 1.0)

    async def unreachable():
        with pytest.raises(ConnectionError, match=r"127\.0\.0\.1:1: "):
            async with ba.AsyncClient("127.0.0.1:1", producer="x", plain_text=True, connect_s=0.2):
                pass

    server.refuse = ProtocolError(Code.AUTH_FAILED, "because of this")
    run(refused_hello())
    run(refused_frame())
    run(unreachable())


def test_an_untrusted_certificate_is_refused(run, tmp_path):
    make_ca(tmp_path)
    make_server(tmp_path)

    async def main(address):
        with pytest.raises(ssl.SSLCertVerificationError):
            async with ba.AsyncClient(address, producer="x"):
                pass

    with ReferenceServer(tls_of(tmp_path)) as server:
        run(main(server.address))


def test_outputs_are_read_in_order_and_a_reader_goes_on_behind_the_last(run, server):
    server.outputs = np.zeros(250, np.dtype(ba.OUTPUT_DTYPE))
    server.outputs["kind"] = 3
    server.outputs["position"] = np.arange(250)

    async def main():
        got = []
        async with connect(server) as client:
            async for batch in client.subscribe("alert", after=(9, 0)):
                got.append(batch)
                if len(got) == 1:
                    server.drop_all()
                if sum(map(len, got)) == 240:
                    break
        return np.concatenate(got)

    assert (run(main())["position"] == np.arange(10, 250)).all()
