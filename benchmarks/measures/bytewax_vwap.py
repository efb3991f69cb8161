"""Bytewax: batches from a source of our own, keyed by text (its keys are str), one `stateful_batch` logic a key.

One worker. The clock starts at the first batch asked for, so that building the dataflow is not counted.
"""

import time
from collections.abc import Iterable
from typing import Any

import numpy as np

from benchmarks import measure, task

BATCH = 8_192


def run(job: measure.Job) -> None:
    """One dataflow a pass, each from nothing."""
    measure.need("bytewax")
    from bytewax import operators as op  # type: ignore[import-not-found,unused-ignore]
    from bytewax.dataflow import Dataflow  # type: ignore[import-not-found,unused-ignore]
    from bytewax.inputs import (  # type: ignore[import-not-found,unused-ignore]
        DynamicSource,
        StatelessSourcePartition,
    )
    from bytewax.outputs import DynamicSink, StatelessSinkPartition  # type: ignore[import-not-found,unused-ignore]
    from bytewax.testing import run_main  # type: ignore[import-not-found,unused-ignore]

    keys = [str(key) for key in job.signals.key.tolist()]
    items = list(zip(keys, zip(job.signals.value.tolist(), job.signals.aux.tolist(), strict=True), strict=True))
    began: list[float] = []
    rows: dict[str, list[float]] = {}

    class Part(StatelessSourcePartition):  # type: ignore[misc,unused-ignore]
        def __init__(self) -> None:
            self.at = 0
            began.append(time.perf_counter())

        def next_batch(self) -> Iterable[Any]:
            if self.at >= len(items):
                raise StopIteration
            self.at += BATCH
            return items[self.at - BATCH : self.at]

    class Source(DynamicSource):  # type: ignore[misc,unused-ignore]
        def build(self, _step: str, _worker: int, _workers: int) -> Part:
            return Part()

    class Nowhere(StatelessSinkPartition):  # type: ignore[misc,unused-ignore]
        def write_batch(self, _items: list[Any]) -> None:
            return

    class Sink(DynamicSink):  # type: ignore[misc,unused-ignore]
        def build(self, _step: str, _worker: int, _workers: int) -> Nowhere:
            return Nowhere()

    class Vwap(op.StatefulBatchLogic):  # type: ignore[misc,unused-ignore]
        def __init__(self, row: list[float] | None) -> None:
            self.row = row or [0, 0.0, 0, 0.0]

        def on_batch(self, values: list[tuple[float, int]]) -> tuple[tuple[()], bool]:
            row = self.row
            for value, size in values:
                row[0] += 1
                row[1] += value * size
                row[2] += size
                if value > row[3]:
                    row[3] = value
            return (), op.StatefulBatchLogic.RETAIN

        def on_eof(self) -> tuple[list[list[float]], bool]:
            return [self.row], op.StatefulBatchLogic.RETAIN

        def snapshot(self) -> list[float]:
            return list(self.row)

    def collect(step: Any) -> None:
        rows[step[0]] = step[1]

    for _ in range(job.passes):
        rows.clear()
        flow = Dataflow("vwap")
        stream = op.input("in", flow, Source())
        out = op.stateful_batch("vwap", stream, Vwap)
        out = op.inspect("collect", out, lambda _step, item: collect(item))
        op.output("out", out, Sink())
        run_main(flow)
        job.seconds.append(time.perf_counter() - began[-1])
    count, notional, volume, high = np.array(list(rows.values())).reshape(-1, 4).T
    job.finish(
        task.Totals(
            np.array([int(key) for key in rows], np.uint64),
            count.astype(np.uint64),
            notional,
            volume.astype(np.uint64),
            high,
        ),
        grown=False,
        times=1,
    )


if __name__ == "__main__":
    measure.main(run)
