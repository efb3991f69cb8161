"""Histograms of durations: one thread adds, any thread reads."""

from bisect import bisect_left
from dataclasses import dataclass
from typing import Final

# Upper bounds in seconds: 10 us to 10 s, three a decade.
SECONDS_BOUNDS: Final = (*(round(m * 10.0**e, 9) for e in range(-5, 1) for m in (1, 2.5, 5)), 10.0)


@dataclass(frozen=True, slots=True)
class Seconds:
    """A histogram of durations. counts[i]: those up to bounds[i] and above bounds[i - 1]; the last: above all."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    sum: float

    @property
    def count(self) -> int:
        """How many durations."""
        return sum(self.counts)

    def __add__(self, other: "Seconds") -> "Seconds":
        """Both together."""
        counts = tuple(a + b for a, b in zip(self.counts, other.counts, strict=True))
        return Seconds(self.bounds, counts, self.sum + other.sum)


class SecondsCounter:
    """Counts durations for a Seconds. One thread adds; any thread reads, at most one addition behind."""

    def __init__(self) -> None:
        self._counts = [0] * (len(SECONDS_BOUNDS) + 1)
        self._sum = 0.0

    def add(self, seconds: float) -> None:
        """Count one duration."""
        self._counts[bisect_left(SECONDS_BOUNDS, seconds)] += 1
        self._sum += seconds

    def read(self) -> Seconds:
        """All so far."""
        return Seconds(SECONDS_BOUNDS, tuple(self._counts), self._sum)
