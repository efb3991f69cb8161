"""Asking a lane's owner, whoever that is now: here, at another replica, or at nobody for a while.

Loop thread. A question goes to the owner; when that one goes away, moves the lane or does not answer, it goes to the
next owner, until the time is over. So each question may be answered twice by different owners, and must bear that.
"""

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any, Final

from bitactor.cluster.link import AbsentError, Link, NotOwnerError
from bitactor.cluster.members import Member, Members
from bitactor.protocol.errors import Code, ProtocolError

RETRY_S: Final = 0.05
ASK_S: Final = 5.0  # an owner that has not answered by then is asked again, or another one is
_MOVING: Final = (Code.NOT_READY, Code.INTERNAL, Code.SHUTTING_DOWN)

# Answers for a lane of this replica: (lane, question) -> answer. NotOwnerError when the lane is not here.
Local = Callable[[int, memoryview], Coroutine[Any, Any, bytes]]


class Calls:
    """Questions about lanes. local: verb -> who answers here, without the network."""

    def __init__(self, members: Members, link: Link, me: str) -> None:
        self._members = members
        self._link = link
        self._me = me
        self.local: dict[str, Local] = {}
        self._news = asyncio.Event()

    def changed(self) -> None:
        """Owners may have changed: who waits looks again."""
        self._news.set()
        self._news = asyncio.Event()

    async def ask(self, lane: int, verb: str, question: bytes, *, within_s: float | None, much: bool = False) -> bytes:
        """The answer of the lane's owner; within_s None: asked for ever. much: it may be larger than a message.

        ProtocolError: what the owner refuses, or not_ready when the time is over.
        """
        loop = asyncio.get_running_loop()
        until = None if within_s is None else loop.time() + within_s
        why = "no replica owns it"
        while True:
            owner = self._members.owners().get(lane)
            if owner is not None:
                try:
                    return await self._ask_owner(owner, lane, verb, question, much)
                except (AbsentError, NotOwnerError) as error:
                    why = str(error)
                except ProtocolError as error:
                    if error.code not in _MOVING:
                        raise
                    why = str(error)
            if until is not None and loop.time() >= until:
                raise ProtocolError(Code.NOT_READY, f"lane {lane} cannot be asked: {why}")
            await self._pause()

    async def ask_json(self, lane: int, verb: str, question: dict[str, Any], *, within_s: float) -> Any:
        """The same, in JSON."""
        return json.loads(await self.ask(lane, verb, json.dumps(question | {"lane": lane}).encode(), within_s=within_s))

    async def _ask_owner(self, owner: Member, lane: int, verb: str, question: bytes, much: bool) -> bytes:
        if owner.incarnation == self._me:
            return await self.local[verb](lane, memoryview(question))
        ask = self._link.ask_for_much if much else self._link.ask
        asking = asyncio.ensure_future(ask(owner.incarnation, verb, question, timeout_s=ASK_S))
        try:
            while not asking.done():
                news = asyncio.ensure_future(self._news.wait())
                await asyncio.wait({asking, news}, return_when=asyncio.FIRST_COMPLETED)
                news.cancel()
                now = self._members.owners().get(lane)
                if not asking.done() and (now is None or now.incarnation != owner.incarnation):
                    raise AbsentError(f"replica {owner.replica} owns lane {lane} no more")
            return asking.result()
        finally:
            asking.cancel()
            asking.add_done_callback(_heard)  # an answer that came too late may be a refusal: nobody waits for it

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(RETRY_S):
                await self._news.wait()
        except TimeoutError:
            pass


def _heard(asking: "asyncio.Future[bytes]") -> None:
    if not asking.cancelled():
        asking.exception()
