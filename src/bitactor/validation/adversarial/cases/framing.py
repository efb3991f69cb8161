"""Framing and parsing: every malformed message of the protocol document, on a connection that is welcome.

Each is refused with the code that the document names, ends the connection and changes nothing. A row of `_REFUSED` is a
case of its own: each is refused at another place of the decoder.
"""

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from bitactor.validation.adversarial import rawwire as wire
from bitactor.validation.adversarial.registry import case, expect

if TYPE_CHECKING:
    from bitactor.validation.adversarial.rawwire import Peer
    from bitactor.validation.adversarial.site import Site

ONE: Final = wire.signal()
# How bad it is when it is not refused: signals that nobody sent (integrity), or memory and crashes (availability).
FORGES: Final = "AV:N/AC:L/PR:L/UI:N/S:U/C:N/I:H/A:N"
BREAKS: Final = "AV:N/AC:L/PR:L/UI:N/S:U/C:N/I:N/A:H"
EARLY: Final = "AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:H"  # before anybody is known
MAXIMUM: Final = (1 << 64) - 1


class Row(NamedTuple):
    """name: of the case. make: the bytes, for a peer that is welcome. code: the error that must come."""

    name: str
    title: str
    cwe: int
    vector: str
    code: str
    make: "Callable[[Peer], bytes]"
    short: bool = False


def _flip(data: bytes, at: int, bit: int = 1) -> bytes:
    return data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]


_SUBSCRIBE: Final = struct.Struct(">IHHQQ")
_REFUSED: Final = (
    Row(
        "magic", "A message that does not begin with BAF1", 20, BREAKS, "magic",
        lambda p: wire.message(6, bytes(8), magic=b"BAF2"),
    ),
    Row(
        "version", "A version of the layout that is not spoken", 20, BREAKS, "version",
        lambda p: wire.message(6, bytes(8), version=2),
    ),
    Row("type_unknown", "A type that is not in the table", 20, BREAKS, "type", lambda p: wire.message(99, bytes(8))),
    Row(
        "type_of_the_service", "A welcome from a client", 841, FORGES, "type",
        lambda p: wire.message(wire.WELCOME, bytes(60)),
    ),
    Row("log_only_producer", "A producer record, which stands in the log only", 285, FORGES, "type",
        lambda p: wire.message(wire.PRODUCER, struct.pack(">QI", 5, 9) + wire.text("x") + wire.text("y")), short=True),
    Row(
        "flags_of_a_message", "Flags in a message's head", 20, BREAKS, "flags",
        lambda p: wire.message(6, bytes(8), flags=1),
    ),
    Row("flags_of_data", "Flags in a data frame's head", 20, BREAKS, "flags", lambda p: p.data(ONE, flags=0x8000)),
    Row(
        "reserved_of_data", "Reserved bytes of a frame that are not zero", 20, BREAKS, "flags",
        lambda p: p.data(ONE, reserved=1),
    ),
    Row("count_zero", "A frame of no signals", 1284, BREAKS, "count", lambda p: p.data(b"")),
    Row(
        "count_over", "A frame that declares 8,193 signals", 770, BREAKS, "count",
        lambda p: p.data(ONE, count=8193), short=True,
    ),
    Row("count_wraps", "A count whose length in bytes is 2**32, and 0 in 32 bits", 190, BREAKS, "count",
        lambda p: p.data(ONE, count=1 << 27), short=True),
    Row("crc_of_data", "A data frame with a bit of a signal's value changed on its way", 354, FORGES, "crc",
        lambda p: _flip(p.data(ONE), 95), short=True),
    Row("crc_of_a_message", "A ping with a bit of its nonce changed on its way", 354, BREAKS, "crc",
        lambda p: _flip(wire.ping(), 23), short=True),
    Row("sequence_overflow", "Sequence and count past 2**64 - 1", 190, FORGES, "sequence_overflow",
        lambda p: p.data(ONE, sequence=MAXIMUM), short=True),
    Row("signal_flags", "A signal with a flag that has no meaning", 20, FORGES, "signal_flags",
        lambda p: p.data(ONE + wire.signal(flags=1))),
    Row("signal_kind_unknown", "A signal of a kind that the app does not declare", 129, BREAKS, "signal_kind",
        lambda p: p.data(ONE + wire.signal(kind=999))),
    Row("signal_kind_largest", "A signal of kind 65,535, the last bit of the set of kinds", 125, BREAKS, "signal_kind",
        lambda p: p.data(wire.signal(kind=65535)), short=True),
    Row(
        "length_over", "A ping that declares one byte more than any message of it may have", 770, BREAKS,
        "message_too_long", lambda p: wire.message(6, length=65_537), short=True,
    ),
    Row(
        "payload_short", "A ping with 7 bytes of its nonce, and a right CRC", 125, BREAKS, "length",
        lambda p: wire.message(6, bytes(7)),
    ),
    Row(
        "payload_long", "A ping with a byte behind its nonce", 20, BREAKS, "length",
        lambda p: wire.message(6, bytes(9)),
    ),
    Row("text_past_the_end", "A name whose text declares more bytes than follow", 125, BREAKS, "length",
        lambda p: wire.message(wire.NAME, struct.pack(">Q", 1) + wire.text("ab", length=700))),
    Row("text_no_utf8", "A name that is no UTF-8", 176, BREAKS, "field",
        lambda p: wire.message(wire.NAME, struct.pack(">Q", 1) + wire.text(b"\xff\xfe"))),
    Row(
        "name_mismatch", "A name for a key that is not its own: it would rename another's key", 345, FORGES,
        "name_mismatch", lambda p: wire.message(wire.NAME, struct.pack(">Q", 1_000) + wire.text("mine now")),
        short=True,
    ),
    Row("subscribe_flags", "A subscription with a flag that has no meaning", 20, BREAKS, "flags",
        lambda p: wire.message(wire.SUBSCRIBE, _SUBSCRIBE.pack(1, 2, 1, 0, 0) + b"\0\3")),
    Row("subscribe_no_kinds", "A subscription to no kinds", 1284, BREAKS, "count",
        lambda p: wire.message(wire.SUBSCRIBE, _SUBSCRIBE.pack(1, 1, 0, 0, 0))),
    Row("subscribe_count_lies", "A subscription that declares 65,535 kinds and has one", 130, BREAKS, "length",
        lambda p: wire.message(wire.SUBSCRIBE, _SUBSCRIBE.pack(1, 1, 65535, 0, 0) + b"\0\3"), short=True),
    Row(
        "unsubscribe_short", "An unsubscribe with half an id", 125, BREAKS, "length",
        lambda p: wire.message(wire.UNSUBSCRIBE, b"\0\0"),
    ),
    Row("close_without_text", "A close that ends within its text", 125, BREAKS, "length",
        lambda p: wire.message(wire.CLOSE, struct.pack(">HH", 0, 5))),
    Row("garbage", "Random bytes instead of a message", 20, BREAKS, "magic", lambda p: bytes(range(200, 256)) * 4),
)  # fmt: skip


def _register(row: Row) -> None:
    def attack(site: "Site") -> str:
        with site.place.connect() as peer:
            site.join(peer, "framing")
            data = row.make(peer) if site.kind == wire.TRADE else row.make(peer).replace(ONE, site.signals((7, 1)))
            peer.send(data)
            code = peer.refusal()
            expect(code == row.code, f"{code} instead of the error {row.code}")
            end = peer.refusal()
            expect(end == "closed", f"the error {code}, and then {end} instead of the end of the connection")
            return f"error {code}, then the connection's end"

    attack.__name__, attack.__doc__ = row.name, row.title + "."
    case(
        cwe=row.cwe, vector=row.vector, surface="ingest", precondition="a connection that is welcome, as `attacker`",
        steps=f"send it: {row.title[:1].lower()}{row.title[1:]}", short=row.short, remote=site_agnostic(row),
        expected=f"error {row.code}, fatal; nothing changed",
    )(attack)  # fmt: skip


def site_agnostic(row: Row) -> bool:
    """Whether any service would refuse it alike: those of kinds depend on the app."""
    return not row.name.startswith("signal_")


for _row in _REFUSED:
    _register(_row)


class Hello(NamedTuple):
    """A hello that cannot be taken."""

    name: str
    title: str
    cwe: int
    code: str
    make: Callable[[str], bytes]  # given a good token
    short: bool = False


_HELLOS: Final = (
    Hello(
        "hello_versions_foreign", "Versions 2 to 9", 20, "version",
        lambda t: wire.hello("attacker-h", t, versions=(2, 9)),
    ),
    Hello(
        "hello_versions_crossed", "A least version above the greatest", 1284, "field",
        lambda t: wire.hello("attacker-h", t, versions=(3, 1)),
    ),
    Hello("hello_flags", "A flag without a meaning", 20, "flags", lambda t: wire.hello("attacker-h", t, flags=4)),
    Hello(
        "hello_tail", "Bytes behind the last field, at version 1", 20, "length",
        lambda t: wire.hello("attacker-h", t, tail=b"more"),
    ),
    Hello(
        "hello_too_long", "A payload of 4,097 bytes", 770, "message_too_long",
        lambda t: wire.message(wire.HELLO, bytes(4097)), short=True,
    ),
    Hello("hello_token_long", "A token of 2,049 bytes", 770, "field", lambda t: wire.hello("attacker-h", "x" * 2049)),
    Hello(
        "hello_producer_long", "A producer's name of 1,025 bytes", 770, "field",
        lambda t: wire.hello("attacker-" + "x" * 1016, t),
    ),
    Hello(
        "hello_cut", "A payload that ends within its fields", 125, "length",
        lambda t: wire.message(wire.HELLO, b"\1\1\0\0\0\0\0\0\0\5at"),
    ),
)  # fmt: skip


def _register_hello(row: Hello) -> None:
    def attack(site: "Site") -> str:
        with site.place.connect() as peer:
            peer.send(row.make(site.tokens["attacker"]))
            code = peer.refusal()
            expect(code == row.code, f"{code} instead of the error {row.code}")
            expect(peer.refusal() == "closed", "the connection stays open")
            return f"error {code}, then the connection's end"

    attack.__name__, attack.__doc__ = row.name, f"A hello with something that cannot be: {row.title.lower()}."
    case(
        cwe=row.cwe, vector=EARLY, surface="ingest", precondition="a TLS connection, nothing said yet",
        steps=f"send a hello: {row.title[:1].lower()}{row.title[1:]}", expected=f"error {row.code}, fatal",
        short=row.short, remote=True,
    )(attack)  # fmt: skip


for _hello in _HELLOS:
    _register_hello(_hello)


@case(
    cwe=241, vector=FORGES, surface="ingest", precondition="welcome", remote=True,
    steps="for each message and each length of it short of the whole: send so much, then end the connection",
    expected="nothing of it is taken; the service goes on",
)  # fmt: skip
def truncated_at_every_byte(site: "Site") -> str:
    """Every message that a client may send, cut off at every byte."""
    cuts = 0
    with site.place.connect() as peer:
        site.join(peer, "cut")
        whole = [
            peer.data(site.signals((7, 1))),
            wire.ping(),
            wire.subscribe(),
            wire.message(wire.NAME, struct.pack(">Q", wire.text_key("cut")) + wire.text("cut")),
            wire.message(wire.CLOSE, struct.pack(">H", 0) + wire.text("bye")),
            wire.message(wire.UNSUBSCRIBE, struct.pack(">I", 1)),
        ]
    for data in whole:
        for length in range(1, len(data), 1 if len(data) < 48 else 3):
            with site.place.connect() as peer:
                site.join(peer, "cut")
                peer.send(data[:length])
            cuts += 1
    return f"{cuts} connections cut within a message, nothing taken"


@case(
    cwe=354, vector=FORGES, surface="ingest", precondition="welcome", remote=True,
    steps="for each byte of a data frame: send the frame with one bit of that byte, chosen by the seed, changed",
    expected="every one is refused with an error; nothing is taken",
)  # fmt: skip
def every_byte_flipped(site: "Site") -> str:
    """A data frame with one bit changed, for each of its bytes."""
    codes: dict[str, int] = {}
    for at in range(96):
        with site.place.connect() as peer:
            site.join(peer, "flip")
            peer.send(_flip(peer.data(site.signals((7, 1))), at, 1 << site.random.randrange(8)))
            code = peer.refusal(0.5 if at in {22, 23} else wire.ANSWER_S)
        expect(
            code not in {"silence", "closed"} or at in {22, 23}, f"byte {at}: {code}"
        )  # a longer frame is waited for
        codes[code] = codes.get(code, 0) + 1
    return ", ".join(f"{code}: {count}" for code, count in sorted(codes.items()))


@case(
    cwe=20, vector=BREAKS, surface="ingest", precondition="welcome", remote=True, short=True,
    steps="send a frame and a ping one byte at a time", expected="both are understood: the frame is acknowledged",
)  # fmt: skip
def one_byte_at_a_time(site: "Site") -> str:
    """Messages that arrive a byte at a time."""
    with site.place.connect() as peer:
        producer = site.join(peer, "bytes")
        for byte in wire.ping(77) + peer.data(site.signals((7, 1))):
            peer.send(bytes([byte]))
        pong = peer.until(wire.PONG)
        expect(pong is not None and pong.payload == struct.pack(">Q", 77), f"the ping was answered with {pong}")
        ack = peer.until(wire.ACK)
        expect(ack is not None and ack.kind == wire.ACK, f"the frame was answered with {ack}")
    site.witness.sent(producer, (7, 1))
    return "a pong with the nonce, and an ack"


@case(
    cwe=696, vector=FORGES, surface="ingest", precondition="welcome", remote=True, short=True,
    steps="send in one write: a good frame, a frame with a wrong CRC, another good frame",
    expected="the first is taken, the second refused, the third not looked at",
)  # fmt: skip
def bad_between_good(site: "Site") -> str:
    """A bad frame between good ones, all in one write."""
    with site.place.connect() as peer:
        producer = site.join(peer, "between")
        first = peer.data(site.signals((7, 1)))
        peer.next += 1
        bad = _flip(peer.data(site.signals((7, 2))), 90)
        peer.next += 1
        peer.send(first + bad + peer.data(site.signals((7, 4))))
        code = peer.refusal()
        expect(code == "crc", f"{code} instead of crc")
    site.witness.sent(producer, (7, 1))
    return "one signal is in the state, error crc"


@case(
    cwe=20, vector=BREAKS, surface="ingest", precondition="welcome", remote=True,
    steps="300 times: change up to 8 bytes of a message of each type, at places and to values of the seed; send it",
    expected="each is refused, or waited for, and changes nothing",
)  # fmt: skip
def mutated_messages(site: "Site") -> str:
    """Messages with random damage, their CRC not put right."""
    codes: dict[str, int] = {}
    for _ in range(300):
        with site.place.connect() as peer:
            site.join(peer, "mutated")
            good = site.random.choice([peer.data(site.signals((7, 1), (8, 2))), wire.subscribe(), wire.ping(5)])
            bad = bytearray(good)
            for _ in range(site.random.randint(1, 8)):
                bad[site.random.randrange(len(bad))] = site.random.randrange(256)
            if bytes(bad) == good:
                continue
            peer.send(bytes(bad))
            code = peer.refusal(0.2)
        expect(code != "closed", f"{bytes(bad).hex()} ended the connection without an error")
        codes[code] = codes.get(code, 0) + 1
    return ", ".join(f"{code}: {count}" for code, count in sorted(codes.items()))
