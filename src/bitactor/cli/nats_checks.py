"""What `bitactor doctor` looks at when the log is in NATS JetStream. It asks, and makes nothing there."""

import asyncio
import datetime as dt
import json
import time
import urllib.request
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from bitactor.cli.finding import Finding
from bitactor.config import Settings
from bitactor.config.units import of_bytes

if TYPE_CHECKING:
    from bitactor.log.nats import Connection

CONNECT_S: Final = 5.0
_ANSWER_S: Final = 3.0
_CLOCK_S_MAX: Final = 1.0  # wall times of records never decrease; a new owner's clock that is behind makes them stand
_ABSENT: Final = "doctor-asks"  # a stream that nobody has


def servers(settings: Settings) -> Iterator[Finding]:
    """The servers of nats.urls and nats.monitor_urls, as this user and this machine see them."""
    if settings.log.kind != "jetstream":
        return
    try:
        from bitactor.log.nats import NatsError
    except ImportError as error:
        yield Finding("nats", "fail", "nats-py is missing", str(error).partition(": ")[2])
        return
    try:
        yield from asyncio.run(_asked(settings))
    except NatsError as error:
        advice = "start the servers, or correct nats.urls and who this is (docs/cluster-nats.md)"
        yield Finding("nats", "fail", str(error), advice)


async def _asked(settings: Settings) -> list[Finding]:
    from bitactor.log.nats import connect

    monitored = [await asyncio.to_thread(_monitored, url) for url in settings.nats.monitors]
    connection = await connect(settings.nats, name="bitactor doctor", connect_s=CONNECT_S)
    try:
        rtt = await connection.rtt(timeout=int(_ANSWER_S))
        found = [Finding("nats", "ok", f"{connection._address()} answers in {rtt * 1e3:.1f} ms")]
        found += [_version(connection), _payload(connection)]
        found += [*await _jetstream(connection, settings)]
        found += [*_replicas(connection, settings, monitored), *_monitors(monitored)]
    finally:
        await connection.close()
    return found


def _version(connection: "Connection") -> Finding:
    from bitactor.log.streams import VERSION_MIN

    version = connection.connected_server_version
    if (version.major, version.minor) < VERSION_MIN:
        least = ".".join(map(str, VERSION_MIN))
        return Finding("nats version", "fail", str(version), f"use nats-server {least} or later on every server")
    return Finding("nats version", "ok", f"{version.major}.{version.minor}.{version.patch}")


def _payload(connection: "Connection") -> Finding:
    from bitactor.cluster.lane import RECORD_BYTES

    least = RECORD_BYTES + 1024
    found = f"{of_bytes(connection.max_payload)} a message"
    if connection.max_payload < least:
        advice = f"a record has up to {of_bytes(RECORD_BYTES)}: raise max_payload of the servers (1MB is their default)"
        return Finding("nats messages", "fail", found, advice)
    return Finding("nats messages", "ok", found)


async def _jetstream(connection: "Connection", settings: Settings) -> list[Finding]:
    """Whether JetStream answers this user, and what its account may store."""
    from bitactor.log import streams

    deadline = streams.from_now(_ANSWER_S)
    try:
        await streams.ask(connection, f"STREAM.INFO.{settings.nats.stream}-{_ABSENT}", deadline=deadline)
    except streams.ApiError as error:
        if error.code != streams.NOT_FOUND:
            advice = "enable JetStream in the servers' configuration, and for this user's account"
            return [Finding("jetstream", "fail", error.description, advice)]
    except streams.NoAnswerError as error:
        advice = "no leader, JetStream is off, or this user may not ask: see the permissions in docs/cluster-nats.md"
        return [Finding("jetstream", "fail", str(error), advice)]
    try:
        info = await streams.ask(connection, "INFO", deadline=streams.from_now(_ANSWER_S / 3))
    except (streams.ApiError, streams.NoAnswerError):
        told = "its limits cannot be seen by this user"
        return [Finding("jetstream", "ok", f"answers; {told} ($JS.API.INFO; nothing else needs it)")]
    return [Finding("jetstream", "ok", "answers"), _account(info, settings)]


def _account(info: dict[str, Any], settings: Settings) -> Finding:
    given, lanes = settings.nats, settings.cluster.lanes
    tier = (info.get("tiers") or {}).get(f"R{given.replicas}")
    limits, used = (tier or info)["limits"], (tier or info).get("reserved_storage", 0)
    # Of an account without tiers each replica counts.
    wanted = (lanes * given.size_bytes_max + given.snapshot_bytes_max) * (1 if tier else given.replicas)
    most = limits["max_storage"]
    if most < 0:
        return Finding("nats account", "ok", f"no limit; {of_bytes(wanted)} is set aside for {lanes} lanes")
    found = f"may store {of_bytes(most)}, {of_bytes(used)} of it is set aside; {lanes} lanes take {of_bytes(wanted)}"
    if most < wanted:
        advice = "raise the account's limit, or lower nats.size_bytes_max and nats.snapshot_bytes_max"
        return Finding("nats account", "warn" if used else "fail", found, advice)
    return Finding("nats account", "ok", found)


def _monitored(url: str) -> tuple[str, dict[str, Any] | None, float]:
    """(url, /varz and /jsz of a server, None when it does not answer, how many seconds its clock is ahead)."""
    try:
        jsz = _get(f"{url}/jsz")
        begun = time.time()
        varz = _get(f"{url}/varz")
        middle = (begun + time.time()) / 2
        return url, {"jsz": jsz, "varz": varz}, _seconds(varz["now"]) - middle
    except (OSError, ValueError, KeyError, TypeError):
        return url, None, 0.0


def _get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=_ANSWER_S) as answer:  # noqa: S310  (http or https: settings)
        return json.load(answer)


def _seconds(text: str) -> float:
    """Of a time as Go writes it, with up to nine digits of a second."""
    whole, _, rest = text.rstrip("Z").partition(".")
    digits = rest.partition("+")[0].partition("-")[0]
    zone = rest[len(digits) :] or "+00:00"
    return dt.datetime.fromisoformat(whole + zone).timestamp() + (float(f"0.{digits}") if digits else 0.0)


def _replicas(
    connection: "Connection", settings: Settings, monitored: list[tuple[str, dict[str, Any] | None, float]]
) -> list[Finding]:
    """How many servers there are for nats.replicas."""
    wanted = settings.nats.replicas
    sizes = [said["jsz"].get("meta_cluster", {}).get("cluster_size", 1) for _, said, _ in monitored if said]
    known = max(sizes) if sizes else len({*connection._server_info.get("connect_urls", [])})
    if not sizes and not connection._server_info.get("cluster"):
        known = 1
    if not known:
        advice = "the servers do not say how many they are: give nats.monitor_urls"
        return [Finding("nats replicas", "warn", f"{wanted} asked for", advice)]
    found = f"{known} server{'s' * (known != 1)}, {wanted} asked for"
    if known < wanted:
        advice = f"streams cannot be made: start {wanted} servers of one cluster, or lower nats.replicas"
        return [Finding("nats replicas", "fail", found, advice)]
    if wanted == 1:
        return [
            Finding("nats replicas", "warn", found, "the loss of one disk is the loss of the log: 3 servers keep it")
        ]
    return [Finding("nats replicas", "ok", found)]


def _monitors(monitored: list[tuple[str, dict[str, Any] | None, float]]) -> Iterator[Finding]:
    """What only monitoring tells: whether each server syncs before it agrees, and its clock."""
    if not monitored:
        advice = "nats.monitor_urls lets acknowledgements say that servers sync, when they do (durability 17, 19)"
        yield Finding("nats sync", "warn", "not known", advice)
        return
    for url, said, ahead in monitored:
        if said is None:
            advice = "it counts as one that does not sync: start it, or correct nats.monitor_urls"
            yield Finding(f"nats {url}", "warn", "does not answer", advice)
            continue
        name = said["varz"].get("server_name", url)
        config = (said["varz"].get("jetstream") or {}).get("config")
        if not config:
            yield Finding(f"nats sync {name}", "fail", "no JetStream there", "enable it in the server's configuration")
        elif config.get("sync_always") is True:
            yield Finding(f"nats sync {name}", "ok", "before it agrees (sync_interval: always)")
        else:
            every = config.get("sync_interval", 0) / 1e9
            advice = "sync_interval: always; else a power cut may take what was acknowledged since (durability 16, 18)"
            yield Finding(f"nats sync {name}", "warn", f"every {every:g} s", advice)
        found = f"{abs(ahead) * 1e3:.0f} ms {'ahead of' if ahead > 0 else 'behind'} this machine"
        if abs(ahead) < _CLOCK_S_MAX:
            yield Finding(f"nats clock {name}", "ok", found)
        else:
            yield Finding(f"nats clock {name}", "warn", found, "run chrony or systemd-timesyncd on both")
