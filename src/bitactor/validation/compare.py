"""Two reports side by side: what became worse, better, appeared or went. Pure."""

from dataclasses import dataclass
from typing import Final

from bitactor.validation.criteria import Outcome, Verdict
from bitactor.validation.report import Report, figure_text

_RANK: Final = {Verdict.PASS: 0, Verdict.WARN: 1, Verdict.NOT_RUN: 2, Verdict.FAIL: 3}
SHIFT: Final = 0.2  # a figure that went this share towards its bound is told, though its verdict is the same


@dataclass(frozen=True, slots=True)
class Change:
    """One criterion in both reports. kind: "regression", "improvement", "shift", "new" or "gone"."""

    kind: str
    id: str
    text: str


def compare(old: Report, new: Report) -> list[Change]:
    """What differs, regressions first. A count that adds up no more is one; so is a criterion that is gone."""
    before = {outcome.criterion.id: outcome for outcome in old.outcomes}
    after = {outcome.criterion.id: outcome for outcome in new.outcomes}
    found = [_changed(before[id_], after[id_]) for id_ in before if id_ in after]
    found += [
        Change("gone", id_, f"was {_told(before[id_])}, is not measured any more") for id_ in before.keys() - after
    ]
    found += [Change("new", id_, _told(after[id_])) for id_ in after.keys() - before.keys()]
    good = {count.id for count in old.counts if count.agrees}
    found += [
        Change("regression", count.id, f"does not add up any more: {count}")
        for count in new.disagreements
        if count.id in good
    ]
    order = ("regression", "gone", "shift", "improvement", "new")
    return sorted((each for each in found if each), key=lambda change: (order.index(change.kind), change.id))


def machines_differ(old: Report, new: Report) -> str:
    """Why figures of the two may not be compared; empty when nothing speaks against it."""
    said = []
    if old.machine.get("name") != new.machine.get("name") or old.machine.get("cores") != new.machine.get("cores"):
        said.append(f"the machines differ: {old.machine.get('name')} and {new.machine.get('name')}")
    if (old.kind, old.profile) != (new.kind, new.profile):
        said.append(f"{old.kind} {old.profile} and {new.kind} {new.profile} are not the same measurements")
    return "; ".join(said)


def _changed(old: Outcome, new: Outcome) -> Change | None:
    id_ = new.criterion.id
    if _RANK[new.verdict] != _RANK[old.verdict]:
        worse = _RANK[new.verdict] > _RANK[old.verdict]
        return Change("regression" if worse else "improvement", id_, f"{_told(old)} -> {_told(new)}")
    if old.figure and new.figure is not None:
        share = (new.figure - old.figure) / abs(old.figure)
        if new.criterion.threshold.op in {">", ">="}:
            share = -share
        if new.criterion.threshold.op != "==" and share > SHIFT:
            return Change("shift", id_, f"{_told(old)} -> {_told(new)}, {share:.0%} towards its bound")
    return None


def _told(outcome: Outcome) -> str:
    return f"{str(outcome.verdict).replace('-', ' ')} ({figure_text(outcome)})"
