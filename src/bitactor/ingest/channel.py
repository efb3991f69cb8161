"""Bytes between a socket and a session, plain or through TLS 1.3; the loop's thread only.

TLS runs here over two memory buffers, not in the loop's transport: so limits hold before a handshake, a client that
speaks no TLS is recognised by its first byte, one receive buffer serves all connections, and what is decrypted goes
straight into the session's buffer. Per connection: bytes kept encrypted <= RECEIVE_BYTES, and until the peer is known
<= EARLY_BYTES_MAX in all.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, cast

from bitactor.ingest.tls import handshake_failure

RECEIVE_BYTES: Final = 128 * 1024
EARLY_BYTES_MAX: Final = 32 * 1024  # from a TLS client until it is welcome: handshake, certificates, hello
TLS_HANDSHAKE: Final = 0x16  # first byte of a TLS connection


class Receiver(Protocol):
    """What a channel serves: the session."""

    @property
    def is_reading(self) -> bool:
        """Whether it takes more now."""

    @property
    def is_greeted(self) -> bool:
        """Whether the peer is known and welcome."""

    def secured(self, certificate: Mapping[str, Any] | None) -> None:
        """The peer may be heard now. certificate: its verified one."""

    def insecure(self, reason: str) -> None:
        """There will be no TLS, or not with this peer; reason: a word to count it by."""

    def buffer(self) -> memoryview:
        """Where to put what comes next; never empty. Only while reading."""

    def received(self, n: int) -> None:
        """So many bytes are there now. May pause."""

    def ended(self) -> bool:
        """The peer sends nothing more. True: it still wants to be written to."""

    def output(self, blocked: bool) -> None:
        """The output is above its limit, or well below it again."""

    def lost(self) -> None:
        """The connection is gone."""


class Channel(asyncio.BufferedProtocol):
    """A plain connection. `scratch` takes what nobody reads any more. accept: its session, or None: go away."""

    def __init__(self, accept: "Accept", scratch: memoryview, output_bytes_max: int) -> None:
        self.session: Receiver
        self.transport: asyncio.Transport
        self._accept = accept
        self._scratch = scratch
        self._output_bytes_max = output_bytes_max
        self._finished = False

    # What the session calls.

    def write(self, data: bytes) -> None:
        """Send, after what was written before."""
        self.transport.write(data)

    def write_plain(self, data: bytes) -> None:
        """Send without TLS, to a client that speaks none."""
        self.transport.write(data)

    def pause(self) -> None:
        """Read nothing until resume."""
        if self.transport.is_reading():
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        if not self.transport.is_reading() and not self.transport.is_closing():
            self.transport.resume_reading()

    def finish(self) -> None:
        """Send nothing more; let the peer read what was sent, ignore what it still sends, until it ends or abort."""
        if not self._finished:
            self._finished = True
            self._end_output()
            Channel.resume(self)

    def abort(self) -> None:
        """End at once."""
        self._finished = True
        self.transport.abort()

    @property
    def output_bytes(self) -> int:
        """Not yet taken by the kernel."""
        return self.transport.get_write_buffer_size()

    # What the loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.transport = transport = cast("asyncio.Transport", transport)
        transport.set_write_buffer_limits(self._output_bytes_max)
        session = self._accept(self)
        if session is None:
            self._finished = True
            transport.close()
            return
        self.session = session
        self._begin()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the socket's bytes go."""
        return self._scratch if self._finished else self.session.buffer()

    def buffer_updated(self, nbytes: int) -> None:
        """So many came."""
        if not self._finished:
            self.session.received(nbytes)

    def eof_received(self) -> bool:
        """Keep the connection for writing if the session wants it; else the loop closes it."""
        return not self._finished and self.session.ended()

    def pause_writing(self) -> None:
        """The output's limit is passed."""
        self.session.output(blocked=True)

    def resume_writing(self) -> None:
        """The output drained."""
        self.session.output(blocked=False)

    def connection_lost(self, exc: Exception | None) -> None:
        """The end, whoever wanted it."""
        refused, self._finished = not hasattr(self, "session"), True
        if not refused:
            self.session.lost()

    def _begin(self) -> None:
        self.session.secured(None)

    def _end_output(self) -> None:
        if not self.transport.is_closing():
            try:
                self.transport.write_eof()
            except OSError:  # the peer has reset the connection, and the loop does not know yet
                self.abort()


Accept = Callable[[Channel], Receiver | None]


class TlsChannel(Channel):
    """A connection through TLS. `scratch`, shared by all, holds what came until it is decrypted, in the same call."""

    def __init__(self, accept: "Accept", scratch: memoryview, output_bytes_max: int, context: ssl.SSLContext) -> None:
        super().__init__(accept, scratch, output_bytes_max)
        self._context = context
        self._early_bytes = 0  # received before the session greeted its peer
        self._secured = False  # the handshake is over, and good

    def write(self, data: bytes) -> None:
        """Encrypt and send; nothing before the handshake is over."""
        if self._finished or not self._secured:
            return
        try:
            self._tls.write(data)
        except ssl.SSLError:  # nothing can be said to this peer any more; who acknowledges need not know
            self.abort()
            return
        self._flush()

    def resume(self) -> None:
        """Decrypt what was left, then read again."""
        self._decrypt()
        if self.session.is_reading:
            super().resume()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Room for what is encrypted; little of it before the peer is known."""
        return self._scratch if self._finished or self.session.is_greeted else self._scratch[: EARLY_BYTES_MAX // 2]

    def buffer_updated(self, nbytes: int) -> None:
        """Decrypt, or go on with the handshake."""
        if self._finished:
            return
        if not self.session.is_greeted and not self._early(nbytes):
            return
        self._incoming.write(self._scratch[:nbytes])
        if self._secured or self._handshake():
            self._decrypt()

    def eof_received(self) -> bool:
        """A TLS client says goodbye inside TLS; without that it was cut off."""
        if not self._secured and not self._finished:
            self.session.insecure("tls_cut_off")
        return super().eof_received()

    def _begin(self) -> None:
        """Prepare for the client, which speaks first. Not before: who is refused costs no TLS."""
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = self._context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        # SSLObject.read fills a buffer when given one, and returns how much.
        self._read: Callable[[int, memoryview], int] = self._tls.read  # type: ignore[assignment]

    def _early(self, nbytes: int) -> bool:
        """Whether bytes of a peer that is not known yet may go to TLS."""
        reason = ""
        if not self._early_bytes and self._scratch[0] != TLS_HANDSHAKE:
            reason = "plain_text"
        self._early_bytes += nbytes
        if self._early_bytes > EARLY_BYTES_MAX:
            reason = "tls_too_long"
        if reason:
            self.session.insecure(reason)
        return not reason

    def _handshake(self) -> bool:
        """Whether it is over and good."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return False
        except ssl.SSLError as error:
            self._flush()  # the alert
            self.session.insecure(handshake_failure(error))
            return False
        self._flush()
        self._secured = True
        self.session.secured(self._tls.getpeercert())
        return True

    def _decrypt(self) -> None:
        """Fill the session's buffer as often as it goes, until it pauses or nothing is left."""
        session, read = self.session, self._read
        while session.is_reading:
            view = session.buffer()
            size, fill = len(view), 0
            more = goodbye = False
            try:
                while fill < size and (n := read(size - fill, view[fill:])):
                    fill += n
                more, goodbye = fill == size, fill < size
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError:
                self.abort()
                return
            if self._outgoing.pending:
                self._flush()  # TLS answers by itself, to a request for new keys for example
            if fill:
                session.received(fill)
            if goodbye:
                session.ended()
            if not more:
                return

    def _flush(self) -> None:
        if self._outgoing.pending and not self.transport.is_closing():
            self.transport.write(self._outgoing.read())

    def _end_output(self) -> None:
        if self._secured:
            with contextlib.suppress(ssl.SSLError):  # the peer's own goodbye is not awaited
                self._tls.unwrap()
            self._flush()
        super()._end_output()
