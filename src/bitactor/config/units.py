"""Sizes and durations as people write them: "10GiB", "500 MB", "30s", "1.5h". Pure functions of any thread."""

import re
from typing import Any, Final

_BYTES: Final = {
    "": 1,
    "B": 1,
    **{f"{prefix}B": 1000**power for power, prefix in enumerate("kMGT", 1)},
    **{f"{prefix}iB": 1024**power for power, prefix in enumerate("KMGT", 1)},
}
_BYTES_OF_LOWER: Final = {unit.lower(): size for unit, size in _BYTES.items()}
_SECONDS: Final = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_NUMBER_AND_UNIT: Final = re.compile(r"\s*([0-9][0-9_]*(?:\.[0-9]+)?|\.[0-9]+)\s*([A-Za-z]*)\s*")


def size_bytes(given: Any) -> Any:
    """Bytes of "10GiB", "64 KiB", "500MB" or a number; ValueError for other texts. What is no text is passed on."""
    if not isinstance(given, str):
        return given
    match = _NUMBER_AND_UNIT.fullmatch(given)
    unit = None if match is None else _BYTES_OF_LOWER.get(match[2].lower())
    if match is None or unit is None:
        raise ValueError('give a size such as "64KiB", "500MB" or "10GiB", or a number of bytes')
    return round(float(match[1].replace("_", "")) * unit) if "." in match[1] else int(match[1]) * unit


def seconds(given: Any) -> Any:
    """Seconds of "500ms", "30s", "1.5h", "1d" or a number; ValueError for other texts. What is no text is passed on."""
    if not isinstance(given, str):
        return given
    match = _NUMBER_AND_UNIT.fullmatch(given)
    unit = None if match is None else _SECONDS.get(match[2] or "s")
    if match is None or unit is None:
        raise ValueError('give a duration such as "500ms", "30s", "1.5h" or "1d", or a number of seconds')
    return float(match[1].replace("_", "")) * unit


def of_bytes(size: float) -> str:
    """A size to be read by people: "10 GiB", "1.5 MiB"."""
    for power, prefix in ((4, "T"), (3, "G"), (2, "M"), (1, "K")):
        if abs(size) >= 1024**power:
            return f"{size / 1024**power:.4g} {prefix}iB"
    return f"{size:.0f} B"
