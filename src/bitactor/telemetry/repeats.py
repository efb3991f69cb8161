"""Telling repeats of a log line by a number instead of by lines, in bounded memory.

Per (logger, level, event): at most `burst` lines in a window; the others are counted, and the count goes out with the
next line of that event, or by itself when the window is over. Not synchronised: the handler that uses it holds its
lock. Per event `0 <= lines in the window <= burst`; at most `events_max` events are remembered.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

Key = tuple[str, int, str]


@dataclass(slots=True)
class _Window:
    ends: float
    lines: int
    held_back: int


class Repeats:
    """What has been written lately."""

    def __init__(
        self,
        *,
        burst: int = 5,
        window_s: float = 10.0,
        events_max: int = 1024,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._burst: Final = burst
        self._window_s: Final = window_s
        self._events_max: Final = events_max
        self._clock: Final = clock
        self._windows: OrderedDict[Key, _Window] = OrderedDict()  # by the end of the window, soonest first

    def admit(self, key: Key) -> int | None:
        """None: hold this line back, it is counted. Else write it, and that many were held back before it."""
        now = self._clock()
        window = self._windows.get(key)
        if window is None or now >= window.ends:
            held_back = 0 if window is None else window.held_back
            self._windows[key] = _Window(now + self._window_s, 1, 0)
            self._windows.move_to_end(key)
            return held_back
        if window.lines < self._burst:
            window.lines += 1
            return 0
        window.held_back += 1
        return None

    def over(self, *, all: bool = False) -> Iterator[tuple[Key, int]]:
        """Forget events whose window is over (or all), and those beyond events_max: each with what was held back."""
        now = self._clock()
        while self._windows:
            key, window = next(iter(self._windows.items()))
            if not (all or now >= window.ends or len(self._windows) > self._events_max):
                return
            del self._windows[key]
            if window.held_back:
                yield key, window.held_back
