"""Reading what actors emit: iterators, async iterators and callbacks over batches of outputs.

An output is a signal with its position (u8: the input signal that caused it, counted from the engine's start; for emits
of later waves the last signal of the step) and index (u8: its place among the outputs of that position; of later waves
(wave - 1) << 32 | rank). (position, index) grows strictly within a subscription, so a reader can drop duplicates.
"""

import asyncio
import contextlib
import os
import select
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from bitactor._core._outputs import _subscribe
from bitactor.signals import OUTPUT_DTYPE, output_dtype

if TYPE_CHECKING:
    from bitactor.engine import Engine
    from bitactor.schema import Kind

Batch = npt.NDArray[Any]
BATCH_OUTPUTS = 4096


class Subscription:
    """Emitted signals of some kinds, in one order whatever the number of shards. One reader at a time.

    Iterating gives arrays of 1 to 4,096 outputs (dtype: bitactor.OUTPUT_DTYPE with the kind's types; of several kinds
    with different types, value f8 and aux u4: view them by kind) and ends when the engine is closed and all was read.
    Arrays are the reader's own. A loop in the thread that sends ends only after close: read with a timeout there.
    """

    def __init__(
        self, engine: "Engine", kinds: "list[Kind]", capacity: int, drop: bool, *, remote: bool = False
    ) -> None:
        self.kinds = tuple(kinds)
        types = {(kind.value, kind.aux) for kind in kinds}
        self.dtype = output_dtype(*types.pop()) if len(types) == 1 and not remote else OUTPUT_DTYPE
        self._core = _subscribe(engine, None if remote else [kind.number for kind in kinds], capacity, drop)

    def read(self, max: int = BATCH_OUTPUTS, timeout: float | None = None) -> Batch | None:
        """Up to `max` outputs, waiting for the first for `timeout` seconds (None: as long as it takes).

        An empty array when the time is over; None when the engine is closed and all was read.
        """
        batch: Batch = np.empty(max, self.dtype)
        n = self._core._read_into(batch, timeout)
        if n < 0:
            return None
        return batch[:n] if n > max // 2 else batch[:n].copy()

    @property
    def dropped(self) -> int:
        """Outputs this subscription lost because it was full, with full="drop" or while the engine closed."""
        return int(self._core.dropped)

    def fileno(self) -> int:
        """A descriptor for poll or an event loop; readable after `has_news` said False and something came.

        Then call `clear_news`, and read until `has_news` says False again. -1 when there is none.
        """
        return int(self._core.fd)

    def has_news(self) -> bool:
        """Whether there is something to read, or the end; False: the descriptor will tell. The reader's thread."""
        return bool(self._core._arm())

    def clear_news(self) -> None:
        """Make the descriptor unreadable until the next news. The reader's thread."""
        self._core._drain_fd()

    def close(self) -> None:
        """Stop reading. What is unread is gone; shards that waited for this reader go on."""
        self._core._cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Batch]:
        while (batch := self.read()) is not None:
            yield batch

    async def __aiter__(self) -> AsyncIterator[Batch]:
        """Batches for asyncio; waits on a file descriptor of the event loop, with no thread."""
        loop = asyncio.get_running_loop()
        while (batch := self.read(timeout=0)) is not None:
            if len(batch):
                yield batch
            elif not self.has_news():
                await self._readable(loop)

    async def _readable(self, loop: asyncio.AbstractEventLoop) -> None:
        ready = loop.create_future()
        fd = self.fileno()
        loop.add_reader(fd, _set, ready)
        try:
            await ready
        finally:
            loop.remove_reader(fd)
            self.clear_news()


class Dispatcher:
    """The one thread of an engine that calls callbacks. It runs while there are subscriptions to deliver.

    It holds the C engine through its subscriptions, not the Engine, so that an Engine nobody uses can be collected.
    """

    def __init__(self, engine: "Engine") -> None:
        self.errors = 0
        self._engine = weakref.ref(engine)
        self._lock = threading.Lock()  # guards the two that follow
        self._calls: list[tuple[Subscription, Callable[[Batch], object]]] = []
        self._thread: threading.Thread | None = None
        self._news = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def __del__(self) -> None:
        os.close(self._news)

    def add(self, subscription: Subscription, callback: Callable[[Batch], object]) -> None:
        """Deliver this subscription's batches to the callback from now on. Any thread."""
        with self._lock:
            self._calls.append((subscription, callback))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="bitactor callbacks", daemon=True)
                self._thread.start()
        os.eventfd_write(self._news, 1)

    def join(self) -> None:
        """Wait for the thread, which ends when its subscriptions have; at once when called by a callback."""
        with self._lock:
            thread = self._thread
        os.eventfd_write(self._news, 1)
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _name_waiter(self, ident: int) -> None:
        engine = self._engine()
        if engine is not None:
            engine._set_waiter(ident)

    def _run(self) -> None:
        self._name_waiter(threading.get_ident())
        while True:
            with self._lock:
                if not self._calls:
                    self._thread = None
                    self._name_waiter(0)  # the ident may be another thread's soon
                    return
                calls = list(self._calls)
            busy = False
            for call in calls:
                busy = self._deliver(call) or busy
            if not busy and not any([subscription.has_news() for subscription, _ in calls]):  # noqa: C419  (arm each)
                self._wait([subscription for subscription, _ in calls])

    def _deliver(self, call: tuple[Subscription, Callable[[Batch], object]]) -> bool:
        subscription, callback = call
        batch = subscription.read(timeout=0)
        if batch is None:
            with self._lock:
                self._calls.remove(call)
            return True
        if not len(batch):
            return False
        try:
            callback(batch)
        except BaseException as error:  # noqa: BLE001  (a callback may raise anything; the rest go on)
            self.errors += 1
            sys.unraisablehook(_Unraisable(error, callback))  # type: ignore[arg-type]
        return True

    def _wait(self, subscriptions: list[Subscription]) -> None:
        poll = select.poll()
        for fd in [self._news, *(subscription.fileno() for subscription in subscriptions)]:
            if fd >= 0:
                poll.register(fd, select.POLLIN)
        poll.poll()
        for subscription in subscriptions:
            subscription.clear_news()
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._news)


def _set(ready: "asyncio.Future[None]") -> None:
    if not ready.done():
        ready.set_result(None)


class _Unraisable:
    """What sys.unraisablehook is given: the error of a callback, as the interpreter gives those of finalisers."""

    def __init__(self, error: BaseException, callback: object) -> None:
        self.exc_type = type(error)
        self.exc_value = error
        self.exc_traceback = error.__traceback__
        self.err_msg = "Exception ignored in bitactor callback"
        self.object = callback
