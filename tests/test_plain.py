"""Two decoders of frames, messages and records, over generated and mutated bytes: one verdict, code and place."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bitactor as ba
from bitactor.protocol import messages as m
from bitactor.protocol.errors import Code, ProtocolError
from bitactor.protocol.frames import kind_set
from bitactor.protocol.records import RecordBuilder, RecordError, encode_app_record, read_record
from bitactor.schema import Kind

from . import plain
from .test_protocol_document import EXAMPLES, SIGNAL

u1, u2, u4, u8 = (st.integers(0, 2 ** (8 * n) - 1) for n in (1, 2, 4, 8))
texts = st.text(max_size=20)
codes = st.sampled_from(list(Code))
kinds = st.builds(
    Kind,
    st.sampled_from(["a", "trade", "é"]),
    st.integers(1, 65535),
    st.sampled_from(["f8", "i8", "u8"]),
    st.sampled_from(["u4", "i4", "f4"]),
)


@st.composite
def parts(draw):
    size = draw(st.integers(1, 20) | st.just(8192))
    begin = draw(st.integers(0, 2**64 - 1 - size) | st.just(2**64 - 1 - size))
    offsets = np.array(sorted(draw(st.sets(st.integers(0, size - 1), max_size=9))), ">u2").tobytes()
    after, floor = draw(st.integers(0, begin + size)), draw(st.integers(0, begin))
    return m.Part(draw(u8), draw(u4), begin, begin + size, after, floor, draw(u8), offsets)


logged = st.one_of(
    parts(),
    st.builds(m.Name, u8, texts),
    st.builds(m.Producer, u8, u4, texts, texts),
    st.builds(m.ForgetProducer, u8),
    st.builds(m.EraseKey, u8),
)
BY_TYPE = {
    "hello": st.builds(m.Hello, texts, u4, st.booleans(), st.binary(max_size=9), texts, st.just(1), st.integers(1, 2)),
    "welcome": st.builds(
        *(m.Welcome, u8, u4, u8, u8, u1, u8, texts, texts, st.lists(kinds, max_size=3).map(tuple), texts),
        st.integers(1, 8192),
    ),
    "ack": st.builds(m.Ack, u8, u8, u1, u8),
    "error": st.builds(m.Error, codes, st.booleans(), u8, u4, texts),
    "ping": st.builds(m.Ping, u8) | st.builds(m.Pong, u8),
    "close": st.builds(m.Close, st.none() | codes, texts),
    "subscribe": st.builds(m.Subscribe, u4, st.lists(u2, min_size=1, max_size=4).map(tuple), u8, u8, st.booleans()),
    "unsubscribe": st.builds(m.Unsubscribe, u4),
    "outputs": st.builds(
        m.Outputs, u4, u8, st.integers(0, 2).flatmap(lambda n: st.binary(min_size=48 * n, max_size=48 * n))
    ),
    "logged": logged,
}


@st.composite
def frames(draw):
    count = draw(st.integers(1, 6))
    rows = [(draw(st.integers(1, 3)), 0, draw(u4), draw(u8), draw(u8), 0.5) for _ in range(count)]
    return ba.encode_frame(
        np.array(rows, ba.SIGNAL_DTYPE),
        producer=draw(u8),
        epoch=draw(u4),
        sequence=draw(st.integers(0, 2**64 - 10) | st.just(2**64 - 7)),
        trace=draw(st.just(b"") | st.binary(min_size=24, max_size=24)),
    )


@st.composite
def records(draw):
    if draw(st.integers(0, 9)) == 0:
        return encode_app_record(draw(st.binary(max_size=50)), sequence=0, position=draw(u8), wall_ns=1, fingerprint=2)
    builder = RecordBuilder(64, 8192)
    for piece in draw(st.lists(frames() | logged.map(lambda message: message.encode()), max_size=4)):
        builder.add_frame(piece) if piece[5] == 1 else builder.add_message(piece)
    position = draw(st.integers(0, 2**64 - 1 - builder.count))
    return bytes(builder.finish(draw(u8), position, draw(u8), draw(u4), draw(u8)))


@st.composite
def damaged(draw, whole, crc_at, fields):
    """Bytes of `whole`, perhaps with some changed, cut or added, and then mostly with the right checksum."""
    data = bytearray(draw(whole))
    for _ in range(draw(st.sampled_from([0, 1, 1, 1, 2, 3]))):
        at = draw(st.integers(0, min(len(data), fields) - 1) | st.integers(0, len(data) - 1))
        data[at] = draw(st.sampled_from([0, 1, 2, 3, 255, data[at] ^ 1]) | u1)
    if draw(st.integers(0, 7)) == 0:  # a number of 2, 4 or 8 bytes that is as large as can be
        at, n = 2 * draw(st.integers(0, min(len(data), fields) // 2 - 4)), draw(st.sampled_from([2, 4, 8]))
        data[at : at + n] = b"\xff" * n
    if draw(st.integers(0, 7)) == 0:
        data = data[: draw(st.integers(0, len(data)))] + draw(st.binary(max_size=3))
    if draw(st.integers(0, 3)) and len(data) >= crc_at + 4:
        data[crc_at : crc_at + 4] = struct.pack(">I", plain.crc32c(data[:crc_at] + data[crc_at + 4 :]))
    return bytes(data)


def verdict_of_plain(decode, *given):
    try:
        return decode(*given)
    except plain.Refused as refused:
        return refused.args


@settings(max_examples=400, deadline=None)
@given(damaged(frames(), 32, 64), st.sampled_from([None, {1, 2}, {1, 2, 3}]))
def test_frames_have_one_verdict(data, known):
    frame_has_one_verdict(data, known)


def frame_has_one_verdict(data, known):
    expected = verdict_of_plain(plain.frame, data, known)

    try:
        frame = ba.decode_frame(data, None if known is None else kind_set(known))
        rows = [(*map(int, (s["kind"], s["aux"], s["key"], s["time"])),) for s in frame.signals]
        values = frame.signals["value"].view("u8").tolist()
        found = (
            frame.producer,
            frame.epoch,
            frame.sequence,
            frame.trace,
            [(*r, v) for r, v in zip(rows, values, strict=True)],
        )
    except ba.FrameError as error:
        found = (error.code, error.offset)
    assert found == expected, data.hex()


def fields_of(message):
    """The message's fields as the plain decoder gives them."""
    match message:
        case m.Hello():
            return (
                *(message.version_min, message.version_max, int(message.takeover), message.epoch),
                *(message.producer, message.token, message.client),
            )
        case m.Welcome(kinds=kinds):
            types = (("f8", "i8", "u8"), ("u4", "i4", "f4"))
            rows = [(k.number, types[0].index(k.value) + 1, types[1].index(k.aux) + 1, k.name) for k in kinds]
            return (
                *(message.durability, 0, message.epoch, message.producer, message.next, message.limit),
                *(message.position, message.frame_signals_max, message.app, message.fingerprint, message.server, rows),
                struct.pack(f">{len(message.lanes)}Q", *message.lanes),
            )
        case m.Ack():
            return message.next, message.limit, message.position, message.durability
        case m.Error():
            return message.code, int(message.fatal), message.offset, message.sequence, message.message
        case m.Close():
            return message.code or 0, message.message
        case m.Subscribe(kinds=kinds):
            wire = struct.pack(f">{len(kinds)}H", *kinds)
            places = b"".join(struct.pack(">QQ", *place) for place in message.places)
            return message.id, int(message.live), len(kinds), message.from_position, message.from_index, wire, places
        case m.Outputs():
            return message.id, len(message.rows) // 48, message.dropped, message.rows
        case _:
            return tuple(getattr(message, name) for name in message.__dataclass_fields__ if name != "type")


@pytest.mark.parametrize("kind", BY_TYPE)
@settings(max_examples=250, deadline=None)
@given(data=st.data())
def test_messages_have_one_verdict(kind, data):
    data = data.draw(damaged(BY_TYPE[kind].map(lambda message: message.encode()), 12, 40))
    message_has_one_verdict(data)


def message_has_one_verdict(data):
    expected = verdict_of_plain(plain.message, data)

    try:
        message = m.decode_message(data)
        found = (int(message.type), fields_of(message))
    except ProtocolError as error:
        found = (error.code.name.lower(), error.offset)
    assert found == expected, data.hex()


@settings(max_examples=400, deadline=None)
@given(damaged(records(), 32, 128), st.sampled_from([None, {1, 2, 3}]))
def test_records_have_one_verdict(data, known):
    record_has_one_verdict(data, known)


def record_has_one_verdict(data, known):
    expected = verdict_of_plain(plain.record, data, known)

    try:
        record = read_record(data, None if known is None else kind_set(known))
        header = (record.sequence, record.position, record.wall_ns, record.fingerprint, record.lane, int(record.type))
        items, at = [], 64
        for kind, view in record.items:
            items.append((kind, at, len(view)))
            assert bytes(view) == data[at : at + len(view)]
            at += len(view)
        signals = [(*map(int, (s["kind"], s["aux"], s["key"], s["time"])),) for s in record.signals]
        values = record.signals["value"].view("u8").tolist()
        found = (header, items, [(*s, v) for s, v in zip(signals, values, strict=True)])
    except RecordError as error:
        found = (error.code, error.offset)
    assert found == expected, data.hex()


def each_byte_changed(data, crc_at):
    """The bytes with each one set to telling values, the checksum right."""
    for at in range(min(len(data), 400)):
        for value in {0, 1, 2, 3, 127, 128, 255, data[at] ^ 1}:
            bad = bytearray(data)
            bad[at] = value
            bad[crc_at : crc_at + 4] = struct.pack(">I", plain.crc32c(bad[:crc_at] + bad[crc_at + 4 :]))
            yield bytes(bad)


@pytest.mark.parametrize("name", EXAMPLES)
def test_each_byte_of_an_example_changed_has_one_verdict(name):
    example = EXAMPLES[name]
    for data in each_byte_changed(example if name == "data" else example.encode(), 32 if name == "data" else 12):
        frame_has_one_verdict(data, {1, 2}) if name == "data" else message_has_one_verdict(data)


def test_each_byte_of_frames_and_records_at_their_limits_changed_has_one_verdict():
    last = ba.encode_frame(SIGNAL, producer=7, epoch=3, sequence=2**64 - 3)
    for data in each_byte_changed(last, 32):
        frame_has_one_verdict(data, None)
    builder = RecordBuilder()
    builder.add_message(EXAMPLES["name"].encode())
    builder.add_frame(last)
    for data in each_byte_changed(bytes(builder.finish(5, 2**64 - 3, 1, 0, 0)), 32):
        record_has_one_verdict(data, None)
    app = encode_app_record(b"{}", sequence=0, position=0, wall_ns=1, fingerprint=2)
    for data in each_byte_changed(app, 32):
        record_has_one_verdict(data, None)
