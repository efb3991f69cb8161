"""Slopes of figures over time, by least squares, and whether they grow. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Slope:
    """A straight line through points. per_hour: growth of the figure; error: twice its standard error."""

    per_hour: float
    error: float
    mean: float

    @property
    def grows(self) -> bool:
        """Whether the growth is told apart from none."""
        return self.per_hour > self.error


def slope(points: Sequence[tuple[float, float]], skip: float = 0.25) -> Slope:
    """The line through (seconds, figure) points but the first `skip` of the time, in which things warm up.

    The standard error takes into account that neighbours are alike: by the correlation of the residuals with those one
    step later. ValueError for fewer than 4 points.
    """
    if not points:
        raise ValueError("no points, no slope")
    begin = points[0][0] + skip * (points[-1][0] - points[0][0])
    kept = [(x, y) for x, y in points if x >= begin]
    if len(kept) < 4:
        raise ValueError(f"{len(kept)} points behind the first {skip:.0%} of the time: 4 at least make a slope")
    x = np.array([p[0] for p in kept]) / 3600
    y = np.array([p[1] for p in kept])
    centred = x - x.mean()
    spread = float((centred**2).sum())
    per_hour = float((centred * (y - y.mean())).sum()) / spread
    residuals = y - y.mean() - per_hour * centred
    variance = float((residuals**2).sum()) / (len(y) - 2)
    alike = 0.0
    if variance > 0:
        alike = max(0.0, min(0.99, float((residuals[1:] * residuals[:-1]).sum() / (residuals**2).sum())))
    wider = (1 + alike) / (1 - alike)
    return Slope(per_hour, 2 * float(np.sqrt(variance / spread * wider)), float(y.mean()))
