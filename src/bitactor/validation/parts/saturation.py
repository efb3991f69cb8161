"""CPU saturation: more busy processes than cores beside the engine; ticks a signal, and nothing lost."""

import subprocess
import sys
import time

import bitactor as ba
from bitactor import host
from bitactor.validation.campaign import Part, Run
from bitactor.validation.criteria import Criterion, Threshold
from bitactor.validation.parts.counters import app, counted
from bitactor.validation.parts.throughput import BATCH, batches
from bitactor.validation.tether import tethered

COMMAND = "bitactor validate --only saturation"
BURN = "import time\nend = time.monotonic() + {}\nwhile time.monotonic() < end: pass"


def run(run: Run) -> None:
    """Measure alone, then beside two busy processes for each core."""
    seconds = run.sizes["saturation_s"]
    alone, _ = _ticks(seconds)
    burners = 2 * max(1, int(host.usable_cores()))
    started = [subprocess.Popen(tethered([sys.executable, "-c", BURN.format(seconds + 3)])) for _ in range(burners)]
    try:
        time.sleep(0.5)
        beside, statistics = _ticks(seconds)
    finally:
        for process in started:
            process.kill()
            process.wait()
    run.count("saturation.signals", {"sent": statistics["sent"]},
              {"processed": statistics["processed"], "dropped": statistics["dropped"]})  # fmt: skip
    run.measure("saturation.ticks", beside["handler"], f"alone {alone['handler']:.1f}; {burners} busy processes")
    run.measure(
        "saturation.wall-ticks", beside["wall"], f"alone {alone['wall']:.1f}: time from send to flush, waits too"
    )
    run.measure("saturation.gaps", statistics["gaps"])


def _ticks(seconds: float) -> tuple[dict[str, float], dict[str, int]]:
    with ba.Engine(app, shards=host.default_shards()) as engine:
        sent, begun = 0, time.monotonic()
        while time.monotonic() - begun < seconds:
            engine.send_batch(batches(0, sent // BATCH))
            sent += BATCH
        engine.flush()
        took = time.monotonic() - begun
        statistics = engine.statistics()
        gaps = int(engine.table(counted).to_numpy()["gaps"].sum())
    ticks = statistics.actors[0].ticks
    return (
        {"handler": ticks.mean, "wall": took * ticks.hz / sent},
        {"sent": sent, "processed": statistics.processed, "dropped": sum(statistics.dropped.values()), "gaps": gaps},
    )


PART = Part(
    "saturation",
    "CPU saturation",
    (
        Criterion(
            "saturation.ticks", "Handler's ticks a signal at saturation", Threshold("<=", 2000), "ticks", COMMAND
        ),
        Criterion(
            "saturation.wall-ticks", "All ticks a signal at saturation", Threshold("<=", 100_000), "ticks", COMMAND
        ),
        Criterion("saturation.gaps", "Signals out of order at saturation", Threshold("==", 0), "signals", COMMAND),
    ),
    run,
)
