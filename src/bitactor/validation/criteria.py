"""What a campaign claims before it runs, and what became of each claim. Pure data; any thread.

A criterion is declared with its threshold before anything is measured. Its verdict is computed from the figure here and
nowhere else: nobody can hand one in. A criterion without a figure fails, unless somebody said why it was not run.
"""

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final


class Verdict(StrEnum):
    """What became of a criterion. A warning is not a pass, and what was not run is neither."""

    PASS = "pass"  # noqa: S105
    FAIL = "fail"
    WARN = "warn"
    NOT_RUN = "not-run"


_OPERATORS: Final[dict[str, Callable[[float, float], bool]]] = {
    "<=": operator.le,
    "<": operator.lt,
    "==": operator.eq,
    ">=": operator.ge,
    ">": operator.gt,
}


@dataclass(frozen=True, slots=True)
class Threshold:
    """`figure OP bound` must hold; warn: a stricter bound, missing which is a warning."""

    op: str
    bound: float
    warn: float | None = None

    def __post_init__(self) -> None:
        if self.op not in _OPERATORS:
            raise ValueError(f"{self.op!r} is no comparison: {' '.join(_OPERATORS)}")
        if self.warn is not None and not _OPERATORS[self.op](self.warn, self.bound):
            raise ValueError(f"a warning at {self.warn} would come after a failure: {self}")

    def verdict(self, figure: float) -> Verdict:
        """PASS, WARN or FAIL; a figure that is no number fails."""
        if math.isnan(figure) or not _OPERATORS[self.op](figure, self.bound):
            return Verdict.FAIL
        if self.warn is not None and not _OPERATORS[self.op](figure, self.warn):
            return Verdict.WARN
        return Verdict.PASS

    def __str__(self) -> str:
        return f"{self.op} {self.bound:,.10g}" + (f" (warns beyond {self.warn:,.10g})" if self.warn is not None else "")


@dataclass(frozen=True, slots=True)
class Criterion:
    """One claim: its figure must keep its threshold. id: unique, `section.name`. command: how to measure it alone.

    at_least: the size of a profile that is the threshold's bound, where how much is done is the claim (`sized`).
    """

    id: str
    title: str
    threshold: Threshold
    unit: str = ""
    command: str = ""
    at_least: str = ""

    def sized(self, sizes: Mapping[str, float]) -> "Criterion":
        """The criterion as this profile has it: nothing less than what the profile sets out to do will pass."""
        if not self.at_least or self.at_least not in sizes:
            return self
        return replace(self, threshold=Threshold(">=", sizes[self.at_least]))

    @property
    def section(self) -> str:
        """The part of the campaign that measures it."""
        return self.id.partition(".")[0]


@dataclass(frozen=True, slots=True)
class Outcome:
    """A criterion and what was measured. figure: None when nothing was; note: what else there is to say, or why not."""

    criterion: Criterion
    figure: float | None
    note: str = ""
    not_run: bool = False
    seed: int | None = None
    seconds: float = 0.0

    @property
    def verdict(self) -> Verdict:
        """Computed, always."""
        if self.figure is None:
            return Verdict.NOT_RUN if self.not_run else Verdict.FAIL
        return self.criterion.threshold.verdict(self.figure)

    def to_json(self, machine: str, commit: str) -> dict[str, Any]:
        """A row of the report, complete in itself."""
        threshold = self.criterion.threshold
        return {
            "id": self.criterion.id,
            "section": self.criterion.section,
            "title": self.criterion.title,
            "command": self.criterion.command,
            "threshold": {"op": threshold.op, "bound": threshold.bound, "warn": threshold.warn},
            "figure": self.figure if self.figure is None or math.isfinite(self.figure) else repr(self.figure),
            "unit": self.criterion.unit,
            "verdict": str(self.verdict),
            "note": self.note,
            "seed": self.seed,
            "seconds": round(self.seconds, 3),
            "machine": machine,
            "commit": commit,
        }

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> "Outcome":
        """The outcome of a row. ValueError when the row's verdict is not what its figure and threshold give."""
        threshold = Threshold(row["threshold"]["op"], row["threshold"]["bound"], row["threshold"]["warn"])
        criterion = Criterion(row["id"], row["title"], threshold, row["unit"], row["command"])
        figure = None if row["figure"] is None else float(row["figure"])
        outcome = cls(criterion, figure, row["note"], row["verdict"] == "not-run", row["seed"], row["seconds"])
        if str(outcome.verdict) != row["verdict"]:
            raise ValueError(
                f"{row['id']} is said to {row['verdict']}, but {figure} {threshold} gives {outcome.verdict}: "
                "this report was changed by hand"
            )
        return outcome


@dataclass(frozen=True, slots=True)
class Count:
    """Terms that must add up: the sum of `left` is the sum of `right`, exactly. id: `section.name`."""

    id: str
    left: dict[str, int]
    right: dict[str, int] = field(default_factory=dict)

    @property
    def agrees(self) -> bool:
        """Whether nothing is missing and nothing too much."""
        return sum(self.left.values()) == sum(self.right.values())

    def __str__(self) -> str:
        def terms(side: dict[str, int]) -> str:
            return " + ".join(f"{name} {value:,}" for name, value in side.items()) or "0"

        return f"{terms(self.left)} {'=' if self.agrees else '≠'} {terms(self.right)}"

    def to_json(self) -> dict[str, Any]:
        """A row of the report."""
        return {"id": self.id, "left": self.left, "right": self.right, "agrees": self.agrees}
