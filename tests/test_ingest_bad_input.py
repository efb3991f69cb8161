"""Bad input on real sockets: each gets its documented error, the connection ends, and admission is as it was before."""

import random
import select
import struct
import time

import pytest

from bitactor._core._codec import crc32c
from bitactor.protocol.errors import Code
from bitactor.protocol.messages import (
    Ack,
    Close,
    Error,
    Hello,
    Name,
    Ping,
    Pong,
    Subscribe,
    Unsubscribe,
    Welcome,
)
from bitactor.signals import text_key
from tests.ingest_tools import (
    READER,
    MemoryAdmission,
    Peer,
    Serving,
    ServingService,
    client_context,
    frame,
    signals,
    tls_files,
    unchanged,
)

GOOD = frame(3, 5)  # what `serving` expects next


@pytest.fixture(scope="module", params=["memory", "service"])
def serving(request, tmp_path_factory):
    """Has admitted five signals of p1 and holds quote as a kind that p1 may not send."""
    limits = {"frame_s": 0.5, "handshake_s": 0.5}
    made = Serving(**limits) if request.param == "memory" else ServingService(tmp_path_factory.mktemp("d"), **limits)
    with made as running:
        with Peer(running.port) as peer:
            peer.hello()
            peer.send(frame(5))
            peer.acked(5)
            peer.send(Close())
            assert peer.receive() == Close()
        yield running


def with_crc(data):
    """The frame with its checksum made right."""
    return data[:32] + crc32c(data[36:], crc32c(data[:32])).to_bytes(4, "big") + data[36:]


def put(data, at, *values):
    return data[:at] + bytes(values) + data[at + len(values) :]


def put_u64(data, at, value):
    return data[:at] + struct.pack(">Q", value) + data[at + 8 :]


LONG = struct.pack(">4sBBHII", b"BAF1", 1, 6, 0, 65537, 0)
FRAMES = {
    "wrong magic": (put(GOOD, 0, 0x58), Code.MAGIC, 0),
    "wrong version": (put(GOOD, 4, 2), Code.VERSION, 4),
    "unknown type": (put(GOOD, 5, 99), Code.TYPE, 5),
    "type that only the server sends": (put(GOOD, 5, 3), Code.TYPE, 5),
    "type that is only in the log": (put(GOOD, 5, 32), Code.TYPE, 5),
    "flags": (put(GOOD, 6, 0x80), Code.FLAGS, 6),
    "count 0": (put(GOOD, 20, 0, 0, 0, 0), Code.COUNT, 20),
    "count 8,193": (put(GOOD, 20, 0, 0, 0x20, 1), Code.COUNT, 20),
    "count 4 billion": (put(GOOD, 20, 255, 255, 255, 255), Code.COUNT, 20),
    "count below the length": (put(GOOD, 20, 0, 0, 0, 2) + GOOD, Code.CRC, 32),
    "count above the length": (put(GOOD, 20, 0, 0, 0, 4) + GOOD, Code.CRC, 32),
    "changed signal": (put(GOOD, 100, GOOD[100] ^ 1), Code.CRC, 32),
    "changed checksum": (put(GOOD, 33, GOOD[33] ^ 1), Code.CRC, 32),
    "reserved bytes": (with_crc(put(GOOD, 37, 1)), Code.FLAGS, 36),
    "signal with flags": (with_crc(put(GOOD, 64 + 2, 1)), Code.SIGNAL_FLAGS, 64 + 2),
    "undeclared kind": (with_crc(put(GOOD, 96, 0, 9)), Code.SIGNAL_KIND, 96),
    "kind 0": (with_crc(put(GOOD, 96, 0, 0)), Code.SIGNAL_KIND, 96),
    "declared and forbidden kind": (with_crc(put(GOOD, 96, 0, 2)), Code.KIND_FORBIDDEN, 96),
    "sequence jump": (frame(3, 6), Code.SEQUENCE_GAP, 24),
    "sequence far ahead": (frame(3, 1 << 40), Code.SEQUENCE_GAP, 24),
    "sequence that wraps": (with_crc(put_u64(GOOD, 24, 2**64 - 2)), Code.SEQUENCE_OVERFLOW, 24),
    "another producer's number": (frame(3, 5, producer="p2"), Code.PRODUCER_FORBIDDEN, 8),
    "another epoch": (frame(3, 5, epoch=2), Code.FENCED, 16),
    "oversized message": (LONG, Code.MESSAGE_TOO_LONG, 8),
    "message with a wrong checksum": (put(Ping(7).encode(), 20, 1), Code.CRC, 12),
    "message that is too short": (struct.pack(">4sBBHI", b"BAF1", 1, 6, 0, 3), None, 0),
    "hello again": (Hello().encode(), Code.TYPE, 5),
    "name that is not its key's": (Name(1, "AAPL").encode(), Code.NAME_MISMATCH, 0),
}


@pytest.mark.parametrize("what", FRAMES)
def test_a_bad_frame_gets_its_error_and_changes_nothing(serving, what):
    data, code, offset = FRAMES[what]
    if code is None:  # a ping of three bytes, with a good checksum
        data += crc32c(b"abc", crc32c(data)).to_bytes(4, "big") + b"abc"
        code, offset = Code.LENGTH, 16
    with unchanged(serving), Peer(serving.port) as peer:
        assert isinstance(peer.hello(), Welcome)
        peer.send(data)
        error = peer.error()
    assert isinstance(error, Error) and error.code == code and error.fatal, error
    assert error.offset == offset, error
    with Peer(serving.port) as peer:  # and the producer goes on as if nothing had been
        assert peer.hello().next == 5


def test_what_came_before_a_bad_frame_stays_admitted_and_nothing_after_it(serving):
    with Serving() as running, Peer(running.port) as peer:
        peer.hello()
        peer.send(frame(3) + put(frame(3, 3), 70, 1) + frame(3, 6) + frame(3, 3))
        assert peer.error().code == Code.CRC
        assert [(sequence, len(data) // 32) for _, _, sequence, data in running.admission.taken] == [(0, 3)]


def test_a_frame_cut_at_any_byte_changes_nothing(serving):
    with unchanged(serving):
        for cut in range(len(GOOD)):
            with Peer(serving.port) as peer:
                peer.hello()
                peer.send(GOOD[:cut])
    serving.until(lambda: serving.server.counters.connections == 0)


def test_messages_arrive_whatever_their_pieces_are():
    seed = random.randrange(1 << 32)
    print("seed", seed)
    rng = random.Random(seed)
    stream, expected = b"", 0
    for _ in range(60):
        count = rng.choice([1, 2, 700, 3000, 8192])
        stream += frame(count, expected)
        expected += count
        if rng.random() < 0.3:
            stream += Ping(expected).encode()
    with Serving() as running, Peer(running.port) as peer:
        peer.hello()
        at = 0
        while at < len(stream):
            n = rng.choice([1, 15, 23, 24, 63, 65, 4096, 70000, 300000])
            peer.send(stream[at : at + n])
            at += n
            if rng.random() < 0.3:
                time.sleep(0.001)
        while not (isinstance(message := peer.receive(), Ack) and message.next == expected):
            assert isinstance(message, (Ack, Pong))
        got = b"".join(data for _, _, _, data in running.admission.taken)
        assert got == signals(expected).tobytes()
        assert running.on_loop(lambda: running.server.counters.receive_bytes) <= 64 + 32 * 8192


def test_one_byte_at_a_time_is_a_message_all_the_same(serving):
    with Serving() as running, Peer(running.port) as peer:
        for byte in Hello(producer="p1", token=b"a token of more than twenty characters").encode():
            peer.send(bytes([byte]))
        assert isinstance(peer.receive(), Welcome)
        for byte in frame(2):
            peer.send(bytes([byte]))
        assert peer.acked(2).next == 2


def test_a_message_that_does_not_end_in_time_is_refused_however_it_drips(serving):
    with unchanged(serving), Peer(serving.port) as peer:
        peer.hello()
        began = time.monotonic()
        for byte in GOOD:
            peer.send(bytes([byte]))
            if select.select([peer.socket], [], [], 0.03)[0]:
                break
        assert peer.error().code == Code.FRAME_TIMEOUT
        assert 0.4 < time.monotonic() - began < 2


def test_messages_that_end_in_time_may_come_for_as_long_as_they_like(serving):
    with Serving(frame_s=0.3) as running, Peer(running.port) as peer:
        peer.hello()
        for index in range(10):  # 0.8 s: the rest of one message and the beginning of the next, each time
            data = frame(1, index)
            peer.send(data[:50])
            time.sleep(0.08)
            peer.send(data[50:])
        assert peer.acked(10).next == 10


@pytest.mark.parametrize(
    "early",
    [frame(3, 5), Ping(1).encode(), Close().encode(), Subscribe(1, (1,)).encode(), Name(text_key("a"), "a").encode()],
)
def test_anything_before_hello_is_refused_at_its_head(serving, early):
    with unchanged(serving), Peer(serving.port) as peer:
        peer.send(early[:24])
        assert peer.error().code == Code.HELLO_EXPECTED
    assert serving.on_loop(lambda: serving.server.counters.receive_bytes) == 0


def test_before_hello_no_more_than_four_kibibytes_are_ever_held(serving):
    with Peer(serving.port) as peer:
        peer.send(struct.pack(">4sBBHII", b"BAF1", 1, 2, 0, 4097, 0))
        assert peer.error().code == Code.MESSAGE_TOO_LONG
    with Peer(serving.port) as peer:
        peer.send(struct.pack(">4sBBHII", b"BAF1", 1, 2, 0, 4096, 0) + b"x" * 4000)
        serving.until(lambda: serving.server.counters.receive_bytes)
        assert serving.on_loop(lambda: serving.server.counters.receive_bytes) == 4096 + 16


@pytest.mark.parametrize("token", [b"", b"wrong", b"a token of more than twenty character", READER + b"\0"])
def test_an_unknown_token_learns_nothing_but_that(serving, token):
    with unchanged(serving), Peer(serving.port) as peer:
        error = peer.hello(token=token)
        assert error.code == Code.AUTH_FAILED and error.message in {
            "nobody is known by this token",
            "neither a token nor a certificate was shown",
        }
        assert peer.receive() is None


def test_a_producer_that_is_not_permitted_or_anothers_is_forbidden(serving):
    with unchanged(serving):
        for producer in ("q1", "P1", "x" * 1000):
            with Peer(serving.port) as peer:
                assert peer.hello(producer=producer).code == Code.PRODUCER_FORBIDDEN
        with Peer(serving.port) as peer:
            assert peer.hello(producer="p1", token=READER).code == Code.PRODUCER_FORBIDDEN


def test_one_who_only_reads_sends_neither_signals_nor_names(serving):
    with unchanged(serving):
        for message in (frame(1), Name(text_key("a"), "a").encode()):
            with Peer(serving.port) as peer:
                assert peer.hello(producer="", token=READER).next == 0
                peer.send(message)
                assert peer.error().code == Code.PRODUCER_FORBIDDEN


def test_one_who_may_not_read_is_told_so_and_goes_on_sending(serving):
    with Peer(serving.port) as peer, unchanged(serving):
        peer.hello()
        peer.send(Subscribe(1, (1,)))
        error = peer.receive()
        assert (error.code, error.fatal) == (Code.READ_FORBIDDEN, False)
        peer.send(Unsubscribe(1))
        peer.send(Ping(77))
        assert peer.receive() == Pong(77)


def test_a_version_that_is_not_spoken_is_refused(serving):
    with Peer(serving.port) as peer:
        assert peer.hello(version_min=2, version_max=3).code == Code.VERSION
    with Peer(serving.port) as peer:
        assert isinstance(peer.hello(version_max=9), Welcome)


def test_tls_on_the_plain_port_is_refused_by_its_first_bytes(serving, tmp_path):
    tls_files(tmp_path)
    with unchanged(serving):
        with pytest.raises(OSError, match="WRONG_VERSION_NUMBER|wrong version"):
            Peer(serving.port, client_context(tmp_path))
        with Peer(serving.port) as peer:
            peer.send(b"\x16\x03\x01\x02\x00\x01")
            error = peer.error()
            assert error.code == Code.MAGIC and "are TLS, on a plain text port" in error.message


def test_replayed_frames_are_counted_and_acknowledged_again_and_change_nothing():
    with Serving() as running, Peer(running.port) as peer:
        peer.hello()
        peer.send(frame(8))
        first = peer.acked(8)
        with unchanged(running):
            for sequence, count in [(0, 8), (0, 1), (7, 1), (3, 5)]:
                peer.send(frame(count, sequence))
                assert peer.receive() == first
        assert running.admission.duplicates == 15
        peer.send(frame(5, 6))  # three of them are new
        assert peer.acked(11).next == 11
        assert running.admission.taken[-1][2:] == (8, signals(3, 8).tobytes())


def test_signals_past_the_credit_are_refused_even_when_they_are_next():
    with Serving(MemoryAdmission(acks="later"), window_signals=10_000) as running, Peer(running.port) as peer:
        assert peer.hello().limit == 10_000
        peer.send(frame(8192) + frame(1808, 8192))
        running.until(lambda: len(running.admission.taken) == 2)
        with unchanged(running):
            peer.send(frame(1, 10_000))
            assert peer.error().code == Code.CREDIT_EXCEEDED


def test_random_bytes_never_change_anything():
    seed = random.randrange(1 << 32)
    print("seed", seed)
    rng = random.Random(seed)
    with Serving(MemoryAdmission(), handshake_s=1, frame_s=1) as running:
        with Peer(running.port) as peer:
            peer.hello()
        with unchanged(running):
            for round_ in range(150):
                with Peer(running.port) as peer:
                    if round_ % 2:
                        peer.hello()
                        data = bytearray(frame(rng.randrange(1, 40)))
                        for _ in range(rng.randrange(1, 4)):  # within the checked bytes: no change stays unseen
                            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
                        if bytes(data) == frame((len(data) - 64) // 32):
                            continue
                    else:
                        data = rng.randbytes(rng.randrange(1, 5000))
                    peer.send(bytes(data))
        running.until(lambda: running.server.counters.connections == 0)
