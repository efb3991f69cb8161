"""Whether NATS servers sync what they are given before they acknowledge it, as their monitoring says.

No account sees a server's `sync_interval` but that of the system; `/varz` of the monitoring port shows it. It is asked
for at the start, after each reconnection and every CHECK_S; a server that does not answer counts as one that does not
sync. The loop's thread; reading `covers` is for any thread.
"""

import asyncio
import json
import urllib.request
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, Self

from bitactor.telemetry import get_logger

if TYPE_CHECKING:
    from bitactor.log.nats import Connection

CHECK_S: Final = 30.0
_ANSWER_S: Final = 3.0
_ANSWER_BYTES_MAX: Final = 1 << 20

_log = get_logger("bitactor.nats")


class SyncWatch:
    """The names of the servers that are known to sync always; one for all logs of a process."""

    def __init__(self, connection: "Connection", monitors: Iterable[str]) -> None:
        self.syncing: frozenset[str] = frozenset()
        self._connection = connection
        self._monitors = tuple(monitors)
        self._checking = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, connection: "Connection", monitors: Iterable[str]) -> Self:
        """Ask all of them (nats.monitor_urls) once, and from then on in the background.

        No error: who says nothing syncs nothing.
        """
        watch = cls(connection, monitors)
        await watch.check()
        if watch._monitors:
            connection.on_reconnect.append(watch.check)
            watch._task = asyncio.create_task(watch._run())
        return watch

    def covers(self, servers: frozenset[str]) -> bool:
        """Whether all of these servers are known to sync always. Any thread."""
        return bool(servers) and servers <= self.syncing

    async def check(self) -> None:
        """Ask all of them now."""
        async with self._checking:
            found = await asyncio.gather(*(asyncio.to_thread(_syncing, url) for url in self._monitors))
            syncing = frozenset(name for name in found if name is not None)
            if syncing != self.syncing:
                _log.info("nats servers that sync always", servers=sorted(syncing), monitors=len(self._monitors))
            self.syncing = syncing

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(CHECK_S)
            await self.check()

    async def close(self) -> None:
        """Ask no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._connection.on_reconnect.remove(self.check)
            self._task = None


def _syncing(url: str) -> str | None:
    """The server's name if it syncs always; None if not, or if it does not answer."""
    try:
        with urllib.request.urlopen(f"{url}/varz", timeout=_ANSWER_S) as answer:  # noqa: S310 (http or https: settings)
            said = json.loads(answer.read(_ANSWER_BYTES_MAX))
        name = said["server_name"]
        return str(name) if said["jetstream"]["config"]["sync_always"] is True else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
