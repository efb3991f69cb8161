"""HTTP nonsense over raw sockets: a clear refusal, nothing changed, and a loop that answers others meanwhile."""

import contextlib
import json
import select
import socket
import time

import pytest

from bitactor.admin import api, server
from tests.admin_service import Stub, ask, served, trades


@pytest.fixture(scope="module")
def service():
    stub = Stub()
    stub.apply(trades(1000))
    yield stub
    stub.engine.close()


@pytest.fixture(scope="module")
def port(service):
    with served(service) as admin:
        yield admin.port


def raw(port, data, timeout=20):
    """Everything that comes back until the peer closes, or nothing came for a second after an answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as peer:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            peer.sendall(data)
        got = b""
        try:
            while piece := peer.recv(65536):
                got += piece
                peer.settimeout(1.0)
        except (TimeoutError, ConnectionResetError):
            pass
        return got


def statuses(answer):
    return [int(part.split(b" ", 1)[0]) for part in answer.split(b"HTTP/1.1 ")[1:]]


HOST = b"Host: localhost\r\n"
ERASE = b'{"key": 1}'
POST = b"POST /api/v1/erase HTTP/1.1\r\n" + HOST
JSON = b"Content-Type: application/json\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
NONSENSE = {
    "noise": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),
    "a frame of the wire protocol": b"BAF1\x01\x01\x00\x00" + bytes(56),
    "no method": b"\r\n\r\n",
    "half a line": b"GET\r\n\r\n",
    "a version that is none": b"GET / HTTP/9.9\r\n" + HOST + b"\r\n",
    "no host": b"GET /api/v1/kinds HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /api/v1/kinds HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
    "a header without a name": b"GET / HTTP/1.1\r\n" + HOST + b": x\r\n\r\n",
    "a blank before the colon": b"GET / HTTP/1.1\r\n" + HOST + b"X : y\r\n\r\n",
    "a zero in a header": b"GET / HTTP/1.1\r\n" + HOST + b"X: a\x00b\r\n\r\n",
    "a huge header": b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 40_000 + b"\r\n\r\n",
    "a thousand headers": b"GET / HTTP/1.1\r\n" + HOST + b"".join(b"X%d: y\r\n" % n for n in range(4000)) + b"\r\n",
    "a huge target": b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    "a method of its own": b"BREW /livez HTTP/1.1\r\n" + HOST + b"\r\n",
    "a proxy's request": b"GET http://evil.example/ HTTP/1.1\r\n" + HOST + b"\r\n",
    "a tunnel": b"CONNECT evil.example:443 HTTP/1.1\r\n" + HOST + b"\r\n",
    "lines that end with a line feed alone": b"GET /api/v1/kinds HTTP/1.1\n" + HOST.replace(b"\r", b"") + b"\n",
    "a header behind a bare line feed": b"GET /api/v1/kinds HTTP/1.1\r\n" + HOST + b"X: a\nY: b\r\n\r\n",
    "two lengths": POST + b"Content-Length: 10\r\nContent-Length: 11\r\n\r\n" + ERASE,
    "a length that is none": POST + b"Content-Length: ten\r\n\r\n" + ERASE,
    "a length below zero": POST + b"Content-Length: -1\r\n\r\n" + ERASE,
    "a length and chunks": POST + JSON + b"Content-Length: 10\r\n" + CHUNKED + b"\r\na\r\n" + ERASE + b"\r\n0\r\n\r\n",
    "an encoding that is none": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "a chunk's length that is none": POST + JSON + CHUNKED + b"\r\nzz\r\n" + ERASE + b"\r\n0\r\n\r\n",
    "a body that says it is huge": POST + JSON + b"Content-Length: 99999999999\r\n\r\n" + ERASE,
    "a path out of the house": b"GET /static/../../etc/passwd HTTP/1.1\r\n" + HOST + b"\r\n",
    "bytes that are no text": b"GET /api/v1/actors/%ff%fe/table HTTP/1.1\r\n" + HOST + b"\r\n",
}  # fmt: skip


@pytest.mark.parametrize("what", NONSENSE)
def test_nonsense_gets_a_4xx_and_changes_nothing(service, port, what):
    service.calls.clear()
    before = service.engine.state("vwap", 1)
    got = statuses(raw(port, NONSENSE[what]))
    assert got and all(400 <= status < 500 for status in got), (what, got)
    assert service.calls == [] and service.engine.state("vwap", 1) == before
    assert ask(port, "/readyz").status == 200


def test_a_request_hidden_in_the_body_of_another_is_not_run(service, port):
    service.calls.clear()
    hidden = b"POST /api/v1/snapshot HTTP/1.1\r\n" + HOST + b"\r\n"
    for head in (
        b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n",
    ):
        answer = raw(port, b"POST /api/v1/erase HTTP/1.1\r\n" + HOST + head + b"\r\n0\r\n\r\n" + hidden)
        assert statuses(answer) == [400] and b"connection: close" in answer.lower()
    assert service.calls == []


def test_requests_one_after_another_are_answered_in_order(port):
    answer = raw(
        port, b"".join(b"GET /%s HTTP/1.1\r\n" % path + HOST + b"\r\n" for path in (b"livez", b"nope", b"readyz"))
    )
    assert statuses(answer) == [200, 404, 200] and answer.index(b"live\n") < answer.index(b"ready\n")


def test_slow_heads_and_slow_bodies_are_ended(service, monkeypatch):
    monkeypatch.setattr(server._Bounded, "head_s", 0.5)
    monkeypatch.setattr(api, "BODY_S", 0.5)
    service.calls.clear()
    with served(service) as admin:
        begun = time.perf_counter()
        assert statuses(raw(admin.port, b"")) == [408]
        assert statuses(raw(admin.port, b"GET / HTTP/1.1\r\nX: ")) == [408]
        body = POST + JSON + b"Content-Length: 10\r\n\r\n{"
        assert statuses(raw(admin.port, body)) == [408]
        with socket.create_connection(("127.0.0.1", admin.port)) as peer:  # one byte at a time does not put it off
            peer.settimeout(0.05)
            got = b""
            for byte in b"GET / HTTP/1.1\r\n" + b"X: " + b"y" * 200:
                try:
                    peer.send(bytes([byte]))
                    got += peer.recv(4096)
                except TimeoutError:
                    continue
                except OSError:
                    break
                if got:
                    break
            assert statuses(got) == [408]
        assert time.perf_counter() - begun < 15
        with socket.create_connection(("127.0.0.1", admin.port)) as peer:  # an answered one may stay and ask again
            for _ in range(2):
                peer.sendall(b"GET /livez HTTP/1.1\r\n" + HOST + b"\r\n")
                got = b""
                while b"live\n" not in got:
                    got += peer.recv(4096)
                time.sleep(0.7)
    assert service.calls == []


def test_beyond_so_many_connections_new_ones_are_told_503(service, monkeypatch):
    monkeypatch.setattr(server, "CONNECTIONS_MAX", 20)
    with served(service) as admin:
        idle = [socket.create_connection(("127.0.0.1", admin.port)) for _ in range(20)]
        time.sleep(0.1)
        answer = raw(admin.port, b"GET /livez HTTP/1.1\r\n" + HOST + b"\r\n")
        assert statuses(answer) == [503] and json.loads(answer.partition(b"\r\n\r\n")[2])["message"]
        for one in idle:
            one.close()
        time.sleep(0.1)
        assert ask(admin.port, "/livez").status == 200


def test_others_are_answered_while_150_connections_are_idle_or_half_open(port):
    peers = [socket.create_connection(("127.0.0.1", port)) for _ in range(150)]
    for number, peer in enumerate(peers):
        peer.sendall(b"GET /livez HTTP/1.1\r\nX: "[: number % 20])
    for _ in range(100):
        assert ask(port, "/livez").status == 200
    assert select.select(peers, [], [], 0)[0] == [], "some were ended before: the answers may have waited for that"
    for peer in peers:
        peer.close()


def test_a_peer_that_never_reads_its_answer_holds_nobody_else(service):
    stub = Stub()
    stub.apply(trades(300_000, keys=200_000))
    with served(stub) as admin:
        peers = []
        for _ in range(4):
            peer = socket.create_connection(("127.0.0.1", admin.port))
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            peer.sendall(
                b"GET /api/v1/actors/vwap/table HTTP/1.1\r\nAccept: application/vnd.apache.arrow.stream\r\n"
                + HOST
                + b"\r\n"
            )
            peers.append(peer)
        time.sleep(0.5)
        assert ask(admin.port, "/readyz").status == 200
        assert ask(admin.port, "/api/v1/actors/vwap/state/5").status == 200
        for peer in peers:
            peer.close()
    stub.engine.close()
