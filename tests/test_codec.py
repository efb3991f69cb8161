"""Signals and frames as bytes: what went in comes out, and what is no frame is refused with its code and place."""

import random

import numpy as np
import pytest

import bitactor as ba
from bitactor._core._codec import crc32c, partition
from bitactor.protocol.frames import SIGNALS_MAX, FrameError, check_frame, encode_frame, kind_set
from bitactor.signals import from_bytes, to_bytes


def some(n, value="f8"):
    rng = np.random.default_rng(n)
    kind = ba.App("codec").kind("k", 258, value=value)
    values = rng.integers(0, 2**62, n) if value != "f8" else rng.normal(size=n)
    keys, auxes, times = (rng.integers(0, 2**bits, n) for bits in (63, 32, 62))
    return ba.make_signals(kind, keys, values, auxes, times)


@pytest.mark.parametrize("value", ["f8", "i8", "u8"])
def test_bytes_are_those_of_a_big_endian_dtype_and_come_back(value):
    signals = some(1000, value)
    data = to_bytes(signals)
    wire = np.dtype([(name, signals.dtype[name].newbyteorder(">")) for name in signals.dtype.names])
    assert data == signals.astype(wire).tobytes()
    assert from_bytes(data, value=value).tobytes() == signals.tobytes()
    with pytest.raises(ValueError, match="33 bytes are no whole number of signals"):
        from_bytes(b"x" * 33)
    with pytest.raises(TypeError, match="is not a signal dtype"):
        to_bytes(np.zeros(3))


def test_frames_come_back_with_everything_in_them():
    signals = some(8192)
    data = ba.encode_frame(signals, producer=7, sequence=1000, epoch=3, trace=bytes(range(24)))
    frame = ba.decode_frame(data, kind_set([258]))
    assert (frame.producer, frame.sequence, frame.epoch, frame.trace) == (7, 1000, 3, bytes(range(24)))
    assert frame.signals.tobytes() == signals.tobytes()


def test_bad_frames_are_refused_with_code_and_offset():
    data = ba.encode_frame(some(2), producer=1, sequence=0)
    for damage, code, offset in [
        (data[:-1], "short", len(data) - 1),
        (data + b"x", "long", len(data) + 1),
        (b"X" + data[1:], "magic", 0),
        (data[:4] + b"\2" + data[5:], "version", 4),
        (data[:70] + bytes([data[70] ^ 1]) + data[71:], "crc", 32),
    ]:
        with pytest.raises(ba.FrameError) as caught:
            ba.decode_frame(damage)
        assert (caught.value.code, caught.value.offset) == (code, offset)
    with pytest.raises(ba.FrameError, match=r"\(signal_kind\) at offset 64: a signal's kind is 0 or not declared"):
        ba.decode_frame(data, kind_set([257]))


def test_frames_that_cannot_be_are_not_encoded():
    with pytest.raises(ValueError, match="a frame holds 1 to 8192 signals"):
        ba.encode_frame(some(8193), producer=1, sequence=0)
    with pytest.raises(ValueError, match="a frame holds 1 to 8192 signals"):
        ba.encode_frame(some(0), producer=1, sequence=0)
    with pytest.raises(ValueError, match="24 bytes"):
        ba.encode_frame(some(1), producer=1, sequence=0, trace=b"abc")


def test_random_bytes_are_never_taken_for_a_frame():
    rng = random.Random(5)
    for _ in range(300):
        with pytest.raises(ba.FrameError):
            ba.decode_frame(rng.randbytes(rng.randrange(400)))


def test_the_checksum_gives_the_published_check_values():
    assert crc32c(b"123456789") == 0xE3069283
    keys = (0, 1, 2, 3, 42, 1000, 2**32, 2**63, 2**64 - 1)
    assert [partition(key) for key in keys] == [0, 44, 39, 14, 12, 1, 25, 19, 33]
    assert ba.text_key("AAPL") == 0x6B4AFF72F6BFEBF4


def test_a_frame_is_checked_without_being_kept():
    scratch = np.empty(SIGNALS_MAX, ba.SIGNAL_DTYPE)
    data = encode_frame(some(3), producer=7, sequence=9)
    check_frame(data, kind_set([258]), scratch)
    with pytest.raises(FrameError, match="kind is 0 or not declared"):
        check_frame(data, kind_set([259]), scratch)
