"""The number of lanes, agreed on by all replicas of an app for ever: who cut keys otherwise would split their state.

It is a key beside the lanes' marks, written by the first replica (or import) there ever was, and by none after it:
JetStream takes that message only while the key has none. The loop's thread.
"""

import asyncio
from typing import TYPE_CHECKING, Final

from bitactor.log import marks, streams
from bitactor.log.contract import LogSettingsError
from bitactor.log.nats import LEAVE_S

if TYPE_CHECKING:
    from bitactor.log.nats import Connection

_KEY: Final = "lanes"


async def agree_on_lanes(connection: "Connection", prefix: str, lanes: int, *, replicas: int) -> None:
    """See that the state is, or will be, split into so many lanes; before a key is cut or a lane is opened.

    prefix: as of the lanes' streams; replicas: as nats.replicas. LogSettingsError: it is split otherwise, or the bucket
    cannot be what was asked for. LogError: no answer within streams.OPEN_S.
    """
    leaving = asyncio.create_task(_leave_who_is_cut_off(connection, marks.stream(prefix)))
    try:
        agreed = await _agreed(connection, prefix, lanes, replicas)
    finally:
        leaving.cancel()
    if agreed != str(lanes).encode():
        raise LogSettingsError(
            f"cluster.lanes is {lanes}, and the state in {prefix}-lane-* has been split into {agreed.decode()} since "
            "the first start: give that number, which cannot change, or another nats.stream for a new state"
        )


async def _agreed(connection: "Connection", prefix: str, lanes: int, replicas: int) -> bytes:
    deadline = streams.from_now(streams.OPEN_S)
    await marks.ensure(connection, prefix, replicas=replicas, deadline=deadline)
    name, key, wanted = marks.stream(prefix), marks.subject(prefix, _KEY), str(lanes).encode()
    while True:
        there = await streams.last(connection, name, key, deadline)
        if there is not None:
            return there[0]
        if await streams.put(connection, name, key, wanted, 0, deadline):
            return wanted


async def _leave_who_is_cut_off(connection: "Connection", stream: str) -> None:
    while True:
        await asyncio.sleep(LEAVE_S)
        await streams.leave_if_cut_off(connection, [stream], "JetStream does not answer through it")
