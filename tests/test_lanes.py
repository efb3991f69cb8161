"""Keys to lanes, and frames cut by lane: the same as one key, or one signal, at a time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bitactor as ba
from bitactor._core._codec import crc32c, partition
from bitactor.protocol.frames import kind_set, split_frame
from bitactor.signals import lanes_of, partition_of

LANES = (1, 2, 4, 8, 16, 32, 64)


@pytest.mark.parametrize("lanes", LANES)
def test_a_lane_is_the_partition_modulo_their_number(lanes):
    keys = np.concatenate([np.arange(1000, dtype="u8"), np.random.default_rng(lanes).integers(0, 2**64, 1003, "u8")])
    expected = [partition(int(key)) % lanes for key in keys]
    assert lanes_of(keys, lanes).tolist() == expected
    assert lanes_of(keys[::-1], lanes).tolist() == expected[::-1]
    assert lanes_of(keys.astype(">u8"), lanes).tolist() == expected
    assert lanes_of(ba.make_signals(1, keys, 0.0)["key"], lanes).tolist() == expected
    assert lanes_of(keys[:0], lanes).tolist() == []


def test_partitions_are_those_of_the_decision():
    vectors = {0: 0, 1: 44, 2: 39, 3: 14, 0x2A: 12, 0x3E8: 1, 1 << 32: 25, 1 << 63: 19, 2**64 - 1: 33}
    found = partition_of(np.array(list(vectors), "u8"))
    assert (found.dtype, found.tolist()) == (np.dtype("u1"), list(vectors.values()))


@pytest.mark.parametrize("lanes", [0, -1, 3, 24, 128])
def test_a_number_of_lanes_that_does_not_divide_the_partitions_is_refused(lanes):
    with pytest.raises(ValueError, match=rf"lanes is {lanes}: the 64 partitions split into 1, 2, 4"):
        lanes_of([1], lanes)


def test_what_is_no_key_is_refused_by_name():
    with pytest.raises(ValueError, match="column 'key', element 1: -1 does not fit u8"):
        lanes_of([1, -1], 4)
    with pytest.raises(TypeError, match="column 'key' has dtype float64"):
        lanes_of([0.5], 4)


# --- frames ---


def split_by_numpy(frame, lanes):
    """The pieces of a frame as (lane, rows, offsets), by a stable sort."""
    decoded = ba.decode_frame(frame)
    wire = np.frombuffer(frame, "V32", offset=64)
    where = lanes_of(decoded.signals["key"], lanes)
    order = np.argsort(where, kind="stable")
    return [
        (int(lane), wire[order[where[order] == lane]].tobytes(), order[where[order] == lane].tolist())
        for lane in np.unique(where)
    ]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_frame_is_cut_as_numpy_cuts_it(data):
    n = data.draw(st.integers(1, 40) | st.sampled_from([127, 128, 1000, 8192]))
    lanes = data.draw(st.sampled_from(LANES))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    keys = rng.integers(0, data.draw(st.sampled_from([1, 3, 100, 2**63])), n, "u8")
    signals = ba.make_signals(5, keys, rng.normal(size=n), rng.integers(0, 2**32, n), rng.integers(0, 2**62, n))
    frame = ba.encode_frame(signals, producer=7, sequence=2**63, epoch=9, trace=bytes(range(24)))
    given_as = data.draw(st.sampled_from([bytes, bytearray, lambda b: memoryview(bytearray(b"xyz" + b))[3:]]))
    split = split_frame(given_as(frame), lanes, data.draw(st.sampled_from([None, kind_set([5])])))
    assert (split.producer, split.epoch, split.sequence, split.count) == (7, 9, 2**63, n)
    assert split.trace == bytes(range(24))
    assert [(p.lane, p.rows, p.offsets.tolist()) for p in split.pieces] == split_by_numpy(frame, lanes)
    assert all(piece.offsets.dtype == np.dtype(">u2") for piece in split.pieces)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_frame_that_is_damaged_is_refused_as_by_decode_frame(data):
    n = data.draw(st.integers(1, 5))
    frame = bytearray(ba.encode_frame(ba.make_signals(5, np.arange(n), 1.0), producer=1, sequence=2**64 - 7))
    for _ in range(data.draw(st.integers(1, 3))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        frame[32:36] = crc32c(frame[36:], crc32c(frame[:32])).to_bytes(4, "big")
    frame = frame[: len(frame) - data.draw(st.sampled_from([0, 0, 0, 1, 40]))]
    known = data.draw(st.sampled_from([None, kind_set([5])]))
    decoded = verdict(lambda: len(ba.decode_frame(frame, known).signals))
    assert verdict(lambda: split_frame(frame, 16, known).count) == decoded


def verdict(call):
    try:
        return call()
    except ba.FrameError as error:
        return error.code, error.offset


def test_a_frame_is_not_cut_into_lanes_that_cannot_be():
    frame = ba.encode_frame(ba.make_signals(5, [1], 1.0), producer=1, sequence=0)
    with pytest.raises(ValueError, match="lanes is 5: the 64 partitions split"):
        split_frame(frame, 5)
    with pytest.raises(ValueError, match="kinds is 8,192 bytes"):
        split_frame(frame, 4, b"x")
