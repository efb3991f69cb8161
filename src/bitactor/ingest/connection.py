"""The life of a connection, whatever its messages mean: pauses, time limits, refusals, the end. The loop's thread only.

Nothing is read while a reason in `paused` holds. Each connection has one timer, which is moved only when it fires: a
check finds what is due and sleeps until the next thing could be.
"""

import logging
import math
from enum import IntEnum, IntFlag
from typing import TYPE_CHECKING, Final

from bitactor.ingest.receive import ReceiveBuffer
from bitactor.protocol.errors import Code, ProtocolError
from bitactor.protocol.messages import Error, Message, Ping

if TYPE_CHECKING:
    from bitactor.ingest.channel import Channel
    from bitactor.ingest.server import Server

log: Final = logging.getLogger("bitactor.ingest")

LINGER_S: Final = 2.0  # how long a peer has to read a last message
MESSAGES_A_TURN: Final = 256  # of one connection, before others have theirs


class State(IntEnum):
    """Where a connection is."""

    HELLO = 0  # TLS and the first message
    OPENING = 1  # admission registers the producer
    DATA = 2
    FINISHING = 3  # no more is taken; the last acks are awaited
    OVER = 4  # a last message was written; what comes is ignored


class Paused(IntFlag):
    """Why nothing is read just now."""

    ROOM = 1  # admission has none
    OUTPUT = 2  # the peer does not read
    RATE = 4
    OPENING = 8
    FINISHING = 16
    TURN = 32  # others' turn


PAUSES: Final = {reason: str(reason.name).lower() for reason in Paused}


class Connection:
    """From accept to loss. The session fills in what messages mean and what it lets go of."""

    def __init__(self, server: "Server", channel: "Channel", peer: str) -> None:
        self.server: Final = server
        self.channel: Final = channel
        self.peer: Final = peer
        self.state = State.HELLO
        self.paused = 0
        self._buffer: Final = ReceiveBuffer(server.counters)
        now = server.loop.time()
        self._since = now  # the connection began; later: the output became blocked
        self._heard = now  # the last byte
        self._began = 0.0  # first byte of a message that is not whole; 0: none
        self._turn_messages = 0  # handled in this turn of the loop
        self._pinged = False
        self._timer = server.loop.call_at(now + server.limits.handshake_s, self._check)

    # The session's.

    def _process(self) -> None:
        """Handle whole messages until none is left or a reason to pause comes up."""
        raise NotImplementedError

    def _let_go(self) -> None:
        """Give back what the session holds of others."""
        raise NotImplementedError

    # From the channel.

    @property
    def is_reading(self) -> bool:
        """Whether it takes more now."""
        return not self.paused and self.state != State.OVER

    @property
    def is_greeted(self) -> bool:
        """Whether the peer is known and welcome."""
        return self.state >= State.DATA

    def buffer(self) -> memoryview:
        """Room for what comes."""
        return self._buffer.room()

    def received(self, n: int) -> None:
        """Handle what came."""
        now = self.server.loop.time()
        if now != self._heard:
            self._turn_messages = 0  # a new turn of the loop
        self._heard = now
        self._pinged = False
        self.server.counters.bytes += n
        self._buffer.add(n)
        self._process()

    def ended(self) -> bool:
        """The peer sends nothing more. True: it still waits for acks."""
        if self.state == State.FINISHING:
            return True
        self._over()
        return False

    def insecure(self, reason: str) -> None:
        """TLS failed."""
        self.server.refused(reason, self.peer)
        if reason == "plain_text":
            refusal = ProtocolError(Code.TLS_REQUIRED, "this port speaks TLS 1.3 and these bytes are plain text")
            self.channel.write_plain(Error.of(refusal).encode())
        self._over()

    def lost(self) -> None:
        """The connection is gone."""
        self._over()
        self._timer.cancel()

    # To the peer.

    def _write(self, message: Message) -> None:
        if self.state < State.OVER:
            self.channel.write(message.encode())

    def refuse(self, error: ProtocolError) -> None:
        """Tell the peer, and end if the code is fatal."""
        if self.state == State.OVER:
            return
        self.server.refused(error.code.name.lower(), self.peer)
        log.info("%r: %s", self, error)
        self._write(Error.of(error))
        if error.fatal:
            self._over()

    def _over(self) -> None:
        """Let go of everything but the connection, which has a moment for what was written."""
        if self.state == State.OVER:
            return
        self._let_go()
        self.state = State.OVER
        self._set_paused(0)
        self._buffer.release()
        self._timer.cancel()
        self._timer = self.server.loop.call_later(LINGER_S, self.channel.abort)
        self.channel.finish()

    # Pauses.

    def _pause(self, reason: Paused) -> None:
        if not self.paused:
            self.channel.pause()
        self._set_paused(self.paused | reason)

    def _may_go_on(self) -> bool:
        """Whether another message may be handled in this turn; if not, the connection goes on in the next."""
        self._turn_messages += 1
        if self._turn_messages <= MESSAGES_A_TURN:
            return True
        self._turn_messages = 0
        self._pause(Paused.TURN)
        self.server.loop.call_soon(self.resume, Paused.TURN)
        return False

    def resume(self, reason: Paused) -> None:
        """This reason is over: handle what is there, and read again if no other holds."""
        if not self.paused & reason:
            return
        self._set_paused(self.paused & ~reason)
        if self.paused:
            return
        self._heard = self.server.loop.time()  # the peer is not to blame for the wait
        if self._began:
            self._began = self._heard
        self._process()
        if self.is_reading:
            self.channel.resume()

    def _set_paused(self, paused: int) -> None:
        for reason, name in PAUSES.items():
            if (self.paused ^ paused) & reason:
                self.server.counters.paused[name] += 1 if paused & reason else -1
        self.paused = paused

    # Time.

    def _enter(self, state: State) -> None:
        """Go on to a state whose limits are others."""
        self.state = state
        self._timer.cancel()
        self._check()

    def _check(self) -> None:
        limits, now = self.server.limits, self.server.loop.time()
        due, code, text = self._due()
        if now >= due:
            self.refuse(ProtocolError(code, text))
            return
        again = min(due, now + limits.frame_s)  # nothing that begins after now is due before
        if code == Code.IDLE_TIMEOUT:
            again = min(again, self._ping(now))
        self._timer = self.server.loop.call_at(again, self._check)

    def _ping(self, now: float) -> float:
        """Ask a quiet peer whether it is there, and take its empty buffer; when to ask."""
        limits = self.server.limits
        ping_at = self._heard + limits.idle_s / 2
        if not self._buffer and now >= self._heard + limits.frame_s:
            self._buffer.release()
        if self._pinged or now < ping_at:
            return math.inf if self._pinged else ping_at
        self._pinged = True
        self._write(Ping(0))
        return math.inf

    def _due(self) -> tuple[float, Code, str]:
        """When this connection must end as things stand, and why."""
        limits = self.server.limits
        if self.state == State.HELLO:
            text = f"no whole hello within {limits.handshake_s:g} s"
            return self._since + limits.handshake_s, Code.HANDSHAKE_TIMEOUT, text
        if self.paused & Paused.OUTPUT:
            text = f"{self.channel.output_bytes} bytes were not read within {limits.frame_s:g} s"
            return self._since + limits.frame_s, Code.SLOW_READER, text
        if self.paused:
            return math.inf, Code.INTERNAL, ""
        idle = self._heard + limits.idle_s
        if self._began and self._began + limits.frame_s < idle:
            text = f"a message was begun and not ended within {limits.frame_s:g} s"
            return self._began + limits.frame_s, Code.FRAME_TIMEOUT, text
        return idle, Code.IDLE_TIMEOUT, f"nothing was received for {limits.idle_s:g} s"
