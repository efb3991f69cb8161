"""The reference: a plain Numba loop over columns in memory, open addressing, one row of state per key.

The row is 32 bytes with its key, so two share a cache line; the hash is one multiply and one shift; load is at most
0.5, and a small table has 8,192 rows (256 KiB), where few keys collide. One thread, no partitions, no checks of its
input, no accounting: what a person writes who needs this one result once.
"""

import numpy as np

from benchmarks import measure, task

ROW = np.dtype([("key", "u8"), ("notional", "f8"), ("high", "f8"), ("count", "u4"), ("volume", "u4")])
ROWS_MIN = 8_192
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def run(job: measure.Job) -> None:
    """Grow, time each pass, check."""
    measure.need("numba")
    import numba  # type: ignore[import-not-found,unused-ignore]

    @numba.njit(nogil=True)  # type: ignore[untyped-decorator,unused-ignore]
    def handle(table, keys, values, sizes, shift, mask):  # type: ignore[no-untyped-def]
        for i in range(len(keys)):
            key = keys[i]
            slot = (key * MULTIPLIER) >> shift
            while table[slot].key != key:
                if table[slot].key == 0:
                    table[slot].key = key
                    break
                slot = (slot + np.uint64(1)) & mask
            row = table[slot]
            row.count += 1
            row.notional += values[i] * sizes[i]
            row.volume += sizes[i]
            if values[i] > row.high:
                row.high = values[i]

    bits = (max(ROWS_MIN, 2 * job.keys) - 1).bit_length()
    table = np.zeros(1 << bits, ROW)
    shift, mask = np.uint64(64 - bits), np.uint64((1 << bits) - 1)
    none = tuple(column[:0] for column in job.growth[1:])
    handle(table, *none, shift, mask)  # compiles
    with job.timed_growth():
        handle(table, *job.growth[1:], shift, mask)
    for _ in range(job.passes):
        with job.timed():
            handle(table, *job.signals[1:], shift, mask)
    rows = table[table["key"] != 0]
    job.finish(
        task.Totals(rows["key"], rows["count"], rows["notional"], rows["volume"], rows["high"]),
        grown=True,
    )


if __name__ == "__main__":
    measure.main(run)
