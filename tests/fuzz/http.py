"""The admin port: any bytes on a connection of a real server. It answers below 500 or closes, and goes on.

Whatever comes, nothing is erased, and the next whole request on a new connection is answered.
"""

import re
import socket
import urllib.request

from tests.admin_service import Stub, served, trades

SEEDS = [
    b"GET /api/v1/kinds HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /api/v1/actors/vwap/table?columns=volume&limit=3 HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n",
    b"GET /metrics HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n",
    b"POST /api/v1/query HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
    b"POST /api/v1/snapshot HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    b"POST /api/v1/snapshot HTTP/1.1\r\nHost: localhost\r\nOrigin: http://[::1]:8080\r\nContent-Length: 0\r\n\r\n",
    b"HEAD / HTTP/1.1\r\nHost: [::1]:8080\r\nOrigin: http://localhost\r\nCookie: a=b\r\n\r\n",
]


class AdminHttp:
    """One server for all inputs."""

    def __init__(self):
        self.stub = Stub()
        self.stub.apply(trades(100))
        self._serving = served(self.stub)
        self.port = self._serving.__enter__().port
        self.turn = 0

    def seeds(self):
        return SEEDS

    def repair(self, data, chance):
        """A whole head: so that what it says is looked at."""
        head, _, body = data.partition(b"\r\n\r\n")
        head = re.sub(rb"(?i)content-length: *\d*", b"Content-Length: %d" % len(body), head)
        return head + b"\r\n\r\n" + body

    def one(self, data):
        erased = [call for call in self.stub.calls if call[0] == "erase"]
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as peer:
            try:
                peer.sendall(data)
                peer.shutdown(socket.SHUT_WR)
                got = b""
                while piece := peer.recv(65536):
                    got += piece
            except ConnectionError:
                got = b""
        for status in re.findall(rb"(?m)^HTTP/1\.1 (\d\d\d)", got):
            assert int(status) < 500 or status == b"503", (status, got[:300])
        assert [call for call in self.stub.calls if call[0] == "erase"] == erased
        self.turn += 1
        if self.turn % 50 == 0:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/livez", timeout=10) as answer:
                assert answer.status == 200

    def close(self):
        self._serving.__exit__(None, None, None)
        self.stub.engine.close()
