"""The listening side: accepts within limits, and what all sessions of one server share. The loop's thread only.

Order of refusals for a new connection: in all, then of its peer, both before TLS. Everything it then costs is bounded
by channel.py, receive.py and the limits.
"""

import asyncio
import contextlib
import logging
from collections import Counter, deque
from collections.abc import Sequence
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from bitactor.ingest.auth import Identities, Identity
from bitactor.ingest.channel import RECEIVE_BYTES, Channel, TlsChannel
from bitactor.ingest.connection import Paused
from bitactor.ingest.limits import Bucket, Counters, Limits, peer_of
from bitactor.ingest.session import Session
from bitactor.protocol.errors import Code, ProtocolError
from bitactor.protocol.messages import Close, Error

if TYPE_CHECKING:
    from bitactor.ingest.admission import Admission
    from bitactor.ingest.tls import Tls
    from bitactor.ingest.watch import Watched

log: Final = logging.getLogger("bitactor.ingest")

RELOAD_S: Final = 5.0  # how often files are looked at


class Server:
    """Producers and readers over TCP. tls None: plain text, which only loopback addresses may have."""

    def __init__(
        self,
        admission: "Admission",
        identities: "Watched[Identities]",
        *,
        tls: "Watched[Tls] | None",
        host: str | Sequence[str] = "127.0.0.1",
        port: int = 9090,
        limits: Limits | None = None,
    ) -> None:
        self.admission: Final = admission
        self.identities: Final = identities
        self.tls: Final = tls
        self.limits: Final = limits if limits is not None else Limits()
        self.counters: Final = Counters()
        self.loop: asyncio.AbstractEventLoop
        self._host, self._port = host, port
        self._listener: asyncio.Server | None = None
        self._scratch: Final = memoryview(bytearray(RECEIVE_BYTES))
        self._sessions: Final[set[Session]] = set()
        self._peers: Final[Counter[str]] = Counter()
        self._waiting: Final[deque[Session]] = deque()
        self._creditless: Final[set[Session]] = set()
        self._acked: Final[list[Session]] = []
        self._buckets: Final[dict[str, Bucket]] = {}
        self._reload_timer: asyncio.TimerHandle | None = None
        self._empty: asyncio.Event
        self._stopping = False

    @property
    def is_secure(self) -> bool:
        """Whether connections speak TLS."""
        return self.tls is not None

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where it listens: host and port of each socket."""
        return [socket.getsockname()[:2] for socket in self._listener.sockets] if self._listener else []

    @property
    def output_bytes(self) -> int:
        """Written to sessions and not yet taken by the kernel, in all."""
        return sum(session.channel.output_bytes for session in self._sessions)

    @property
    def credit(self) -> int:
        """Signals that connected producers may still send, in all."""
        return sum(session.credit for session in self._sessions)

    async def start(self) -> None:
        """Listen. ValueError: plain text on an address that is not loopback. OSError: the address is not to be had."""
        self.loop = asyncio.get_running_loop()
        self._empty = asyncio.Event()
        self._empty.set()
        self.admission.on_room(self._on_room)
        hosts = [self._host] if isinstance(self._host, str) else list(self._host)
        everywhere = hosts in (["*"], [""])
        try:
            listener = await self.loop.create_server(
                self._channel, None if everywhere else hosts, self._port, backlog=1024, start_serving=False
            )
        except OSError as error:
            text = f"cannot listen on {', '.join(hosts)} port {self._port}: {error.strerror or error}"
            raise OSError(error.errno, f"{text}; see ingest.host and ingest.port (--ingest-port)") from None
        self._listener = listener
        exposed = [host for host, _ in self.addresses if not ip_address(host.partition("%")[0]).is_loopback]
        if exposed and not self.is_secure:
            listener.close()
            raise ValueError(f"plain text is for loopback addresses only, not {', '.join(exposed)}: give certificates")
        await listener.start_serving()
        self._warn_of_kinds()
        self._reload_timer = self.loop.call_later(RELOAD_S, self._look)

    async def stop(self, grace_s: float) -> None:
        """Accept nothing more, let every session's admitted signals be acknowledged, say goodbye; all are gone then.

        Whoever is there after grace_s is cut off; what was admitted goes on its way all the same.
        """
        self._stopping = True
        if self._reload_timer is not None:
            self._reload_timer.cancel()
        if self._listener is not None:
            self._listener.close()
        goodbye = Close(Code.SHUTTING_DOWN, "the service stops; connect again")
        for session in list(self._sessions):
            session.finish(goodbye)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._empty.wait(), grace_s)
        for session in list(self._sessions):
            session.channel.abort()
        await self._empty.wait()

    def reload(self) -> list[str]:
        """Read certificates and identities again; what could not be used, in words. Open connections stay.

        New handshakes use the new certificate. Sessions whose identity is gone end, others get its new permissions.
        """
        return self._reload((self.tls, "certificates"), (self.identities, "identities"))

    def _reload(self, *things: "tuple[Watched[Tls] | Watched[Identities] | None, str]") -> list[str]:
        failures = []
        for watched, what in things:
            if watched is None:
                continue
            try:
                watched.reload()
            except (OSError, ValueError) as error:
                self.counters.reload_failures += 1
                failures.append(f"{what} stay as they were: {error}")
                log.error("%s", failures[-1])  # noqa: TRY400 - the reason is the message
            else:
                self.counters.reloads += 1
                log.info("%s were read again", what)
        self._warn_of_kinds()
        for session in list(self._sessions):
            session.reidentify()
        return failures

    # For sessions.

    def refused(self, reason: str, peer: str) -> None:
        """Count somebody refused."""
        self.counters.refused[reason] += 1
        if reason == "plain_text":
            log.warning("plain text on the TLS port from %s", peer)

    def lost(self, session: Session) -> None:
        """A session's connection is gone."""
        self._sessions.discard(session)
        self._creditless.discard(session)
        self._peers[session.peer] -= 1
        if not self._peers[session.peer]:
            del self._peers[session.peer]
        self.counters.connections -= 1
        if not self._sessions:
            self._empty.set()

    def wait_for_room(self, session: Session) -> None:
        """Resume it, in turn, when admission has room."""
        self._waiting.append(session)

    def credit_held(self, session: Session) -> None:
        """Let it give credit when admission has room."""
        self._creditless.add(session)

    def at_end_of_turn(self, session: Session) -> None:
        """Call its end_of_turn when this turn of the loop is over."""
        if not self._acked:
            self.loop.call_soon(self._end_of_turn)
        self._acked.append(session)

    def bucket(self, identity: Identity) -> Bucket | None:
        """What this identity may send a second, over all its connections; None: any."""
        rate = self.limits.rate_signals_per_s
        if not rate:
            return None
        return self._buckets.setdefault(identity.name, Bucket(rate))

    # Inside.

    def _channel(self) -> Channel:
        if self.tls is None:
            return Channel(self._accept, self._scratch, self.limits.output_bytes_max)
        return TlsChannel(self._accept, self._scratch, self.limits.output_bytes_max, self.tls.value.context)

    def _accept(self, channel: Channel) -> Session | None:
        peer = peer_of(channel.transport.get_extra_info("peername"))
        full = self.counters.connections >= self.limits.connections_max
        if full or self._peers[peer] >= self.limits.connections_per_peer_max or self._stopping:
            code, text = Code.CONNECTIONS_FULL, f"{self.limits.connections_per_peer_max} connections of {peer} are open"
            if full:
                text = f"{self.limits.connections_max} connections are open"
            if self._stopping:
                code, text = Code.SHUTTING_DOWN, "the service stops; connect again"
            self.refused(code.name.lower(), peer)
            if not self.is_secure:
                channel.write(Error.of(ProtocolError(code, text)).encode())
            return None
        self._peers[peer] += 1
        self.counters.connections += 1
        self.counters.connections_total += 1
        session = Session(self, channel, peer)
        self._sessions.add(session)
        self._empty.clear()
        return session

    def _on_room(self) -> None:
        for _ in range(len(self._waiting)):
            if not self.admission.has_room:
                break
            self._waiting.popleft().resume(Paused.ROOM)
        for session in list(self._creditless):
            if not self.admission.has_room:
                break
            self._creditless.discard(session)
            session.ack()

    def _end_of_turn(self) -> None:
        acked, self._acked[:] = list(self._acked), []
        for session in acked:
            session.end_of_turn()

    def _look(self) -> None:
        self._reload_timer = self.loop.call_later(RELOAD_S, self._look)
        if self.tls is not None and self.tls.changed():
            self._reload((self.tls, "certificates"))
        if self.identities.changed():
            self._reload((self.identities, "identities"))

    def _warn_of_kinds(self) -> None:
        for identity in self.identities.value:
            if unknown := identity.kinds - self.admission.kinds.keys() - {"*"}:
                log.warning("identity %r has kinds that the app does not declare: %s", identity.name, sorted(unknown))
