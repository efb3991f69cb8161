"""The ring on its own: a bounded queue of fixed-size records between threads, or between two processes.

It replaces queue.Queue and multiprocessing.Queue where every item is a record of one NumPy dtype: items are copied by
memcpy in and out of arrays, never pickled and never touched one by one. Every wait gives up the GIL and answers Ctrl-C.

    ring = Ring(65536)                                     # signals, one producer thread, one consumer thread
    ring.producer().push_batch(signals)
    for batch in ring.consumer(): ...                      # until ring.close() and the last item

    with Ring.create("ticks", 65536, dtype) as ring, ring.producer() as producer: ...    # one process
    with Ring.attach("ticks", dtype) as ring, ring.consumer() as consumer: ...           # another, started by spawn
"""

import contextlib
import math
import operator
import time
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from bitactor._core._ring import (
    CAPACITY_MAX,
    HANDLES_MAX,
    ITEM_BYTES_MAX,
    NAME_MAX,
    ConsumerCore,
    PeerDiedError,
    ProducerCore,
    RingCore,
    unlink,
)
from bitactor.signals import SIGNAL_DTYPE

__all__ = ["Consumer", "PeerDiedError", "Producer", "Ring", "RingStatistics"]

Full = Literal["wait", "refuse", "drop"]
Side = Literal["one", "many"]
Items = npt.NDArray[Any]

POP_ITEMS = 8192  # of pop_batch, by default


@dataclass(frozen=True, slots=True)
class RingStatistics:
    """A ring at a moment, in items. Between processes refused and dropped are those of the present segment's producers.

    queued is pushed - popped, read at almost the same time; producer_parks and consumer_parks count how often a thread
    went to sleep for want of room, and for want of items.
    """

    capacity: int
    pushed: int
    popped: int
    queued: int
    refused: int
    dropped: int
    consumer_parks: int
    producer_parks: int


class Ring(RingCore):
    """A bounded ring of `capacity` items of `dtype` between threads; Ring.create and Ring.attach make shared ones.

    capacity: items, a power of two up to 2**30.
    dtype: of an item; its size is a multiple of 8 bytes, 65,536 at most, and it holds no Python objects.
    producers, consumers: "one" handle of that side at a time (fastest when both are), or "many".
    full: what a push finds that has no room: it waits ("wait"), takes what fits and counts the rest as refused
    ("refuse"), or takes what fits, gives up the rest and counts it as dropped ("drop").

    Items of one producer arrive in its order, each exactly once. With many of a side, a thread that stops inside a push
    or pop (between two instructions of it: by a debugger, say) holds the others up once they have gone around.

    Any thread may call any method at any time. A ring does not come along through fork: RuntimeError says so.
    """

    def __init__(
        self,
        capacity: int,
        dtype: npt.DTypeLike = SIGNAL_DTYPE,
        *,
        producers: Side = "one",
        consumers: Side = "one",
        full: Full = "wait",
    ) -> None:
        self.dtype = _checked_dtype(dtype)
        self.capacity = _checked_capacity(capacity)
        self.full = _checked_full(full)
        self.name: str | None = None
        self._creator = False
        for side, given in (("producers", producers), ("consumers", consumers)):
            if given not in ("one", "many"):
                raise ValueError(f'{side} is {given!r}: give "one" or "many"')
        most = [1 if given == "one" else HANDLES_MAX for given in (producers, consumers)]
        self._open(self.capacity, self.dtype.itemsize, full, most[0], most[1])

    @classmethod
    def create(cls, name: str, capacity: int, dtype: npt.DTypeLike = SIGNAL_DTYPE, *, full: Full = "wait") -> Self:
        """Make a ring in shared memory, for one producer and one consumer, each in any process of this user.

        name: letters, digits, ".", "_" and "-", 200 at most; FileExistsError when it is in use. All memory is reserved
        here (OSError when /dev/shm has too little). The name goes when this ring is closed; who has attached goes on.
        After a kill -9 of the creator it stays, until Ring.unlink(name).
        """
        ring = cls.__new__(cls)
        ring._share(name, dtype, full, _checked_capacity(capacity))
        return ring

    @classmethod
    def attach(
        cls, name: str, dtype: npt.DTypeLike = SIGNAL_DTYPE, *, full: Full = "wait", timeout: float | None = 0
    ) -> Self:
        """Find a ring that another process made, waiting up to `timeout` seconds for it (None: as long as it takes).

        FileNotFoundError when there is none; TypeError when it was made for another dtype; ValueError when the segment
        is not a ring of this version; RuntimeError when its header is damaged.
        """
        ring = cls.__new__(cls)
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while True:
            try:
                ring._share(name, dtype, full, 0)
            except FileNotFoundError:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(0.005)
            else:
                return ring

    @staticmethod
    def unlink(name: str) -> None:
        """Remove the name of a shared ring whose creator died; who has it open goes on. FileNotFoundError if absent."""
        unlink(_checked_name(name))

    def _share(self, name: str, dtype: npt.DTypeLike, full: Full, capacity: int) -> None:
        self.dtype = _checked_dtype(dtype)
        self.full = _checked_full(full)
        self.name = name
        self._creator = capacity > 0
        tag = _type_tag(self.dtype)
        found = self._open_shared(_checked_name(name), self.dtype.itemsize, full, tag, capacity)
        self.capacity = found[0]
        if found[1:] != (self.dtype.itemsize, tag):
            self._close()
            raise TypeError(
                f"ring {name!r} was made for another dtype, of {found[1]} bytes: this is {self.dtype}, of "
                f"{self.dtype.itemsize} bytes; give Ring.attach the dtype that Ring.create was given"
            )

    def producer(self) -> "Producer":
        """A handle to push with, for one thread at a time.

        RuntimeError when the ring has one producer and it is taken, here or by another process; ClosedError after
        close. Between processes this takes the role until this ring is closed.
        """
        return Producer(self)

    def consumer(self) -> "Consumer":
        """A handle to pop with, for one thread at a time. Errors as of producer()."""
        return Consumer(self)

    def close(self) -> None:
        """End the ring: pushes raise ClosedError, consumers pop what is left and then see the end. Once.

        Between processes: ends it for the side that this process has. Its consumer pops what is left and sees the end,
        or its producer gets ClosedError. The creator's close removes the name.
        """
        was_closed = self.closed
        self._close()
        if self._creator and not was_closed and not self._is_forked():
            with contextlib.suppress(FileNotFoundError):  # somebody removed it before
                self.unlink(str(self.name))

    def leave(self) -> None:
        """Between processes: give this process's side back without ending the ring, so that another may take it.

        A producer that takes over goes on after the last published item, a consumer after the last released one.
        ValueError for a ring between threads: close its handles instead.
        """
        if self.name is None:
            raise ValueError("a ring between threads is left by closing its handles")
        self._leave()

    def peer(self) -> str | None:
        """Between processes: "never came", "alive", "left" or "died", of the other side; None without a side here."""
        return self._peer(False) or self._peer(True) if self.name is not None else None

    def statistics(self) -> RingStatistics:
        """Counts of everything since the ring was made. Waits for nothing."""
        return RingStatistics(*self._statistics())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> Any:
        """Shared rings travel to another process by name; those between threads cannot."""
        if self.name is None:
            raise TypeError("a ring between threads cannot go to another process: use Ring.create(name, ...) for that")
        return _attach, (self.name, self.dtype, self.full)

    def __del__(self) -> None:
        if getattr(self, "name", None) is not None and not self.closed and not self._is_forked():
            warnings.warn(
                f"{self!r} was not closed; use it in a with statement", ResourceWarning, source=self, stacklevel=2
            )

    def __repr__(self) -> str:
        name = f"{self.name!r}, " if self.name is not None else ""
        return f"<Ring {name}{self.capacity} items of {self.dtype.itemsize} bytes{', closed' * bool(self.closed)}>"


class Producer(ProducerCore):
    """Pushes into a ring; made by Ring.producer(). One thread at a time: RuntimeError for a second one."""

    def __init__(self, ring: Ring) -> None:
        self._dtype = ring.dtype
        self._integer = ring.dtype.kind in "iu"
        self._open(ring)

    def push(self, item: Any, timeout: float | None = None) -> bool:
        """Push one item: anything that an array of the ring's dtype takes as an element, such as a tuple of fields.

        True: it was taken. False: the ring is full and refuses or drops (counted), or `timeout` seconds passed.
        ClosedError when the ring is closed; PeerDiedError when it is full and the consumer's process has died;
        TypeError or ValueError for an item that does not fit.
        """
        if isinstance(item, (np.generic, np.ndarray)) and item.dtype != self._dtype:
            if item.dtype.names is not None or self._dtype.names is not None:
                raise TypeError(f"push takes an item of {self._dtype}; this one is of {item.dtype}")
            item = item.item()
        single = np.zeros(1, self._dtype)  # this call's own: another thread's call may be waiting
        single[0] = operator.index(item) if self._integer else item
        return bool(self._push(single.view(np.uint8), timeout))

    def push_batch(self, items: Items, timeout: float | None = None) -> int:
        """Push an array of one dimension, of the ring's dtype; return how many of its items were taken, in order.

        A contiguous array is copied once, into the ring; another is made contiguous first. With full="wait" this waits
        until all are taken, or `timeout` seconds passed; else it takes what fits now. When the ring is closed or the
        other side dies after a part was taken, that part is returned, and the next call raises. Errors as of push.
        """
        if not isinstance(items, np.ndarray):
            raise TypeError(f"push_batch takes a NumPy array of {self._dtype}, not {type(items).__name__}")
        if items.dtype != self._dtype:
            raise TypeError(f"push_batch takes an array of {self._dtype}; this one is of {items.dtype}")
        if items.ndim != 1:
            raise TypeError(f"push_batch takes one dimension; this array has shape {items.shape}")
        return self._push(np.ascontiguousarray(items).view(np.uint8), timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Consumer(ConsumerCore):
    """Pops from a ring; made by Ring.consumer(). One thread at a time: RuntimeError for a second one."""

    def __init__(self, ring: Ring) -> None:
        self._dtype = ring.dtype
        self._capacity = ring.capacity
        self._open(ring)

    def pop(self, timeout: float | None = None) -> Any:
        """The next item, as a NumPy scalar; None when the ring is closed and everything was popped.

        TimeoutError when `timeout` seconds pass without one; PeerDiedError when the producer's process has died and
        everything that it published was popped; ClosedError when this process closed a shared ring.
        """
        single = np.empty(1, self._dtype)
        n = self._pop(single.view(np.uint8), timeout)
        if n == 0:
            raise TimeoutError(f"no item came within {timeout} seconds")
        return single[0] if n > 0 else None

    def pop_batch(self, max: int = POP_ITEMS, timeout: float | None = None) -> Items | None:
        """Up to `max` items, as many as are there, waiting for the first; the array is the caller's own.

        An empty array when `timeout` seconds pass without one; None at the end, as of pop. Errors as of pop.
        """
        if max < 1:
            raise ValueError(f"max is {max}: give 1 or more")
        most = min(max, self._capacity)
        items = np.empty(most, self._dtype)
        n = self._pop(items.view(np.uint8), timeout)
        if n < 0:
            return None
        return items[:n] if n > most // 2 else items[:n].copy()

    def pop_into(self, out: Items, timeout: float | None = None) -> int | None:
        """pop_batch into a contiguous array of one dimension of the ring's dtype: how many, 0 when the time is over."""
        if out.dtype != self._dtype or out.ndim != 1 or not out.flags.c_contiguous:
            raise TypeError(f"pop_into takes a contiguous NumPy array of one dimension of {self._dtype}")
        n = self._pop(out.view(np.uint8), timeout)
        return n if n >= 0 else None

    def __iter__(self) -> Iterator[Items]:
        while (batch := self.pop_batch()) is not None:
            yield batch

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _attach(name: str, dtype: "np.dtype[Any]", full: Full) -> Ring:
    return Ring.attach(name, dtype, full=full)


def _checked_dtype(dtype: npt.DTypeLike) -> "np.dtype[Any]":
    checked = np.dtype(dtype)
    if checked.hasobject:
        raise TypeError(f"dtype {checked} holds Python objects: a ring copies bytes; use numbers or fixed-size bytes")
    if checked.subdtype is not None:
        raise TypeError(f'dtype {checked} is an array itself: give it a field, np.dtype([("values", ...)])')
    size = checked.itemsize
    if size % 8 or not 8 <= size <= ITEM_BYTES_MAX:
        padded = min(ITEM_BYTES_MAX, max(8, (size + 7) // 8 * 8))
        raise TypeError(
            f"dtype {checked} has {size} bytes: an item has a multiple of 8, up to {ITEM_BYTES_MAX:,}; a structured "
            f'dtype gets {padded} by a last field such as ("", "V{padded - size}")'
            if size < ITEM_BYTES_MAX
            else f"dtype {checked} has {size} bytes: an item has a multiple of 8, up to {ITEM_BYTES_MAX:,}"
        )
    return checked


def _checked_capacity(capacity: int) -> int:
    checked = operator.index(capacity)
    if checked < 1 or checked & (checked - 1) or checked > CAPACITY_MAX:
        near = min(CAPACITY_MAX, 1 << max(0, checked - 1).bit_length()) if checked > 0 else 1
        raise ValueError(f"capacity is {capacity}: give a power of two, 1 to {CAPACITY_MAX:,}, such as {near:,}")
    return checked


def _checked_full(full: Full) -> Full:
    if full not in ("wait", "refuse", "drop"):
        raise ValueError(f'full is {full!r}: give "wait", "refuse" or "drop"')
    return full


def _checked_name(name: str) -> bytes:
    good = name.isascii() and name.replace("_", "a").replace("-", "a").replace(".", "a")
    if not good or not good.isalnum() or name.startswith(".") or len(name) > NAME_MAX:
        raise ValueError(
            f"name is {name!r}: give letters, digits, '.', '_' and '-', {NAME_MAX} at most, not beginning with '.'"
        )
    return name.encode()


def _type_tag(dtype: "np.dtype[Any]") -> int:
    """A number for what an item is, kept in the segment: two processes must mean the same by the bytes."""
    return zlib.crc32(repr(np.lib.format.dtype_to_descr(dtype)).encode())
