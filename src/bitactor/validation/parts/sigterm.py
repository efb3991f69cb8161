"""SIGTERM while signals are in flight, many times: exit 0, everything acknowledged kept, nothing to replay."""

import time

from bitactor.validation.campaign import Part, Run
from bitactor.validation.criteria import Criterion, Threshold
from bitactor.validation.plots import line
from bitactor.validation.served import promises, tell, world

COMMAND = "bitactor validate --only sigterm"


def run(run: Run) -> None:
    """Start, wait for acknowledgements, SIGTERM; again."""
    rounds, chance = run.size("sigterms"), run.random("sigterm")
    good = replayed = 0
    took: list[tuple[float, float]] = []
    with world(run, snapshot_every_s=3600) as w:
        for turn in range(rounds):
            run.say(f"SIGTERM {turn + 1} of {rounds}")
            replayed += w.served.start().ready()["replayed"]
            w.wait_for_acks(chance.randint(500, 2000))
            begun = time.monotonic()
            status = w.served.stop()
            took.append((float(turn), time.monotonic() - begun))
            good += status == 0
            run.happened("SIGTERM", f"round {turn + 1}: status {status}")
        w.served.start().ready()
        w.finish(1000)
        findings = w.judge()
    run.measure("sigterm.rounds", len(took), "each with signals in flight")
    run.measure("sigterm.exits", good / rounds, f"{good} of {rounds} ended with status 0")
    run.measure("sigterm.replayed", replayed, "signals, over all starts after an orderly stop")
    run.measure("sigterm.seconds", max(seconds for _, seconds in took), "the longest, from the signal to the exit")
    tell(run, "sigterm", findings)
    run.plot(line("sigterm", "From SIGTERM to the exit", "round", "seconds", took=took))


PART = Part(
    "sigterm",
    "SIGTERM under load",
    (
        Criterion("sigterm.rounds", "SIGTERMs under load", Threshold(">=", 1), "", COMMAND, at_least="sigterms"),
        Criterion("sigterm.exits", "Share of exits with status 0", Threshold("==", 1), "", COMMAND),
        Criterion("sigterm.replayed", "Signals replayed after an orderly stop", Threshold("==", 0), "signals", COMMAND),
        Criterion("sigterm.seconds", "The longest stop", Threshold("<=", 30), "s", COMMAND),
        *promises("sigterm", COMMAND),
    ),
    run,
)
