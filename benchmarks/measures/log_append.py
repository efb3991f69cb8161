"""Appending records to the embedded log, checkpoints included, beside pwrite and fdatasync of the same bytes.

`--by log|raw`, `--bytes` a record (262144 and more: what group commit makes under load; 96: one signal alone),
`--records` how many, `--durability full|normal|off` of the log. The writer's loop is the service's: append, then tidy.
`--directory` says on which disk: by default the current one. The clock runs from the first record to the end of the
log's closing checkpoint (or the last sync); that every record is there is checked after it.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks import measure

SIGNAL_BYTES = 32


def make(sequence: int, payload: bytearray) -> bytes:
    """A record with a right header; the payload's first bytes are its sequence."""
    from bitactor._core._codec import crc32c
    from bitactor.log.check import HEADER, MAGIC, VERSION

    payload[:8] = sequence.to_bytes(8, "big")
    fields = [MAGIC, VERSION, 1, 0, sequence, sequence, sequence, 0, 1, 0, len(payload), 0, 0, b"a bench."]
    head = HEADER.pack(*fields)
    fields[7] = crc32c(payload, crc32c(head[36:], crc32c(head[:32])))
    return HEADER.pack(*fields) + payload


def by_log(
    directory: Path, records: int, payload: bytearray, durability: str
) -> tuple[float, list[float], dict[str, object]]:
    """Seconds of the whole, of each append, and what the log counted."""
    from bitactor.log.reader import LogReader
    from bitactor.log.sqlite import SqliteLog

    log = SqliteLog.open(directory, durability=durability)
    seconds, begun = [], time.perf_counter()
    for sequence in range(records):
        record = make(sequence, payload)
        begin = time.perf_counter()
        log.append(record, sequence=sequence, position=sequence, count=1, wall_ns=sequence)
        seconds.append(time.perf_counter() - begin)
        log.tidy()
    figures = log.statistics()
    log.close()
    whole = time.perf_counter() - begun
    if sum(1 for _ in LogReader(directory).read(0)) != records:
        raise AssertionError("records are missing")
    checkpoints = figures.checkpoint_seconds
    return (
        whole,
        seconds,
        {
            "checkpoints": figures.checkpoints,
            "checkpoint_ms": 1e3 * checkpoints.sum / max(1, checkpoints.count),
        },
    )


def by_raw(directory: Path, records: int, payload: bytearray) -> tuple[float, list[float], dict[str, object]]:
    """Seconds of the whole, and of each pwrite and fdatasync at the end of a growing file."""
    file = os.open(directory / "raw", os.O_RDWR | os.O_CREAT)
    seconds, begun = [], time.perf_counter()
    for sequence in range(records):
        record = make(sequence, payload)
        begin = time.perf_counter()
        os.pwrite(file, record, sequence * len(record))
        os.fdatasync(file)
        seconds.append(time.perf_counter() - begin)
    whole = time.perf_counter() - begun
    os.close(file)
    return whole, seconds, {}


def main() -> None:
    """Parse, run, report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--by", choices=["log", "raw"], required=True)
    parser.add_argument("--bytes", type=int, default=1 << 20)
    parser.add_argument("--records", type=int, default=400)
    parser.add_argument("--durability", choices=["full", "normal", "off"], default="full")
    parser.add_argument("--directory", type=Path, default=Path())
    options = parser.parse_args()
    payload = bytearray(os.urandom(options.bytes - 64))
    with tempfile.TemporaryDirectory(dir=options.directory) as made:
        if options.by == "log":
            measure.need("apsw")
            whole, seconds, detail = by_log(Path(made), options.records, payload, options.durability)
        else:
            whole, seconds, detail = by_raw(Path(made), options.records, payload)
    seconds.sort()
    detail |= {"record_bytes": options.bytes, "p99_ms": 1e3 * seconds[len(seconds) * 99 // 100]}
    measure.report("rate", options.bytes * options.records / whole / 1e6, "MB/s", **detail)
    measure.report("signals", options.bytes * options.records / SIGNAL_BYTES / whole / 1e6, "M/s", **detail)
    measure.report("p50", 1e3 * statistics.median(seconds), "ms", **detail)


if __name__ == "__main__":
    main()
