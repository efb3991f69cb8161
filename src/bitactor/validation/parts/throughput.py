"""The multi-threaded benchmark: several threads send to one engine; everything sent is processed, once and in order."""

import threading
import time
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

import bitactor as ba
from bitactor import host
from bitactor.validation.campaign import Part, Run
from bitactor.validation.criteria import Criterion, Threshold
from bitactor.validation.parts.counters import app, counted, item
from bitactor.validation.plots import histogram, line

COMMAND = "bitactor validate --only throughput"
KEYS = 256  # of each sender
BATCH = 8192


def batches(sender: int, number: int) -> npt.NDArray[Any]:
    """The number-th batch of a sender: its keys one after the other, their values counting up."""
    at = np.arange(number * BATCH, (number + 1) * BATCH, dtype="u8")
    return ba.make_signals(item, at % KEYS + np.uint64(sender * KEYS), at // KEYS, 1 + sender, 1)


def run(run: Run) -> None:
    """Send from `senders` threads, flush, and look into the states."""
    senders = run.size("senders")
    each = run.size("throughput_signals") // senders // BATCH
    given = [[batches(sender, number) for number in range(min(each, 64))] for sender in range(senders)]
    shards = host.default_shards()
    samples: list[tuple[float, float]] = []
    with ba.Engine(app, shards=shards) as engine:
        begun = time.monotonic()
        threads = [threading.Thread(target=_send, args=(engine, given[s], each, s)) for s in range(senders)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            samples.append((time.monotonic() - begun, engine.statistics().processed))
            time.sleep(0.05)
        engine.flush()
        seconds = time.monotonic() - begun
        statistics = engine.statistics()
        table = engine.table(counted).to_numpy()
    sent = senders * each * BATCH
    dropped = sum(statistics.dropped.values())
    run.count("throughput.signals", {"sent": sent},
              {"processed": statistics.processed, "queued": statistics.queued, "dropped": dropped})  # fmt: skip
    rate = sent / seconds
    setting = f"{senders} threads, {shards} shards, {sent:,} signals in {seconds:.2f} s"
    run.measure("throughput.missing", sent - statistics.processed, setting)
    run.measure("throughput.order", int(table["gaps"].sum()) + (len(table) != senders * KEYS))
    expected = sum(each * BATCH * (1 + sender) for sender in range(senders))
    run.measure("throughput.content", abs(int(table["sum"].sum()) - expected))
    run.measure("throughput.rate", rate, setting)
    ticks = statistics.actors[0].ticks
    run.measure(
        "throughput.ticks", ticks.mean, f"mean over all; p50 {ticks.p50}, p99 {ticks.p99}, {ticks.hz:,} a second"
    )
    rates = [(b[0], (b[1] - a[1]) / (b[0] - a[0])) for a, b in pairwise(samples) if b[0] > a[0]]
    run.plot(line("throughput", "Signals processed a second", "seconds", "signals/s", rate=rates))
    floors = _timed(ticks)
    run.plot(histogram("throughput", "Ticks of single signals (one in 256 is timed)", "ticks", floors))


def _send(engine: ba.Engine, given: list[npt.NDArray[Any]], each: int, sender: int) -> None:
    for number in range(each):
        batch = given[number % len(given)]
        if number >= len(given):  # the same keys, values further on
            batch = batches(sender, number)
        engine.send_batch(batch)


def _timed(ticks: Any) -> list[float]:
    """A value for each signal that was timed: the floor of its bucket (8 buckets an octave)."""
    values: list[float] = []
    for bucket, n in enumerate(ticks.counts):
        floor = bucket if bucket < 8 else (8 + bucket % 8) * 2 ** (bucket // 8 - 1)
        values += [float(floor)] * min(n, 100_000)
    return values


PART = Part(
    "throughput",
    "Multi-threaded benchmark",
    (
        Criterion("throughput.missing", "Signals sent and not processed", Threshold("==", 0), "signals", COMMAND),
        Criterion("throughput.order", "Signals out of their key's order", Threshold("==", 0), "signals", COMMAND),
        Criterion("throughput.content", "Sum of contents that is not as sent", Threshold("==", 0), "", COMMAND),
        Criterion("throughput.rate", "Rate, senders included", Threshold(">=", 1e6, warn=5e6), "signals/s", COMMAND),
        Criterion("throughput.ticks", "Ticks of the handler for a signal", Threshold("<=", 345), "ticks", COMMAND),
    ),
    run,
)
