"""The client for threads, against a small service over real sockets and real TLS."""

import os
import signal
import ssl
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

import bitactor as ba
from bitactor.client import Client
from bitactor.ingest.certs import _leaf, make_ca, make_server
from bitactor.protocol.errors import Code, ProtocolError

from .reference_server import ReferenceServer


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificates")
    make_ca(folder)
    make_server(folder)
    return folder


def tls_of(folder):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    return context


@pytest.fixture
def server():
    with ReferenceServer() as server:
        yield server


def connect(server, **more):
    return Client(server.address, **{"producer": "desk-1", "plain_text": True, **more})


def trades(n, first=0):
    return ba.make_signals(1, np.arange(first, first + n), np.arange(n, dtype="f8"), np.arange(n) % 9, 7, n=n)


def sent(server, producer="desk-1"):
    return server.streams[producer].signals


def test_signals_over_tls_arrive_once_in_order_and_are_acknowledged(certificates):
    with ReferenceServer(tls_of(certificates)) as server:
        server.token = b"secret"
        with Client(server.address, producer="desk-1", token="secret", ca_file=certificates / "ca.pem") as client:
            assert [kind.name for kind in client.kinds] == ["trade", "count", "alert"]
            assert client.send_batch(trades(100_000)) == 100_000
            ack = client.flush(timeout=30)
            assert (ack.next, ack.durability, client.acked, client.next) == (100_000, 3, 100_000, 100_000)
            assert client.durability == 3 and client.connected
        assert sent(server).tobytes() == trades(100_000).tobytes()
        assert server.events[-1] == ("close", None)


def test_a_certificate_that_has_the_name_only_as_its_common_name_is_for_no_host(tmp_path):
    make_ca(tmp_path)
    _leaf(tmp_path, "server", "localhost", [], ExtendedKeyUsageOID.SERVER_AUTH, 1)
    with (
        ReferenceServer(tls_of(tmp_path)) as server,
        pytest.raises(OSError, match="is not trusted: Hostname mismatch"),
    ):
        Client(
            server.address,
            producer="desk-1",
            token="secret",
            ca_file=tmp_path / "ca.pem",
            server_name="localhost",
            connect_s=2,
        )


def test_small_pieces_share_frames_and_need_no_flush(server):
    with connect(server, linger_s=0.05) as client:
        for i in range(1000):
            client.send("trade", i, i / 2, aux=3, time=i)
        client.send_batch(trades(100, 1000))
        deadline = time.monotonic() + 10
        while client.acked < 1100 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert client.acked == 1100
    got = sent(server)
    assert (got["key"] == np.arange(1100)).all()
    assert (got["value"][:1000] == np.arange(1000) / 2).all() and (got["aux"][:1000] == 3).all()
    assert server.frames < 20


def test_columns_texts_and_names_arrive_before_their_first_use(server):
    with connect(server) as client:
        client.send("trade", "AAPL", 1.0)
        client.send_batch(kind="trade", key=["MSFT", "AAPL", "MSFT"], value=[1.0, 2.0, 3.0], time=0)
        assert client.key("IBM") == ba.text_key("IBM")
        client.send("count", ba.text_key("IBM"), -5, aux=-1)
    assert list(sent(server)["key"]) == [ba.text_key(t) for t in ("AAPL", "MSFT", "AAPL", "MSFT", "IBM")]
    assert server.names == {ba.text_key(t): t for t in ("AAPL", "MSFT", "IBM")}
    assert [what for what, _ in server.events if what != "close"] == ["name", "frame", "name", "frame", "name", "frame"]


def test_a_lost_connection_is_taken_up_again_and_nothing_is_lost_or_doubled(server):
    rng = np.random.default_rng(11)
    with connect(server, buffer_signals=50_000) as client:
        given = 0
        for _ in range(60):
            n = int(rng.integers(1, 20_000))
            if rng.random() < 0.4:
                server.drop_after_frames = int(rng.integers(1, 4))
            if rng.random() < 0.1:
                server.drop_all()
            client.key(f"name {given}")
            client.send_batch(trades(n, given))
            given += n
        client.flush(30)
    assert (sent(server)["key"] == np.arange(given)).all()
    assert server.connections > 5 and server.streams["desk-1"].duplicates > 0
    assert len(server.names) == 60


def test_a_client_goes_on_where_the_service_says(server):
    with connect(server) as client:
        client.send_batch(trades(1000))
    with connect(server) as client:
        assert (client.next, client.acked) == (1000, 1000)
        client.send_batch(trades(500, 1000))
    assert (sent(server)["key"] == np.arange(1500)).all()


def test_a_full_buffer_makes_senders_wait_and_keeps_memory_bounded(server):
    server.acking.clear()
    with connect(server, buffer_signals=16384) as client:
        sender = threading.Thread(target=client.send_batch, args=(trades(100_000),))
        sender.start()
        time.sleep(0.3)
        assert client.next == 16384 and sender.is_alive()
        server.acking.set()
        sender.join()
        client.flush(10)
    assert (sent(server)["key"] == np.arange(100_000)).all()


def test_credit_is_never_exceeded(server):
    server.window = 10_000
    server.acking.clear()
    with connect(server) as client:
        client.send_batch(trades(30_000))
        time.sleep(0.3)
        assert len(sent(server)) == 8192  # a second frame would end past the limit
        server.acking.set()
        client.flush(10)
    assert (sent(server)["key"] == np.arange(30_000)).all()


@pytest.mark.parametrize("code", [Code.AUTH_FAILED, Code.PRODUCER_FORBIDDEN, Code.FENCED])
def test_a_refused_hello_is_raised_with_the_services_words(server, code):
    server.refuse = ProtocolError(code, "because of this")
    with pytest.raises(ProtocolError, match="because of this") as caught:
        connect(server)
    assert caught.value.code == code
    assert server.connections == 1


def test_a_refused_frame_is_raised_in_the_callers_thread(server):
    client = connect(server)
    server.refuse = ProtocolError(Code.SUPERSEDED, "a newer connection")
    client.send_batch(trades(10))
    with pytest.raises(ProtocolError, match="superseded: a newer connection"):
        client.flush(10)
    with pytest.raises(ProtocolError, match="superseded"):
        client.send("trade", 1, 1.0)
    with pytest.raises(ProtocolError, match="superseded"):
        client.close()
    assert server.connections == 1
    with pytest.raises(ValueError, match="closed"):
        client.send("trade", 1, 1.0)


def test_a_service_that_is_not_ready_is_tried_again(server):
    server.refuse = ProtocolError(Code.NOT_READY, "recovering")
    with connect(server) as client:
        client.send_batch(trades(10))
    assert server.connections == 2


def test_takeover_fences_the_older_client(server):
    older = connect(server)
    older.send_batch(trades(5))
    older.flush(10)
    with connect(server, takeover=True) as newer:
        newer.send_batch(trades(5, 5))
        newer.flush(10)
        older.send_batch(trades(5))
        with pytest.raises(ProtocolError, match="fenced"):
            older.flush(10)
    with pytest.raises(ProtocolError, match="fenced"):
        older.close()
    assert (sent(server)["key"] == np.arange(10)).all()


def test_a_service_that_lost_what_it_acknowledged_is_not_trusted(server):
    client = connect(server)
    client.send_batch(trades(100))
    client.flush(10)
    server.streams.clear()
    server.drop_all()
    with pytest.raises(ProtocolError, match="expects 0, but had acknowledged 100"):
        client._link.wait(lambda: False, time.monotonic() + 10, "it goes on")
    client.close()  # nothing is open


def test_wrong_signals_are_refused_here_and_nothing_of_them_is_given(server):
    with connect(server) as client:
        bad = trades(10)
        bad["kind"][7] = 99
        with pytest.raises(ValueError, match="signal 7 is of kind 99, which the service's app does not declare"):
            client.send_batch(bad)
        bad["kind"][7] = 2
        with pytest.raises(ValueError, match=r"signal 7 is of kind 'count', declared value i8, aux i4"):
            client.send_batch(bad)
        bad["kind"][7], bad["flags"][8] = 1, 4
        with pytest.raises(ValueError, match="signal 8 has flags 0x0004"):
            client.send_batch(bad)
        with pytest.raises(
            KeyError, match="no kind 'trades' in the service's app; it has trade, count, alert; did you"
        ):
            client.send("trades", 1, 1.0)
        for given, said in [
            ((-1, 1.0), r"key is -1: key of kind 'trade' is u8, an integer from 0 to 2\*\*64 - 1"),
            ((1.5, 1.0), "key is 1.5: "),
            ((1, "x"), "value is 'x': value of kind 'trade' is f8, a number"),
            ((1, 1.0, -1), r"aux is -1: aux of kind 'trade' is u4, an integer from 0 to 2\*\*32 - 1"),
            ((1, 1.0, 1, -5), "time is -5: "),
        ]:
            with pytest.raises(ValueError, match=said):
                client.send("trade", *given)
        with pytest.raises(TypeError, match="column 'key', element 1: 3 is no text as others are"):
            client.send_batch(kind="trade", key=["a", 3], value=[1.0, 2.0])
        with pytest.raises(TypeError, match="not a signal dtype"):
            client.send_batch(np.zeros(3))
        assert client.next == 0


def test_a_trace_goes_with_a_frame_of_its_own(server):
    trace = bytes(range(24))
    with connect(server) as client:
        client.send_batch(trades(5))
        client.send_batch(trades(5, 5), trace=trace)
        client.send_batch(trades(5, 10))
    assert server.traces == [trace]
    assert [n for what, n in server.events if what == "frame"] == [5, 5, 5]


def test_a_service_that_cannot_be_reached_is_a_connection_error():
    with pytest.raises(ConnectionError, match=r"127\.0\.0\.1:1: .*refused"):
        Client("127.0.0.1:1", producer="x", plain_text=True, connect_s=0.2)


def test_flush_says_why_it_did_not_end_in_time(server):
    server.acking.clear()
    with connect(server) as client:
        client.send_batch(trades(5))
        with pytest.raises(TimeoutError, match=r"not all is acknowledged after 0\.1 s"):
            client.flush(0.1)
        server.acking.set()
        client.flush(10)


def test_an_untrusted_certificate_is_refused_by_the_client(certificates):
    with ReferenceServer(tls_of(certificates)) as server:
        with pytest.raises(ssl.SSLCertVerificationError, match=r"is not trusted: .*; ca_file names who signed it"):
            Client(server.address, producer="x")
        with pytest.raises(ssl.SSLCertVerificationError, match="mismatch.*; server_name says its name"):
            Client(server.address, producer="x", ca_file=certificates / "ca.pem", server_name="elsewhere")
        with pytest.raises(ConnectionError, match=r"No such file or directory: '.*absent\.pem'"):
            Client(server.address, producer="x", ca_file=certificates / "absent.pem", connect_s=0.2)
    with ReferenceServer() as server, pytest.raises(ConnectionError, match="what answers there speaks no TLS"):
        Client(server.address, producer="x", ca_file=certificates / "ca.pem", connect_s=1)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"address": "example.com:1", "plain_text": True}, "only to this machine"),
        ({"address": "localhost:0"}, "address is 'localhost:0'"),
        ({"address": "a:b:c"}, "address is"),
        ({"token": "a", "token_file": "b"}, "token or token_file, not both"),
        ({"key_file": "k"}, "give cert_file too"),
        ({"buffer_signals": 10}, "give at least 8192"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(more, message):
    with pytest.raises(ValueError, match=message):
        Client(**{"producer": "x", **more})


def test_outputs_are_read_in_order_and_a_reader_goes_on_behind_the_last(server):
    server.outputs = np.zeros(250, np.dtype(ba.OUTPUT_DTYPE))
    server.outputs["kind"] = 3
    server.outputs["position"] = np.arange(250) // 2
    server.outputs["index"] = np.arange(250) % 2
    server.outputs["value"] = np.arange(250)
    with connect(server) as client, client.subscribe("alert") as outputs:
        got = [outputs.read(10), outputs.read(10)]
        server.drop_all()
        got.append(outputs.read(10))
        assert [len(batch) for batch in got] == [100, 100, 50]
        assert (np.concatenate(got)["value"] == np.arange(250)).all()
        assert outputs.last == (124, 1)
        assert outputs.read(0.05) is None
    with connect(server) as client, client.subscribe(["alert", "trade"], after=(100, 0)) as outputs:
        assert outputs.read(10)["position"][0] == 100


def test_the_client_loads_neither_the_compiler_nor_the_engine():
    code = (
        "import sys, bitactor as ba; ba.Client; "
        "print(*sorted({'llvmlite', 'numba', 'bitactor.engine', 'bitactor.actors', 'bitactor._core._engine', 'asyncio'}"
        " & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.split() == []


def test_ctrl_c_ends_every_wait(server):
    code = """
import sys, signal, bitactor as ba, numpy as np
signal.signal(signal.SIGINT, signal.default_int_handler)
client = ba.Client(sys.argv[1], producer="desk-1", plain_text=True, buffer_signals=8192)
what = sys.argv[2]
try:
    print("waiting", flush=True)
    if what == "send":
        client.send_batch(ba.make_signals(1, np.arange(20000), 1.0, n=20000))
    client.send("trade", 1, 1.0)
    client.flush() if what == "flush" else client.close()
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
    server.acking.clear()
    for what in ("send", "flush", "close"):
        command = [sys.executable, "-c", code, server.address, what]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "waiting\n"
            time.sleep(0.3)
            process.send_signal(signal.SIGINT)
            assert process.stdout.read() == "interrupted\n"
            assert process.wait(20) == 0
    server.acking.set()


def test_a_forked_process_is_told_to_use_spawn(server):
    with connect(server) as client:
        child = os.fork()
        if child == 0:
            try:
                client.send("trade", 1, 1.0)
            except RuntimeError as error:
                os._exit(7 if "spawn" in str(error) else 1)
            os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
