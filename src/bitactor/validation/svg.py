"""Plots as inline SVG: no script, no outside file; colours come from the page's style, so they follow light and dark.

Pure; any thread. Classes used: s0 .. s5 for series, `grid`, `axis`, `tick`. Texts are escaped here.
"""

import math
from html import escape
from typing import Final

from bitactor.validation.plots import Plot, Series

WIDTH: Final = 640
LEFT, RIGHT, TOP, BOTTOM = 64, 12, 10, 36
ROW: Final = 26  # height of a line of events
COLOURS: Final = 6


class _Scale:
    """Maps [low, high] to [a, b] of the picture; `log` by the logarithm."""

    def __init__(self, low: float, high: float, a: float, b: float, *, log: bool = False) -> None:
        self.log = log and low > 0
        if high <= low:
            high = low + 1.0
        self.low, self.high, self.a, self.b = low, high, a, b

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log10(low), math.log10(high), math.log10(max(value, self.low))
        return round(self.a + (value - low) / (high - low) * (self.b - self.a), 1)

    def ticks(self) -> list[float]:
        if self.log:
            first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
            found = [10.0**e for e in range(first, last + 1)]
            return found or [self.low, self.high]
        step = _round_step((self.high - self.low) / 5)
        first = math.ceil(self.low / step - 1e-9)
        return [i * step for i in range(first, math.floor(self.high / step + 1e-9) + 1)]


def _round_step(rough: float) -> float:
    size = 10.0 ** math.floor(math.log10(rough))
    return next(size * m for m in (1, 2, 5, 10) if size * m >= rough * 0.999)


def tick_text(value: float) -> str:
    """A number in few letters: 1.5k, 20M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{unit}"
    return f"{value:.4g}"


def render(plot: Plot) -> str:
    """An <svg> element."""
    return _events(plot) if plot.kind == "events" else _chart(plot)


def _chart(plot: Plot) -> str:
    height = 240
    xs = [x for s in plot.series for x in s.xs] or [0.0, 1.0]
    ys = [y for s in plot.series for y in s.ys or ()] or [0.0]
    low, high = min(0.0, *ys), max(*ys, 0.0)
    x = _Scale(min(xs), max(xs), LEFT, WIDTH - RIGHT, log=plot.log_x)
    y = _Scale(low, high * 1.05 or 1.0, height - BOTTOM, TOP)
    parts = [_open(plot, height)]
    for tick in y.ticks():
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick)}" y2="{y(tick)}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{y(tick) + 4}" text-anchor="end">{tick_text(tick)}</text>')
    parts += _x_axis(x, height, plot.x)
    for number, series in enumerate(plot.series):
        parts.append(_bars(series, x, y) if plot.kind == "bars" else _line(series, number, x, y))
    parts.append(
        f'<text class="tick" transform="translate(12 {(TOP + height - BOTTOM) / 2}) rotate(-90)" '
        f'text-anchor="middle">{escape(plot.y)}</text>'
    )
    return "".join(parts) + "</svg>" + _legend(plot)


def _events(plot: Plot) -> str:
    height = TOP + BOTTOM + ROW * max(1, len(plot.series))
    xs = [x for s in plot.series for x in s.xs] or [0.0]
    left = 150
    x = _Scale(0.0, max(xs), left, WIDTH - RIGHT)
    parts = [_open(plot, height), *_x_axis(x, height, plot.x)]
    for number, series in enumerate(plot.series):
        at = TOP + ROW * number + ROW / 2
        parts.append(f'<text class="tick" x="{left - 8}" y="{at + 4}" text-anchor="end">{escape(series.name)}</text>')
        parts.append(f'<line class="grid" x1="{left}" x2="{WIDTH - RIGHT}" y1="{at}" y2="{at}"/>')
        for when, label in zip(series.xs, series.labels, strict=True):
            parts.append(
                f'<circle class="s{number % COLOURS}" cx="{x(when)}" cy="{at}" r="4">'
                f"<title>{escape(f'{when:.2f} s: {label}')}</title></circle>"
            )
    return "".join(parts) + "</svg>"


def _open(plot: Plot, height: float) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(plot.title)}">'
        f"<title>{escape(plot.title)}</title>"
    )


def _x_axis(x: _Scale, height: float, name: str) -> list[str]:
    base = height - BOTTOM
    parts = [f'<line class="axis" x1="{x.a}" x2="{x.b}" y1="{base}" y2="{base}"/>']
    for tick in x.ticks():
        parts.append(f'<text class="tick" x="{x(tick)}" y="{base + 14}" text-anchor="middle">{tick_text(tick)}</text>')
    middle = (x.a + x.b) / 2
    parts.append(f'<text class="tick" x="{middle}" y="{height - 6}" text-anchor="middle">{escape(name)}</text>')
    return parts


def _line(series: Series, number: int, x: _Scale, y: _Scale) -> str:
    points = " ".join(f"{x(a)},{y(b)}" for a, b in zip(series.xs, series.ys or (), strict=True))
    return f'<polyline class="s{number % COLOURS}" fill="none" stroke-width="1.5" points="{points}"/>'


def _bars(series: Series, x: _Scale, y: _Scale) -> str:
    parts = []
    for begin, end, value in zip(series.xs, series.xs[1:], series.ys or (), strict=False):
        width = max(1.0, x(end) - x(begin) - 1)
        parts.append(
            f'<rect class="s0" x="{x(begin)}" y="{y(value)}" width="{width:.1f}" height="{y(0) - y(value):.1f}">'
            f"<title>{escape(f'{begin:.4g} to {end:.4g}: {value:,.0f}')}</title></rect>"
        )
    return "".join(parts)


def _legend(plot: Plot) -> str:
    named = [(number % COLOURS, series.name) for number, series in enumerate(plot.series) if series.name]
    if len(named) < 2:
        return ""
    return '<p class="legend">' + "".join(f'<span class="s{n}">{escape(name)}</span>' for n, name in named) + "</p>"
