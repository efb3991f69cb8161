"""What strikes a cluster under load: replicas and NATS servers killed and paused, all links held and reset.

The caller's thread. A fault is a generator: up to its yield it does its harm, resumed it heals.
"""

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bitactor.validation.chaos.links import Link
from bitactor.validation.replicas import Cluster


@dataclass
class Field:
    """The cluster, the links of each replica to all servers, and those by which server i reaches server j."""

    cluster: Cluster
    links: dict[str, list[Link]]
    routes: dict[tuple[int, int], Link] = field(default_factory=dict)


# Yields (what, done): whom it struck, and whether it did.
Struck = tuple[str, Callable[[], bool]]
Fault = Callable[[Field, random.Random], Iterator[Struck]]


def replica_killed(field: Field, dice: random.Random) -> Iterator[Struck]:
    """Kill -9, and start again."""
    victim = dice.choice(field.cluster.replicas)
    victim.kill()
    yield victim.directory.name, lambda: victim.running.returncode == -9
    field.cluster.start_replica(victim)


def replica_paused(field: Field, dice: random.Random) -> Iterator[Struck]:
    """SIGSTOP for longer than a lease, then SIGCONT: it does not know that it lost its lanes."""
    victim = dice.choice(field.cluster.replicas)
    victim.pause()
    yield victim.directory.name, lambda: _is_stopped(victim.pid)
    victim.resume()


def server_killed(field: Field, dice: random.Random) -> Iterator[Struck]:
    """Kill -9 of a NATS server, and start again."""
    victim = dice.randrange(field.cluster.nats.nodes)
    field.cluster.nats.kill(victim)
    yield f"n{victim}", lambda: not field.cluster.nats.runs(victim)
    field.cluster.nats.start(victim)


def server_paused(field: Field, dice: random.Random) -> Iterator[Struck]:
    """SIGSTOP of a NATS server, then SIGCONT."""
    servers = field.cluster.nats
    victim = dice.randrange(servers.nodes)
    servers.pause(victim)
    yield f"n{victim}", lambda: _is_stopped(servers.pid(victim))
    servers.resume(victim)


def replica_cut_off(field: Field, dice: random.Random) -> Iterator[Struck]:
    """Nothing passes between a replica and any server; connections look as if they were there."""
    return _replica_struck(field, dice, Link.hold, "held")


def links_reset(field: Field, dice: random.Random) -> Iterator[Struck]:
    """Connections of a replica with all servers are reset, and new ones refused."""
    return _replica_struck(field, dice, Link.cut, "cut")


def _replica_struck(field: Field, dice: random.Random, strike: Callable[[Link], None], hit: str) -> Iterator[Struck]:
    name = dice.choice(field.cluster.replicas).directory.name
    links = field.links[name]
    before = sum(link.hit[hit] for link in links)
    for link in links:
        strike(link)
    yield name, lambda: sum(link.hit[hit] for link in links) > before
    _heal(links)


def server_isolated(field: Field, dice: random.Random) -> Iterator[Struck]:
    """Nothing passes between a server and the others, which are a majority; clients reach all of them."""
    return _server_struck(field, dice, Link.hold)


def routes_reset(field: Field, dice: random.Random) -> Iterator[Struck]:
    """Connections of a server with the others are reset, and new ones refused."""
    return _server_struck(field, dice, Link.cut)


def _server_struck(field: Field, dice: random.Random, strike: Callable[[Link], None]) -> Iterator[Struck]:
    victim = dice.randrange(field.cluster.nats.nodes)
    links = [link for ends, link in field.routes.items() if victim in ends]
    for link in links:
        strike(link)
    yield f"n{victim}", lambda: _reached(field, victim) == set()
    _heal(links)


def route_cut(field: Field, dice: random.Random) -> Iterator[Struck]:
    """Two servers do not reach each other, and a third one reaches both."""
    one, other, third = dice.sample(range(field.cluster.nats.nodes), 3)
    links = [link for ends, link in field.routes.items() if set(ends) == {one, other}]
    strike = dice.choice((Link.hold, Link.cut))
    for link in links:
        strike(link)
    yield f"n{one}-n{other}", lambda: _reached(field, one) == {f"n{third}"}
    _heal(links)


def _reached(field: Field, server: int) -> set[str] | None:
    """The servers with which that one has a connection, as either of the two says. None: one of them does not say."""
    servers = field.cluster.nats
    try:
        names = set(servers.routes(server))
        others = (other for other in range(servers.nodes) if other != server)
        return names | {f"n{other}" for other in others if f"n{server}" in servers.routes(other)}
    except OSError:
        return None


def _heal(links: Iterable[Link]) -> None:
    for link in links:
        link.heal()


KINDS: Final[dict[str, tuple[Fault, ...]]] = {
    "replica killed": (replica_killed,),
    "replica paused": (replica_paused,),
    "server killed": (server_killed,),
    "server paused": (server_paused,),
    "replica cut off": (replica_cut_off,),
    "links reset": (links_reset,),
    "replica and server killed": (replica_killed, server_killed),
    "replica paused, server killed": (replica_paused, server_killed),
    "replica cut off, server paused": (replica_cut_off, server_paused),
    "server isolated": (server_isolated,),
    "routes reset": (routes_reset,),
    "two servers cut off from each other": (route_cut,),
    "server isolated, replica killed": (server_isolated, replica_killed),
}


def _is_stopped(pid: int) -> bool:
    """Whether a process stands still."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
