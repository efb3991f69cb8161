"""The history checker: what producers were acknowledged, against what the log holds and the state that it gives.

Pure but for reading the data directory; one thread.

For each producer: every acknowledged signal is in the log, once, in its place, and nothing that was never sent is.
For the whole: the last snapshot's state and outputs are, bit for bit, those of an inline replay of the log, which is a
run that nothing interrupted. `prove` plants a loss, a duplicate and a reorder and tells which of them it then finds.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from bitactor.testing.history import Truth, assert_same_state, newest_snapshot, read_log
from bitactor.validation.campaign import DefectFoundError
from bitactor.validation.producers import Producer

if TYPE_CHECKING:
    from bitactor import App


LOOKAHEAD: Final = 10_000  # signals beyond what was acknowledged that are still told apart from foreign ones


@dataclass(frozen=True, slots=True)
class Sent:
    """What one producer knows: its stream, and how much of it was acknowledged."""

    label: str
    number: int
    signals: npt.NDArray[Any]
    acked: int


@dataclass(slots=True)
class Findings:
    """What was found: counts over all producers, and a sentence for each thing that is wrong."""

    acked: int = 0
    logged: int = 0
    lost: int = 0  # acknowledged, and not in the log
    duplicated: int = 0
    reordered: int = 0
    foreign: int = 0  # in the log, and never sent
    state_differs: int = 0
    outputs: int = 0
    records: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether every promise was kept."""
        return not self.problems and not (self.lost or self.duplicated or self.reordered or self.foreign)

    def require(self) -> "Findings":
        """Itself if good. DefectFoundError names what is not."""
        if not self.good:
            raise DefectFoundError("; ".join(self.problems[:5]) or f"{self}")
        return self

    def add(self, other: "Findings") -> None:
        """Sum up over several runs."""
        for name in (
            "acked",
            "logged",
            "lost",
            "duplicated",
            "reordered",
            "foreign",
            "state_differs",
            "outputs",
            "records",
        ):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.problems += other.problems


def known_of(producers: Iterable[Producer]) -> list[Sent]:
    """What these producers know now."""
    return [Sent(one.label, one.number, one.signals, one.acked) for one in producers]


def check(data: Path, app: "App", sent: Sequence[Sent], *, snapshot: bool = True) -> Findings:
    """Judge a data directory that nobody serves, whose log begins at record 0. snapshot: an orderly stop left one."""
    try:
        truth = read_log(data, app)
    except AssertionError as error:
        findings = Findings(problems=[str(error)])
        findings.duplicated += 1
        return findings
    findings = check_signals(truth.sent, sent)
    findings.records = truth.records
    _check_whole(findings, truth)
    if snapshot:
        _check_snapshot(findings, data, truth)
    return findings


def check_signals(logged: dict[int, npt.NDArray[Any]], sent: Sequence[Sent]) -> Findings:
    """Compare what the log holds of each producer with what it knows."""
    findings = Findings()
    for one in sent:
        got = logged.get(one.number, one.signals[:0])
        findings.acked += one.acked
        findings.logged += len(got)
        if len(got) >= one.acked and got.tobytes() == one.signals[: len(got)].tobytes():
            continue
        _classify(findings, one, got)
    strangers = logged.keys() - {one.number for one in sent}
    for number in strangers:
        findings.foreign += len(logged[number])
        findings.problems.append(f"producer {number} is in the log, and none of that name sent")
    return findings


def _classify(findings: Findings, one: Sent, got: npt.NDArray[Any]) -> None:
    upto = max(one.acked, len(got)) + LOOKAHEAD
    places = {bytes(row): at for at, row in enumerate(_rows(one.signals[:upto]))}
    found = [places.get(bytes(row)) for row in _rows(got)]
    known = [at for at in found if at is not None]
    times = Counter(known)
    lost = one.acked - sum(1 for at in times if at < one.acked)
    duplicated = sum(n - 1 for n in times.values())
    highest, reordered = -1, 0
    for at in known:
        reordered += at < highest
        highest = max(highest, at)
    reordered = max(0, reordered - duplicated)
    findings.lost += lost
    findings.duplicated += duplicated
    findings.reordered += reordered
    findings.foreign += len(found) - len(known)
    findings.problems.append(
        f"{one.label}: of {one.acked} acknowledged signals {lost} are not in the log; {duplicated} are there again, "
        f"{reordered} out of order, {len(found) - len(known)} were never sent"
    )
    if not (lost or duplicated or reordered or len(found) - len(known)):  # a hole behind what was acknowledged
        findings.reordered += 1


def _rows(signals: npt.NDArray[Any]) -> npt.NDArray[Any]:
    contiguous: npt.NDArray[Any] = np.ascontiguousarray(signals)
    return contiguous.view(f"V{contiguous.dtype.itemsize}")


def _check_whole(findings: Findings, truth: Truth) -> None:
    total = sum(map(len, truth.sent.values()))
    if truth.position != total:
        findings.problems.append(f"the log's end is {truth.position}, and producers have {total} signals in it")
    findings.outputs = len(truth.outputs)


def _check_snapshot(findings: Findings, data: Path, truth: Truth) -> None:
    snapshot, state = newest_snapshot(data)
    if snapshot.meta["sequence"] != truth.records:
        findings.problems.append(
            f"the last snapshot is of record {snapshot.meta['sequence']}, the log has {truth.records}"
        )
        return
    try:
        assert_same_state(state, truth.state)
    except AssertionError as error:
        findings.state_differs += 1
        findings.problems.append(f"the state is not that of an inline replay of the log: {error}")
    kept = bytes(snapshot.sections["outputs"])
    expected = truth.outputs.tobytes()
    if not expected.endswith(kept) or (not kept and expected):
        findings.state_differs += 1
        findings.problems.append("the outputs are not those of an inline replay of the log")


def prove(logged: dict[int, npt.NDArray[Any]], sent: Sequence[Sent]) -> dict[str, bool]:
    """Plant a loss, a duplicate, a reorder and a foreign signal into what was logged; whether each is found as such."""
    number = max(sent, key=lambda one: one.acked).number
    good = logged[number]
    middle = len(good) // 2

    def found(damaged: npt.NDArray[Any], what: str) -> bool:
        findings = check_signals({**logged, number: damaged}, sent)
        return not findings.good and getattr(findings, what) > 0

    swapped, changed = good.copy(), good.copy()
    swapped[[middle, middle + 1]] = good[[middle + 1, middle]]
    changed["key"][middle] ^= np.uint64(1 << 40)
    acked = next(one.acked for one in sent if one.number == number)
    return {
        "loss": found(np.delete(good, middle), "lost"),
        "loss at the end": found(good[: acked - 1], "lost"),
        "duplicate": found(np.insert(good, middle, good[middle]), "duplicated"),
        "duplicate at the end": found(np.append(good, good[-1:]), "duplicated"),
        "reorder": found(swapped, "reordered"),
        "foreign": found(changed, "foreign"),
    }
