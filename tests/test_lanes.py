"""Keys to lanes, and frames cut by lane: the same as one key, or one signal, at a time."""

import numpy as np
import pytest

import bitactor as ba
from bitactor._core._codec import partition
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
