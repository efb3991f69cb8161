"""What the messages of a connection mean: hello, data, names, subscriptions, acks, goodbye. The loop's thread only.

A data frame goes to admission as a view of the receive buffer. Per producer
acked <= admitted <= limit <= acked + window, where `limit` is the credit given; it never falls.
"""

import hashlib
import logging
import struct
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from bitactor.ingest.channel import TLS_HANDSHAKE
from bitactor.ingest.connection import Connection, Paused, State
from bitactor.protocol.errors import Code, ProtocolError
from bitactor.protocol.frames import FrameError
from bitactor.protocol.messages import (
    BEFORE_WELCOME,
    FROM_CLIENT,
    Ack,
    Close,
    Hello,
    Message,
    Name,
    Ping,
    Pong,
    Subscribe,
    Type,
    Unsubscribe,
    decode_message,
)
from bitactor.protocol.wire import VERSION

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Coroutine

    from bitactor.ingest.admission import Producer, Subscription
    from bitactor.ingest.auth import Identity
    from bitactor.ingest.channel import Channel
    from bitactor.ingest.limits import Bucket
    from bitactor.ingest.server import Server

log: Final = logging.getLogger("bitactor.ingest")

SUBSCRIPTIONS_MAX: Final = 16
_DATA: Final = int(Type.DATA)
_PLACE: Final = struct.Struct(">IQ")  # count and sequence, at 20 in a frame's header
_ADMITTED: Final = (_DATA, int(Type.NAME))  # what goes to the log
_FRAME_CODES: Final = {"sequence": Code.SEQUENCE_OVERFLOW, "short": Code.LENGTH, "long": Code.LENGTH}


class Session(Connection):
    """One connection's messages."""

    def __init__(self, server: "Server", channel: "Channel", peer: str) -> None:
        super().__init__(server, channel, peer)
        self.identity: Identity | None = None
        self._certificate: Mapping[str, Any] | None = None
        self._token_sha256: bytes | None = None
        self._kinds = b""
        self._producer: Producer | None = None
        self._acked = (0, 0, 0)  # next, durability, position
        self._limit = 0
        self._ack_due = self._ack_sent = False
        self._goodbye = Close()
        self._subscriptions: Final[dict[int, Subscription]] = {}
        self._subscribing: Final[dict[int, Subscribe]] = {}  # asked for and being made
        self._tasks: Final[set[asyncio.Task[None]]] = set()
        self._bucket: Bucket | None = None
        self._rate_timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        who = repr(self.identity.name) if self.identity else "nobody yet"
        return f"<Session of {who} at {self.peer}, {self.state.name.lower()}>"

    def secured(self, certificate: Mapping[str, Any] | None) -> None:
        """TLS is there, or not wanted. certificate: the peer's verified one."""
        self._certificate = certificate
        self.server.counters.handshakes += self.server.is_secure

    def output(self, blocked: bool) -> None:
        """The output is above its limit, or drained."""
        if self.state == State.OVER:
            return
        if blocked:
            self._since = self.server.loop.time()
            self._pause(Paused.OUTPUT)
            return
        for subscription in list(self._subscriptions.values()):
            subscription.resume()
        self.resume(Paused.OUTPUT)
        if self._ack_due:
            self.ack()
        self._finish_if_acked()

    # What comes.

    def _process(self) -> None:
        handled = False
        try:
            while self.is_reading:
                message = self._buffer.message(FROM_CLIENT if self.state else BEFORE_WELCOME)
                if message is None:
                    break
                if not self._may_go_on():
                    return
                kind = message[5]
                if kind in _ADMITTED and not self._may_admit():
                    return  # it stays where it is
                self._buffer.drop()
                if kind == _DATA:
                    self._data(message)
                else:
                    self._message(decode_message(message))
                handled = True
        except ProtocolError as error:
            is_tls = self.state == State.HELLO and self._buffer.first == TLS_HANDSHAKE
            self.refuse(ProtocolError(Code.MAGIC, "these bytes are TLS, on a plain text port") if is_tls else error)
        except Exception:
            log.exception("a message of %r failed", self)
            self.refuse(ProtocolError(Code.INTERNAL, "the service failed on this message; its log says why"))
        if not self._buffer:
            self._began = 0.0
        elif handled or not self._began:
            self._began = self._heard

    def _may_admit(self) -> bool:
        """Whether what goes to the log may go now; if not, reading pauses until then."""
        server = self.server
        if not server.admission.has_room:
            server.wait_for_room(self)
            self._pause(Paused.ROOM)
            return False
        if self._bucket is not None and (delay := self._bucket.delay(self._heard)) > 0:
            self._rate_timer = server.loop.call_later(delay, self.resume, Paused.RATE)
            self._pause(Paused.RATE)
            return False
        return True

    def _data(self, frame: memoryview) -> None:
        server, producer = self.server, self._producer
        if producer is None:
            raise ProtocolError(Code.PRODUCER_FORBIDDEN, "this connection's hello named no producer; it only reads")
        count, sequence = _PLACE.unpack_from(frame, 20)
        if sequence <= producer.next and sequence + count > self._limit:
            text = f"signals {sequence} to {sequence + count - 1} where the limit is {self._limit}"
            raise ProtocolError(Code.CREDIT_EXCEEDED, text, offset=24, sequence=sequence)
        try:
            new = server.admission.admit(producer, frame, self._kinds)
        except FrameError as error:
            raise self._refusal(error, frame, sequence) from None
        if self._bucket is not None:
            self._bucket.take(count, self._heard)
        server.counters.frames += 1
        server.counters.signals += new
        if not new:
            self.ack()  # all of it is known: the ack for it may have been lost

    def _refusal(self, error: FrameError, frame: memoryview, sequence: int) -> ProtocolError:
        """The frame decoder's verdict as the wire's code; a kind that is declared was forbidden."""
        code = _FRAME_CODES.get(error.code) or Code[error.code.upper()]
        text = str(error)
        if code == Code.SIGNAL_KIND and self.identity is not None:
            kind = int.from_bytes(frame[error.offset : error.offset + 2], "big")
            for name, number in self.server.admission.kinds.items():
                if number == kind:
                    code, text = Code.KIND_FORBIDDEN, f"{self.identity.name!r} may not send kind {name!r} ({kind})"
        return ProtocolError(code, text, offset=error.offset, sequence=sequence)

    def _message(self, message: Message) -> None:
        self.server.counters.messages += 1
        match message:
            case Hello():
                self._hello(message)
            case Ping():
                self._write(Pong(message.nonce))
            case Name():
                if self._producer is None:
                    raise ProtocolError(Code.PRODUCER_FORBIDDEN, "names come from producers; this one only reads")
                self.server.admission.admit_name(self._producer, message)
                if self._bucket is not None:
                    self._bucket.take(1, self._heard)
            case Subscribe():
                self._subscribe(message)
            case Unsubscribe():
                self._subscribing.pop(message.id, None)
                subscription = self._subscriptions.pop(message.id, None)
                if subscription is not None:
                    subscription.close()
            case Close():
                self.finish(Close())
            case _:
                pass  # a pong: it was heard

    # Hello.

    def _hello(self, hello: Hello) -> None:
        server = self.server
        if not hello.version_min <= VERSION <= hello.version_max:
            text = f"versions {hello.version_min} to {hello.version_max}; version {VERSION} is spoken here"
            raise ProtocolError(Code.VERSION, text, offset=16)
        if hello.token:
            self._token_sha256 = hashlib.sha256(hello.token).digest()
        identity = self._identify()
        if identity is None:
            shown = "token" if hello.token else "certificate" if self._certificate else None
            text = f"nobody is known by this {shown}" if shown else "neither a token nor a certificate was shown"
            raise ProtocolError(Code.AUTH_FAILED, text)
        if hello.producer and not identity.may_produce(hello.producer):
            text = f"{identity.name!r} may not send as {hello.producer!r}"
            raise ProtocolError(Code.PRODUCER_FORBIDDEN, text)
        self.identity = identity
        self._kinds = identity.kind_set(server.admission.kinds)
        self._bucket = server.bucket(identity)
        server.counters.authenticated += 1
        self.state = State.OPENING
        self._pause(Paused.OPENING)
        self._spawn(self._open(hello, identity.name))

    def _identify(self) -> "Identity | None":
        identities = self.server.identities.value
        if self._token_sha256 is not None:
            return identities.by_digest(self._token_sha256)
        return identities.by_certificate(self._certificate)

    async def _open(self, hello: Hello, identity: str) -> None:
        admission = self.server.admission
        try:
            if hello.producer:
                producer = await admission.open_producer(identity, hello, self._on_ack, self._on_lost)
                if self.state != State.OPENING:
                    admission.close_producer(producer)
                    return
                self._producer = producer
            welcome = admission.welcome(self._producer)
        except ProtocolError as error:
            self.refuse(error)
            return
        except Exception:
            log.exception("opening %r failed", self)
            self.refuse(ProtocolError(Code.INTERNAL, "the service could not open this producer; its log says why"))
            return
        self._acked = (welcome.next, welcome.durability, welcome.position)
        self._limit = welcome.next + self.server.limits.window_signals if self._producer else 0
        self._enter(State.DATA)
        self._write(replace(welcome, limit=self._limit))
        self.resume(Paused.OPENING)

    def _spawn(self, coroutine: "Coroutine[Any, Any, None]") -> None:
        task = self.server.loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def reidentify(self) -> None:
        """The identities changed: go on with what this one may do now, or end."""
        if self.identity is None or self.state == State.OVER:
            return
        identity = self._identify()
        if identity is None or identity.name != self.identity.name:
            self.refuse(ProtocolError(Code.AUTH_FAILED, f"{self.identity.name!r} is no longer known by this secret"))
            return
        self.identity = identity
        self._kinds = identity.kind_set(self.server.admission.kinds)

    # Outputs.

    def _subscribe(self, message: Subscribe) -> None:
        if self.identity is None or not self.identity.read:
            text = "this identity may not read outputs; set read = true in the auth file"
            self.refuse(ProtocolError(Code.READ_FORBIDDEN, text))
            return
        known = self._subscriptions.keys() | self._subscribing.keys()
        if message.id in known or len(known) >= SUBSCRIPTIONS_MAX:
            text = f"subscription {message.id} exists, or there are {SUBSCRIPTIONS_MAX} already"
            raise ProtocolError(Code.FIELD, text, offset=16)
        self._subscribing[message.id] = message
        self._spawn(self._start(message, self.identity.name))

    async def _start(self, message: Subscribe, identity: str) -> None:
        try:
            subscription = await self.server.admission.subscribe(identity, message, self._write_outputs)
        except ProtocolError as error:
            self._subscribing.pop(message.id, None)
            self.refuse(error)
            return
        except Exception:
            log.exception("a subscription of %r failed", self)
            self.refuse(ProtocolError(Code.INTERNAL, "the service could not subscribe; its log says why"))
            return
        if self.state != State.OVER and self._subscribing.get(message.id) is message:
            del self._subscribing[message.id]
            self._subscriptions[message.id] = subscription
        else:
            subscription.close()  # it is not wanted any more

    def _write_outputs(self, data: bytes) -> bool:
        if self.state == State.OVER:
            return False
        self.channel.write(data)
        return not self.paused & Paused.OUTPUT

    # Acks and credit.

    @property
    def credit(self) -> int:
        """Signals that may still be sent."""
        return 0 if self._producer is None else self._limit - self._producer.next

    def ack(self) -> None:
        """Say what is acknowledged and what may be sent: at once, or later in this turn if that was done in it."""
        if self._ack_sent or self.paused & Paused.OUTPUT:
            self._ack_due = True
            return
        if self._producer is None or self.state == State.OVER:
            return
        following, durability, position = self._acked
        if self.server.admission.has_room:
            self._limit = max(self._limit, following + self.server.limits.window_signals)
        else:
            self.server.credit_held(self)
        self._ack_due, self._ack_sent = False, True
        self.server.counters.acks += 1
        self.server.at_end_of_turn(self)
        self._write(Ack(following, self._limit, durability, position))

    def end_of_turn(self) -> None:
        """The turn in which an ack was sent is over."""
        self._ack_sent = False
        if self._ack_due:
            self.ack()

    def _on_ack(self, following: int, durability: int, position: int) -> None:
        self._acked = (following, durability, position)
        self.ack()
        self._finish_if_acked()

    def _on_lost(self, code: Code, message: str) -> None:
        self.refuse(ProtocolError(code, message))

    # Ends.

    def finish(self, goodbye: Close) -> None:
        """Take nothing more; when all that was admitted is acknowledged, say goodbye and close."""
        if self.state >= State.FINISHING:
            return
        self.state = State.FINISHING
        self._goodbye = goodbye
        self._pause(Paused.FINISHING)
        self._finish_if_acked()

    def _finish_if_acked(self) -> None:
        if self.state != State.FINISHING or self.paused & Paused.OUTPUT:
            return
        if self._producer is None or self._acked[0] >= self._producer.next:
            self.end_of_turn()
            self._write(self._goodbye)
            self._over()

    def _let_go(self) -> None:
        self.server.counters.authenticated -= self.identity is not None
        if self._rate_timer is not None:
            self._rate_timer.cancel()
        for task in self._tasks:
            task.cancel()
        if self._producer is not None:
            self.server.admission.close_producer(self._producer)
        for subscription in self._subscriptions.values():
            subscription.close()
        self._subscriptions.clear()

    def lost(self) -> None:
        """The connection is gone."""
        super().lost()
        self.server.lost(self)
