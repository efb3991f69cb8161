"""Running the parts of a campaign and gathering what they find. One thread, the caller's; parts start their own.

A part declares its criteria before it runs. Whatever happens in it, each of them ends up in the report exactly once:
with a figure, with a reason why it was not run, or failed because neither came.
"""

import datetime as dt
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bitactor.validation import html, machine, markdown
from bitactor.validation.criteria import Count, Criterion, Outcome, Verdict
from bitactor.validation.places import stable
from bitactor.validation.plots import Plot, events
from bitactor.validation.report import Report, Section

if TYPE_CHECKING:
    from bitactor import App


INTERRUPTED: Final = "the campaign was interrupted before this was done"


class CannotRun(Exception):  # noqa: N818
    """This part, or the rest of it, cannot be run on this machine; the message says why and what would let it."""


class DefectFoundError(AssertionError):
    """Something that must hold does not; the message says what, where and with which seed."""


@dataclass(frozen=True, slots=True)
class Part:
    """A section of the report. run: called with the Run; criteria: all that it measures."""

    name: str
    title: str
    criteria: Sequence[Criterion]
    run: "Callable[[Run], None]"


@dataclass(slots=True)
class Run:
    """What a part is given: sizes, seed, a directory of its own, the app, and where its findings go."""

    sizes: dict[str, float]
    seed: int
    app: "App"
    app_file: str
    target: "dict[str, Any] | None" = None
    directory: Path = Path()
    say: Callable[[str], None] = lambda _: None
    _criteria: dict[str, Criterion] = field(default_factory=dict)
    _outcomes: dict[str, Outcome] = field(default_factory=dict)
    _counts: list[Count] = field(default_factory=list)
    _plots: list[Plot] = field(default_factory=list)
    _happened: list[tuple[float, str, str]] = field(default_factory=list)
    _begun: float = field(default_factory=time.monotonic)

    def size(self, name: str) -> int:
        """How much of something this profile does."""
        return int(self.sizes[name])

    def random(self, name: str) -> random.Random:
        """Chance for that purpose: the same for the same seed."""
        return random.Random(f"{self.seed} {name}")

    def measure(self, id_: str, figure: float, note: str = "") -> None:
        """Give a criterion its figure, once."""
        self._put(Outcome(self._criterion(id_), float(figure), note, seed=self.seed, seconds=self._elapsed()))

    def not_run(self, id_: str, why: str) -> None:
        """Say why a criterion has no figure here."""
        self._put(Outcome(self._criterion(id_), None, why, not_run=True, seed=self.seed, seconds=self._elapsed()))

    def count(self, id_: str, left: dict[str, int], right: dict[str, int]) -> None:
        """Terms that must add up."""
        self._counts.append(Count(id_, left, right))

    def plot(self, plot: Plot) -> None:
        """A picture for the part's section."""
        self._plots.append(plot)

    def happened(self, kind: str, what: str) -> None:
        """Note a fault for the timeline, now."""
        self._happened.append((time.monotonic() - self._begun, kind, what))

    def _criterion(self, id_: str) -> Criterion:
        if id_ not in self._criteria:
            raise KeyError(f"{id_} was not declared by this part")
        return self._criteria[id_]

    def _put(self, outcome: Outcome) -> None:
        if outcome.criterion.id in self._outcomes:
            raise ValueError(f"{outcome.criterion.id} was measured twice")
        self._outcomes[outcome.criterion.id] = outcome

    def _elapsed(self) -> float:
        return time.monotonic() - self._begun


def run_parts(report: Report, parts: Iterable[Part], run: Run, progress: "Progress | None" = None) -> Report:
    """Run the parts one after the other into the report; interrupted, what was not reached is not run, and said so."""
    parts = list(parts)
    begun = time.monotonic()
    ids = [criterion.id for part in parts for criterion in part.criteria]
    if len(set(ids)) != len(ids):
        raise ValueError("two parts declare the same criterion")
    for number, part in enumerate(parts, 1):
        if progress:
            progress.begin(number, len(parts), part.title)
        if report.interrupted:
            one = _left_out(part, run)
        else:
            one = _run_part(part, run, progress)
            report.interrupted = one[3].error == INTERRUPTED
        report.outcomes += one[0]
        report.counts += one[1]
        report.plots += one[2]
        report.sections.append(one[3])
        if progress:
            progress.end(one[0], one[3])
    report.seconds = time.monotonic() - begun
    return report


def _run_part(
    part: Part, run: Run, progress: "Progress | None"
) -> tuple[list[Outcome], list[Count], list[Plot], Section]:
    directory = Path(tempfile.mkdtemp(prefix=f"bitactor-{part.name}-"))
    mine = Run(run.sizes, run.seed, run.app, run.app_file, run.target, directory)
    criteria = [criterion.sized(run.sizes) for criterion in part.criteria]
    mine._criteria = {criterion.id: criterion for criterion in criteria}
    if progress:
        mine.say = progress.say
    begun, error, why = time.monotonic(), "", ""
    try:
        part.run(mine)
    except CannotRun as reason:
        why = str(reason)
    except KeyboardInterrupt:
        error = INTERRUPTED
    except Exception as failure:
        error = _told(failure)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    outcomes = []
    for criterion in criteria:
        outcome = mine._outcomes.get(criterion.id)
        if outcome is None:
            note = why or ("this section ended early" if error else "the part ended without a figure for it")
            outcome = Outcome(criterion, None, note, not_run=bool(why), seed=run.seed)
        outcomes.append(replace(outcome, note=stable(outcome.note, {directory: "DIR"})))
    error = stable(error, {directory: "DIR"})
    plots = mine._plots
    if mine._happened:
        happened = [(at, kind, stable(what, {directory: "DIR"})) for at, kind, what in mine._happened]
        plots.append(events(part.name, "What was done to it, and when", happened))
    return outcomes, mine._counts, plots, Section(part.name, part.title, time.monotonic() - begun, error)


def _left_out(part: Part, run: Run) -> tuple[list[Outcome], list[Count], list[Plot], Section]:
    outcomes = [
        Outcome(each.sized(run.sizes), None, INTERRUPTED, not_run=True, seed=run.seed) for each in part.criteria
    ]
    return outcomes, [], [], Section(part.name, part.title, 0.0)


def _told(failure: Exception) -> str:
    if isinstance(failure, DefectFoundError):
        return str(failure)
    where = traceback.extract_tb(failure.__traceback__)[-1]
    return f"{type(failure).__name__}: {failure} ({Path(where.filename).name}:{where.lineno})"


class Progress:
    """What runs now, on standard error: a line for each part, and at a terminal what it does at the moment."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._head = ""

    def begin(self, number: int, of: int, title: str) -> None:
        """A part begins."""
        self._head = f"[{number:>2}/{of}] {title}"
        if self._live:
            self._show(self._head)

    def say(self, what: str) -> None:
        """What it does at the moment; only at a terminal."""
        if self._live:
            self._show(f"{self._head}: {what}")

    def end(self, outcomes: list[Outcome], section: Section) -> None:
        """A part is over."""
        found = {v: sum(o.verdict == v for o in outcomes) for v in Verdict}
        said = ", ".join(f"{n} {str(v).replace('-', ' ')}" for v, n in found.items() if n)
        self._show(f"{self._head}: {said}, {section.seconds:.1f} s", end="\n")
        if section.error:
            print(f"        ended early: {section.error}", file=sys.stderr)  # noqa: T201
        for outcome in outcomes:
            if outcome.verdict == Verdict.FAIL and not (section.error and outcome.figure is None):
                figure = "no figure" if outcome.figure is None else f"{outcome.figure:,.6g} {outcome.criterion.unit}"
                print(f"        FAIL {outcome.criterion.id}: {figure}; {outcome.note}", file=sys.stderr)  # noqa: T201

    def _show(self, text: str, end: str = "") -> None:
        if self._live:
            width = shutil.get_terminal_size().columns - 1
            text = "\r\x1b[K" + (text if end else text[:width])
        print(text, end=end, file=sys.stderr, flush=True)  # noqa: T201


def new_report(kind: str, profile: str, seed: int) -> Report:
    """An empty report of this machine, commit and command line, begun now."""
    now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return Report(kind, profile, machine.command(), machine.commit(), machine.facts(), seed, now)


def write(report: Report, directory: Path, name: str) -> list[Path]:
    """Write name.json, .html and .md into the directory, each whole or not at all. OSError."""
    import json

    directory.mkdir(parents=True, exist_ok=True)
    texts = {
        "json": json.dumps(report.to_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n",
        "html": html.render(report),
        "md": markdown.render(report),
    }
    written = []
    for suffix, text in texts.items():
        path = directory / f"{name}.{suffix}"
        beside = path.with_suffix(f".{suffix}.tmp")
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
        written.append(path)
    return written
