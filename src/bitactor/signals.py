"""Signals in Python: their dtypes, arrays made from columns, keys made of texts.

A signal is 32 bytes: kind u2, flags u2, aux 4 bytes, key u8, time u8 (ns since the Unix epoch), value 8 bytes; in host
order in memory. The kind says what value (f8, i8, u8) and aux (u4, i4, f4) are; all nine dtypes have the same layout.
Pure functions: any thread may call them at any time.
"""

import hashlib
import time as _time
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bitactor._core._codec import from_be, lanes_into, to_be

_NAMES: Final = ("kind", "flags", "aux", "key", "time", "value")


def signal_dtype(value: str = "f8", aux: str = "u4") -> "np.dtype[np.void]":
    """The 32-byte dtype whose value is f8, i8 or u8 and whose aux is u4, i4 or f4. ValueError for other types."""
    if value not in ("f8", "i8", "u8"):
        raise ValueError(f"value is {value!r}: a signal's value is f8, i8 or u8")
    if aux not in ("u4", "i4", "f4"):
        raise ValueError(f"aux is {aux!r}: a signal's aux is u4, i4 or f4")
    return np.dtype([("kind", "u2"), ("flags", "u2"), ("aux", aux), ("key", "u8"), ("time", "u8"), ("value", value)])


SIGNAL_DTYPE: Final = signal_dtype()

PARTITIONS: Final = 64  # frozen, see docs/adr/0003-partition-hash.md

# What a subscription delivers, 48 bytes: a signal, and where it stands among the outputs.
OUTPUT_DTYPE: Final = np.dtype([*((n, SIGNAL_DTYPE[n]) for n in _NAMES), ("position", "u8"), ("index", "u8")])


def output_dtype(value: str = "f8", aux: str = "u4") -> "np.dtype[np.void]":
    """OUTPUT_DTYPE with the types of one kind."""
    signal = signal_dtype(value, aux)
    return np.dtype([*((n, signal[n]) for n in _NAMES), ("position", "u8"), ("index", "u8")])


def value_types(dtype: "np.dtype[Any]") -> tuple[str, str]:
    """(value, aux) types of a signal dtype, such as ("f8", "u4"). TypeError says how a wrong dtype differs."""
    if dtype.names != _NAMES or dtype.itemsize != SIGNAL_DTYPE.itemsize:
        raise TypeError(
            f"dtype {dtype} is not a signal dtype: it must be bitactor.SIGNAL_DTYPE or bitactor.signal_dtype(value, "
            f"aux), 32 bytes with the fields {', '.join(_NAMES)}"
        )
    found = (dtype["value"].str[1:], dtype["aux"].str[1:])
    try:
        wanted = signal_dtype(*found)
    except ValueError as error:
        raise TypeError(f"dtype {dtype} is not a signal dtype: {error}") from None
    if dtype != wanted:
        raise TypeError(f"dtype {dtype} is not a signal dtype: fields must lie as in {wanted}, in native byte order")
    return found


def column(name: str, given: Any, wanted: str, n: int | None = None) -> npt.NDArray[Any]:
    """Make a one-dimensional array of dtype `wanted` from anything array-like, without loss.

    TypeError or ValueError names the column, the first element that does not fit, and what to do.
    """
    array = np.asarray(given)
    target = np.dtype(wanted)
    if array.ndim > 1 or (n is not None and array.ndim == 1 and len(array) != n):
        raise ValueError(
            f"column {name!r} has shape {array.shape}; give one dimension{f' of {n}' if n is not None else ''}"
        )
    if array.dtype == target:
        return array
    if not array.size:
        return np.empty(array.shape, target)
    if name == "time" and array.dtype.kind == "M":
        return array.astype("datetime64[ns]").view("i8").astype(target)
    if array.dtype.kind not in "iufb":
        hint = "; bitactor.text_key makes keys of texts" if name == "key" and array.dtype.kind in "OUS" else ""
        raise TypeError(f"column {name!r} has dtype {array.dtype}; it must be numbers for {wanted}{hint}")
    if target.kind in "iu" and array.dtype.kind == "f":
        raise TypeError(
            f"column {name!r} has dtype {array.dtype} and is declared {wanted}: convert it with .astype "
            "if that is meant"
        )
    if target.kind in "iu" and array.size:
        info = np.iinfo(target)
        bad = (array < info.min) | (array > info.max)  # exact: NumPy compares mixed integers by value
        if np.any(bad):
            where = int(np.argmax(np.atleast_1d(bad)))
            raise ValueError(f"column {name!r}, element {where}: {np.atleast_1d(array)[where]} does not fit {wanted}")
    return array.astype(target)


def make_signals(
    kind: Any, key: Any, value: Any, aux: Any = 0, time: Any = None, *, n: int | None = None
) -> npt.NDArray[np.void]:
    """An array of signals from columns, each an array of one length or one number for all.

    kind: a Kind (its types are used) or a number (value f8, aux u4). time: ns since the Unix epoch, or datetime64; None
    means now for all. Returns a new array. Raises TypeError or ValueError that names the column and the element.
    """
    types = (getattr(kind, "value", "f8"), getattr(kind, "aux", "u4"))
    dtype = signal_dtype(*types)
    if n is None:
        n = next((len(c) for c in (np.asarray(c) for c in (key, value, aux, time) if c is not None) if c.ndim), 1)
    signals = np.zeros(n, dtype)
    signals["kind"] = column("kind", getattr(kind, "number", kind), "u2", n)
    signals["key"] = column("key", key, "u8", n)
    signals["value"] = column("value", value, types[0], n)
    signals["aux"] = column("aux", aux, types[1], n)
    signals["time"] = _time.time_ns() if time is None else column("time", time, "u8", n)
    return signals


def text_key(text: str) -> int:
    """The u64 key of a text: BLAKE2b with an 8-byte digest of its UTF-8 bytes, read as a big-endian number.

    The same in every process and release. Two texts may share a key (about n*n / 2**65 for n texts): keep your own
    table of names where that matters. For example text_key("AAPL") == 0x6b4aff72f6bfebf4.
    """
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def partition_of(keys: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """The partition of each key, 0 to 63 (docs/adr/0003-partition-hash.md). Keys as in lanes_of."""
    return lanes_of(keys, PARTITIONS)


def lanes_of(keys: npt.ArrayLike, lanes: int) -> npt.NDArray[np.uint8]:
    """The lane of each key when the state is split into `lanes` lanes: its partition modulo `lanes`.

    keys: one-dimensional u8, such as signals["key"], which need not be contiguous; no copy is made of them. Returns a
    new array. Other threads run meanwhile. ValueError when lanes does not divide 64 or a key is no u8.
    """
    check_lane(0, lanes)
    array = np.atleast_1d(column("key", keys, "u8"))
    out = np.empty(len(array), "u1")
    lanes_into(array, lanes, out)
    return out


def check_lane(lane: int, lanes: int) -> None:
    """ValueError unless the 64 partitions split into so many lanes and `lane` is one of them."""
    if not 1 <= lanes <= PARTITIONS or PARTITIONS % lanes:
        raise ValueError(f"lanes is {lanes}: the {PARTITIONS} partitions split into 1, 2, 4, 8, 16, 32 or 64 lanes")
    if not 0 <= lane < lanes:
        raise ValueError(f"lane is {lane}: of {lanes} lanes give 0 to {lanes - 1}")


def to_bytes(signals: npt.NDArray[Any]) -> bytes:
    """The signals big-endian, 32 bytes each. Any signal dtype; one copy. TypeError for another dtype."""
    value_types(signals.dtype)
    return to_be(np.ascontiguousarray(signals))


def from_bytes(data: bytes | bytearray | memoryview, *, value: str = "f8", aux: str = "u4") -> npt.NDArray[Any]:
    """Signals from big-endian bytes; a new array of signal_dtype(value, aux). Nothing but the length is checked."""
    if len(data) % SIGNAL_DTYPE.itemsize:
        raise ValueError(f"{len(data)} bytes are no whole number of signals of {SIGNAL_DTYPE.itemsize} bytes")
    signals: npt.NDArray[Any] = np.empty(len(data) // SIGNAL_DTYPE.itemsize, signal_dtype(value, aux))
    from_be(data, signals)
    return signals
