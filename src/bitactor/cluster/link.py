"""Questions from one replica to another over core NATS, and their answers.

Loop thread. A question has a subject of the replica that is asked; its answer is one message, or for a large one
several. Nothing here is durable: who asks and hears nothing asks again, so every question may be asked twice.

An answer's first byte says what follows: 0 the body, 1 an error as JSON {"code", "message"}, 2 a piece of the body with
more to come.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from bitactor.protocol.errors import Code, ProtocolError

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg

    from bitactor.cluster.names import Names

PIECE_BYTES: Final = 512 << 10
_WHOLE, _ERROR, _MORE = b"\0", b"\1", b"\2"

# Gives the body of the answer. ProtocolError and LookupError are told to who asked.
Handler = Callable[[memoryview], Awaitable[bytes]]

logger = logging.getLogger("bitactor.cluster")


class AbsentError(Exception):
    """Nobody answers at that replica: it is gone, stopped, or cut off."""


class NotOwnerError(LookupError):
    """The replica does not own the lane that it was asked about."""


class Link:
    """This replica's end. incarnation: who we are, new at each start."""

    def __init__(self, client: "Client", names: "Names", incarnation: str) -> None:
        self._client = client
        self._names = names
        self._me = incarnation
        self._subscriptions: list[Any] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, verb: str, handler: Handler) -> None:
        """Answer questions of this verb, each in a task of its own."""

        async def asked(message: "Msg") -> None:
            task = asyncio.get_running_loop().create_task(self._answer(message, handler, verb))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        await self._subscribe(self._names.to(self._me, verb), asked)

    async def listen(self, verb: str, heard: Callable[[Any], None]) -> None:
        """Call with the JSON that any replica, this one too, tells all of them under this verb."""

        async def on_message(message: "Msg") -> None:
            with contextlib.suppress(ValueError, KeyError, TypeError):
                heard(json.loads(message.data))

        await self._subscribe(self._names.to_all(verb), on_message)

    async def _subscribe(self, subject: str, on_message: Any) -> None:
        subscription = await self._client.subscribe(subject, cb=on_message, pending_bytes_limit=256 << 20)
        self._subscriptions.append(subscription)

    async def tell_all(self, verb: str, said: Any) -> None:
        """Tell every replica; nobody answers."""
        await self._client.publish(self._names.to_all(verb), json.dumps(said).encode())

    async def ask(self, replica: str, verb: str, question: bytes, *, timeout_s: float) -> bytes:
        """The body of the answer. AbsentError: none came; ProtocolError, NotOwnerError: what the other says."""
        from nats import errors

        try:
            answer = await self._client.request(self._names.to(replica, verb), question, timeout=timeout_s)
        except (errors.NoRespondersError, errors.TimeoutError, errors.ConnectionClosedError, TimeoutError) as error:
            raise AbsentError(f"replica {replica} did not answer {verb!r}: {type(error).__name__}") from error
        except (errors.OutboundBufferLimitError, errors.Error, OSError) as error:
            raise AbsentError(f"replica {replica} cannot be asked {verb!r}: {error}") from error
        return _body(answer.data)

    async def ask_for_much(self, replica: str, verb: str, question: bytes, *, timeout_s: float) -> bytes:
        """As ask, for an answer that may be larger than a message. timeout_s: between its pieces."""
        inbox = self._client.new_inbox()
        subscription = await self._client.subscribe(inbox)
        try:
            await self._client.publish(self._names.to(replica, verb), question, reply=inbox)
            pieces = [piece async for piece in _pieces(subscription, timeout_s)]
        except TimeoutError as error:
            raise AbsentError(f"replica {replica} did not answer {verb!r} in {timeout_s:g} s") from error
        finally:
            with contextlib.suppress(Exception):
                await subscription.unsubscribe()
        return b"".join(pieces)

    async def close(self) -> None:
        """Hear and answer nothing more."""
        for subscription in self._subscriptions:
            with contextlib.suppress(Exception):
                await subscription.unsubscribe()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _answer(self, message: "Msg", handler: Handler, verb: str) -> None:
        try:
            body = await handler(memoryview(message.data))
        except ProtocolError as error:
            await self._reply(message, _ERROR + _told(error.code, error.message, error.sequence))
        except LookupError as error:
            await self._reply(message, _ERROR + _told(0, str(error)))
        except Exception as error:
            logger.exception("a question %r failed", verb)
            await self._reply(message, _ERROR + _told(Code.INTERNAL, f"{type(error).__name__}: {error}"))
        else:
            for at in range(0, len(body) - PIECE_BYTES, PIECE_BYTES):
                await self._reply(message, _MORE + body[at : at + PIECE_BYTES])
            rest = len(body) - len(body) % PIECE_BYTES if len(body) % PIECE_BYTES else max(0, len(body) - PIECE_BYTES)
            await self._reply(message, _WHOLE + body[rest:])

    async def _reply(self, message: "Msg", data: bytes) -> None:
        if message.reply:
            with contextlib.suppress(Exception):  # the connection is gone: who asked will ask again
                await self._client.publish(message.reply, data)


def _told(code: int, message: str, sequence: int = 0) -> bytes:
    return json.dumps({"code": int(code), "message": message, "sequence": sequence}).encode()


def _body(data: bytes) -> bytes:
    if data[:1] == _WHOLE:
        return data[1:]
    if data[:1] != _ERROR:
        raise AbsentError("an answer came in pieces where one message was expected")
    told = json.loads(data[1:])
    if not told["code"]:
        raise NotOwnerError(told["message"])
    raise ProtocolError(Code(told["code"]), told["message"], sequence=told.get("sequence", 0))


async def _pieces(subscription: Any, timeout_s: float) -> AsyncIterator[bytes]:
    from nats import errors

    while True:
        try:
            message = await subscription.next_msg(timeout=timeout_s)
        except errors.TimeoutError:
            raise TimeoutError from None
        if message.headers and message.headers.get("Status") == "503":
            raise TimeoutError("nobody is there")
        if message.data[:1] != _MORE:
            yield _body(message.data)
            return
        yield message.data[1:]
