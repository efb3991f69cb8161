"""Faust without a broker: `app.stream` over events in memory, state in a dict of ours.

Its consumer, its acknowledgements and its changelog tables are left out, all to its advantage.
"""

import asyncio

from benchmarks import measure
from benchmarks.measures.dict_loop import totals


def run(job: measure.Job) -> None:
    """One stream a pass, each from nothing."""
    measure.need("faust")
    import faust  # type: ignore[import-not-found,unused-ignore]

    app = faust.App("bench", broker="kafka://localhost:9", store="memory://", web_enabled=False)  # never connected
    rows = list(zip(*(column.tolist() for column in job.signals[1:]), strict=True))
    table: dict[int, list[float]] = {}

    async def handle() -> None:
        left = len(rows)
        async for key, value, size in app.stream(rows):
            row = table.get(key)
            if row is None:
                table[key] = [1, value * size, size, value]
            else:
                row[0] += 1
                row[1] += value * size
                row[2] += size
                if value > row[3]:
                    row[3] = value
            left -= 1
            if left == 0:
                break

    for _ in range(job.passes):
        table.clear()
        with job.timed():
            asyncio.run(asyncio.wait_for(handle(), 300))
    job.finish(totals(table), grown=False, times=1)


if __name__ == "__main__":
    measure.main(run)
