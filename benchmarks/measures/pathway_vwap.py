"""Pathway: a table grouped by key and reduced by its own (Rust) reducers; static input, one worker.

Pathway has no per-event Python here. Its start costs seconds, so the figure is the marginal one: the time of all
events less the time of the first eighth.
"""

import time

import numpy as np

from benchmarks import measure, task


def run(job: measure.Job) -> None:
    """Two runs a pass, an eighth and all."""
    measure.need("pathway", "pandas")
    import pandas as pd  # type: ignore[import-not-found,import-untyped,unused-ignore]
    import pathway as pw  # type: ignore[import-not-found,unused-ignore]

    rows = pd.DataFrame(
        {
            "key": job.signals.key.astype(np.int64),
            "value": job.signals.value,
            "size": job.signals.aux.astype(np.int64),
        }
    )

    def handle(part: pd.DataFrame) -> tuple[float, pd.DataFrame]:
        table = pw.debug.table_from_pandas(part)
        reduced = table.groupby(pw.this.key).reduce(
            pw.this.key,
            count=pw.reducers.count(),
            notional=pw.reducers.sum(pw.this.value * pw.this.size),
            volume=pw.reducers.sum(pw.this.size),
            high=pw.reducers.max(pw.this.value),
        )
        begin = time.perf_counter()
        out = pw.debug.table_to_pandas(reduced)
        return time.perf_counter() - begin, out

    eighth = job.events // 8
    out = rows
    for _ in range(job.passes):
        short, _ = handle(rows[:eighth])
        whole, out = handle(rows)
        job.seconds.append((whole - short) * job.events / (job.events - eighth))
    job.finish(
        task.Totals(
            out["key"].to_numpy(np.uint64),
            out["count"].to_numpy(np.uint64),
            out["notional"].to_numpy(),
            out["volume"].to_numpy(np.uint64),
            out["high"].to_numpy(),
        ),
        grown=False,
        times=1,
    )


if __name__ == "__main__":
    measure.main(run)
