"""The number of lanes, agreed on by all replicas of an app for ever: who cut keys otherwise would split their state.

It is a key beside the lanes' marks, written by the first replica or import, and by none after it: JetStream takes that
message only while the key has none. Where lanes have records and the key is not there, they say the number: those of an
earlier release, or a key that somebody deleted. The loop's thread.
"""

import asyncio
from typing import TYPE_CHECKING, Final

from bitactor.log import marks, streams
from bitactor.log.contract import LogSettingsError
from bitactor.log.nats import LEAVE_S
from bitactor.signals import PARTITIONS

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
            "the first start: give that number, which cannot change, or another nats.stream for a new state. Where "
            f"there is no state yet, `nats kv del {marks.bucket(prefix)} {_KEY}` lets another number be chosen"
        )


async def _agreed(connection: "Connection", prefix: str, lanes: int, replicas: int) -> bytes:
    deadline = streams.from_now(streams.OPEN_S)
    await marks.ensure(connection, prefix, replicas=replicas, deadline=deadline)
    name, key, wanted = marks.stream(prefix), marks.subject(prefix, _KEY), str(lanes).encode()
    while True:
        agreed, revision = await streams.last(connection, name, key, deadline) or (b"", 0)
        if agreed:
            return agreed
        count = await _lanes_with_records(connection, prefix, deadline)
        if count not in (0, lanes):
            return str(count).encode()
        if await streams.put(connection, name, key, wanted, revision, deadline):
            return wanted


async def _lanes_with_records(connection: "Connection", prefix: str, deadline: float) -> int:
    """How many lanes there are with records; each has one from the moment that it was first owned."""
    for lane in range(PARTITIONS):
        try:
            info = await streams.ask(connection, f"STREAM.INFO.{prefix}-lane-{lane}", deadline=deadline)
        except streams.ApiError as error:
            if error.code != streams.NOT_FOUND:
                raise
            return lane
        if not info["state"]["last_seq"]:
            return lane
    return PARTITIONS


async def _leave_who_is_cut_off(connection: "Connection", stream: str) -> None:
    while True:
        await asyncio.sleep(LEAVE_S)
        await streams.leave_if_cut_off(connection, [stream], "JetStream does not answer through it")
