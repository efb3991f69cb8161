"""Wire messages: what went in comes out; what is none is refused, with its code, its offset and as early as can be."""

import random

import numpy as np
import pytest

import bitactor as ba
from bitactor.protocol import messages as m
from bitactor.protocol.errors import TABLE, Code, ProtocolError
from bitactor.protocol.frames import refusal
from bitactor.schema import Kind

KINDS = (Kind("trade", 1, "f8", "u4"), Kind("fill", 65535, "u8", "f4"))
PART = m.Part(7, 2, 1000, 1004, 1003, 990, 0b1001, bytes.fromhex("000000010003"))
EXAMPLES = [
    m.Hello("desk-1", 3, takeover=True, token=b"\0secret", client="test"),
    m.Hello(),
    m.Welcome(2**64 - 1, 1, 5, 2**64 - 1, 3, 7, "market", "ab" * 32, KINDS, "bitactor 0.1.0"),
    m.Ack(1, 2, 3, 4),
    m.Error(Code.SEQUENCE_GAP, True, 2**64 - 1, 4, "Lücke"),
    m.Ping(2**64 - 1),
    m.Pong(0),
    m.Close(None, ""),
    m.Close(Code.SHUTTING_DOWN, "back in a minute"),
    m.Subscribe(1, (1, 2, 65535), 4, 5, live=False),
    m.Outputs(1, 2, bytes(range(96))),
    m.Outputs(1, 0, b""),
    m.Name(ba.text_key("AAPL"), "AAPL"),
    m.Unsubscribe(2**32 - 1),
    m.Producer(1, 2, "desk", "desk-1"),
    m.ForgetProducer(9),
    m.EraseKey(2**63),
    PART,
    m.Part(2**64 - 1, 2**32 - 1, 2**64 - 2, 2**64 - 1, 2**64 - 1, 2**64 - 2, 2**64 - 1, b""),
    m.Part(7, 2, 1000, 66_536, 0, 990, 1, np.arange(0, 65_536, 8, ">u2").tobytes()),
]


def refused(call, *given):
    with pytest.raises(ProtocolError) as caught:
        call(*given)
    return caught.value.code, caught.value.offset


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda e: type(e).__name__)
def test_a_message_comes_back_and_its_length_is_known_from_its_head(message):
    data = message.encode()
    assert m.decode_message(data) == message
    assert m.decode_message(memoryview(bytearray(data))) == message
    assert m.message_length(data[:16]) == m.message_length(data + b"more") == len(data)


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda e: type(e).__name__)
def test_a_message_cut_at_any_byte_waits_for_more_and_is_refused_as_a_whole(message):
    data = message.encode()
    for cut in range(len(data)):
        assert m.message_length(data[:cut]) == (len(data) if cut >= 16 else 0)
        assert refused(m.decode_message, data[:cut])[0] == Code.LENGTH
    assert refused(m.decode_message, data + b"x") == (Code.LENGTH, len(data))


def test_a_head_is_refused_at_its_first_wrong_byte():
    good = m.Ping(1).encode()
    for at, byte, code, offset in [
        *((at, 0, Code.MAGIC, 0) for at in range(4)),
        (4, 0, Code.VERSION, 4),
        (4, 2, Code.VERSION, 4),
        (5, 0, Code.TYPE, 5),
        (5, 255, Code.TYPE, 5),
        (6, 1, Code.FLAGS, 6),
        (7, 1, Code.FLAGS, 6),
        (9, 2, Code.MESSAGE_TOO_LONG, 8),
        (8, 255, Code.MESSAGE_TOO_LONG, 8),
    ]:
        bad = bytearray(good)
        bad[at] = byte
        early = 12 if at > 7 else max(at + 1, 8 if at == 6 else 0)
        assert refused(m.message_length, bytes(bad[: max(early, 16 if at > 7 else 0)])) == (code, offset)
        assert refused(m.decode_message, bytes(bad)) == (code, offset)


def test_every_flipped_bit_is_found():
    data = m.Hello("desk-1", token=b"secret").encode()
    for bit in range(8 * len(data)):
        bad = bytearray(data)
        bad[bit // 8] ^= 1 << bit % 8
        code, offset = refused(m.decode_message, bytes(bad))
        assert offset <= len(data)
        assert code == Code.CRC or bit < 8 * 12


def test_what_is_not_expected_is_refused_by_its_sixth_byte():
    frame = ba.encode_frame(ba.make_signals(1, [1], 1.0), producer=1, sequence=0)
    assert m.message_length(frame[:24], m.FROM_CLIENT) == len(frame) == 96
    assert m.message_length(frame[:23], m.FROM_CLIENT) == 0
    assert refused(m.message_length, frame[:6], m.BEFORE_WELCOME) == (Code.HELLO_EXPECTED, 5)
    assert refused(m.message_length, b"BAF1\1\xc8", m.BEFORE_WELCOME) == (Code.TYPE, 5)
    assert refused(m.message_length, frame[:6], m.FROM_SERVER) == (Code.TYPE, 5)
    assert refused(m.message_length, m.Producer(1, 1, "a", "b").encode(), m.FROM_CLIENT) == (Code.TYPE, 5)
    assert refused(m.message_length, frame[:20] + bytes(4)) == (Code.COUNT, 20)
    assert refused(m.message_length, frame[:20] + b"\0\0\x20\1") == (Code.COUNT, 20)
    assert refused(m.decode_message, frame) == (Code.TYPE, 5)
    with pytest.raises(ProtocolError, match="a message of type 1 .data.; expected here: hello 2"):
        m.message_length(frame[:6], m.BEFORE_WELCOME)


def patched(message, at, data):
    """The message with other bytes at an offset, and its checksum right again."""
    whole = bytearray(message.encode())
    whole[at : at + len(data)] = data
    from bitactor._core._codec import crc32c

    whole[12:16] = crc32c(whole[16:], crc32c(whole[:12])).to_bytes(4, "big")
    return bytes(whole)


@pytest.mark.parametrize(
    ("message", "at", "data", "code", "offset"),
    [
        (m.Hello("desk"), 16, b"\0", Code.FIELD, 17),
        (m.Hello("desk"), 16, b"\2\1", Code.FIELD, 17),
        (m.Hello("desk"), 18, b"\0\2", Code.FLAGS, 18),
        (m.Hello("desk"), 24, b"\4\1", Code.FIELD, 24),
        (m.Hello("desk"), 24, b"\3\xff", Code.LENGTH, 26),
        (m.Hello("desk"), 26, b"\xff", Code.FIELD, 24),
        (m.Hello("desk"), 24, b"\0\3", Code.FIELD, 29),
        (m.Welcome(kinds=KINDS), 16, b"\2", Code.VERSION, 16),
        (m.Welcome(kinds=KINDS), 58, b"\0\0", Code.FIELD, 56),
        (m.Welcome(kinds=KINDS), 60, b"\xff\xff\xff\xff", Code.LENGTH, None),
        (m.Error(Code.CRC, False, 0, 0, ""), 16, b"\0\0", Code.FIELD, 16),
        (m.Error(Code.CRC, False, 0, 0, ""), 16, b"\xff\xff", Code.FIELD, 16),
        (m.Subscribe(1, (1,)), 22, b"\0\0", Code.COUNT, 22),
        (m.Subscribe(1, (1,)), 22, b"\0\2", Code.LENGTH, 40),
        (m.Outputs(1, 0, b""), 20, b"\xff\xff\xff\xff", Code.COUNT, 20),
        (m.Outputs(1, 0, b""), 20, b"\0\0\0\1", Code.LENGTH, 32),
        (PART, 31, b"\1", Code.FLAGS, 28),
        (PART, 46, b"\3\xe8", Code.FIELD, 40),  # no signal
        (PART, 45, b"\x01\x03\xe9", Code.FIELD, 40),  # 65,537 signals
        (PART, 54, b"\3\xed", Code.FIELD, 48),
        (PART, 62, b"\3\xe9", Code.FIELD, 56),
        (PART, 75, b"\5", Code.COUNT, 72),
        (PART, 75, b"\4", Code.LENGTH, 76),
        (PART, 75, b"\2", Code.LENGTH, 80),
        (PART, 79, b"\0", Code.FIELD, 78),  # not ascending
        (PART, 81, b"\4", Code.FIELD, 80),  # past the end
    ],
)
def test_a_field_that_cannot_be_is_refused_at_its_place(message, at, data, code, offset):
    found = refused(m.decode_message, patched(message, at, data))
    assert found[0] == code
    assert offset is None or found[1] == offset


def test_a_newer_hello_is_understood_and_an_equal_one_with_more_in_it_is_not():
    def with_tail(version_max):
        whole = bytearray(m.Hello("desk", version_max=version_max).encode()) + b"tail"
        whole[8:12] = (len(whole) - 16).to_bytes(4, "big")
        return patched(type("Raw", (), {"encode": lambda _: bytes(whole)})(), 0, b"")

    assert m.decode_message(with_tail(2)) == m.Hello("desk", version_max=2)
    assert refused(m.decode_message, with_tail(1))[0] == Code.LENGTH


def test_what_has_no_place_in_a_message_is_not_encoded():
    for message in [
        m.Hello("x" * 1025),
        m.Hello(token=bytes(2049)),
        m.Ack(-1, 0, 0, 0),
        m.Ping(2**64),
        m.Subscribe(1, (65536,)),
        m.Outputs(1, 0, bytes(47)),
        m.Outputs(1, 0, bytes(48 * 21846)),
        m.Part(1, 0, 0, 0, 0, 0, 0, b""),
        m.Part(1, 0, 0, 65_537, 0, 0, 0, b""),
        m.Part(1, 0, 0, 9000, 0, 0, 0, np.arange(8193, dtype=">u2").tobytes()),
        m.Part(1, 0, 0, 1, 2, 0, 0, b""),
        m.Part(1, 0, 0, 1, 0, 1, 0, b""),
        m.Part(1, 0, 0, 1, 0, 0, 2**64, b""),
        m.Part(1, 0, 0, 1, 0, 0, 0, b"\0"),
        m.Part(1, 0, 0, 1, 0, 0, 0, b"\0\1"),
        m.Part(1, 0, 0, 2, 0, 0, 0, b"\0\1\0\1"),
    ]:
        with pytest.raises(ValueError, match=r"bytes|no place|no part|no ascending"):
            message.encode()


def test_random_bytes_are_never_a_message_and_never_crash():
    rng = random.Random(7)
    for _ in range(2000):
        data = rng.choice([b"", b"BAF1", b"BAF1\1", b"BAF1\1\2\0\0\0\0"]) + rng.randbytes(rng.randrange(60))
        refused(m.decode_message, data)


def test_every_code_has_a_row_and_goes_over_the_wire_and_back():
    assert list(TABLE) == list(Code)
    for code, row in TABLE.items():
        error = ProtocolError(code, "why", offset=3, sequence=4)
        told = m.decode_message(m.Error.of(error).encode())
        assert (told.fatal, told.offset, told.sequence) == (row.fatal, 3, 4)
        assert str(told.exception()) == f"{row.name}: why"
    assert m.decode_message(m.Error.of(ProtocolError(Code.CRC, "ü" * 600)).encode()).message == "ü" * 512


def test_a_refused_frame_becomes_a_refusal_of_the_wire():
    frame = ba.encode_frame(ba.make_signals(1, [1], 1.0), producer=1, sequence=0)
    for damage, code, offset in [
        (frame[:-1], Code.LENGTH, 95),
        (b"X" + frame[1:], Code.MAGIC, 0),
        (frame[:24] + b"\xff" * 8 + frame[32:], Code.CRC, 32),
    ]:
        with pytest.raises(ba.FrameError) as caught:
            ba.decode_frame(damage)
        error = refusal(caught.value, 5)
        assert (error.code, error.offset, error.sequence) == (code, offset, 5)


def test_a_token_is_not_shown():
    assert "secret" not in repr(m.Hello("desk", token=b"secret"))
