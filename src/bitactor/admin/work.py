"""Threads for what waits or computes: tables, the text of metrics. Bounded, so that readers cannot pile up work."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, ParamSpec, TypeVar

from bitactor.admin.access import Refused

P = ParamSpec("P")
T = TypeVar("T")

THREADS: Final = 2
WAITING_MAX: Final = 16  # beyond those that run
ANSWER_S: Final = 30.0


class Work:
    """Runs functions beside the loop: `THREADS` at once, `WAITING_MAX` more wait, others are refused with 503."""

    def __init__(self) -> None:
        self._threads: Final = ThreadPoolExecutor(THREADS, "bitactor admin")
        self._pending = 0

    async def run(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """What the function returns. Refused: too much waits already, or no answer within ANSWER_S."""
        if self._pending >= THREADS + WAITING_MAX:
            raise Refused(503, "busy", "too many tables and queries are being answered; try again", retry_after="1")
        self._pending += 1
        future = self._threads.submit(function, *arguments, **named)
        loop = asyncio.get_running_loop()
        future.add_done_callback(lambda _: _call(loop, self._done))
        try:
            async with asyncio.timeout(ANSWER_S):
                return await asyncio.wrap_future(future)
        except TimeoutError:
            said = f"no answer within {ANSWER_S:.0f} s: the engine is behind"
            raise Refused(503, "busy", said, retry_after="5") from None

    def _done(self) -> None:
        self._pending -= 1

    def close(self) -> None:
        """Take no more; what runs goes on to its end, unheard."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _call(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
    try:
        loop.call_soon_threadsafe(function)
    except RuntimeError:  # the loop is closed: nobody counts any more
        return
