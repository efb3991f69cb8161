"""The report of a campaign: outcomes, counts, plots, the machine; its totals; as JSON and back. Pure; any thread.

planned = pass + fail + warn + not-run;  a report is good iff it has no fail and every count agrees
"""

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from bitactor.validation.criteria import Count, Outcome, Verdict
from bitactor.validation.plots import Plot

FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a campaign: what it did, in a sentence; error: what ended it early, if anything did."""

    name: str
    title: str
    seconds: float
    error: str = ""


@dataclass(slots=True)
class Report:
    """Everything that a campaign found. kind: validate, chaos or soak."""

    kind: str
    profile: str
    command: str
    commit: str
    machine: dict[str, Any]
    seed: int
    started: str
    seconds: float = 0.0
    outcomes: list[Outcome] = field(default_factory=list)
    counts: list[Count] = field(default_factory=list)
    sections: list[Section] = field(default_factory=list)
    plots: list[Plot] = field(default_factory=list)
    interrupted: bool = False

    @property
    def totals(self) -> dict[str, int]:
        """How many criteria have each verdict; all four, also where none has."""
        found = Counter(str(outcome.verdict) for outcome in self.outcomes)
        return {str(verdict): found[str(verdict)] for verdict in Verdict}

    @property
    def disagreements(self) -> list[Count]:
        """Counts that do not add up, those of this report itself included."""
        own = Count("report.criteria", {"planned": len(self.outcomes)}, self.totals)
        return [count for count in (*self.counts, own) if not count.agrees]

    @property
    def failures(self) -> list[Outcome]:
        """Criteria that failed."""
        return [outcome for outcome in self.outcomes if outcome.verdict == Verdict.FAIL]

    @property
    def good(self) -> bool:
        """Whether nothing failed, no section ended early and every count adds up; see `totals` for the rest."""
        early = any(section.error for section in self.sections)
        return bool(self.outcomes) and not (early or self.failures or self.disagreements)

    @property
    def risks(self) -> list[tuple[str, str]]:
        """(severity, sentence) of what failed, did not add up, warned or was not run; the gravest first."""
        found = [("high", f"{count.id} does not add up: {count}") for count in self.disagreements]
        found += [("high", f"{each.title} ended early: {each.error}") for each in self.sections if each.error]
        ended = {each.name for each in self.sections if each.error}
        rows = {
            Verdict.FAIL: ("high", "{0.criterion.title}: {1}, wanted {0.criterion.threshold}. {0.note}"),
            Verdict.WARN: ("medium", "{0.criterion.title}: {1}, {0.criterion.threshold}. {0.note}"),
            Verdict.NOT_RUN: ("unknown", "{0.criterion.title} was not run: {0.note}"),
        }
        for verdict, (severity, sentence) in rows.items():
            for outcome in self.outcomes:
                told = outcome.figure is None and outcome.criterion.section in ended
                if outcome.verdict == verdict and not told:
                    found.append((severity, sentence.format(outcome, figure_text(outcome)).strip()))
        return found

    def to_json(self) -> dict[str, Any]:
        """JSON-able; `from_json` gives the report back."""
        name = str(self.machine.get("name", ""))
        return {
            "format": FORMAT,
            "kind": self.kind,
            "profile": self.profile,
            "good": self.good,
            "totals": self.totals,
            "command": self.command,
            "commit": self.commit,
            "machine": self.machine,
            "seed": self.seed,
            "started": self.started,
            "seconds": round(self.seconds, 3),
            "criteria": [outcome.to_json(name, self.commit) for outcome in self.outcomes],
            "counts": [count.to_json() for count in self.counts],
            "risks": [{"severity": severity, "risk": sentence} for severity, sentence in self.risks],
            "sections": [
                {"name": each.name, "title": each.title, "seconds": round(each.seconds, 3), "error": each.error}
                for each in self.sections
            ],
            "plots": [plot.to_json() for plot in self.plots],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The report that to_json wrote. ValueError: another format, or verdicts that its figures do not give."""
        if data.get("format") != FORMAT:
            raise ValueError(f"report format {data.get('format')!r}; this program knows {FORMAT}")
        report = cls(
            *(data["kind"], data["profile"], data["command"], data["commit"], data["machine"], data["seed"]),
            *(data["started"], data["seconds"]),
            [Outcome.from_json(row) for row in data["criteria"]],
            [Count(row["id"], row["left"], row["right"]) for row in data["counts"]],
            [Section(row["name"], row["title"], row["seconds"], row["error"]) for row in data["sections"]],
            [Plot.from_json(row) for row in data["plots"]],
        )
        if report.totals != data["totals"] or report.good != data["good"]:
            raise ValueError(
                f"its totals {data['totals']} are not what its rows give, {report.totals}: changed by hand"
            )
        return report


def load(path: Path) -> Report:
    """Read a report's JSON. OSError; ValueError says what is wrong with it."""
    try:
        return Report.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (KeyError, TypeError, ValueError) as error:
        said = f"{error}" if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise ValueError(f"{path} is no report of this program: {said}") from error


def figure_text(outcome: Outcome) -> str:
    """The figure with its unit, for people."""
    if outcome.figure is None:
        return "no figure"
    return f"{number(outcome.figure)} {outcome.criterion.unit}".strip()


def number(value: float) -> str:
    """Whole numbers whole, others with four digits."""
    if value == int(value) if value - value == 0 else False:
        return f"{int(value):,}"
    return f"{value:,.4g}"
