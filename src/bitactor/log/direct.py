"""Direct gets in batches: messages of a stream from any server that keeps it. The loop's thread."""

import asyncio
import contextlib
import json
import time
from typing import TYPE_CHECKING, Any, Final

import nats.errors

from bitactor.log import streams

if TYPE_CHECKING:
    from bitactor.log.nats import Connection

BATCH_BYTES: Final = 4 << 20  # sent for one request, and one message more


class DirectBatches:
    """Gets batches of one stream. One call of get at a time."""

    def __init__(self, connection: "Connection", stream: str) -> None:
        self._connection = connection
        self._subject = f"{streams.API}.DIRECT.GET.{stream}"
        self._subscription: Any = None
        self._inbox = connection.new_inbox()
        self._number = 0
        self._got: list[tuple[int, bytes]] = []
        self._over = self._absent = False
        self._heard = asyncio.Event()

    async def get(self, request: dict[str, Any]) -> list[tuple[int, bytes]]:
        """What one server has for the request (`seq`, `batch`, `next_by_subj`): message numbers, rising, and bytes.

        Fewer than asked for when they are long, when the answer broke off, or when that server has no more; at least
        one unless it has none. NoAnswerError after OPEN_S without any.
        """
        if self._subscription is None:
            self._subscription = await self._connection.subscribe(
                f"{self._inbox}.*", cb=self._hear, pending_msgs_limit=0, pending_bytes_limit=0
            )
        payload = json.dumps({**request, "max_bytes": BATCH_BYTES}).encode()
        deadline = streams.from_now(streams.OPEN_S)
        while True:
            self._number += 1  # what still comes for a former request goes nowhere
            self._got, self._over, self._absent = [], False, False
            why = ""
            try:
                await streams.connected(self._connection, deadline)
                await self._connection.publish(self._subject, payload, f"{self._inbox}.{self._number}")
                while not self._over:
                    self._heard.clear()
                    await asyncio.wait_for(self._heard.wait(), streams.TRY_S)
                    if self._absent:
                        raise nats.errors.NoRespondersError
            except (nats.errors.Error, TimeoutError) as error:
                why = str(error) or type(error).__name__
            if self._got or not why:
                got, self._got = self._got, []
                return got
            if time.monotonic() >= deadline:
                raise streams.NoAnswerError(streams.unanswered(self._connection, self._subject, why))
            await asyncio.sleep(0.05)

    async def _hear(self, message: Any) -> None:
        """A message of the batch, or its end."""
        if message.subject != f"{self._inbox}.{self._number}":
            return
        headers = message.headers or {}
        if "Status" not in headers:
            self._got.append((int(headers["Nats-Sequence"]), message.data))
        elif headers["Status"] == "503":  # nobody serves the stream just now: it is asked for again
            self._absent = True
        else:
            self._over = True
        self._heard.set()

    async def close(self) -> None:
        """Hear no more. May be called twice."""
        if self._subscription is not None:
            subscription, self._subscription = self._subscription, None
            with contextlib.suppress(nats.errors.Error):  # the connection has gone, and the subscription with it
                await subscription.unsubscribe()
