"""Quix Streams without a broker: its composed stream of functions fed in process, state in a dict of ours.

Its own state store (RocksDB), its consumer and its producer are left out, all to its advantage.
"""

from typing import Any

from benchmarks import measure
from benchmarks.measures.dict_loop import totals


def run(job: measure.Job) -> None:
    """Feed the composed stream an event at a time; the dict starts empty at each pass."""
    measure.need("quixstreams")
    from quixstreams.core.stream.stream import Stream  # type: ignore[import-not-found,unused-ignore]

    table: dict[int, list[float]] = {}

    def handle(trade: dict[str, Any]) -> dict[str, Any]:
        value, size = trade["value"], trade["size"]
        row = table.get(trade["key"])
        if row is None:
            table[trade["key"]] = [1, value * size, size, value]
        else:
            row[0] += 1
            row[1] += value * size
            row[2] += size
            if value > row[3]:
                row[3] = value
        return trade

    stream = Stream().add_apply(handle)
    (execute,) = stream.compose(sink=lambda *_: None).values()
    names = ("key", "value", "size")
    rows = [
        dict(zip(names, row, strict=True)) for row in zip(*(column.tolist() for column in job.signals[1:]), strict=True)
    ]
    for _ in range(job.passes):
        table.clear()
        with job.timed():
            for at, row in enumerate(rows):
                execute(row, row["key"], at, None)
    job.finish(totals(table), grown=False, times=1)


if __name__ == "__main__":
    measure.main(run)
