"""Types of the extension module; _outputs.pyx says what each does."""

from typing import Any

from bitactor._core._engine import EngineCore

class SubscriptionCore:
    fd: int
    def _read_into(self, buffer: Any, timeout: float | None) -> int: ...
    def _arm(self) -> bool: ...
    def _drain_fd(self) -> None: ...
    @property
    def dropped(self) -> int:
        """Outputs dropped because this subscription was full."""
    def _cancel(self) -> None: ...

def _subscribe(core: EngineCore, numbers: list[int] | None, capacity: int, drop: bool) -> SubscriptionCore: ...
