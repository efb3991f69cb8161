"""The base score of a CVSS 3.1 vector, by the formulas of the specification's section 7 (FIRST, revision 1).

    score("AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H") -> 9.8

Pure functions; any thread.
"""

from typing import Final

_METRICS: Final[dict[str, dict[str, float]]] = {
    "AV": {"N": 0.85, "A": 0.62, "L": 0.55, "P": 0.2},
    "AC": {"L": 0.77, "H": 0.44},
    "PR": {"N": 0.85, "L": 0.62, "H": 0.27},
    "UI": {"N": 0.85, "R": 0.62},
    "S": {"U": 0.0, "C": 1.0},
    **{lost: {"H": 0.56, "L": 0.22, "N": 0.0} for lost in "CIA"},
}
_PRIVILEGES_CHANGED: Final = {"N": 0.85, "L": 0.68, "H": 0.5}  # PR when the scope changes
_RATINGS: Final = ((9.0, "critical"), (7.0, "high"), (4.0, "medium"), (0.1, "low"))


def parse(vector: str) -> dict[str, str]:
    """Metric -> value of a base vector, with or without its prefix. ValueError: a metric is missing, doubled, wrong."""
    given: dict[str, str] = {}
    for part in vector.removeprefix("CVSS:3.1/").split("/"):
        name, _, value = part.partition(":")
        if value not in _METRICS.get(name, {}) or name in given:
            raise ValueError(f"{vector!r}: {part!r} is no base metric of CVSS 3.1, or comes twice")
        given[name] = value
    if missing := _METRICS.keys() - given.keys():
        raise ValueError(f"{vector!r}: {', '.join(sorted(missing))} is missing")
    return given


def score(vector: str) -> float:
    """The base score, 0.0 to 10.0. ValueError as parse."""
    given = parse(vector)
    weight = {name: _METRICS[name][value] for name, value in given.items()}
    changed = given["S"] == "C"
    if changed:
        weight["PR"] = _PRIVILEGES_CHANGED[given["PR"]]
    lost = 1 - (1 - weight["C"]) * (1 - weight["I"]) * (1 - weight["A"])
    impact = 7.52 * (lost - 0.029) - 3.25 * (lost - 0.02) ** 15 if changed else 6.42 * lost
    if impact <= 0:
        return 0.0
    ease = 8.22 * weight["AV"] * weight["AC"] * weight["PR"] * weight["UI"]
    return _round_up(min((1.08 if changed else 1.0) * (impact + ease), 10.0))


def rating(value: float) -> str:
    """The word for a score: none, low, medium, high or critical."""
    return next((word for least, word in _RATINGS if value >= least), "none")


def _round_up(value: float) -> float:
    """To one decimal, upwards, in whole numbers as the specification's appendix A does it."""
    hundred_thousandths = round(value * 100_000)
    whole, rest = divmod(hundred_thousandths, 10_000)
    return (whole + (rest > 0)) / 10
