"""A plain Python loop over lists, with a dict of small lists: what one writes before looking for a library."""

import numpy as np

from benchmarks import measure, task


def run(job: measure.Job) -> None:
    """Grow, time each pass, check."""
    table: dict[int, list[float]] = {}

    def handle(keys: list[int], values: list[float], sizes: list[int]) -> None:
        for key, value, size in zip(keys, values, sizes, strict=True):
            row = table.get(key)
            if row is None:
                table[key] = [1, value * size, size, value]
                continue
            row[0] += 1
            row[1] += value * size
            row[2] += size
            if value > row[3]:
                row[3] = value

    growth, signals = ([column.tolist() for column in part[1:]] for part in (job.growth, job.signals))
    with job.timed_growth():
        handle(*growth)
    for _ in range(job.passes):
        with job.timed():
            handle(*signals)
    job.finish(totals(table), grown=True)


def totals(table: dict[int, list[float]]) -> task.Totals:
    """Rows of count, notional, volume, high by key, as arrays."""
    count, notional, volume, high = np.array(list(table.values())).reshape(-1, 4).T
    return task.Totals(
        np.array(list(table), np.uint64), count.astype(np.uint64), notional, volume.astype(np.uint64), high
    )


if __name__ == "__main__":
    measure.main(run)
