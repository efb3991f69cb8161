"""The service: one object that recovers, takes signals, and is seen and operated from outside.

Made and awaited on the event loop's thread. `health`, `statistics`, `producers` and `name_of` return at once and may be
called on the loop; the coroutines wait without blocking it. Engine calls that wait for shards (`engine.state`,
`engine.table`) belong into an executor.
"""

from typing import TYPE_CHECKING, Any

from bitactor.runtime.reports import (
    Health,
    IngestStatistics,
    LogStatistics,
    ProducerInfo,
    Seconds,
    ServiceStatistics,
    SnapshotInfo,
    SnapshotStatistics,
)

if TYPE_CHECKING:
    from bitactor.actors import App
    from bitactor.engine import Engine

__all__ = [
    "Health",
    "IngestStatistics",
    "LogStatistics",
    "ProducerInfo",
    "Seconds",
    "Service",
    "ServiceStatistics",
    "SnapshotInfo",
    "SnapshotStatistics",
]


class Service:
    """An app served with these settings. `engine` is there after start."""

    settings: Any
    app: "App"
    engine: "Engine"

    def __init__(self, settings: Any, app: "App") -> None:
        self.settings = settings
        self.app = app

    async def start(self) -> None:
        """Compile, recover from snapshots and log, listen. Raises what says why it cannot; nothing is left open."""
        raise NotImplementedError

    async def stop(self) -> None:
        """Take no more, drain, acknowledge, snapshot, close. Returns when everything is closed; later calls too."""
        raise NotImplementedError

    def health(self) -> Health:
        """Whether it lives, takes signals, has started; and why not."""
        raise NotImplementedError

    def statistics(self) -> ServiceStatistics:
        """Everything that is counted, now. Waits for nothing."""
        raise NotImplementedError

    async def snapshot_now(self) -> SnapshotInfo:
        """Write a snapshot of everything applied; returns when it is durable. RuntimeError with a log of kind none."""
        raise NotImplementedError

    async def erase_key(self, key: int) -> None:
        """Log the erasure of a key; returns when it is durable and applied: no actor, no name holds the key then."""
        raise NotImplementedError

    async def forget_producer(self, producer: int) -> None:
        """Log that a producer is forgotten: its next hello begins anew at 0. KeyError when it is not known."""
        raise NotImplementedError

    def producers(self) -> list[ProducerInfo]:
        """The producer table, by name."""
        raise NotImplementedError

    def name_of(self, key: int) -> str | None:
        """The text whose key this is, where the log has its name."""
        raise NotImplementedError
