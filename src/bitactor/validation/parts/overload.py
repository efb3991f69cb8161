"""Ten times more than the usual load: bounded memory, nothing acknowledged lost, latency back at once."""

import time
from typing import Any

import numpy.typing as npt

from bitactor import text_key
from bitactor.testing.history import assert_same_state, newest_snapshot, read_log
from bitactor.validation.campaign import DefectFoundError, Part, Run
from bitactor.validation.criteria import Criterion, Threshold
from bitactor.validation.load import Checked, Load, signals_at
from bitactor.validation.plots import line
from bitactor.validation.probes import Probes
from bitactor.validation.probes import criterion as scrapes
from bitactor.validation.producers import Producer
from bitactor.validation.service import Served
from bitactor.validation.streams import input_kinds, stream

COMMAND = "bitactor validate --only overload"
WINDOW = 65_536
# As many snapshots kept as ever are taken, and room for all that a fast machine takes in: nothing of the log is
# removed, because it is compared whole.
SETTINGS: dict[str, Any] = {
    "snapshot_every_s": 3600, "snapshot_keep": 1000, "log_size_bytes_max": 1 << 40, "engine_ring_signals": 16384,
    "outputs_window": WINDOW,
}  # fmt: skip
MIB = 1 << 20
# docs/service.md, "Sizing": the process, records and ring, SQLite's pages, and the outputs' window.
BOUND_BYTES = 130 * MIB + 30 * MIB + 16 * MIB + 48 * WINDOW
PAUSE_S = 0.01  # between the probe's frames
SENDERS = 10


def p99(values: list[float]) -> float:
    """The value that one in a hundred is above; NaN of none."""
    return sorted(values)[int(len(values) * 0.99)] if values else float("nan")


class Watch:
    """Memory and acknowledged signals of a service over time, and the probe's latencies."""

    def __init__(self, served: Served, probe: Producer, probes: Probes) -> None:
        self.served, self.probe, self.probes = served, probe, probes
        self.begun = time.monotonic()
        self.memory: list[tuple[float, float]] = []
        self.rates: list[tuple[float, float]] = []
        self._last = (self.begun, 0.0)

    def now(self) -> float:
        """Seconds since the watch began."""
        return time.monotonic() - self.begun

    def look(self, seconds: float) -> None:
        """Take samples for so long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.memory.append((self.now(), self.served.rss_bytes() / MIB))
            if (metrics := self.probes.metrics()) is not None:
                now, accepted = time.monotonic(), metrics["bitactor_signals_accepted_total"]
                self.rates.append((now - self.begun, (accepted - self._last[1]) / (now - self._last[0])))
                self._last = (now, accepted)
            time.sleep(0.2)

    def p99_between(self, begin: float, end: float) -> float:
        """Of the probe's acknowledgements in that time, in ms."""
        return p99([1e3 * s for at, s in list(self.probe.latencies) if begin <= at - self.begun < end])


def run(run: Run) -> None:
    """Find what the service takes, run a twentieth of it, then ten producers without limit, then a twentieth again."""
    template = stream(run.app, "overload", 65_536, run.seed % 2**32, kinds=input_kinds(run.app)[:1])
    loads: list[dict[str, int]] = []
    with Served(run.directory, run.app_file, **SETTINGS) as served:
        served.start().ready()
        probe = Producer(
            served.data, served.port, "probe", signals_at(template, 0, 200_000), seed=run.seed, frame_max=20
        )
        probe.pause_s, probe.keep_latencies = PAUSE_S, True
        probe.start()
        watch = Watch(served, probe, Probes(served, run.happened))
        run.say("finding what it takes")
        loads.append(_load(run, served, template, "find", run.sizes["overload_find_s"], 0, watch)[0])
        capacity = sum(loads[-1].values()) / run.sizes["overload_find_s"]
        run.say(f"a twentieth of {capacity:,.0f} signals/s")
        begun = watch.now()
        loads.append(_load(run, served, template, "before", run.sizes["overload_base_s"], capacity / 20, watch)[0])
        usual, baseline = sum(loads[-1].values()) / run.sizes["overload_base_s"], watch.p99_between(begun + 0.5, 1e9)
        run.say("ten producers without a limit")
        run.happened("overload", "begins")
        acked, lasted = _load(run, served, template, "over", run.sizes["overload_s"], 0, watch)
        loads.append(acked)
        run.happened("overload", "ends")
        over, ended = sum(acked.values()) / lasted, watch.now()
        run.say("the usual load again")
        loads.append(_load(run, served, template, "after", run.sizes["overload_base_s"], capacity / 20, watch)[0])
        recovered = _recovered(watch, ended, baseline)
        memory = max(m for _, m in watch.memory)
        probe.end_after()
        probe.finished()
        refusals = {k: v for k, v in watch.probes.insist().items() if k.startswith("bitactor_ingest_refused_total")}
        if (status := served.stop()) != 0:
            raise DefectFoundError(f"SIGTERM ended it with status {status}: {served.errors()}")
        _compare(run, served, template, loads, probe)
    run.measure("overload.seconds", lasted, f"{SENDERS} producers that sent all the time")
    run.measure("overload.factor", over / usual, f"{over:,.0f} signals/s taken against {usual:,.0f} usually")
    run.measure(
        "overload.memory", memory * MIB / BOUND_BYTES, f"{memory:,.0f} MiB; the bound is {BOUND_BYTES / MIB:,.0f} MiB"
    )
    run.measure(
        "overload.recovered", recovered, f"p99 {baseline:.1f} ms before; {sum(refusals.values()):,.0f} refusals"
    )
    run.measure("overload.scrapes-failed", watch.probes.failed, watch.probes.note)
    run.plot(line("overload", "Memory of the service", "seconds", "MiB", memory=watch.memory))
    run.plot(line("overload", "Signals taken a second", "seconds", "signals/s", rate=watch.rates))
    latency = [(at - watch.begun, 1e3 * s) for at, s in probe.latencies]
    run.plot(line("overload", "Acknowledgements of a small producer", "seconds", "ms", latency=latency))


def _load(
    run: Run, served: Served, template: npt.NDArray[Any], name: str, seconds: float, rate: float, watch: Watch
) -> tuple[dict[str, int], float]:
    names = [f"{name}{number}" for number in range(SENDERS)]
    batch = 8192 if not rate else 512
    load = Load(run.directory, served.data, served.port, template, names, seconds, rate=rate, batch=batch)
    try:
        while load.process.poll() is None and time.monotonic() - load.begun < seconds + 240:
            watch.look(0.2)
        return load.result(5), load.sending_s
    finally:
        load.stop()


def _recovered(watch: Watch, ended: float, baseline: float) -> float:
    """Seconds after the overload until a second's p99 is within a fifth of what it was; infinite if never."""
    at, last = ended, watch.now()
    while at + 1 <= last:
        found = watch.p99_between(at, at + 1)
        if found <= 1.2 * baseline:
            return at - ended
        at += 0.1
    return float("inf")


def _compare(
    run: Run, served: Served, template: npt.NDArray[Any], loads: list[dict[str, int]], probe: Producer
) -> None:
    checked = Checked(template)
    truth = read_log(served.data, run.app, checked.frame)
    acked = {text_key(name): n for load in loads for name, n in load.items()} | {probe.number: probe.acked}
    lost = sum(max(0, n - checked.reached.get(number, 0)) for number, n in acked.items())
    differs = 0
    try:
        assert_same_state(newest_snapshot(served.data)[1], truth.state)
    except AssertionError:
        differs = 1
    run.count(
        "overload.signals", {"in the log": sum(checked.reached.values())}, {"position of its end": truth.position}
    )
    run.measure("overload.lost", lost, f"{sum(acked.values()):,} acknowledged; each compared with what was sent")
    run.measure("overload.state", differs, "against an inline replay of the log")


PART = Part(
    "overload",
    "Overload",
    (
        Criterion("overload.factor", "Load against the usual", Threshold(">=", 10), "times", COMMAND),
        Criterion("overload.seconds", "For so long", Threshold(">=", 1), "s", COMMAND, at_least="overload_s"),
        Criterion("overload.memory", "Memory against the configured bound", Threshold("<=", 1.25), "times", COMMAND),
        Criterion("overload.lost", "Acknowledged signals lost", Threshold("==", 0), "signals", COMMAND),
        Criterion("overload.state", "States unlike an uninterrupted run's", Threshold("==", 0), "", COMMAND),
        scrapes("overload", COMMAND),
        Criterion("overload.recovered", "p99 within 20% of before after", Threshold("<=", 2), "s", COMMAND),
    ),
    run,
)
