"""Pods of a release deleted, killed inside, evicted and cut off under load, on the cluster of KUBECONFIG.

The history is what one producer sends. At the end the service must know of every acknowledged signal, and each key's
state must be that of an inline run of the history: a loss, a duplicate or a changed order shows as another state. So it
needs no records, which a running release removes behind its snapshots, and works with any log.
"""

from dataclasses import dataclass
from typing import Any, Final

from bitactor.validation.campaign import Part, Run
from bitactor.validation.criteria import Criterion, Threshold
from bitactor.validation.kubernetes.kubectl import KubectlError
from bitactor.validation.kubernetes.pods import Client
from bitactor.validation.kubernetes.release import find
from bitactor.validation.kubernetes.strikes import KINDS, Struck
from bitactor.validation.plots import line

COMMAND: Final = "bitactor chaos --kubernetes NAMESPACE"
RATE: Final = 1000  # signals a second
GAP_S: Final = 60.0  # without an acknowledgement; a release of one pod restarts it on the same volume
GAP_WARN_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class Round:
    """One strike. begun, ended: seconds since the client began."""

    kind: str
    hit: bool
    seen: str
    begun: float
    ended: float


def run(run: Run) -> None:
    """Each kind in turn, so many rounds; the pods that it makes are removed, whatever happens."""
    given = run.target or {}
    release = find(given["namespace"], given.get("release"), given.get("token_secret"))
    rounds: list[Round] = []
    with Client(release, f"chaos-{run.seed}", run.seed % 2**32) as client:
        struck = Struck(release, client)
        try:
            release.settled()
            client.begin(RATE)
            for number in range(run.size("kubernetes_rounds")):
                rounds.append(_round(run, struck, list(KINDS)[number % len(KINDS)], number))
            sent = client.end()
        finally:
            struck.killer.remove()
        run.say("comparing states")
        found = client.judge(sent["sent"])
    _rounds(run, rounds, sent["gaps"])
    _judgement(run, sent, found)


def _round(run: Run, struck: Struck, kind: str, number: int) -> Round:
    release, client = struck.release, struck.client
    run.say(f"round {number + 1}: {kind}")
    pods = sorted(release.pods(ready=True), key=lambda pod: str(pod["metadata"]["name"]))
    pod = run.random(f"round {number}").choice(pods)
    begun = client.elapsed()
    try:
        hit, seen = KINDS[kind](struck, pod)
    except KubectlError as error:
        hit, seen = False, str(error)
    run.happened(kind, seen)
    release.settled()
    return Round(kind, hit, seen, begun, client.elapsed())


def _rounds(run: Run, rounds: list[Round], gaps: list[list[float]]) -> None:
    kinds = ", ".join(f"{sum(one.kind == kind for one in rounds)} {kind}" for kind in KINDS)
    run.measure("kubernetes.rounds", len(rounds), kinds)
    missed = [f"{one.kind}: {one.seen}" for one in rounds if not one.hit]
    run.measure("kubernetes.not-hit", len(missed), "; ".join(missed)[:600])
    longest = [
        max((end - at for at, end in gaps if at <= one.ended and end >= one.begun), default=0.0) for one in rounds
    ]
    worst = max(range(len(rounds)), key=longest.__getitem__, default=None)
    note = "" if worst is None else f"round {worst + 1}, {rounds[worst].kind}"
    run.measure("kubernetes.gap", max(longest, default=0.0), note)
    points = [(float(number), gap) for number, gap in enumerate(longest, 1)]
    run.plot(line("kubernetes", "Longest time without an acknowledgement", "round", "seconds", gap=points))


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
