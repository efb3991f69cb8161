"""Types of the extension module; _state.pyx says what each does."""

from collections.abc import Callable
from typing import Any, Final

from bitactor._core._engine import EngineCore

PARTITIONS: Final[int]

def _prepare(
    core: EngineCore, actors: int, allocate: Callable[[int, int], tuple[Any, Any, Any, Any]]
) -> list[tuple[int, tuple[Any, Any, Any, Any]]]: ...
def _export(
    core: EngineCore,
    kinds: int,
    strides: list[int],
    prepared: list[tuple[int, tuple[Any, Any, Any, Any]]],
    allocate: Callable[[int, int], tuple[Any, Any, Any, Any]],
) -> tuple[list[int], list[int], list[tuple[bytes, int, int, int, int, tuple[Any, Any, Any, Any]]], int]: ...
def _import(
    core: EngineCore,
    head: list[int],
    kinds: list[int],
    strides: list[int],
    actors: list[tuple[bytes, int, int, int, int, tuple[Any, Any, Any, Any]]],
) -> None: ...
def _erase(core: EngineCore, key: int) -> int: ...
def first_misplaced(keys: Any, counts: Any) -> int: ...
def idle_tick_ns(idle_ns: int) -> int: ...
