"""A long steady and bursty load on one service: what grows, what does not, and whether anything was lost at the end.

The log is kept small by retention, so the end is judged by counts: what producers were acknowledged is the position of
the log's end, and `bitactor log replay` gives the newest snapshot's state from the one before it, bit for bit. A scrape
that is not answered, or a process of producers that fails, is counted and reported; the soak goes on.
"""

import json
import subprocess
import time
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

import numpy.typing as npt

from bitactor.testing.history import end_of
from bitactor.validation.campaign import DefectFoundError, Part, Run
from bitactor.validation.criteria import Criterion, Threshold
from bitactor.validation.load import Load, signals_at
from bitactor.validation.plots import histogram, line
from bitactor.validation.probes import Probes
from bitactor.validation.probes import criterion as scrapes
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
POINTS_MIN: Final = 20


@dataclass(slots=True)
class Samples:
    """What is looked at again and again: (seconds, figure) of each name."""

    of: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def add(self, name: str, seconds: float, value: float) -> None:
        """One more point."""
        self.of.setdefault(name, []).append((seconds, value))


@dataclass(slots=True)
class Soak:
    """What a soak is at: where it looks, what it found so far. acked: by processes of producers that have ended."""

    run: Run
    served: Served
    probes: Probes
    samples: Samples = field(default_factory=Samples)
    acked: int = 0
    bursts: int = 0
    loads_failed: int = 0
    begun: float = field(default_factory=time.monotonic)

    def ended(self, load: Load, timeout_s: float) -> None:
        """Add up what a process of producers had acknowledged; one that failed is counted, and ends nothing."""
        try:
            self.acked += sum(load.result(timeout_s).values())
        except (RuntimeError, ValueError, subprocess.TimeoutExpired) as error:
            self.loads_failed += 1
            self.run.happened("producers failed", str(error)[-300:])
            load.stop()


def run(run: Run) -> None:
    """Steady load with a burst now and then, for the time that was asked for; what was seen is told in any case."""
    with Served(run.directory, run.app_file, **FLAGS) as served:
        served.start().ready()
        soak = Soak(run, served, Probes(served, run.happened))
        template = stream(run.app, "soak", 65_536, run.seed % 2**32, kinds=input_kinds(run.app)[:1])
        probe = Producer(
            served.data, served.port, "probe", signals_at(template, 0, 4_000_000), seed=run.seed, frame_max=20
        )
        probe.pause_s, probe.keep_latencies = 0.05, True
        probe.start()
        try:
            _load(soak, template, probe)
            _end(soak, probe)
        finally:
            probe.stop()
            _judge(soak, probe)


def _load(soak: Soak, template: npt.NDArray[Any], probe: Producer) -> None:
    """Look until the steady load is over; a burst each so often, but not shortly before the end."""
    run, served = soak.run, soak.served
    seconds, every, burst_s = run.sizes["soak_s"], run.sizes["burst_every_s"], run.sizes["burst_s"]
    soak.begun = begun = time.monotonic()
    names, rate = ["steady0", "steady1"], run.sizes["soak_rate"]
    steady = Load(run.directory, served.data, served.port, template, names, seconds, rate=rate, batch=500)
    burst, next_burst, looked = None, begun + every, 0.0
    try:
        while steady.process.poll() is None:
            now = time.monotonic()
            if burst is not None and burst.process.poll() is not None:
                soak.ended(burst, 5)
                burst = None
            if burst is None and now >= next_burst and now < begun + seconds - burst_s - 30:
                name = f"burst{soak.bursts}"
                burst = Load(run.directory, served.data, served.port, template, [name], burst_s)
                soak.bursts, next_burst = soak.bursts + 1, now + every
                run.happened("burst", f"{burst_s:g} s as fast as it goes")
            if now - looked >= max(1.0, seconds / SAMPLES_MAX):
                looked = now
                _look(soak, probe, now - begun)
                run.say(f"{now - begun:,.0f} of {seconds:,.0f} s, {soak.samples.of['rss'][-1][1]:,.0f} MiB")
            time.sleep(0.5)
        soak.ended(steady, 5)
        if burst is not None:
            soak.ended(burst, 240)
    finally:
        steady.stop()
        if burst is not None:
            burst.stop()


def _look(soak: Soak, probe: Producer, at: float) -> None:
    samples = soak.samples
    if (metrics := soak.probes.metrics()) is not None:
        samples.add("log", at, metrics["bitactor_log_size_bytes"] / MIB)
        samples.add("accepted", at, metrics["bitactor_signals_accepted_total"])
    samples.add("rss", at, soak.served.rss_bytes() / MIB)
    samples.add("descriptors", at, soak.served.descriptors())
    recent = [1e3 * s for when, s in probe.latencies[-200:]]
    if recent:
        samples.add("latency", at, sorted(recent)[len(recent) // 2])


def _end(soak: Soak, probe: Producer) -> None:
    """Stop in order, then compare what was acknowledged with the log, and the newest snapshot with a replay."""
    run, served = soak.run, soak.served
    probe.end_after()
    probe.finished()
    accepted, terms = _conserved(soak.probes.insist())
    if (status := served.stop()) != 0:
        raise DefectFoundError(f"SIGTERM ended it with status {status}: {served.errors()}")
    _first, position = end_of(served.data)
    run.count("soak.engine", {"accepted": accepted}, terms)
    run.measure(
        "soak.volume", position,
        f"{soak.bursts} bursts; {json.dumps({k: len(v) for k, v in soak.samples.of.items()})} samples",
    )  # fmt: skip
    if not soak.loads_failed:
        run.count("soak.signals", {"acknowledged": soak.acked + probe.acked}, {"position of the log's end": position})
    replayed = command_line("log", "replay", run.app_file, str(served.data), timeout_s=1800)
    said = (replayed.stdout + replayed.stderr).strip().splitlines() or ["it said nothing"]
    run.measure("soak.replay", replayed.returncode, said[-1][:200])


def _conserved(metrics: dict[str, float]) -> tuple[int, dict[str, int]]:
    """What was accepted, and what became of it."""
    found = {k.removeprefix("bitactor_signals_"): int(v) for k, v in metrics.items() if "_signals_" in k}
    terms = {"processed": found["processed_total"], "queued": found["queued"]}
    terms |= {name: n for name, n in found.items() if name.startswith("dropped_total")}
    return found["accepted_total"], terms


def _judge(soak: Soak, probe: Producer) -> None:
    """Slopes and plots of what was seen; nothing here waits for the service."""
    run, samples = soak.run, soak.samples
    for name, unit in (("rss", "MiB"), ("descriptors", ""), ("latency", "ms"), ("log", "MiB")):
        points = samples.of.get(name, [])
        run.plot(line("soak", f"{name} over time", "seconds", unit or "count", **{name: points}))
        if run.sizes["soak_s"] < SLOPE_S_MIN:
            run.not_run(f"soak.{name}", f"a slope needs {SLOPE_S_MIN:g} s at least: --hours {SLOPE_S_MIN / 3600:.2g}")
            continue
        if len(points) < POINTS_MIN:
            continue  # no figure: it fails
        found: Slope = slope(points)
        grown = found.per_hour - found.error if found.grows else 0.0
        share = 100 * grown / found.mean if found.mean else 0.0
        note = (
            f"{found.per_hour:+.3g} {unit} an hour, twice the standard error {found.error:.3g}, mean {found.mean:.4g}"
        )
        run.measure(f"soak.{name}", share, note)
    accepted = samples.of.get("accepted", [])
    rates = [(b[0], (b[1] - a[1]) / (b[0] - a[0])) for a, b in pairwise(accepted)]
    run.plot(line("soak", "Signals accepted a second", "seconds", "signals/s", rate=rates))
    latencies = sorted(1e3 * s for _, s in list(probe.latencies))
    run.plot(histogram("soak", "Acknowledgements of a small producer", "ms", latencies))
    if latencies:
        run.measure("soak.p99", latencies[int(0.99 * len(latencies))], f"{len(latencies):,} frames, bursts included")
    run.measure("soak.lost-connections", probe.lost_connections)
    run.measure("soak.loads-failed", soak.loads_failed, f"of {1 + soak.bursts}")
    run.measure("soak.scrapes-failed", soak.probes.failed, soak.probes.note)


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
            Criterion("soak.loads-failed", "Processes of producers that failed", Threshold("==", 0), "", command),
            scrapes("soak", command),
        ),
        run,
    )
