"""JetStream's own interface, as far as logs and snapshots use it: requests asked again, streams made and read back.

Every stream is made with all that matters said; what the servers made of it is compared, and what is weaker than asked
refused. The loop's thread.
"""

import asyncio
import base64
import json
import time
from typing import TYPE_CHECKING, Any, Final

import nats.errors

from bitactor.log.contract import LogError, LogFullError, LogSettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from bitactor.log.nats import Connection

API: Final = "$JS.API"
TRY_S: Final = 2.0  # an answer takes milliseconds; one that takes longer is asked for again
_FIRST_TRY_S: Final = 0.5  # of what may be asked twice; each next try takes twice as long, up to TRY_S
_PROBE_S: Final = 1.0
_HEARD_NS: Final = 3_000_000_000  # a leader hears from those that follow every second
OPEN_S: Final = 30.0  # servers may just be electing a leader
VERSION_MIN: Final = (2, 11)  # the first whose direct get takes a batch
_VERSION: Final = ".".join(map(str, VERSION_MIN))

NOT_FOUND, NO_MESSAGE, NAME_IN_USE, WRONG_LAST, WRONG_LAST_TOO = 10059, 10037, 10058, 10071, 10164
# The cluster is between two leaders, or has too few servers just now.
_PASSING: Final = {10008, 10009, 10004, 10075}
_EXPECTED: Final = "Nats-Expected-Last-Subject-Sequence"
_FULL: Final = {10002, 10023, 10047}
_STORE_FAILED: Final = 10077
# What an existing stream may have more of than was asked for; -1 is no limit. Everything else must be equal.
_AT_LEAST: Final = ("num_replicas", "max_bytes", "max_msg_size")
_ABSENT: Final = ("mirror", "sources", "subject_transform", "sealed", "no_ack", "template_owner", "allow_msg_ttl")


class ApiError(LogError):
    """JetStream says no. code: its err_code."""

    def __init__(self, subject: str, error: "Mapping[str, Any]") -> None:
        self.code = int(error.get("err_code", 0))
        self.description = str(error.get("description", "no reason given"))
        super().__init__(f"JetStream refuses {subject}: {self.description} ({self.code})")


def is_full(refused: ApiError) -> bool:
    """Whether it was refused for want of room: of the stream, the account or the server. It is not kept then."""
    # A full stream says so in words alone.
    return refused.code in _FULL or (refused.code == _STORE_FAILED and "maximum bytes exceeded" in refused.description)


class NoAnswerError(LogError):
    """Nobody answered in time: servers away, without a leader, or this user may not ask."""


def from_now(seconds: float) -> float:
    """A deadline, on the clock that they are all on."""
    return time.monotonic() + seconds


async def ask(connection: "Connection", subject: str, request: Any = None, *, deadline: float) -> dict[str, Any]:
    """Ask JetStream's interface, again and again until the deadline. ApiError, NoAnswerError.

    Only for what may be asked twice.
    """
    payload = b"" if request is None else json.dumps(request).encode()
    why, try_s = "no connection", _FIRST_TRY_S
    while True:
        try:
            await connected(connection, deadline)
            left = min(try_s, max(deadline - time.monotonic(), 0.01))
            try_s = min(2 * try_s, TRY_S)
            answer: dict[str, Any] = json.loads((await connection.request(f"{API}.{subject}", payload, left)).data)
        except (nats.errors.Error, TimeoutError, ValueError) as error:
            why = str(error) or type(error).__name__
        else:
            if "error" not in answer:
                return answer
            refused = ApiError(subject, answer["error"])
            if refused.code not in _PASSING:
                raise refused
            why = refused.description
        if time.monotonic() >= deadline:
            raise NoAnswerError(unanswered(connection, f"{API}.{subject}", why))
        await asyncio.sleep(0.05)


def unanswered(connection: "Connection", what: str, why: str) -> str:
    """A sentence about a request without an answer, with what the servers last refused this user."""
    denied = f"; the servers say: {connection.denied}" if connection.denied else ""
    return f"no answer from NATS to {what}: {why}{denied}"


async def connected(connection: "Connection", deadline: float) -> None:
    """Wait for a connection, so that nothing lies in the client's memory to be sent at another time. NoAnswerError."""
    while not connection.is_connected:
        if connection.is_closed or time.monotonic() >= deadline:
            raise nats.errors.ConnectionClosedError
        await asyncio.sleep(0.02)


async def leave_if_cut_off(connection: "Connection", names: "Iterable[str]", why: str) -> None:
    """Go to another server when no leader of these streams, heard through this one, has a majority of its followers.

    So a stream that is electing its leader makes nobody leave a server that reaches others, perhaps for one that
    reaches none. why: for the log line.
    """
    before = connection.reconnects
    if connection.is_connected and not await _reaches_a_leader(connection, names) and before == connection.reconnects:
        await connection.leave(why)


async def _reaches_a_leader(connection: "Connection", names: "Iterable[str]") -> bool:
    asking = [asyncio.ensure_future(_is_led(connection, name)) for name in names]
    try:
        for one in asyncio.as_completed(asking):
            if await one:
                return True
        return False
    finally:
        for one in asking:
            one.cancel()
        await asyncio.gather(*asking, return_exceptions=True)


async def _is_led(connection: "Connection", name: str) -> bool:
    """Whether that stream's leader answers and has heard from a majority of its servers lately, itself among them."""
    try:
        answer = json.loads((await connection.request(f"{API}.STREAM.INFO.{name}", b"", _PROBE_S)).data)
    except (nats.errors.Error, TimeoutError, ValueError):
        return False
    if "error" in answer:
        return int(answer["error"].get("err_code", 0)) == NOT_FOUND  # so says the leader of all servers
    cluster = answer.get("cluster")
    if not cluster:
        return True  # a server alone
    others = cluster.get("replicas") or []
    heard = 1 + sum(0 < one.get("active", 0) < _HEARD_NS for one in others)  # 0: never
    return bool(cluster.get("leader")) and 2 * heard > 1 + len(others)  # a server cut off for long names none


async def ensure(connection: "Connection", wanted: "Mapping[str, Any]", *, deadline: float) -> dict[str, Any]:
    """Make the stream of that configuration if there is none, and give what the servers say of it.

    LogSettingsError when it is there, or was made, with less than asked for; ApiError, NoAnswerError.
    """
    version = connection.connected_server_version
    if (version.major, version.minor) < VERSION_MIN:
        raise LogSettingsError(f"a NATS server of version {version} answers: use {_VERSION} or later")
    name = wanted["name"]
    connection.streams.add(name)
    try:
        info = await ask(connection, f"STREAM.INFO.{name}", deadline=deadline)
    except ApiError as error:
        if error.code != NOT_FOUND:
            raise
        info = await _create(connection, wanted, deadline)
    if problems := weaker(wanted, info["config"]):
        raise LogSettingsError(
            f"the stream {name} is there with other settings than asked for: {'; '.join(problems)}. Change what was "
            "asked for, or the stream (`nats stream edit`)"
        )
    return info


async def _create(connection: "Connection", wanted: "Mapping[str, Any]", deadline: float) -> dict[str, Any]:
    name, size = wanted["name"], wanted["max_bytes"]
    while True:
        try:
            return await ask(connection, f"STREAM.CREATE.{name}", wanted, deadline=deadline)
        except ApiError as error:
            if error.code == NAME_IN_USE:  # made by another replica meanwhile
                return await ask(connection, f"STREAM.INFO.{name}", deadline=deadline)
            # Right after a start the servers do not know each other yet: "no suitable peers for placement".
            if "peers" not in error.description or time.monotonic() >= deadline - OPEN_S / 2:
                raise LogSettingsError(
                    f"the stream {name} with {wanted['num_replicas']} replicas of {size} bytes cannot "
                    f"be made: {error.description} ({error.code})"
                ) from None
        await asyncio.sleep(0.2)


def weaker(wanted: "Mapping[str, Any]", found: "Mapping[str, Any]") -> list[str]:
    """What a stream's configuration has less of than wanted, or otherwise, in words."""
    problems = []
    for field, value in wanted.items():
        have = found.get(field)
        if field == "metadata":
            fine = isinstance(have, dict) and all(have.get(key) == one for key, one in value.items())
        elif field in _AT_LEAST and isinstance(have, int):
            fine = have >= value or (have == -1 and field != "num_replicas")
        else:
            fine = have == value or (not have and not value)  # the servers leave out what is false or empty
        if not fine:
            problems.append(f"{field} is {json.dumps(have)}, {json.dumps(value)} was asked for")
    problems += [f"{field} is {json.dumps(found[field])}" for field in _ABSENT if found.get(field)]
    if found.get("persist_mode") not in (None, "", "default"):
        problems.append(f"persist_mode is {found['persist_mode']}: it acknowledges before anything is written")
    return problems


def configuration(name: str, subjects: list[str], *, replicas: int, size_bytes_max: int) -> dict[str, Any]:
    """A stream in files that loses nothing by itself: no age, no count, new messages are refused when it is full."""
    return {
        "name": name,
        "subjects": subjects,
        "storage": "file",
        "num_replicas": replicas,
        "retention": "limits",
        "discard": "new",
        "max_bytes": size_bytes_max,
        "max_msgs": -1,
        "max_msg_size": -1,
        "max_msgs_per_subject": -1,
        "max_age": 0,
        "max_consumers": -1,
        "deny_delete": True,
        "deny_purge": False,
        "allow_rollup_hdrs": False,
        "allow_direct": True,
        "compression": "none",
    }


def bucket(name: str, *, replicas: int, size_bytes_max: int) -> dict[str, Any]:
    """The stream of a key-value bucket that keeps the last value of each key."""
    wanted = configuration(f"KV_{name}", [f"$KV.{name}.>"], replicas=replicas, size_bytes_max=size_bytes_max)
    return {**wanted, "max_msgs_per_subject": 1, "allow_rollup_hdrs": True}


async def last(connection: "Connection", stream: str, subject: str, deadline: float) -> tuple[bytes, int] | None:
    """The last message of a subject, as the stream's leader has it, and its number; None when there is none."""
    try:
        answer = await ask(connection, f"STREAM.MSG.GET.{stream}", {"last_by_subj": subject}, deadline=deadline)
    except ApiError as error:
        if error.code == NO_MESSAGE:
            return None
        raise
    return base64.b64decode(answer["message"].get("data", "")), int(answer["message"]["seq"])


async def put(connection: "Connection", stream: str, subject: str, data: bytes, revision: int, deadline: float) -> bool:
    """Publish if the subject's last message is the one of that number (0: there is none), until that is decided.

    False when it is another one, and does not say the same. LogFullError, NoAnswerError: not decided.
    """
    why = "no connection"
    while True:
        try:
            await connected(connection, deadline)
            answer = await connection.publish_and_hear(subject, data, {_EXPECTED: str(revision)}, TRY_S)
        except (nats.errors.Error, TimeoutError) as error:
            why = str(error) or type(error).__name__
        else:
            if "error" not in answer:
                return True
            refused = ApiError(subject, answer["error"])
            if refused.code in (WRONG_LAST, WRONG_LAST_TOO):
                there = await last(connection, stream, subject, deadline)
                if there is not None and there[1] != revision:
                    return there[0] == data
            elif is_full(refused):
                raise LogFullError(f"the stream {stream} has no room: {refused.description}")
            why = refused.description
        if time.monotonic() >= deadline:
            raise NoAnswerError(unanswered(connection, subject, why))
        await asyncio.sleep(0.1)


def peers(info: "Mapping[str, Any]", connection: "Connection") -> frozenset[str]:
    """The names of the servers that keep the stream."""
    cluster = info.get("cluster") or {}
    names = {cluster.get("leader"), *(one.get("name") for one in cluster.get("replicas") or ())} - {None, ""}
    return frozenset(names or {connection.server_name})
