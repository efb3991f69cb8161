"""The log in JetStream on loopback: an append's cost beside raw nats-py, and reading it back in two ways.

`--nodes 1|3` servers, each record on all of them; `--sync always|default`; `--bytes` a record, `--records` how many;
`--rounds`. In one round, on the same servers: the log's append from a thread and on the loop, nats-py's publish with
acknowledgement of the same bytes, and reading all of it by batches of direct gets (what the log does) and by an ordered
consumer of nats-py. All servers share this machine's disk and cores, which three real ones would not.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks import measure
from benchmarks.measures.log_append import SIGNAL_BYTES, make


class Round:
    """One round over its own streams."""

    def __init__(self, jetstream, number, options):
        self.jetstream, self.loop, self.connection = jetstream, jetstream.loop, jetstream.connections[0]
        self.nodes, self.records = options.nodes, options.records
        payload = bytearray(number.to_bytes(2, "big") * ((options.bytes - 64) // 2))
        self.made = [make(sequence, payload) for sequence in range(options.records)]
        self.name = f"r{number}"

    def open(self, lane):
        return self.jetstream.open(self.name, lane=lane, size_bytes_max=1 << 30)

    def by_thread(self):
        log, seconds = self.open(0), []
        for sequence, record in enumerate(self.made):
            begin = time.perf_counter()
            log.append(record, sequence=sequence, position=sequence, count=1, wall_ns=sequence)
            seconds.append(time.perf_counter() - begin)
        log.close()
        return seconds

    def by_loop(self):
        log = self.open(1)

        async def run():
            seconds = []
            for sequence, record in enumerate(self.made):
                begin = time.perf_counter()
                await log.append_async(record, sequence=sequence, position=sequence, count=1, wall_ns=sequence)
                seconds.append(time.perf_counter() - begin)
            return seconds

        return self.loop(run())

    def by_raw(self):
        async def run():
            context = self.connection.jetstream()
            await context.add_stream(name=f"{self.name}-raw", subjects=[f"{self.name}.raw"], num_replicas=self.nodes)
            seconds = []
            for record in self.made:
                begin = time.perf_counter()
                await context.publish(f"{self.name}.raw", record)
                seconds.append(time.perf_counter() - begin)
            return seconds

        return self.loop(run())

    def read_direct(self):
        log = self.open(0)
        begin = time.perf_counter()
        count = sum(1 for _ in log.read(0))
        assert count == self.records
        return [(time.perf_counter() - begin) / count] * count

    def read_consumer(self):
        async def run():
            context = self.connection.jetstream()
            begin = time.perf_counter()
            subscription = await context.subscribe(
                f"{self.name}.lane.0", ordered_consumer=True, pending_bytes_limit=0, pending_msgs_limit=0
            )
            for _ in range(self.records):
                await subscription.next_msg(30)
            seconds = time.perf_counter() - begin
            await subscription.unsubscribe()
            return [seconds / self.records] * self.records

        return self.loop(run())


def main() -> None:
    """Parse, run, report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--nodes", type=int, choices=[1, 3], default=3)
    parser.add_argument("--sync", choices=["always", "default"], default="always")
    parser.add_argument("--bytes", type=int, default=256 << 10)
    parser.add_argument("--records", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--directory", type=Path, default=Path())
    options = parser.parse_args()
    measure.need("nats")
    from tests.jetstream_tools import JetStream

    ways = ("by_raw", "by_thread", "by_loop", "read_direct", "read_consumer")
    with (
        tempfile.TemporaryDirectory(dir=options.directory) as made,
        JetStream(Path(made), options.nodes, sync_always=options.sync == "always") as jetstream,
    ):
        jetstream.connect()
        rates: dict[str, list[float]] = {way: [] for way in ways}
        for number in range(options.rounds):
            one = Round(jetstream, number, options)
            for way in (*ways[number % 3 : 3], *ways[: number % 3], *ways[3:]):  # who comes first changes
                seconds = getattr(one, way)()
                rate = options.bytes * len(seconds) / sum(seconds) / 1e6
                rates[way].append(rate)
                detail = {"nodes": options.nodes, "sync": options.sync, "p50_ms": 1e3 * statistics.median(seconds)}
                measure.report(way, rate, "MB/s", signals_per_s=rate * 1e6 / SIGNAL_BYTES, **detail)
        for way in ways[1:3]:
            ratios = [own / raw for own, raw in zip(rates[way], rates["by_raw"], strict=True)]
            measure.report(f"{way} of raw", statistics.median(ratios), "x", nodes=options.nodes, sync=options.sync)


if __name__ == "__main__":
    main()
