"""csp: three NumPy columns as curves that tick together, one Python node with a dict of rows, an event at a time.

The clock starts at the first event, so that building the graph is not counted.
"""

import time
from datetime import datetime, timedelta

import numpy as np

from benchmarks import measure
from benchmarks.measures.dict_loop import totals


def run(job: measure.Job) -> None:
    """One dataflow a pass, each from nothing."""
    measure.need("csp")
    import csp  # type: ignore[import-not-found,unused-ignore]
    from csp import ts

    began: list[float] = []

    @csp.node  # type: ignore[untyped-decorator,unused-ignore]
    def handle(key: ts[int], value: ts[float], size: ts[int], table: object) -> None:
        with csp.start():
            began.append(time.perf_counter())
        if csp.ticked(key):
            row = table.get(key)
            if row is None:
                table[key] = [1, value * size, size, value]
            else:
                row[0] += 1
                row[1] += value * size
                row[2] += size
                if value > row[3]:
                    row[3] = value

    start = datetime(2026, 1, 1)  # noqa: DTZ001 (csp wants it without a zone)
    times = np.datetime64(start, "ns") + np.arange(job.events).astype("timedelta64[us]")

    @csp.graph  # type: ignore[untyped-decorator,unused-ignore]
    def graph(table: object) -> None:
        handle(
            csp.curve(int, (times, job.signals.key.astype(np.int64))),
            csp.curve(float, (times, job.signals.value)),
            csp.curve(int, (times, job.signals.aux.astype(np.int64))),
            table,
        )

    table: dict[int, list[float]] = {}
    for _ in range(job.passes):
        table = {}
        csp.run(graph, table, starttime=start, endtime=start + timedelta(days=1))
        job.seconds.append(time.perf_counter() - began[-1])
    job.finish(totals(table), grown=False, times=1)


if __name__ == "__main__":
    measure.main(run)
