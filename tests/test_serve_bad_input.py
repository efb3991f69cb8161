"""Bad input against a real `bitactor serve`: a process of its own, TLS, a SQLite log. Nothing it holds may change.

What may change is asked over HTTP before and after: the log's end, producers, names, every actor's table, counts.
"""

import contextlib
import json
import select
import shutil
import signal
import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bitactor.ingest import certs
from bitactor.ingest.auth import write_secret
from bitactor.protocol.errors import Code
from bitactor.protocol.messages import Ack, Close, Error, Hello, Name, Ping, Pong, Subscribe, Welcome
from bitactor.signals import text_key
from tests.admin_service import ask
from tests.ingest_tools import READER, SECRET, Peer, client_context, directory_file, frame, tls_files
from tests.test_admin_nonsense import HOST, NONSENSE, raw, statuses
from tests.test_ingest_bad_input import FRAMES, GOOD
from tests.test_ingest_tls import client_hello, fails

APP = Path(__file__).parent / "ingest_tools.py"
ADMIN = b"a token for who asks over HTTP, long enough"
LIMITS = ["--limits-handshake-s=1", "--limits-frame-s=1", "--limits-output-bytes-max=65536"]


class Real:
    """A service in a process, asked from outside."""

    def __init__(self, directory, *flags, secure=True):
        self.directory = directory
        write_secret(directory / "admin", ADMIN)
        command = [
            *(sys.executable, "-m", "bitactor", "serve", f"{APP}:app", f"--data-dir={directory / 'data'}"),
            *("--ingest-port=0", "--admin-port=0", "--engine-shards=1", "--limits-heartbeat-s=3600", *LIMITS, *flags),
            f"--auth-file={directory_file(directory / 'identities.toml')}",
            f"--admin-token-file={directory / 'admin'}",
        ]
        if secure:
            files = tls_files(directory / "certs")
            command += [f"--tls-cert-file={files.cert_file}", f"--tls-key-file={files.key_file}"]
            command += [f"--tls-client-ca-file={files.client_ca_file}"]
        self.error = directory / "stderr"
        with self.error.open("wb") as error:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=error, text=True)
        line = self.process.stdout.readline()
        assert line, self.error.read_text()
        said = json.loads(line)
        self.port = int(said["ingest"][0].rpartition(":")[2])
        self.admin_port = int(said["admin"].rstrip("/").rpartition(":")[2])
        self.context = client_context(directory / "certs") if secure else None

    def asked(self, path):
        reply = ask(self.admin_port, path, authorization=f"Bearer {ADMIN.decode()}")
        assert reply.status == 200, reply.body
        return reply.json()

    def peer(self, **options):
        return Peer(self.port, self.context, **options)

    def state(self):
        """All that input may change."""
        told = self.asked("/api/v1/statistics")
        figures, engine = told["statistics"], told["statistics"]["engine"]
        producers = self.asked("/api/v1/producers")["producers"]
        return {
            "log": [figures["log"][name] for name in ("sequence", "position", "durable_position", "records", "bytes")],
            "engine": [engine[name] for name in ("accepted", "processed", "queued", "dropped", "emitted")],
            "names": told["names"],
            "producers": [{**row, "connected": None} for row in producers],
            "table": self.asked("/api/v1/actors/totals/table?limit=1000")["rows"],
            "admitted": [figures["ingest"][name] for name in ("frames", "signals", "pending")],
        }

    @contextlib.contextmanager
    def unchanged(self):
        before = self.state()
        yield
        assert self.state() == before
        assert self.process.poll() is None

    def refused(self):
        return self.asked("/api/v1/statistics")["statistics"]["ingest"]["refused"]

    def until_refused(self, reason, before):
        end = time.monotonic() + 20
        while self.refused().get(reason, 0) == before.get(reason, 0):
            assert time.monotonic() < end, (reason, before, self.refused())
            time.sleep(0.02)

    def stop(self):
        """In the end it stops in order, and nothing went wrong inside."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 0, self.error.read_text()
        self.process.stdout.close()
        lines = self.error.read_text()
        assert "Traceback" not in lines, lines
        assert not any(secret.decode() in lines for secret in (SECRET, READER, ADMIN))


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Five signals of p1 are in its log; p2 is another identity's."""
    running = Real(tmp_path_factory.mktemp("real"))
    certificates = running.directory / "certs"
    certs.make_client(certificates, "collector-1")
    certs.make_client(certificates, "collector-1", file="expired", days=-1)
    certs.make_ca(certificates / "other")
    certs.make_client(certificates / "other", "collector-1")
    for suffix in ("pem", "key"):
        shutil.copy(certificates / "other" / f"collector-1.{suffix}", certificates / f"foreign.{suffix}")
    try:
        with running.peer() as peer:
            assert isinstance(peer.hello(), Welcome)
            peer.send(frame(5))
            peer.acked(5)
            peer.send(Close())
            assert peer.receive() == Close()
        with Peer(running.port, client_context(certificates, "collector-1")) as peer:
            assert isinstance(peer.hello("p2", token=b""), Welcome)
        yield running
        running.stop()
    finally:
        if running.process.poll() is None:
            running.process.kill()
            running.process.wait()


@pytest.mark.parametrize("what", [what for what in FRAMES if FRAMES[what][1] is not None])
def test_a_bad_message_gets_its_code_and_changes_nothing(real, what):
    data, code, offset = FRAMES[what]
    with real.unchanged(), real.peer() as peer:
        assert isinstance(peer.hello(), Welcome)
        peer.send(data)
        error = peer.error()
        assert isinstance(error, Error) and (error.code, error.fatal, error.offset) == (code, True, offset), error
    with real.peer() as peer:  # and the producer goes on as if nothing had been
        assert peer.hello().next == 5


def test_a_frame_cut_at_any_byte_changes_nothing(real):
    with real.unchanged():
        for cut in range(len(GOOD)):
            with real.peer() as peer:
                peer.send(Hello(producer="p1", token=SECRET, client="test").encode() + GOOD[:cut])
                assert isinstance(peer.receive(), Welcome)


def test_what_was_taken_before_is_acknowledged_again_and_not_taken_twice(real):
    with real.unchanged(), real.peer() as peer:
        peer.hello()
        for sequence, count in [(0, 5), (0, 1), (4, 1), (1, 3)]:
            peer.send(frame(count, sequence))
            answer = peer.receive()
            assert isinstance(answer, Ack) and answer.next == 5


@pytest.mark.parametrize("early", [frame(3, 5), Ping(1).encode(), Subscribe(1, (1,)).encode(), Name(1, "a").encode()])
def test_what_comes_before_authentication_is_refused_at_its_head(real, early):
    with real.unchanged(), real.peer() as peer:
        peer.send(early[:24])
        assert peer.error().code == Code.HELLO_EXPECTED


def test_who_one_is_not_one_may_not_send_as(real):
    with real.unchanged():
        for producer, token, code in [
            ("p1", b"wrong", Code.AUTH_FAILED),
            ("p1", b"", Code.AUTH_FAILED),
            ("q1", SECRET, Code.PRODUCER_FORBIDDEN),
            ("p2", SECRET, Code.PRODUCER_FORBIDDEN),  # permitted by its name, and the collector's
            ("p1", READER, Code.PRODUCER_FORBIDDEN),
        ]:
            with real.peer() as peer:
                assert peer.hello(producer, token=token).code == code, producer
        with real.peer() as peer:
            assert peer.hello(version_min=2, version_max=3).code == Code.VERSION
        with real.peer() as peer:
            peer.hello()
            peer.send(Name(text_key("b"), "a"))
            assert peer.error().code == Code.NAME_MISMATCH


def test_plain_text_on_the_tls_port_and_the_reverse_are_told_apart(real, tmp_path):
    with real.unchanged():
        for data in (frame(3, 5), Hello("p1", token=SECRET).encode(), b"GET / HTTP/1.1\r\n\r\n"):
            with Peer(real.port) as peer:
                peer.send(data)
                assert peer.error().code == Code.TLS_REQUIRED
    plain = Real(tmp_path, "--ingest-plain-text-on-loopback", secure=False)
    try:
        with plain.unchanged():
            with pytest.raises(OSError, match="WRONG_VERSION_NUMBER|wrong version"):
                Peer(plain.port, real.context)
            with plain.peer() as peer:
                peer.send(client_hello(real.directory / "certs"))
                error = peer.error()
                assert error.code == Code.MAGIC and "are TLS, on a plain text port" in error.message
        plain.stop()
    finally:
        if plain.process.poll() is None:
            plain.process.kill()
            plain.process.wait()


@pytest.mark.parametrize(
    ("client", "settings", "said", "reason"),
    [
        (None, {"maximum_version": ssl.TLSVersion.TLSv1_2}, "PROTOCOL_VERSION", "tls_version"),
        ("expired", {}, "EXPIRED", "certificate_bad"),
        ("foreign", {}, "UNKNOWN", "certificate_bad"),
        ("server", {}, "CERTIFICATE", "certificate_bad"),
    ],
    ids=["TLS 1.2", "expired", "of another CA", "not for clients"],
)
def test_old_tls_and_bad_certificates_fail_the_handshake(real, client, settings, said, reason):
    before = real.refused()
    context = client_context(real.directory / "certs", client, **settings)
    with real.unchanged():
        assert said in fails(real, context).upper().replace(" ", "_")
    real.until_refused(reason, before)


def test_a_client_does_not_talk_to_a_server_whose_ca_it_does_not_know(real):
    before = real.refused()
    with real.unchanged(), pytest.raises(ssl.SSLCertVerificationError, match="self-signed|unable to get local issuer"):
        Peer(real.port, client_context(real.directory / "certs" / "other"))
    real.until_refused("tls_alert", before)


def test_who_is_slow_is_ended_and_who_comes_byte_by_byte_in_time_is_heard(real):
    hello = client_hello(real.directory / "certs")
    before = real.refused()
    with real.unchanged():
        with Peer(real.port) as silent, Peer(real.port) as half:
            half.send(hello[:100])
            assert silent.receive() is None and half.receive() is None
        real.until_refused("handshake_timeout", before)
        with real.peer() as peer:  # TLS, and then a hello that does not end
            peer.send(Hello(producer="p1", token=SECRET).encode()[:20])
            assert peer.error().code == Code.HANDSHAKE_TIMEOUT
        with real.peer() as peer:
            peer.hello()
            for byte in GOOD:  # 160 bytes would take 5 s
                peer.send(bytes([byte]))
                if select.select([peer.socket], [], [], 0.03)[0]:
                    break
            assert peer.error().code == Code.FRAME_TIMEOUT
        with real.peer() as peer:
            for byte in Hello(producer="p1", token=SECRET).encode() + frame(5) + Ping(9).encode():
                peer.send(bytes([byte]))
            assert isinstance(peer.receive(), Welcome) and isinstance(peer.receive(), Ack)
            assert peer.receive() == Pong(9)


def test_a_peer_that_never_reads_is_ended(real):
    before = real.refused()
    with real.unchanged(), real.peer(buffer_bytes=4096) as peer:
        peer.hello()
        peer.socket.settimeout(60)  # it is not read, and then it is closed
        known = b"".join(frame(5) + Ping(n).encode() for n in range(200))  # acknowledged again, and answered
        with contextlib.suppress(OSError):
            for _ in range(10_000):
                peer.socket.sendall(known)
        real.until_refused("slow_reader", before)


@pytest.mark.parametrize("what", sorted(NONSENSE.keys() - {"a frame of the wire protocol"}))  # that waits for more
def test_nonsense_on_the_admin_port_gets_a_4xx_and_changes_nothing(real, what):
    with real.unchanged():
        answer = raw(real.admin_port, NONSENSE[what])
        got = statuses(answer)
        assert got and all(400 <= status < 500 for status in got), got
        assert json.loads(answer.rpartition(b"\r\n\r\n")[2])["status"] == got[-1]


def test_an_admin_port_without_the_token_tells_and_changes_nothing(real):
    with real.unchanged():
        for path, method, body in [
            ("/metrics", "GET", None),
            ("/api/v1/producers", "GET", None),
            ("/api/v1/erase", "POST", {"key": 1}),
            ("/api/v1/snapshot", "POST", {}),
        ]:
            assert ask(real.admin_port, path, method, body).status == 401
            reader = {"authorization": f"Bearer {READER.decode()}"}
            assert ask(real.admin_port, path, method, body, **reader).status == (403 if method == "POST" else 200)
        assert HOST  # every request of NONSENSE names this machine
