"""A long steady and bursty load on one service: what grows, what does not, and whether anything was lost at the end.

The log is kept small by retention, so the end is judged by counts: what producers were acknowledged is the position of
the log's end, and `bitactor log replay` gives the newest snapshot's state from the one before it, bit for bit.
"""

import json
import time
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

from bitactor.testing.history import end_of
from bitactor.validation.campaign import DefectFoundError, Part, Run
from bitactor.validation.criteria import Criterion, Threshold
from bitactor.validation.load import Load, signals_at
from bitactor.validation.plots import histogram, line
from bitactor.validation.producers import Producer
from bitactor.validation.service import Served, command_line
from bitactor.validation.slopes import Slope, slope
from bitactor.validation.streams import input_kinds, stream

COMMAND: Final = "bitactor soak"
MIB: Final = 1 << 20
FLAGS: Final[dict[str, Any]] = {
    "snapshot_every_s": 60, "snapshot_keep": 2, "log_size_bytes_max": 2 << 30, "outputs_window": 65536,
}  # fmt: skip
SAMPLES_MAX: Final = 4000
SLOPE_S_MIN: Final = 600.0  # in less, what warms up looks like growth


@dataclass(slots=True)
class Samples:
    """What is looked at again and again: (seconds, figure) of each name."""

    of: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def add(self, name: str, seconds: float, value: float) -> None:
        """One more point."""
        self.of.setdefault(name, []).append((seconds, value))


def run(run: Run) -> None:
    """Steady load with a burst now and then, for the time that was asked for."""
    seconds, rate = run.sizes["soak_s"], run.sizes["soak_rate"]
    every, burst_s = run.sizes["burst_every_s"], run.sizes["burst_s"]
    template = stream(run.app, "soak", 65_536, run.seed % 2**32, kinds=input_kinds(run.app)[:1])
    samples, acked = Samples(), 0
    with Served(run.directory, run.app_file, **FLAGS) as served:
        served.start().ready()
        probe = Producer(
            served.data, served.port, "probe", signals_at(template, 0, 4_000_000), seed=run.seed, frame_max=20
        )
        probe.pause_s, probe.keep_latencies = 0.05, True
        probe.start()
        begun, names = time.monotonic(), ["steady0", "steady1"]
        steady = Load(run.directory, served.data, served.port, template, names, seconds, rate=rate, batch=500)
        burst, number, next_burst = None, 0, begun + every
        looked = 0.0
        try:
            while steady.process.poll() is None:
                now = time.monotonic()
                if burst is not None and burst.process.poll() is not None:
                    acked += sum(burst.result(5).values())
                    burst = None
                if burst is None and now >= next_burst and now < begun + seconds - burst_s - 30:
                    burst = Load(run.directory, served.data, served.port, template, [f"burst{number}"], burst_s)
                    number, next_burst = number + 1, now + every
                    run.happened("burst", f"{burst_s:g} s as fast as it goes")
                if now - looked >= max(1.0, seconds / SAMPLES_MAX):
                    looked = now
                    _look(samples, served, probe, now - begun)
                    run.say(f"{now - begun:,.0f} of {seconds:,.0f} s, {samples.of['rss'][-1][1]:,.0f} MiB")
                time.sleep(0.5)
            acked += sum(steady.result(5).values())
            if burst is not None:
                acked += sum(burst.result(240).values())
        finally:
            steady.stop()
            if burst is not None:
                burst.stop()
        probe.total = probe.sent
        probe.finished()
        acked += probe.acked
        conserved = _conserved(served)
        if (status := served.stop()) != 0:
            raise DefectFoundError(f"SIGTERM ended it with status {status}: {served.errors()}")
        _first, position = end_of(served.data)
        replayed = command_line("log", "replay", run.app_file, str(served.data), timeout_s=1800)
    run.count("soak.signals", {"acknowledged": acked}, {"position of the log's end": position})
    run.count("soak.engine", {"accepted": conserved["accepted"]}, conserved["terms"])
    run.measure("soak.replay", replayed.returncode, (replayed.stdout + replayed.stderr).strip().splitlines()[-1][:200])
    _judge(run, samples, probe, position, number)


def _look(samples: Samples, served: Served, probe: Producer, at: float) -> None:
    metrics = served.metrics()
    samples.add("rss", at, served.rss_bytes() / MIB)
    samples.add("descriptors", at, served.descriptors())
    samples.add("log", at, metrics["bitactor_log_size_bytes"] / MIB)
    samples.add("accepted", at, metrics["bitactor_signals_accepted_total"])
    recent = [1e3 * s for when, s in probe.latencies[-200:]]
    if recent:
        samples.add("latency", at, sorted(recent)[len(recent) // 2])


def _conserved(served: Served) -> dict[str, Any]:
    metrics = {k.removeprefix("bitactor_signals_"): int(v) for k, v in served.metrics().items() if "_signals_" in k}
    terms = {"processed": metrics["processed_total"], "queued": metrics["queued"]}
    terms |= {name: n for name, n in metrics.items() if name.startswith("dropped_total")}
    return {"accepted": metrics["accepted_total"], "terms": terms}


def _judge(run: Run, samples: Samples, probe: Producer, position: int, bursts: int) -> None:
    for name, unit in (("rss", "MiB"), ("descriptors", ""), ("latency", "ms"), ("log", "MiB")):
        run.plot(line("soak", f"{name} over time", "seconds", unit or "count", **{name: samples.of[name]}))
        if run.sizes["soak_s"] < SLOPE_S_MIN:
            run.not_run(f"soak.{name}", f"a slope needs {SLOPE_S_MIN:g} s at least: --hours {SLOPE_S_MIN / 3600:.2g}")
            continue
        found: Slope = slope(samples.of[name])
        grown = found.per_hour - found.error if found.grows else 0.0
        share = 100 * grown / found.mean if found.mean else 0.0
        note = (
            f"{found.per_hour:+.3g} {unit} an hour, twice the standard error {found.error:.3g}, mean {found.mean:.4g}"
        )
        run.measure(f"soak.{name}", share, note)
    accepted = samples.of["accepted"]
    rates = [(b[0], (b[1] - a[1]) / (b[0] - a[0])) for a, b in pairwise(accepted)]
    run.plot(line("soak", "Signals accepted a second", "seconds", "signals/s", rate=rates))
    latencies = sorted(1e3 * s for at, s in probe.latencies)
    run.plot(histogram("soak", "Acknowledgements of a small producer", "ms", latencies))
    run.measure("soak.p99", latencies[int(0.99 * len(latencies))], f"{len(latencies):,} frames, bursts included")
    run.measure(
        "soak.volume", position, f"{bursts} bursts; {json.dumps({k: len(v) for k, v in samples.of.items()})} samples"
    )
    run.measure("soak.lost-connections", probe.lost_connections)


def part(command: str) -> Part:
    """The one part of a soak."""
    return Part(
        "soak",
        "Steady and bursty load",
        (
            Criterion("soak.rss", "Memory grows by (of its mean, an hour)", Threshold("<=", 10, warn=2), "%", command),
            Criterion("soak.descriptors", "Descriptors grow by", Threshold("<=", 1), "% an hour", command),
            Criterion("soak.latency", "Median latency grows by", Threshold("<=", 50, warn=20), "% an hour", command),
            Criterion(
                "soak.log", "Log and snapshots' size grows by", Threshold("<=", 50, warn=20), "% an hour", command
            ),
            Criterion("soak.p99", "99% of acknowledgements within", Threshold("<=", 5000, warn=500), "ms", command),
            Criterion("soak.replay", "A replay gives another state", Threshold("==", 0), "", command),
            Criterion("soak.volume", "Signals in all", Threshold(">", 0), "signals", command),
            Criterion("soak.lost-connections", "Connections lost", Threshold("==", 0), "connections", command),
        ),
        run,
    )
