"""What one record's worth of signals costs at each stage between a producer and a lane's state, in processor time.

In one process and thread, by its own processor time, so that what else the machine does hardly counts. A frame of 8,192
signals of 100,000 keys and 16 lanes; a record is 16 parts of it, as many signals again.
"""

import asyncio
import time

import numpy as np

import bitactor as ba
from benchmarks.cluster.app import app, reading
from bitactor.cluster.intake import Intake
from bitactor.cluster.parts import Bundle, bundle_items, part_of
from bitactor.protocol.frames import encode_frame, kind_set, split_frame
from bitactor.protocol.messages import Producer
from bitactor.protocol.records import RecordBuilder
from bitactor.runtime.tables import Tables

LANES = 16
SIGNALS = 8192


def measure(function, seconds):
    """Processor nanoseconds a signal."""
    function()
    rounds, begun = 0, time.process_time()
    while time.process_time() < begun + seconds:
        function()
        rounds += 1
    return (time.process_time() - begun) / rounds / SIGNALS * 1e9


def frames():
    """A frame, and 16 frames whose parts of lane 0 make a record."""
    dice = np.random.default_rng(1)
    signals = ba.make_signals(reading, dice.integers(1, 100_001, SIGNALS * LANES).astype("u8"), 1.0, 1, 1)
    return [
        encode_frame(signals[at : at + SIGNALS], producer=7000, epoch=1, sequence=at)
        for at in range(0, len(signals), SIGNALS)
    ], signals[:SIGNALS]


def parts(frame, begin, kinds):
    """The parts of a frame, by lane."""
    return {
        piece.lane: part_of(
            7000, 1, begin=begin, end=begin + SIGNALS, after=begin, floor=0, lanes=(1 << LANES) - 1,
            rows=[piece.rows], offsets=[piece.offsets],
        )
        for piece in split_frame(frame, LANES, kinds).pieces
    }  # fmt: skip


async def admitted(bundle, kinds, seconds):
    """Handing a bundle in: decoding, checking, filling the record; then the record's header and checksum."""
    took = {"intake": 0.0, "record": 0.0}
    builders = [RecordBuilder(bytes_max=1 << 20) for _ in range(2)]
    rounds = 0
    while sum(took.values()) < seconds:
        tables = Tables()
        intake = Intake(
            tables, builders.copy(), lambda record: None, kinds=kinds, producers_max=10, names_max=10, hold=nothing
        )  # fmt: skip
        begun = time.process_time()
        for kind, message, frame in bundle_items(bundle):
            intake._admit(kind, message, frame)
        took["intake"] += time.process_time() - begun
        begun = time.process_time()
        record = intake._open
        record.builder.finish(0, 0, 1, 0, 1)
        took["record"] += time.process_time() - begun
        count = record.builder.count
        for builder in builders:
            builder.clear()
        rounds += 1
    return {stage: 1e9 * seconds_ / rounds / count for stage, seconds_ in took.items()}


async def nothing():
    """Hold back nothing."""


def stages(seconds=0.5):
    """Stage -> processor nanoseconds a signal."""
    kinds = kind_set(app.kinds)
    every, signals = frames()
    first = memoryview(every[0])
    cost = {
        "producer: encode a frame": measure(
            lambda: encode_frame(signals, producer=7000, epoch=1, sequence=0), seconds
        ),
        "replica: check and cut a frame": measure(lambda: split_frame(first, LANES, kinds), seconds),
    }  # fmt: skip
    both = measure(lambda: parts(first, 0, kinds), seconds)
    cost["replica: make its parts"] = both - cost["replica: check and cut a frame"]
    mine = [parts(memoryview(frame), at * SIGNALS, kinds)[0] for at, frame in enumerate(every)]
    items = (Producer(7000, 1, "me", "p").encode(), *mine)
    cost["replica: make a bundle"] = measure(lambda: Bundle(0, items).encode(), seconds)
    told = asyncio.run(admitted(memoryview(Bundle(0, items).encode()), kinds, seconds))
    cost["owner: take a bundle in"] = told["intake"]
    cost["owner: finish the record"] = told["record"]
    with ba.Engine(app, 0, clock="records") as engine:
        cost["owner: apply"] = measure(lambda: engine.apply(signals, 1), seconds)
    return cost
