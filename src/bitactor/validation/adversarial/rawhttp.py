"""HTTP as bytes: requests are given whole, answers are read until their end. One connection a call; any thread."""

import json
import socket
import time
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

ANSWER_S: Final = 90.0


@dataclass(frozen=True, slots=True)
class Answer:
    """status 0: the connection ended without one. rest: bytes behind the first answer."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    rest: bytes = b""

    def json(self) -> Any:
        """The body, parsed. ValueError: it is not JSON."""
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code of an error, if the body has one."""
        try:
            return str(self.json().get("code", ""))
        except (ValueError, AttributeError):
            return ""


class Web:
    """The admin address: (host, port) out of its URL, and the token for requests that carry one."""

    def __init__(self, url: str, token: str = "", heard: bytearray | None = None) -> None:
        parts = urlsplit(url)
        self.address = (parts.hostname or "127.0.0.1", parts.port or 80)
        self.host = f"{self.address[0]}:{self.address[1]}"
        self.token = token
        self._heard = heard

    def connect(self, timeout_s: float = ANSWER_S) -> socket.socket:
        """A connection."""
        return socket.create_connection(self.address, timeout_s)

    def raw(self, data: bytes, *, timeout_s: float = ANSWER_S, end: bool = False) -> Answer:
        """Send these bytes and read one answer, and what follows within a moment. end: then send nothing more."""
        with self.connect(timeout_s) as connection:
            try:
                connection.sendall(data)
                if end:
                    connection.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # it has answered and closed already
            return self._answer(connection, timeout_s)

    def request(
        self,
        method: str,
        path: str,
        *,
        token: str | None = None,
        body: bytes | None = None,
        host: str | None = None,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> Answer:
        """A request as it should be. token: "" for none, default the one given at first; host: another than its own."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self.host if host is None else host}", "Connection: close"]
        token = self.token if token is None else token
        if token:
            lines.append(f"Authorization: Bearer {token}")
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        if body is not None and not any(name.lower() == "content-type" for name, _ in headers):
            lines.append("Content-Type: application/json")
        lines += [f"{name}: {value}" for name, value in headers]
        return self.raw("\r\n".join(lines).encode("utf-8", "surrogateescape") + b"\r\n\r\n" + (body or b""))

    def get(self, path: str, **given: Any) -> Answer:
        """GET."""
        return self.request("GET", path, **given)

    def post(self, path: str, body: Any, **given: Any) -> Answer:
        """POST of JSON, or of bytes as they are."""
        return self.request("POST", path, body=body if isinstance(body, bytes) else json.dumps(body).encode(), **given)

    def _answer(self, connection: socket.socket, timeout_s: float) -> Answer:
        due = time.monotonic() + timeout_s
        data = bytearray()
        status, headers, length, start = 0, dict[str, str](), None, -1
        while True:
            if start < 0 and (start := data.find(b"\r\n\r\n")) >= 0:
                lines = data[:start].decode("latin-1").split("\r\n")
                status = int(lines[0].split()[1])
                headers = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in lines[1:])}
                length = int(headers["content-length"]) if "content-length" in headers else None
                start += 4
            if start >= 0 and length is not None and len(data) >= start + length:
                due = min(due, time.monotonic() + 0.2)  # whether more follows
            connection.settimeout(max(0.001, due - time.monotonic()))
            try:
                more = connection.recv(65536)
            except OSError:
                more = b""
            if not more:
                break
            if self._heard is not None and len(self._heard) < 64 << 20:
                self._heard += more
            data += more
        if start < 0:
            return Answer(0, rest=bytes(data))
        end = len(data) if length is None else start + length
        return Answer(status, headers, bytes(data[start:end]), bytes(data[end:]))
