"""The thread that moves a client's bytes: connects, sends what the outbox holds, takes acks, reconnects.

One thread runs Link.run; others call wake, stop and wait. The outbox's rules (outbox.py) make sending without a lock
safe; `changed` is notified after each ack, welcome and failure.
"""

import contextlib
import os
import random
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Final

from bitactor.client.session import PING_S, SILENT_S, Session, is_final
from bitactor.client.target import Target, readable
from bitactor.protocol.errors import ProtocolError
from bitactor.protocol.messages import Close, Ping

CONNECT_S: Final = 10.0  # one attempt
_RECEIVE_BYTES: Final = 1 << 16
PAUSES_S: Final = (0.02, 3.0)  # between two attempts: the first, and the longest
_GOODBYE_S: Final = 1.0

Socket = socket.socket


class Link:
    """A client's way to the service. error: final, nothing goes on after it. trouble: why there is no connection."""

    def __init__(self, target: Target, session: Session, linger: Callable[[], float | None]) -> None:
        self.changed = threading.Condition()
        self.error: BaseException | None = None
        self.trouble: BaseException | None = None
        self.connected = False
        self._target = target
        self._session = session
        self._linger = linger  # seals what has waited long enough; seconds until that is due, None: nothing waits
        self._stopping = False
        self._asleep = False
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._buffer = bytearray(_RECEIVE_BYTES)
        self._thread = threading.Thread(target=self.run, name=f"bitactor-{session.producer}", daemon=True)
        self._thread.start()

    # --- other threads ---

    def wake(self) -> None:
        """Have the link look for something to send; costs nothing while it is busy."""
        if self._asleep:
            self._asleep = False
            os.eventfd_write(self._wake_fd, 1)

    def wait(self, condition: Callable[[], object], deadline: float | None, what: str) -> None:
        """Wait until the condition holds. TimeoutError says `what`, and the trouble; a final error is raised."""
        with self.changed:
            while not condition():
                if self.error is not None:
                    raise self.error.with_traceback(None)
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    trouble = "" if self.connected or self.trouble is None else f" (no connection: {self.trouble})"
                    raise TimeoutError(what + trouble)
                self.changed.wait(left)

    def stop(self) -> None:
        """Say goodbye, end the thread and join it. Called twice, the second does nothing."""
        if self._stopping:
            return
        self._stopping = True
        os.eventfd_write(self._wake_fd, 1)
        self._thread.join()
        self._asleep = False
        os.close(self._wake_fd)

    # --- the thread ---

    def run(self) -> None:
        """Connect and serve until stopped or refused for good."""
        pause = PAUSES_S[0]
        try:
            while not self._stopping:
                try:
                    with contextlib.closing(self._connect()) as sock:
                        self._serve(sock)
                except (OSError, ProtocolError) as raised:
                    error = readable(raised)
                    if is_final(error) or isinstance(error, ssl.SSLCertVerificationError):
                        raise error from raised
                    pause = PAUSES_S[0] if self.connected else min(2 * pause, PAUSES_S[1])
                    self._lost(error)
                    self._sleep(pause * random.uniform(0.5, 1))  # noqa: S311  # so that clients do not come in step
        except BaseException as error:  # noqa: BLE001  # raised again where somebody waits
            self.error = error
            self._lost(error)

    def _lost(self, error: BaseException) -> None:
        self.trouble = error
        self.connected = False
        with self.changed:
            self.changed.notify_all()

    def _sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self._stopping and (left := end - time.monotonic()) > 0:
            select.select([self._wake_fd], [], [], min(left, 0.1))  # the counter stays: _serve reads it

    def _connect(self) -> Socket:
        token = self._target.secret()
        context = self._target.tls()
        host, port = self._target.host_port()
        sock = socket.create_connection((host, port), CONNECT_S)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if context is not None:
                sock = context.wrap_socket(sock, server_hostname=self._target.tls_name(host))
            sock.sendall(self._session.hello(token))
            sock.setblocking(False)
        except BaseException:
            sock.close()
            raise
        return sock

    def _serve(self, sock: Socket) -> None:
        """Send and receive until the connection ends (OSError, ProtocolError) or stop()."""
        poll = select.poll()
        poll.register(self._wake_fd, select.POLLIN)
        now = time.monotonic()
        self._heard, self._pinged, began = now, now, now
        control = b""  # pongs and pings: they go out between two pieces of the outbox
        from_outbox = False
        waiting: memoryview | bytes | None = None  # given to the socket and not taken: it must be given again as it is
        readable = True  # perhaps: until a read finds nothing
        while not self._stopping:
            received, answer = self._receive(sock) if readable else (False, b"")
            readable = received
            control += answer
            outbox = self._session.outbox if self._session.is_open else None
            linger_s = self._linger() if outbox is not None else None
            if waiting is None:
                from_outbox = not control
                waiting = control or (outbox.pending() if outbox is not None else None)
            if waiting and (sent := self._send(sock, waiting)):
                if not from_outbox:
                    control = control[sent:]
                elif outbox is not None:
                    outbox.sent(sent)
                waiting = None
                readable = True  # acks come while much is sent
                continue
            if received:
                continue
            control += self._keep_alive(began)
            if control and waiting is None:
                continue
            self._asleep = True  # before the last look: who adds something after it finds this, and wakes
            if waiting is None and outbox is not None and outbox.pending() is not None:
                self._asleep = False
                continue
            poll.register(sock, select.POLLIN | (select.POLLOUT if waiting else 0))
            for fd, _ in poll.poll(1000 * (PING_S / 4 if linger_s is None else linger_s)):
                if fd != self._wake_fd:
                    readable = True
                    continue
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(self._wake_fd)
            self._asleep = False
        self._goodbye(sock, waiting)

    def _receive(self, sock: Socket) -> tuple[bool, bytes]:
        """Whether something came, and what to answer."""
        try:
            n = sock.recv_into(self._buffer)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError):
            return False, b""
        if not n:
            raise ConnectionResetError("the service closed the connection")
        self._heard = time.monotonic()
        answer = self._session.received(memoryview(self._buffer)[:n])
        with self.changed:
            if self._session.is_open and not self.connected:
                self.connected, self.trouble = True, None
            self.changed.notify_all()
        return True, answer

    @staticmethod
    def _send(sock: Socket, data: memoryview | bytes) -> int:
        try:
            return sock.send(data)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError):
            return 0

    def _keep_alive(self, began: float) -> bytes:
        """A ping when nothing was heard for long. TimeoutError when there was no answer, or no welcome."""
        now = time.monotonic()
        if not self._session.is_open and now - began > CONNECT_S:
            raise TimeoutError(f"no welcome within {CONNECT_S:g} s")
        if now - self._heard > SILENT_S:
            raise TimeoutError(f"the service was silent for {SILENT_S:g} s")
        if self._session.is_open and now - max(self._heard, self._pinged) > PING_S:
            self._pinged = now
            return Ping(int(now)).encode()
        return b""

    def _goodbye(self, sock: Socket, waiting: memoryview | bytes | None) -> None:
        """Send close, as far as the peer takes it within a second; what waits half sent goes before it."""
        self.connected = False
        with contextlib.suppress(OSError):
            sock.settimeout(_GOODBYE_S)
            if self._session.is_open:
                if waiting:
                    sock.sendall(waiting)
                sock.sendall(Close().encode())
            if isinstance(sock, ssl.SSLSocket):
                sock.unwrap()
