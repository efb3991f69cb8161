"""What is drawn in a report: lines over time, distributions, events on a time axis. Data alone; svg.py draws it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

POINTS_MAX: Final = 400  # a line of more is thinned: more cannot be seen


@dataclass(frozen=True, slots=True)
class Series:
    """Points of one name. ys: None for events, whose texts stand in `labels`."""

    name: str
    xs: list[float]
    ys: list[float] | None = None
    labels: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Plot:
    """kind: "line", "bars" (xs are where bars begin, the last one ends them) or "events". section: of whom."""

    section: str
    title: str
    kind: str
    x: str
    y: str
    series: list[Series]
    log_x: bool = False

    def to_json(self) -> dict[str, Any]:
        """JSON-able."""
        series = [{"name": s.name, "xs": s.xs, "ys": s.ys, "labels": s.labels} for s in self.series]
        return {
            "section": self.section, "title": self.title, "kind": self.kind, "x": self.x, "y": self.y,
            "series": series, "log_x": self.log_x,
        }  # fmt: skip

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Self:
        """What to_json gave."""
        series = [Series(s["name"], s["xs"], s["ys"], s["labels"]) for s in row["series"]]
        return cls(row["section"], row["title"], row["kind"], row["x"], row["y"], series, row["log_x"])


def line(section: str, title: str, x: str, y: str, **series: Iterable[tuple[float, float]]) -> Plot:
    """Lines of (x, y) points, each thinned to what can be seen. `_` in a name reads as a blank."""
    made = []
    for name, points in series.items():
        kept = thinned(list(points))
        made.append(Series(name.replace("_", " "), [_short(a) for a, _ in kept], [_short(b) for _, b in kept]))
    return Plot(section, title, "line", x, y, made)


def histogram(section: str, title: str, x: str, values: Sequence[float], bins: int = 40) -> Plot:
    """How often values are where: bins of the same width in the logarithm if they span more than two decades."""
    given = sorted(values)
    if not given:
        return Plot(section, title, "bars", x, "count", [Series("", [0.0, 1.0], [0.0])])
    low, high = given[0], given[-1]
    log = low > 0 and high / low > 100
    if high <= low:
        low, high = low - 0.5, high + 0.5
    if log:
        edges = [low * (high / low) ** (i / bins) for i in range(bins + 1)]
    else:
        edges = [low + (high - low) * i / bins for i in range(bins + 1)]
    counts, at = [0.0] * bins, 0
    for value in given:
        while at < bins - 1 and value >= edges[at + 1]:
            at += 1
        counts[at] += 1
    return Plot(section, title, "bars", x, "count", [Series("", [_short(e) for e in edges], counts)], log)


def events(section: str, title: str, happened: Iterable[tuple[float, str, str]]) -> Plot:
    """(seconds, what kind, what) on a time axis, a line of the chart for each kind."""
    rows: dict[str, Series] = {}
    for at, kind, what in happened:
        row = rows.setdefault(kind, Series(kind, [], None, []))
        row.xs.append(_short(at))
        row.labels.append(what)
    return Plot(section, title, "events", "seconds", "", list(rows.values()))


def thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most POINTS_MAX of them; of each stretch its lowest and its highest, so that no peak is left out."""
    if len(points) <= POINTS_MAX:
        return points
    stretch = 2 * len(points) / POINTS_MAX
    kept = []
    for i in range(POINTS_MAX // 2):
        part = points[int(i * stretch) : max(int((i + 1) * stretch), int(i * stretch) + 1)]
        both = {min(part, key=lambda p: p[1]), max(part, key=lambda p: p[1])}
        kept += sorted(both)
    return kept


def _short(value: float) -> float:
    return float(f"{value:.6g}")
