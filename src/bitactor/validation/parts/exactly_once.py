"""Concurrent stress: many producers and consumers on one ring; each item once, whole, in its producer's order."""

import threading
import time
from typing import Any

import numpy as np
import numpy.typing as npt

import bitactor as ba
from bitactor.validation.campaign import DefectFoundError, Part, Run
from bitactor.validation.criteria import Criterion, Threshold

COMMAND = "bitactor validate --only exactly-once"
THREADS = 50  # on each side
ITEM = np.dtype([("producer", "u8"), ("index", "u8"), ("check", "u8"), ("inverse", "u8")])
RING_ITEMS = 4096
MIX = np.uint64(0x9E3779B97F4A7C15)


def items(producer: int, begin: int, count: int) -> npt.NDArray[Any]:
    """Items whose content follows from their place, so that a torn or mixed one is seen."""
    made = np.empty(count, ITEM)
    made["producer"] = producer
    made["index"] = np.arange(begin, begin + count, dtype="u8")
    made["check"] = made["index"] * MIX + np.uint64(producer)
    made["inverse"] = ~made["check"]
    return made


def faults_in(received: list[list[npt.NDArray[Any]]], producers: int, each: int) -> dict[str, int]:
    """What is wrong with what each consumer received: torn, out of order at a consumer, missing, twice."""
    torn = reordered = 0
    seen = np.zeros(producers * each, "u4")
    for batches in received:
        if not batches:
            continue
        got = np.concatenate(batches)
        right = got["check"] == got["index"] * MIX + got["producer"]
        right &= (got["inverse"] == ~got["check"]) & (got["producer"] < producers) & (got["index"] < each)
        torn += int((~right).sum())
        whole = got[right]
        order = np.argsort(whole["producer"], kind="stable")
        index, producer = whole["index"][order], whole["producer"][order]
        same = producer[1:] == producer[:-1]
        reordered += int((same & (index[1:] <= index[:-1])).sum())
        np.add.at(seen, (whole["producer"] * np.uint64(each) + whole["index"]).astype("i8"), 1)
    return {"torn": torn, "reordered": reordered, "missing": int((seen == 0).sum()), "doubled": int((seen > 1).sum())}


def exchange(ring: ba.Ring, producers: int, consumers: int, each: int, seed: int) -> list[list[npt.NDArray[Any]]]:
    """Push `each` items from every producer in batches of changing size; what every consumer got, in its order."""
    received: list[list[npt.NDArray[Any]]] = [[] for _ in range(consumers)]
    failures: list[BaseException] = []

    def push(number: int) -> None:
        sizes = np.random.default_rng([seed, number]).integers(1, 400, 4 * each // 100 + 8)
        try:
            with ring.producer() as producer:
                at = turn = 0
                while at < each:
                    count = min(int(sizes[turn % len(sizes)]), each - at)
                    producer.push_batch(items(number, at, count), timeout=60)
                    at, turn = at + count, turn + 1
        except BaseException as error:
            failures.append(error)

    def pop(number: int) -> None:
        try:
            with ring.consumer() as consumer:
                for batch in consumer:
                    received[number].append(batch.copy())
        except BaseException as error:
            failures.append(error)

    pushing = [threading.Thread(target=push, args=(number,)) for number in range(producers)]
    popping = [threading.Thread(target=pop, args=(number,)) for number in range(consumers)]
    for thread in (*popping, *pushing):
        thread.start()
    for thread in pushing:
        thread.join(300)
    ring.close()
    for thread in popping:
        thread.join(300)
    if failures:
        raise DefectFoundError(f"a thread ended: {failures[0]!r}")
    return received


def run(run: Run) -> None:
    """50 producers and 50 consumers at once."""
    each = run.size("ring_items") // THREADS
    ring = ba.Ring(RING_ITEMS, ITEM, producers="many", consumers="many")
    begun = time.monotonic()
    received = exchange(ring, THREADS, THREADS, each, run.seed)
    seconds = time.monotonic() - begun
    found = faults_in(received, THREADS, each)
    statistics = ring.statistics()
    total = THREADS * each
    run.count(
        "exactly-once.items", {"pushed": statistics.pushed}, {"received": sum(len(b) for r in received for b in r)}
    )
    run.count("exactly-once.offered", {"offered": total}, {"pushed": statistics.pushed, "refused": statistics.refused})
    took_part = sum(1 for batches in received if batches)
    for name in ("missing", "doubled", "reordered", "torn"):
        run.measure(
            f"exactly-once.{name}", found[name], f"{total:,} items, {took_part} of {THREADS} consumers got some"
        )
    run.measure("exactly-once.errors", 100 * sum(found.values()) / total)
    run.measure("exactly-once.rate", total / seconds, f"{2 * THREADS} threads, {seconds:.2f} s")


PART = Part(
    "exactly-once",
    "Concurrent stress with 100 threads",
    (
        Criterion("exactly-once.missing", "Items that never arrived", Threshold("==", 0), "items", COMMAND),
        Criterion("exactly-once.doubled", "Items that arrived twice", Threshold("==", 0), "items", COMMAND),
        Criterion("exactly-once.reordered", "Items behind a later one of theirs", Threshold("==", 0), "items", COMMAND),
        Criterion("exactly-once.torn", "Items of mixed content", Threshold("==", 0), "items", COMMAND),
        Criterion("exactly-once.errors", "Share of items with any of these", Threshold("==", 0), "%", COMMAND),
        Criterion("exactly-once.rate", "Rate", Threshold(">=", 1e5, warn=5e5), "items/s", COMMAND),
    ),
    run,
)
