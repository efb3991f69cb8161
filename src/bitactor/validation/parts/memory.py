"""Memory exhaustion: keys without end, a ring without room, a process without memory; every refusal is counted."""

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

import bitactor as ba
from bitactor.validation.campaign import DefectFoundError, Part, Run
from bitactor.validation.criteria import Criterion, Threshold
from bitactor.validation.parts.counters import KEYS_MAX, app, capped, counted, item, known, seen
from bitactor.validation.tether import tethered

COMMAND = "bitactor validate --only memory"
BATCH = 65_536


def run(run: Run) -> None:
    """Each kind of exhaustion."""
    _keys(run)
    _ring(run)
    _process(run)


def _keys(run: Run) -> None:
    total = run.size("memory_keys")
    with ba.Engine(capped, shards=0) as engine:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
        for begin in range(0, total, BATCH):
            engine.send_batch(kind=seen, key=np.arange(begin, min(begin + BATCH, total), dtype="u8"), value=0, time=1)
        engine.flush()
        statistics = engine.statistics()
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10) - before
        keys = len(engine.table(known).to_numpy())
    # The cap is per partition, so keys that are spread by chance reach it in nearly all of them.
    run.measure("memory.keys", keys, f"{total:,} keys were offered to an actor with keys_max={KEYS_MAX:,}")
    run.measure("memory.grown", grown / 2**20, "of this process, while they came")
    run.count("memory.keys", {"sent": total}, {"processed": statistics.processed, **statistics.dropped})
    run.measure("memory.uncounted", total - keys - statistics.dropped["key_cap"])


def _ring(run: Run) -> None:
    ring = ba.Ring(1024, full="refuse")
    offered = run.size("memory_keys") // 10
    signals = ba.make_signals(1, np.arange(offered, dtype="u8"), 0.0, 0, 1)
    with ring.producer() as producer:
        taken = sum(producer.push_batch(signals[at : at + 100]) for at in range(0, offered, 100))
        kept: Any = ring.consumer().pop_batch(4096)
    statistics = ring.statistics()
    run.count("memory.ring", {"offered": offered}, {"pushed": statistics.pushed, "refused": statistics.refused})
    same = len(kept) == taken and kept["key"].tolist() == list(range(taken))
    run.measure(
        "memory.ring", 0 if same else 1, f"{taken:,} of {offered:,} fitted, {statistics.refused:,} were refused"
    )


def _process(run: Run) -> None:
    """A process whose limit of memory (RLIMIT_DATA) its keys reach: it goes on, and counts what had no room."""
    said = subprocess.run(
        tethered([sys.executable, "-m", __name__, str(run.size("memory_limit_mb"))]),
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    if said.returncode:
        raise DefectFoundError(f"the process that ran out of memory ended with {said.returncode}: {said.stderr[-500:]}")
    told = json.loads(said.stdout)
    run.count("memory.process", {"sent": told["sent"]}, {"processed": told["processed"], **told["dropped"]})
    run.measure(
        "memory.no-memory", told["dropped"]["no_memory"], f"{told['keys']:,} keys fitted; no crash, all counted"
    )
    run.measure("memory.wrong-states", told["wrong"])


def exhaust(megabytes: int) -> dict[str, Any]:
    """Send new keys until signals are dropped for want of memory, under a limit of so much more than is used now."""
    with ba.Engine(app, shards=0) as engine:
        engine.send_batch(kind=item, key=np.arange(64, dtype="u8"), value=0, time=1)  # what is loaded once is loaded
        lines = Path("/proc/self/status").read_text().splitlines()
        used = next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmData:"))
        sent, batch = 64, np.empty(BATCH, "u8")
        resource.setrlimit(resource.RLIMIT_DATA, (used + (megabytes << 20), resource.RLIM_INFINITY))
        while not engine.statistics().dropped["no_memory"] and sent < 100_000_000:
            np.add(np.arange(BATCH, dtype="u8"), sent, out=batch)
            engine.send_batch(kind=item, key=batch, value=0, time=1)
            sent += BATCH
        resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        table = engine.table(counted).to_numpy()
        statistics = engine.statistics()
    wrong = int((table["n"] != 1).sum()) + int((table["gaps"] != 0).sum())
    return {
        "sent": sent,
        "processed": statistics.processed,
        "dropped": statistics.dropped,
        "keys": len(table),
        "wrong": wrong,
    }


PART = Part(
    "memory",
    "Memory exhaustion",
    (
        Criterion("memory.keys", "Keys held of an actor with a cap", Threshold("<=", KEYS_MAX), "keys", COMMAND),
        Criterion("memory.grown", "Memory grown by keys beyond the cap", Threshold("<=", 64), "MiB", COMMAND),
        Criterion("memory.uncounted", "Keys refused and not counted", Threshold("==", 0), "signals", COMMAND),
        Criterion("memory.ring", "A full ring keeps other items than it took", Threshold("==", 0), "", COMMAND),
        Criterion("memory.no-memory", "Signals without memory, counted as such", Threshold(">", 0), "signals", COMMAND),
        Criterion("memory.wrong-states", "States that this made wrong", Threshold("==", 0), "states", COMMAND),
    ),
    run,
)

if __name__ == "__main__":
    print(json.dumps(exhaust(int(sys.argv[1]))))  # noqa: T201
