"""What every measuring process shares: its command line, its clock, its check, its one JSON line a figure.

A VWAP peer is a function from a `Job` to nothing: it calls `job.timed` around each pass and `job.finish` with its
totals. A process that cannot run here says so with `leave_out`; anything else that goes wrong is an error.
"""

import argparse
import importlib.util
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NoReturn

from benchmarks import task

LEFT_OUT = 77  # the exit status of "cannot run here", as in Automake and Meson


def leave_out(reason: str) -> NoReturn:
    """End the process: this benchmark cannot run here, for that reason."""
    print(json.dumps({"left_out": reason}), flush=True)
    sys.exit(LEFT_OUT)


def need(*modules: str) -> None:
    """Leave the benchmark out unless those modules can be imported."""
    for module in modules:
        try:
            found = importlib.util.find_spec(module) is not None
        except ModuleNotFoundError:
            found = False
        if not found:
            leave_out(f"{module} is not installed")


def report(figure: str, value: float, unit: str, **detail: object) -> None:
    """Print one figure of this process; an empty name is the process's main figure."""
    print(json.dumps({"figure": figure, "value": value, "unit": unit, **detail}), flush=True)


@dataclass
class Job:
    """One run of the common task, with its input ready in memory."""

    keys: int
    events: int
    passes: int
    scattered: bool
    shards: int
    growth: task.Columns
    signals: task.Columns
    seconds: list[float] = field(default_factory=list)
    growth_s: float = 0.0

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Time one pass over all signals."""
        begin = time.perf_counter()
        yield
        self.seconds.append(time.perf_counter() - begin)

    @contextmanager
    def timed_growth(self) -> Iterator[None]:
        """Time the pass that makes every instance."""
        begin = time.perf_counter()
        yield
        self.growth_s = time.perf_counter() - begin

    def finish(self, got: task.Totals, *, grown: bool, times: int | None = None) -> None:
        """Check the totals after growth (if any) and `times` passes (as many as were timed), then report."""
        parts = [(self.signals, len(self.seconds) if times is None else times)]
        if grown:
            parts.append((self.growth, 1))
        task.check(got, task.expected(self.keys, parts, scattered=self.scattered))
        rate = self.events / statistics.median(self.seconds) / 1e6
        growth = self.keys / self.growth_s / 1e6 if self.growth_s else None
        report("", rate, "M/s", seconds=self.seconds, growth_m_per_s=growth, exact=True)


def main(run: Callable[[Job], None]) -> None:
    """Parse the command line, make the input, run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--keys", type=int, default=1_000)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scattered", action="store_true", help="keys all over 63 bits instead of 1..n")
    parser.add_argument("--shards", type=int, default=1, help="the engine's; others ignore it")
    options = parser.parse_args()
    run(
        Job(
            keys=options.keys,
            events=options.events,
            passes=options.passes,
            scattered=options.scattered,
            shards=options.shards,
            growth=task.growth_signals(options.keys, scattered=options.scattered),
            signals=task.random_signals(options.keys, options.events, options.seed, scattered=options.scattered),
        )
    )
