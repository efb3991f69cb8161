"""Why a peer is refused: the codes of the wire, one table of what they mean, and the exception that carries one.

Numbers are frozen with version 1 of the protocol; docs/protocol.md has the same table, and a test holds the two equal.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final


class Code(IntEnum):
    """A refusal's number on the wire. 1 to 19: the bytes; 20 to 39: what is asked; 40 on: the service's condition."""

    MAGIC = 1
    VERSION = 2
    TYPE = 3
    FLAGS = 4
    COUNT = 5
    LENGTH = 6
    CRC = 7
    SEQUENCE_OVERFLOW = 8
    SIGNAL_FLAGS = 9
    SIGNAL_KIND = 10
    MESSAGE_TOO_LONG = 11
    FIELD = 12

    HELLO_EXPECTED = 20
    AUTH_FAILED = 21
    KIND_FORBIDDEN = 22
    PRODUCER_FORBIDDEN = 23
    FENCED = 24
    SUPERSEDED = 25
    SEQUENCE_GAP = 26
    CREDIT_EXCEEDED = 27
    PRODUCERS_FULL = 28
    NAME_CONFLICT = 29
    NAMES_FULL = 30
    NAME_MISMATCH = 31
    READ_FORBIDDEN = 32
    TLS_REQUIRED = 33

    CONNECTIONS_FULL = 40
    RATE_EXCEEDED = 41
    HANDSHAKE_TIMEOUT = 42
    IDLE_TIMEOUT = 43
    FRAME_TIMEOUT = 44
    SLOW_READER = 45
    LOG_FULL = 46
    SHUTTING_DOWN = 47
    NOT_READY = 48
    OUTPUT_GONE = 49
    INTERNAL = 50


@dataclass(frozen=True, slots=True)
class Refusal:
    """A row of the table. fatal: the service closes the connection. retry: a client reconnects by itself."""

    code: Code
    fatal: bool
    retry: bool
    meaning: str
    advice: str

    @property
    def name(self) -> str:
        """The code's word, such as `sequence_gap`."""
        return self.code.name.lower()


_C = Code
_ROWS: Final = (
    # code, fatal, retry, meaning, what to do
    (_C.MAGIC, True, False, "bytes that do not begin with BAF1", "cut messages by their lengths"),
    (_C.VERSION, True, False, "a version that is not spoken here", "use a client of a version the message names"),
    (_C.TYPE, True, False, "a type that is unknown, or not sent in this direction or now", "see the table of types"),
    (_C.FLAGS, True, False, "a flag without a meaning, or a reserved byte that is not 0", "send zeros"),
    (_C.COUNT, True, False, "a count outside its range", "send 1 to 8,192 signals a frame, at least one kind"),
    (_C.LENGTH, True, False, "a length that disagrees with the content", "write each length from what follows it"),
    (_C.CRC, True, False, "bytes that are not those that were sent", "compute CRC-32C over all but itself"),
    (_C.SEQUENCE_OVERFLOW, True, False, "sequence + count past 2^64 - 1", "begin another producer"),
    (_C.SIGNAL_FLAGS, True, False, "a signal with a flag that has no meaning", "send 0 as a signal's flags"),
    (_C.SIGNAL_KIND, True, False, "a signal of a kind that the app does not declare", "use kinds of the welcome"),
    (_C.MESSAGE_TOO_LONG, True, False, "a message longer than its limit", "see the limits"),
    (
        _C.FIELD,
        True,
        False,
        "a field's value cannot be: text that is no UTF-8, a number out of range",
        "see its layout",
    ),
    (_C.HELLO_EXPECTED, True, False, "something else than hello first, or hello twice", "send one hello, first"),
    (_C.AUTH_FAILED, True, False, "no identity has this token or certificate", "check the token or the certificate"),
    (_C.KIND_FORBIDDEN, True, False, "a kind that this identity may not send", "have it permitted in the auth file"),
    (
        _C.PRODUCER_FORBIDDEN,
        True,
        False,
        "another identity owns this producer, or it is not permitted",
        "choose a name",
    ),
    (_C.FENCED, True, False, "another connection took the producer over", "stop: somebody else sends now"),
    (_C.SUPERSEDED, True, False, "a newer connection of the same producer and epoch", "run one client a producer"),
    (_C.SEQUENCE_GAP, True, False, "a frame begins after the next expected sequence", "send from welcome's next on"),
    (_C.CREDIT_EXCEEDED, True, False, "signals at or past the limit", "wait for an ack that raises it"),
    (_C.PRODUCERS_FULL, True, False, "no room for another producer", "forget producers that are gone"),
    (_C.NAME_CONFLICT, True, False, "a text whose number another text already has", "use other texts for these keys"),
    (_C.NAMES_FULL, True, False, "no room for another name", "raise limits.names_max, or use numbers as keys"),
    (_C.NAME_MISMATCH, True, False, "a key that is not the number of its text", "compute it as text_key does"),
    (_C.READ_FORBIDDEN, False, False, "this identity may not read outputs", "set read in the auth file"),
    (_C.TLS_REQUIRED, True, False, "plain text on a port that speaks TLS", "use TLS 1.3"),
    (_C.CONNECTIONS_FULL, True, True, "too many connections, in all or from this peer", "close some, try later"),
    (_C.RATE_EXCEEDED, True, True, "more signals a second than permitted", "send more slowly"),
    (_C.HANDSHAKE_TIMEOUT, True, True, "TLS and hello took too long", "send hello at once"),
    (_C.IDLE_TIMEOUT, True, True, "nothing was received for too long", "send pings"),
    (_C.FRAME_TIMEOUT, True, True, "a message began and did not end in time", "send whole messages"),
    (_C.SLOW_READER, True, True, "what the service sends is not read", "read acks and outputs"),
    (_C.LOG_FULL, True, True, "the log has reached its configured size", "raise log.size_bytes_max, or snapshot"),
    (_C.SHUTTING_DOWN, True, True, "the service stops", "reconnect"),
    (_C.NOT_READY, True, True, "the service starts or recovers", "try again"),
    (_C.OUTPUT_GONE, False, False, "outputs that are older than what the service keeps", "query, then read live"),
    (_C.INTERNAL, True, True, "a failure of the service that it did not foresee", "see the service's log"),
)
TABLE: Final = {row[0]: Refusal(*row) for row in _ROWS}


class ProtocolError(ValueError):
    """A refusal: `code`, and where it applies: `offset` in the message's bytes, `sequence` in the producer's stream."""

    def __init__(self, code: Code, message: str, *, offset: int = 0, sequence: int = 0) -> None:
        super().__init__(message)
        self.code = Code(code)
        self.message = message
        self.offset = offset
        self.sequence = sequence

    def __reduce__(self) -> tuple[object, ...]:
        return _again, (self.code, self.message, self.offset, self.sequence)

    @property
    def fatal(self) -> bool:
        """Whether the connection ends with it."""
        return TABLE[self.code].fatal

    def __str__(self) -> str:
        return f"{self.code.name.lower()}: {self.message}"


def _again(code: Code, message: str, offset: int, sequence: int) -> ProtocolError:
    return ProtocolError(code, message, offset=offset, sequence=sequence)
