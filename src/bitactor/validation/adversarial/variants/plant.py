"""How a defect is told and planted: attributes of modules, replaced in the process that is to be weakened."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Defect:
    """what: in words, for the report. found_by: ids of cases, of which one at least must fail."""

    what: str
    found_by: tuple[str, ...]
    plant: Callable[[], None]


DEFECTS: Final[dict[str, Defect]] = {}


def defect(what: str, *found_by: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Register the function below, which plants it."""

    def register(plant: Callable[[], None]) -> Callable[[], None]:
        DEFECTS[plant.__name__] = Defect(what, found_by, plant)
        return plant

    return register


def module(name: str) -> Any:
    """A module of BitActor by its name without `bitactor.`; Any, because its private names are meant."""
    return importlib.import_module(f"bitactor.{name}")


def with_crc(frame: bytearray) -> memoryview:
    """A data frame with the CRC that it should have."""
    crc32c = module("_core._codec").crc32c
    frame[32:36] = crc32c(bytes(frame[36:]), crc32c(bytes(frame[:32]))).to_bytes(4, "big")
    return memoryview(frame)
