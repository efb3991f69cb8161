"""Pods of a release deleted, killed inside, evicted and cut off under load, on the cluster of KUBECONFIG.

The history is what one producer sends. At the end the service must know of every acknowledged signal, and each key's
state must be that of an inline run of the history: a loss, a duplicate or a changed order shows as another state. So it
needs no records, which a running release removes behind its snapshots, and works with any log.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from bitactor.validation.campaign import Part, Run
from bitactor.validation.criteria import Criterion, Threshold
from bitactor.validation.kubernetes.kubectl import KubectlError
from bitactor.validation.kubernetes.pods import Client
from bitactor.validation.kubernetes.strikes import KINDS, Struck
from bitactor.validation.plots import line

if TYPE_CHECKING:
    from bitactor.validation.kubernetes.release import Release

COMMAND: Final = "bitactor chaos --kubernetes NAMESPACE"
RATE: Final = 1000  # signals a second
GAP_S: Final = 60.0  # without an acknowledgement; a release of one pod restarts it on the same volume
GAP_WARN_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class Round:
    """One strike. begun: seconds since the client began."""

    kind: str
    hit: bool
    seen: str
    begun: float


def run(run: Run) -> None:
    """Each kind in turn, so many rounds; the pods that it makes are removed, whatever happens."""
    given = run.target or {}
    release: Release = given["release"]
    rounds: list[Round] = []
    with Client(release, f"chaos-{run.seed}", run.seed % 2**32) as client:
        struck = Struck(release, client, run.seed)
        try:
            pods = release.settled()
            client.begin(RATE)
            for number in range(run.size("kubernetes_rounds")):
                run.say(f"round {number + 1}")
                rounds.append(
                    _round(run, struck, list(KINDS)[number % len(KINDS)], run.random(f"{number}").choice(pods))
                )
                pods = release.settled()
            sent = client.end()
            _rounds(run, rounds, sent["gaps"])
        finally:
            struck.killer.remove()
        run.say("comparing states")
        _judgement(run, sent, client.judge(sent["sent"]))


def _round(run: Run, struck: Struck, kind: str, pod: dict[str, Any]) -> Round:
    begun = struck.client.elapsed()
    try:
        hit, seen = KINDS[kind](struck, pod)
    except KubectlError as error:
        hit, seen = False, str(error)
    run.happened(kind, seen)
    return Round(kind, hit, seen, begun)


def _rounds(run: Run, rounds: list[Round], gaps: list[list[float]]) -> None:
    kinds = ", ".join(f"{sum(one.kind == kind for one in rounds)} {kind}" for kind in KINDS)
    run.measure("kubernetes.rounds", len(rounds), kinds)
    missed = [f"{one.kind}: {one.seen}" for one in rounds if not one.hit]
    run.measure("kubernetes.not-hit", len(missed), "; ".join(missed)[:600])
    at, end = max(gaps, key=lambda gap: gap[1] - gap[0], default=[0.0, 0.0])
    before = [number for number, one in enumerate(rounds, 1) if one.begun <= end]
    note = f"in round {before[-1]}, {rounds[before[-1] - 1].kind}" if before else ""
    run.measure("kubernetes.gap", end - at, note)
    points = [(begin, finish - begin) for begin, finish in gaps]
    run.plot(line("kubernetes", "Times without an acknowledgement", "seconds since the first", "seconds", gap=points))


def _judgement(run: Run, sent: dict[str, Any], found: dict[str, Any]) -> None:
    run.count("kubernetes.signals", {"sent": sent["sent"]}, {"acknowledged": sent["acked"]})
    run.measure(
        "kubernetes.lost", abs(sent["acked"] - found["next"]),
        f"{sent['acked']:,} acknowledged, and a new connection of the producer is told {found['next']:,}",
    )  # fmt: skip
    examples = "; ".join(found["examples"])[:600]
    run.measure(
        "kubernetes.state", found["differ"], f"{found['compared']:,} states compared{'; ' * bool(examples)}{examples}"
    )
    planted = dict(found["planted"])
    ordered = planted.pop("reorder")
    unseen = [what for what, seen in planted.items() if not seen]
    note = f"planted: {', '.join([*planted, *(['reorder'] * ordered)])}"
    if unseen:
        note += f"; not found: {', '.join(unseen)}"
    if not ordered:
        note += "; this app's states do not show the order"
    run.measure("kubernetes.checker", len(unseen), note)


PART = Part(
    "kubernetes",
    "Pods of a release struck under load",
    (
        Criterion(
            "kubernetes.rounds", "Rounds of faults survived", Threshold(">=", 0), "", COMMAND,
            at_least="kubernetes_rounds",
        ),
        Criterion("kubernetes.not-hit", "Faults that did not hit", Threshold("==", 0), "rounds", COMMAND),
        Criterion(
            "kubernetes.gap", "Longest time without an acknowledgement", Threshold("<=", GAP_S, warn=GAP_WARN_S), "s",
            COMMAND,
        ),
        Criterion("kubernetes.lost", "Acknowledged signals not known any more", Threshold("==", 0), "signals", COMMAND),
        Criterion("kubernetes.state", "States unlike an inline run of what was sent", Threshold("==", 0), "", COMMAND),
        Criterion("kubernetes.checker", "Defects planted and not found", Threshold("==", 0), "defects", COMMAND),
    ),
    run,
)  # fmt: skip
