"""The common task, keyed VWAP: its input, made in memory before the clock starts, and its exact answer.

For each key: how many signals, the sum of value * aux, the sum of aux, the highest value. Prices are multiples of a
quarter below 1,024 and sizes are below 1,000, so every sum is exact in binary64 and in any order: all peers must give
the same bits. Needs NumPy only; every peer's environment has it. One thread.

Invariants: count and volume fit u4 (signals of one key * 999 < 2**32); keys are unique, 0 < key < 2**63.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint64]
F8 = npt.NDArray[np.float64]
U4 = npt.NDArray[np.uint32]

_LOW_63 = np.uint64((1 << 63) - 1)


class Columns(NamedTuple):
    """Signals as columns of one length; `index` in [0, keys) says which key, `key` is what the peer sees."""

    index: U8
    key: U8
    value: F8
    aux: U4


class Totals(NamedTuple):
    """The answer, one row a key, in any order."""

    key: U8
    count: U8
    notional: F8
    volume: U8
    high: F8


def scatter(index: U8) -> U8:
    """Spread 0, 1, 2 over [1, 2**63) one to one (but for 0, a fixed point that no key uses)."""
    x = (index + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) & _LOW_63
    x ^= x >> np.uint64(32)
    x = x * np.uint64(0xD6E8FEB86659FD93) & _LOW_63
    return x ^ (x >> np.uint64(32))


def name_keys(index: U8, scattered: bool) -> U8:
    """Keys as a peer sees them: numbered 1..n as a database hands them out, or scattered as hashes of names are."""
    return scatter(index) if scattered else index + np.uint64(1)


def random_signals(keys: int, events: int, seed: int, *, scattered: bool) -> Columns:
    """`events` signals with keys drawn uniformly from `keys`."""
    rng = np.random.default_rng(seed)
    index = rng.integers(0, keys, events, dtype=np.uint64)
    value = rng.integers(4, 4096, events) / 4
    aux = rng.integers(1, 1000, events, dtype=np.uint32)
    return Columns(index, name_keys(index, scattered), value, aux)


def growth_signals(keys: int, *, scattered: bool) -> Columns:
    """Each key once, in an order of no meaning to a hash table: makes every instance before the clock starts."""
    index = np.random.default_rng(0).permutation(np.arange(keys, dtype=np.uint64))
    ones = np.ones(keys, dtype=np.uint32)
    return Columns(index, name_keys(index, scattered), ones.astype(np.float64), ones)


def expected(keys: int, parts: list[tuple[Columns, int]], *, scattered: bool) -> Totals:
    """The answer by NumPy for columns that were each sent so many times; only keys that occur, by index."""
    count, volume = np.zeros(keys, np.uint64), np.zeros(keys, np.uint64)
    notional, high = np.zeros(keys), np.zeros(keys)
    for columns, times in parts:
        index = columns.index.astype(np.int64)
        for total, weights in ((count, None), (volume, columns.aux), (notional, columns.value * columns.aux)):
            np.add(total, np.bincount(index, weights, minlength=keys) * times, out=total, casting="unsafe")
        np.maximum.at(high, index, columns.value)
    seen = np.flatnonzero(count).astype(np.uint64)
    return Totals(name_keys(seen, scattered), count[seen], notional[seen], volume[seen], high[seen])


def check(got: Totals, want: Totals) -> None:
    """AssertionError unless both have the same keys and equal totals, bit for bit."""
    mine, theirs = np.argsort(got.key), np.argsort(want.key)
    for name, a, b in zip(Totals._fields, got, want, strict=True):
        if len(a) != len(b):
            raise AssertionError(f"{name}: {len(a)} rows, {len(b)} expected")
        wrong = np.flatnonzero(np.asarray(a)[mine] != b[theirs])
        if len(wrong):
            at = wrong[0]
            raise AssertionError(
                f"{name} of key {want.key[theirs][at]}: {np.asarray(a)[mine][at]}, expected {b[theirs][at]}; "
                f"{len(wrong)} of {len(b)} keys differ"
            )
