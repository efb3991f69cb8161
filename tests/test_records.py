"""Records: filled frame by frame, sealed and read back; frames are trimmed exactly; what is none is refused."""

import sys
import threading

import numpy as np
import pytest

import bitactor as ba
from bitactor.protocol import messages as m
from bitactor.protocol.frames import frame_header, kind_set
from bitactor.protocol.records import (
    RecordBuilder,
    RecordError,
    RecordFullError,
    RecordType,
    encode_app_record,
    fingerprint_number,
    read_record,
    verify_record,
)


def some(n, first=0, kind=3):
    return ba.make_signals(kind, np.arange(first, first + n), np.arange(n, dtype="f8"), np.arange(n) % 7, 5, n=n)


def frame(n, sequence=0, **more):
    return ba.encode_frame(some(n, sequence), producer=9, sequence=sequence, epoch=2, **more)


def test_a_record_of_frames_and_messages_comes_back_in_order():
    builder = RecordBuilder()
    command = m.Producer(9, 2, "desk", "desk-1").encode()
    name = m.Name(ba.text_key("AAPL"), "AAPL").encode()
    builder.add_message(command)
    assert builder.add_frame(frame(8192, trace=bytes(range(24)))) == (9, 2, 0, 8192)
    builder.add_message(name)
    assert builder.add_frame(memoryview(frame(10, 8192))) == (9, 2, 8192, 10)
    assert (builder.count, builder.items) == (8202, 4)
    data = builder.finish(7, 100, 11, 0, fingerprint_number("11223344556677889900"))
    assert len(data) == builder.length
    record = read_record(data, kind_set([3]))
    assert (record.sequence, record.position, record.wall_ns, record.count) == (7, 100, 11, 8202)
    assert (record.type, record.fingerprint, record.lane) == (RecordType.DATA, 0x1122334455667788, 0)
    assert [kind for kind, _ in record.items] == [32, 1, 11, 1]
    assert [bytes(view) for _, view in record.items] == [
        command,
        frame(8192, trace=bytes(range(24))),
        name,
        frame(10, 8192),
    ]
    assert b"".join(bytes(view) for _, view in record.items) == bytes(record.payload) == bytes(data[64:])
    assert (
        record.signals.tobytes()
        == builder.signals.tobytes()
        == (np.concatenate([some(8192), some(10, 8192)]).tobytes())
    )
    assert verify_record(data).items == 4
    builder.clear()
    assert (builder.count, builder.items, builder.length, len(builder.signals)) == (0, 0, 64, 0)


@pytest.mark.parametrize("skip", [1, 5, 8191])
def test_a_trimmed_frame_is_the_frame_of_the_rest(skip):
    builder = RecordBuilder()
    whole = frame(8192, 50, trace=bytes(range(24)))
    assert builder.add_frame(whole, skip=skip) == (9, 2, 50 + skip, 8192 - skip)
    rest = ba.encode_frame(some(8192, 50)[skip:], producer=9, sequence=50 + skip, epoch=2, trace=bytes(range(24)))
    assert bytes(builder.finish(0, 0, 0, 0, 0)[64:]) == rest
    assert builder.signals.tobytes() == some(8192, 50)[skip:].tobytes()
    assert frame_header(rest) == (9, 2, 50 + skip, 8192 - skip)
    with pytest.raises(ValueError, match="a skip of 8192 leaves nothing of a frame of 8192"):
        builder.add_frame(whole, skip=8192)


def test_what_does_not_fit_or_is_refused_changes_nothing():
    builder = RecordBuilder(signals_max=100, bytes_max=64 + 64 + 32 * 60 + 64 + 32 * 41)
    builder.add_frame(frame(60))
    before = bytes(builder.finish(0, 0, 0, 0, 0))
    bad = bytearray(frame(10, 60))
    bad[70] ^= 1
    for data, error in [(frame(41, 60), RecordFullError), (bytes(bad), ba.FrameError), (b"BAF1", ba.FrameError)]:
        with pytest.raises(error):
            builder.add_frame(data)
    with pytest.raises(ba.FrameError, match=r"\(signal_kind\) at offset 64"):
        builder.add_frame(frame(10, 60), kind_set([4]))
    with pytest.raises(ValueError, match="kind_set gives 8,192"):
        builder.add_frame(frame(10, 60), b"abc")
    with pytest.raises(RecordFullError):
        builder.add_message(bytes(64 + 32 * 41 + 1))
    assert bytes(builder.finish(0, 0, 0, 0, 0)) == before
    assert builder.fits(len(frame(40))) and not builder.fits(len(frame(41)))
    builder.add_frame(frame(40, 60))
    assert builder.count == 100


def test_a_full_record_holds_65536_signals():
    builder = RecordBuilder()
    for i in range(8):
        builder.add_frame(frame(8192, 8192 * i))
    with pytest.raises(RecordFullError, match="do not fit beside 65536 signals"):
        builder.add_frame(frame(1))
    assert not builder.has_room(1) and not RecordBuilder(bytes_max=65600).has_room(1) and RecordBuilder().has_room(8192)
    out = np.empty(65536, ba.SIGNAL_DTYPE)
    record = read_record(builder.finish(0, 0, 0, 0, 0), out=out)
    assert np.shares_memory(record.signals, out)
    assert (record.signals["key"] == np.arange(65536)).all()


def test_heartbeats_and_app_records_have_no_signals():
    heartbeat = read_record(RecordBuilder().finish(5, 2**64 - 1, 9, 0, 0))
    assert (heartbeat.count, heartbeat.items, len(heartbeat.signals)) == (0, [], 0)
    app = read_record(encode_app_record(b'{"app":"x"}', sequence=0, position=0, wall_ns=1, fingerprint=2))
    assert (app.type, bytes(app.payload), app.items) == (RecordType.APP, b'{"app":"x"}', [])
    with pytest.raises(ValueError, match="an app record of 8388609 bytes"):
        encode_app_record(bytes((8 << 20) + 1), sequence=0, position=0, wall_ns=1, fingerprint=2)
    builder = RecordBuilder()
    builder.add_frame(frame(1))
    with pytest.raises(ValueError, match=r"go past 2\*\*64 - 1"):
        builder.finish(0, 2**64 - 1, 0, 0, 0)


def test_damage_is_refused_with_its_code_and_place():
    builder = RecordBuilder()
    builder.add_frame(frame(2))
    data = bytes(builder.finish(1, 2, 3, 0, 0))
    for bad, code, offset in [
        (data[:-1], "short", len(data) - 1),
        (data + b"x", "long", len(data) + 1),
        (b"X" + data[1:], "magic", 0),
        (data[:4] + b"\2" + data[5:], "version", 4),
        (data[:-1] + b"x", "crc", 32),
    ]:
        for read in (read_record, verify_record):
            with pytest.raises(RecordError) as caught:
                read(bad)
            assert (caught.value.code, caught.value.offset) == (code, offset)
    with pytest.raises(RecordError, match=r"\(frame\) at offset 128: .* \(signal_kind\)"):
        read_record(data, kind_set([4]))


def test_two_threads_fill_two_builders_side_by_side():
    data, turns = frame(8192), []

    def fill(who):
        builder = RecordBuilder()
        for _ in range(20000):
            builder.clear()
            builder.add_frame(data)
            if turns[-1:] != [who]:
                turns.append(who)
            if len(turns) > 4:
                return

    interval = sys.getswitchinterval()
    sys.setswitchinterval(100)  # nobody is asked to give the GIL away: it is given away while converting, or kept
    try:
        threads = [threading.Thread(target=fill, args=(who,)) for who in (1, 2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert len(turns) > 4, "one thread ran only after the other"
