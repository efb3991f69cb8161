"""What a check of `bitactor doctor` found."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found. advice: what to do, for warn and fail."""

    name: str
    level: Level
    found: str
    advice: str = ""
