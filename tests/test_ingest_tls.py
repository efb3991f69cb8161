"""TLS 1.3 as clients of all sorts meet it: certificates good and bad, rotation, plain text, cuts, pressure."""

import contextlib
import json
import logging
import random
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from bitactor.ingest import auth, certs, tls
from bitactor.ingest import server as server_module
from bitactor.ingest.watch import Watched
from bitactor.protocol.errors import Code
from bitactor.protocol.messages import Close, Error, Ping, Pong, Welcome
from tests.ingest_tools import (
    SECRET,
    MemoryAdmission,
    Peer,
    Serving,
    client_context,
    frame,
    identities,
    signals,
    tls_files,
    unchanged,
)

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A CA with a server and good and bad clients; `other` is a CA of somebody else."""
    path = tmp_path_factory.mktemp("certs")
    tls_files(path)
    certs.make_client(path, "collector-1")
    certs.make_client(path, "stranger")
    certs.make_client(path, "collector-1", file="expired", days=-1)
    certs.make_ca(path / "other")
    certs.make_client(path / "other", "collector-1")
    for suffix in ("pem", "key"):
        shutil.copy(path / "other" / f"collector-1.{suffix}", path / f"foreign.{suffix}")
    return path


@pytest.fixture(scope="module")
def serving(directory):
    with Serving(files=tls_files(directory), handshake_s=0.5) as running:
        yield running


def refusals(serving):
    """What was refused since it was last asked."""
    now = serving.on_loop(lambda: dict(serving.server.counters.refused))
    before = getattr(serving, "before", {})
    serving.before = now
    return {what: n - before.get(what, 0) for what, n in now.items() if n != before.get(what, 0)}


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_signals_arrive_through_tls_whatever_their_pieces_are(directory, loop):
    seed = random.randrange(1 << 32)
    print("seed", seed)
    rng = random.Random(seed)
    stream, expected = b"", 0
    for _ in range(40):
        count = rng.choice([1, 40, 3000, 8192])
        stream += frame(count, expected)
        expected += count
    with Serving(files=tls_files(directory), loop=loop) as running:
        with Peer(running.port, client_context(directory)) as peer:
            assert isinstance(peer.hello(), Welcome)
            at = 0
            while at < len(stream):
                n = rng.choice([1, 63, 4096, 16384, 16385, 300000])
                peer.send(stream[at : at + n])
                at += n
            peer.acked(expected)
            peer.send(Close())
            assert peer.receive() == Close()
            peer.socket.unwrap()  # the server says goodbye inside TLS too, or this raises
        data = b"".join(data for _, _, _, data in running.admission.taken)
        assert data == signals(expected).tobytes()
        assert running.on_loop(lambda: running.server.counters.handshakes) == 1


def test_a_client_certificate_is_an_identity(serving, directory):
    with Peer(serving.port, client_context(directory, "collector-1")) as peer:
        assert isinstance(peer.hello("anything", token=b""), Welcome)
    with Peer(serving.port, client_context(directory, "stranger")) as peer:
        error = peer.hello(token=b"")
        assert error.code == Code.AUTH_FAILED and "nobody is known by this certificate" in error.message
    with Peer(serving.port, client_context(directory)) as peer:
        assert peer.hello(token=b"").code == Code.AUTH_FAILED
    refusals(serving)


def fails(serving, context):
    """The TLS error that a client with that context gets, in its handshake or with its first answer."""
    try:
        with Peer(serving.port, context) as peer:
            peer.send(Ping(1))
            return f"it was answered: {peer.socket.recv(100)!r}"
    except ssl.SSLError as error:
        return str(error)


def test_expired_foreign_and_misused_certificates_fail_the_handshake(serving, directory):
    refusals(serving)
    with unchanged(serving):
        assert "EXPIRED" in fails(serving, client_context(directory, "expired")).upper()
        assert "UNKNOWN" in fails(serving, client_context(directory, "foreign")).upper()
        assert "CERTIFICATE" in fails(serving, client_context(directory, "server")).upper()  # not for clients
    assert refusals(serving) == {"certificate_bad": 3}


def test_a_required_certificate_that_is_missing_fails_the_handshake(directory):
    with Serving(files=tls_files(directory, client_required=True)) as running:
        assert "CERTIFICATE_REQUIRED" in fails(running, client_context(directory)).upper().replace(" ", "_")
        with Peer(running.port, client_context(directory, "stranger")) as peer:
            assert isinstance(peer.hello(token=SECRET), Welcome)
        assert running.refused == {"certificate_missing": 1}


def test_tls_1_2_is_refused_with_an_alert_that_says_so(serving, directory):
    refusals(serving)
    old = client_context(directory, maximum_version=ssl.TLSVersion.TLSv1_2)
    with unchanged(serving):
        assert "PROTOCOL_VERSION" in fails(serving, old).upper().replace(" ", "_")
    assert refusals(serving) == {"tls_version": 1}


def test_a_client_that_does_not_trust_the_server_ends_the_handshake(serving, directory):
    refusals(serving)
    assert "CERTIFICATE_VERIFY_FAILED" in fails(serving, client_context(directory / "other"))
    serving.until(lambda: serving.server.counters.refused["tls_alert"] == 1)
    assert refusals(serving) == {"tls_alert": 1}


@pytest.mark.parametrize("data", [frame(3), b"GET / HTTP/1.1\r\n\r\n", b"B"])
def test_plain_text_on_the_tls_port_is_answered_in_plain_text_and_logged(serving, caplog, data):
    refusals(serving)
    with caplog.at_level(logging.WARNING), unchanged(serving), Peer(serving.port) as peer:
        peer.send(data)
        error = peer.error()
        assert isinstance(error, Error) and error.code == Code.TLS_REQUIRED
    assert "plain text on the TLS port from 127.0.0.1" in caplog.text
    assert refusals(serving) == {"plain_text": 1}


def test_handshakes_that_are_slow_or_cut_or_garbage_or_endless_end(serving, directory):
    refusals(serving)
    hello = client_hello(directory)
    with unchanged(serving):
        began = time.monotonic()
        with Peer(serving.port) as silent, Peer(serving.port) as half:
            half.send(hello[:100])
            assert silent.receive() is None and half.receive() is None
        assert 0.4 < time.monotonic() - began < 2
        assert refusals(serving) == {"handshake_timeout": 2}
        with Peer(serving.port) as cut:
            cut.send(hello[:100])
        serving.until(lambda: serving.server.counters.refused["tls_cut_off"] == 1)
        refusals(serving)
        with Peer(serving.port) as garbage:
            garbage.send(b"\x16" + random.Random(1).randbytes(500))
            garbage.socket.recv(100)
        assert sum(refusals(serving).values()) == 1
        with Peer(serving.port) as endless, contextlib.suppress(OSError):
            body = b"\x01\x01\xd4\xc0" + bytes(120_000)  # a client hello that TLS itself would take to the end
            for at in range(0, len(body), 0x4000):
                part = body[at : at + 0x4000]
                endless.send(b"\x16\x03\x01" + len(part).to_bytes(2, "big") + part)
                time.sleep(0.01)
            assert endless.receive() is None
        assert refusals(serving) == {"tls_too_long": 1}
    serving.until(lambda: not serving.server.counters.connections)


def client_hello(directory):
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context(directory).wrap_bio(incoming, outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def test_a_hello_in_tiny_tls_records_is_cut_off_long_before_it_costs_much(serving, directory):
    refusals(serving)
    with Peer(serving.port, client_context(directory)) as peer, unchanged(serving):
        with contextlib.suppress(OSError):
            for byte in b"BAF1\x01\x02\x00\x00\x00\x00\x10\x00" + bytes(4000):
                peer.send(bytes([byte]))  # 23 bytes each
        assert peer.receive() is None
    assert refusals(serving) == {"tls_too_long": 1}


def test_a_handshake_one_byte_at_a_time_is_a_handshake_all_the_same(directory):
    with Serving(files=tls_files(directory)) as running, socket.create_connection(("127.0.0.1", running.port)) as raw:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = client_context(directory).wrap_bio(incoming, outgoing, server_hostname="localhost")
        done = False
        while not done:
            try:
                client.do_handshake()
                done = True
            except ssl.SSLWantReadError:
                pass
            for byte in outgoing.read():
                raw.send(bytes([byte]))
            if not done:
                incoming.write(raw.recv(65536))
        running.until(lambda: running.server.counters.handshakes == 1)


def test_new_handshakes_use_new_certificates_and_open_connections_stay(tmp_path):
    files = tls_files(tmp_path)
    context = client_context(tmp_path)

    def serial():
        with Peer(running.port, context) as peer:
            return peer.socket.getpeercert()["serialNumber"]

    with Serving(files=files) as running, Peer(running.port, context) as open_one:
        open_one.hello()
        first = serial()
        good = files.cert_file.read_bytes(), files.key_file.read_bytes()
        files.cert_file.write_text("broken")
        (failure,) = running.on_loop(running.server.reload)
        assert "certificates stay as they were" in failure
        assert serial() == first
        files.cert_file.unlink()
        files.key_file.unlink()
        certs.make_server(tmp_path)
        assert files.cert_file.read_bytes() != good[0]
        assert running.on_loop(running.server.reload) == []
        assert serial() != first
        open_one.send(Ping(5))
        assert open_one.receive() == Pong(5)
        assert running.on_loop(lambda: running.server.counters.reload_failures) == 1


def test_changed_files_are_noticed_without_being_told(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(server_module, "RELOAD_S", 0.05)
    files = tls_files(tmp_path)
    with caplog.at_level(logging.INFO), Serving(files=files) as running:
        files.cert_file.write_text("broken")
        running.until(lambda: running.server.counters.reload_failures == 1)
        time.sleep(0.2)
        assert running.on_loop(lambda: running.server.counters.reload_failures) == 1  # said once
        files.cert_file.unlink()
        files.key_file.unlink()
        certs.make_server(tmp_path)
        running.until(lambda: not running.server.tls.changed() and running.server.counters.reloads >= 1)
    assert "certificates stay as they were" in caplog.text
    assert "identities were read again" not in caplog.text  # they did not change


def test_identities_read_again_end_or_change_the_sessions_they_are_about(tmp_path):
    one = auth.Identity("sender", frozenset({"trade"}), ("*",), tokens_sha256=identities()._all[0].tokens_sha256)
    known = [auth.Identities([one])]
    with Serving(known=Watched((), lambda: known[0])) as running, Peer(running.port) as peer:
        peer.hello()
        known[0] = auth.Identities([auth.Identity("sender", frozenset(), ("*",), tokens_sha256=one.tokens_sha256)])
        running.on_loop(running.server.reload)
        peer.send(frame(1))
        assert peer.error().code == Code.KIND_FORBIDDEN
        with Peer(running.port) as again:
            again.hello()
            known[0] = auth.Identities([])
            running.on_loop(running.server.reload)
            assert again.error().code == Code.AUTH_FAILED


def test_pressure_holds_back_a_tls_peer_and_nothing_is_lost_or_reordered(directory):
    admission = MemoryAdmission(room=20_000, acks="later")
    with Serving(admission, files=tls_files(directory)) as running:
        with Peer(running.port, client_context(directory)) as peer:
            peer.hello()
            counts = [8192, 10, 5000, 1, 8192] * 12

            def send():
                at = 0
                for count in counts:
                    peer.send(frame(count, at))
                    at += count

            sender = threading.Thread(target=send)
            sender.start()
            while running.on_loop(lambda: sum(admission.next.values())) < sum(counts):
                time.sleep(0.005)
                running.on_loop(admission.settle, 6000)
            sender.join()
            running.on_loop(admission.settle)
            peer.acked(sum(counts))
        assert b"".join(data for _, _, _, data in admission.taken) == signals(sum(counts)).tobytes()


def test_what_was_received_and_not_decrypted_is_handled_when_there_is_room_again(directory):
    admission = MemoryAdmission(room=8192, acks="later")  # for one frame at a time
    with (
        Serving(admission, files=tls_files(directory)) as running,
        Peer(running.port, client_context(directory)) as peer,
    ):
        peer.hello()
        frames = [frame(100, 100 * at) for at in range(38)]
        peer.send(frames[0] + frames[1])
        running.until(lambda: running.server.counters.paused["room"])
        peer.send(b"".join(frames[2:]))  # more than one buffer, less than is received at once; then nothing more
        for taken in range(1, 39):
            running.until(lambda wanted=taken: len(admission.taken) == wanted, 2)
            time.sleep(0.005)
            assert running.on_loop(lambda: len(admission.taken)) == taken
            running.on_loop(admission.settle)
        peer.acked(3800)


def test_a_peer_that_is_cut_off_or_damages_its_records_ends_without_a_change(serving, directory):
    with unchanged(serving):
        for damage in (False, True):
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            client = client_context(directory).wrap_bio(incoming, outgoing, server_hostname="localhost")
            with socket.create_connection(("127.0.0.1", serving.port), timeout=5) as raw:
                for _ in range(3):
                    with contextlib.suppress(ssl.SSLWantReadError):
                        client.do_handshake()
                        break
                    raw.sendall(outgoing.read())
                    incoming.write(raw.recv(65536))
                raw.sendall(outgoing.read())
                client.write(frame(3))
                data = bytearray(outgoing.read())
                if damage:
                    data[50] ^= 1
                    raw.sendall(data)
                    while raw.recv(4096):
                        pass
                else:
                    raw.sendall(data[:-5])
        serving.until(lambda: not serving.server.counters.connections)


def test_too_many_connections_are_closed_before_any_tls(directory):
    with Serving(files=tls_files(directory), connections_max=1, connections_per_peer_max=1) as running:
        with Peer(running.port, client_context(directory)) as peer, Peer(running.port) as second:
            peer.hello()
            assert second.receive() is None
        assert running.refused == {"connections_full": 1}


def test_an_expiry_is_told_for_metrics(serving, directory):
    expiry = serving.on_loop(lambda: serving.server.tls.value.expires)
    assert expiry == certs.expires(directory / "server.pem").timestamp()
    assert isinstance(serving.server.tls.value, tls.Tls)


@pytest.mark.parametrize("row", ["connected", "handshaken"])
def test_a_connection_that_says_nothing_costs_less_than_64_kib(row):
    command = [sys.executable, "-m", "benchmarks.measures.ingest", "--row", row, "--connections", "400"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert 0 < json.loads(done.stdout)["value"] < 64
