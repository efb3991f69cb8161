"""A producer that sends a stream over TLS until everything is acknowledged, whatever happens to the service.

It keeps nothing but what was acknowledged: after each reconnection it goes on from the welcome's next, with other cuts,
and sometimes sends again what is known. So it finds out at once when something acknowledged is missing.
"""

import contextlib
import random
import socket
import ssl
import threading
import time
from pathlib import Path
from typing import Any

import numpy.typing as npt

from bitactor.protocol.errors import ProtocolError
from bitactor.protocol.frames import encode_frame
from bitactor.protocol.messages import Ack, Hello, Welcome, decode_message, message_length
from bitactor.signals import text_key


class LostError(AssertionError):
    """Something that was acknowledged is not known any more."""


class Producer(threading.Thread):
    """Sends `signals` as the producer `label` to 127.0.0.1:port until `total` of them are acknowledged.

    data: the data directory with the development token and CA; ca_file: another CA. Others may read `acked`,
    `connections`, `failure` and `latencies`, and set `total` and `pause_s`, at any time.
    """

    def __init__(
        self,
        data: Path,
        port: int,
        label: str,
        signals: npt.NDArray[Any],
        *,
        seed: int,
        frame_max: int = 300,
        ca_file: Path | None = None,
    ) -> None:
        super().__init__(daemon=True, name=f"producer-{label}")
        self.data, self.port, self.label = data, port, label
        self.signals = signals
        self.total = len(signals)
        self.frame_max = frame_max
        self.acked = 0
        self.connections = 0
        self.lost_connections = 0
        self.pause_s = 0.0  # between frames
        self.failure: BaseException | None = None
        self.heard = threading.Event()  # set with each acknowledgement; for others to clear
        self.latencies: list[tuple[float, float]] = []  # (when, seconds from a frame's last byte to its ack)
        self.keep_latencies = False
        self.refusals: list[str] = []
        self.sent = 0  # the highest sequence that left here
        self._ending = threading.Lock()  # between what is sent next and where the end is
        self.plain_text = False
        self.silent_s = 20.0  # without a byte from the service for so long the connection is given up
        self._socket: socket.socket | None = None
        self.ca_file = ca_file or data / "dev" / "ca.pem"
        self._random = random.Random(f"{seed} {label}")
        self._buffer = b""
        self._stopping = False

    @property
    def number(self) -> int:
        """As which the service knows it."""
        return text_key(self.label)

    def run(self) -> None:
        """Connect again and again until all is acknowledged."""
        try:
            while self.acked < self.total and not self._stopping:
                try:
                    self._connection()
                except (OSError, EOFError, ProtocolError):
                    self.lost_connections += 1
                    time.sleep(0.02)
        except BaseException as error:
            self.failure = error

    def acknowledged(self, timeout_s: float = 120) -> None:
        """Wait until something more is acknowledged."""
        self.heard.clear()
        if not self.heard.wait(timeout_s):
            raise LostError(f"{self.label}: nothing acknowledged in {timeout_s} s: {self.failure!r}")

    def end_after(self, more: int = 0) -> None:
        """Send at most `more` signals beyond what was sent or acknowledged; `finished` then waits for all of it."""
        with self._ending:
            self.total = min(self.total, max(self.sent, self.acked) + more)

    def finished(self, timeout_s: float = 120) -> None:
        """Wait until all is acknowledged."""
        self.join(timeout_s)
        if self.failure is not None:
            raise LostError(f"{self.label}: {self.failure!r}") from self.failure
        if self.is_alive():
            raise LostError(f"{self.label} has {self.acked} of {self.total} acknowledged after {timeout_s} s")

    def stop(self, timeout_s: float = 30) -> None:
        """End, whatever is acknowledged; nothing is raised."""
        self._stopping = True
        self.total = 0
        self.join(timeout_s)

    def token(self) -> bytes:
        """The development token."""
        return (self.data / "dev" / "token").read_bytes().strip()

    def lose_connection(self) -> None:
        """Shut the present connection down, as a network would; the producer connects again."""
        with contextlib.suppress(OSError, AttributeError):
            self._socket.shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]

    def connect(self) -> socket.socket:
        """A connection to the service."""
        if self.plain_text:
            raw = socket.create_connection(("127.0.0.1", self.port), timeout=self.silent_s)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return raw
        context = ssl.create_default_context(cafile=self.ca_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        raw = socket.create_connection(("127.0.0.1", self.port), timeout=self.silent_s)
        try:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return context.wrap_socket(raw, server_hostname="localhost")
        except BaseException:
            raw.close()
            raise

    def _connection(self) -> None:
        with self.connect() as connection:
            self._buffer = b""
            self._socket = connection
            connection.sendall(Hello(self.label, token=self.token(), client="validation").encode())
            welcome = self._receive(connection)
            if not isinstance(welcome, Welcome):
                self.refusals.append(f"{welcome}")
                raise EOFError(f"{welcome}")
            if welcome.next < self.acked:
                raise LostError(f"acknowledged up to {self.acked}, and {welcome.next} is expected")
            self.acked = max(self.acked, welcome.next)
            self.connections += 1
            self._send(connection, welcome)

    def _send(self, connection: socket.socket, welcome: Welcome) -> None:
        at, limit = welcome.next, welcome.limit
        back = self._random.random() < 0.5 and at > 0
        if back:  # as a client that lost track would: what is known is dropped
            at -= self._random.randint(1, min(at, 500))
        sent: list[tuple[int, float]] = []
        heard_at = time.monotonic()
        while self.acked < self.total:
            if count := self._leaving(at, limit):
                signals = self.signals[at : at + count]
                connection.sendall(encode_frame(signals, producer=welcome.producer, sequence=at, epoch=welcome.epoch))
                at += count
                if self.keep_latencies:
                    sent.append((at, time.monotonic()))
                if self.pause_s:
                    time.sleep(self.pause_s)
                connection.settimeout(0.0005)
            else:
                connection.settimeout(self.silent_s)
            try:
                message = self._receive(connection)
            except TimeoutError:
                connection.settimeout(self.silent_s)
                if self.acked < at and time.monotonic() - heard_at > self.silent_s:
                    raise EOFError(f"nothing heard in {self.silent_s} s") from None
                continue
            heard_at = time.monotonic()
            connection.settimeout(self.silent_s)
            if not isinstance(message, Ack):  # an error, or close
                self.refusals.append(f"{message}")
                raise EOFError(repr(message))
            if message.next < self.acked or (message.next > at and not back):
                raise LostError(f"{self.label}: an ack up to {message.next}; {self.acked} were acked, {at} were sent")
            self.acked, limit = max(self.acked, message.next), message.limit
            self._note(sent)
            self.heard.set()

    def _leaving(self, at: int, limit: int) -> int:
        """How many signals are sent next, from `at` on; noted as sent before they are, for `end_after`."""
        with self._ending:
            until = min(self.total, limit)
            count = min(self._random.randint(1, self.frame_max), until - at) if at < until else 0
            self.sent = max(self.sent, at + count)
            return count

    def _note(self, sent: list[tuple[int, float]]) -> None:
        now = time.monotonic()
        while sent and sent[0][0] <= self.acked:
            self.latencies.append((now, now - sent.pop(0)[1]))

    def _receive(self, connection: socket.socket) -> Any:
        while True:
            length = message_length(self._buffer) if self._buffer else 0
            if length and len(self._buffer) >= length:
                message, self._buffer = decode_message(self._buffer[:length]), self._buffer[length:]
                return message
            more = connection.recv(65536)
            if not more:
                raise EOFError("closed")
            self._buffer += more
