"""Rounds of faults against replicas under load: three NATS servers, three replicas, producers over TLS, one reader.

`python -m bitactor.validation.rounds --rounds 50` runs it and writes its findings as JSON. Each round draws a fault of
a replica, of a server, of the links between replicas and servers or among servers, or of two at once; everything heals,
and the next round begins. At the end every lane's log is read back and judged (bitactor.validation.lanes). A fault that
did not hit is a failure.
"""

import argparse
import contextlib
import datetime as dt
import itertools
import json
import random
import secrets
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

import bitactor as ba
from bitactor.protocol.errors import ProtocolError
from bitactor.validation import cluster_app, lanes, machine
from bitactor.validation.campaign import DefectFoundError
from bitactor.validation.chaos.links import Link
from bitactor.validation.chaos.strikes import KINDS, Field, Struck
from bitactor.validation.history import Findings, Sent, known_of
from bitactor.validation.probes import UNANSWERED, asked
from bitactor.validation.producers import Producer
from bitactor.validation.replicas import Cluster
from bitactor.validation.service import ServiceFailedError, wait_until
from bitactor.validation.streams import stream

APP: Final = Path(cluster_app.__file__)
RESUMED_S: Final = 15.0  # producers get acknowledgements again within
SILENT_S: Final = 4.0  # producers leave a replica that says nothing for so long
SNAPSHOT_S: Final = 5.0
SNAPSHOTS_MAX: Final = 5  # of a lane at the end: one that covers its log must come
STRUCK_S: Final = 5.0  # beyond its own time a fault may take so long to be seen: a held route, until it is missed
_LOOK_S: Final = 0.005


class Wanderer(Producer):
    """A producer that goes to another replica after each loss of its connection."""

    def __init__(self, data: Path, ports: list[int], label: str, signals: npt.NDArray[Any], *, seed: int) -> None:
        super().__init__(data, ports[0], label, signals, seed=seed, frame_max=100, ca_file=data / "dev" / "ca.pem")
        self.ports = ports
        self.silent_s = SILENT_S

    def connect(self) -> Any:
        """A connection to the next one."""
        self.port = self.ports[(self.ports.index(self.port) + 1) % len(self.ports)]
        return super().connect()


class Reader(threading.Thread):
    """Reads all outputs, whatever happens, and goes on by itself; `begin_anew`: as a reader that was started again."""

    def __init__(self, client: "ba.Client") -> None:
        super().__init__(daemon=True, name="outputs reader")
        self.subscription = client.subscribe("alert")
        self.batches: list[npt.NDArray[Any]] = []
        self.restarts = 0
        self.failure: BaseException | None = None
        self._client = client
        self._anew = threading.Event()
        self._stopping = False

    def run(self) -> None:
        """Read until told otherwise."""
        try:
            while not self._stopping:
                batch = self.subscription.read(timeout=0.2)
                if batch is not None:
                    self.batches.append(batch)
                if self._anew.is_set():
                    self._begin_anew()
        except BaseException as error:  # told by who joins
            self.failure = error

    def begin_anew(self) -> None:
        """Soon end the subscription and make another, which knows nothing but the places of the one before."""
        self._anew.set()

    def _begin_anew(self) -> None:
        places = self.subscription.places
        self.subscription.close()
        while not self._stopping:
            try:
                self.subscription = self._client.subscribe("alert", after=places)
            except (OSError, ProtocolError):  # the replica that was tried is being struck
                time.sleep(_LOOK_S)
            else:
                self._anew.clear()
                self.restarts += 1
                return

    @property
    def count(self) -> int:
        """Outputs so far."""
        return sum(map(len, self.batches))

    def stop(self) -> npt.NDArray[Any]:
        """Everything that came, in the order in which it came."""
        self._stopping = True
        self.join(30)
        if self.failure is not None:
            raise DefectFoundError(f"reading outputs failed: {self.failure!r}") from self.failure
        self.subscription.close()
        return np.concatenate(self.batches)


class Watch(threading.Thread):
    """Notes for each producer the longest time without an acknowledgement, and for all of them together."""

    def __init__(self, producers: list[Wanderer]) -> None:
        super().__init__(daemon=True, name="watch")
        self.producers = producers
        self._acked = [0] * len(producers)
        self._since = [time.monotonic()] * len(producers)
        self._longest = self._together = 0.0
        self._stopping = False

    def run(self) -> None:
        """Look several times a lease."""
        while not self._stopping:
            self._look()
            time.sleep(_LOOK_S)

    def _look(self) -> None:
        now = time.monotonic()
        latest = max(self._since)
        for i, producer in enumerate(self.producers):
            self._longest = max(self._longest, now - self._since[i])
            if producer.acked != self._acked[i]:
                self._acked[i], self._since[i] = producer.acked, now
        self._together = max(self._together, now - latest)

    def begin(self) -> None:
        """Forget what was longest so far."""
        self._longest = self._together = 0.0

    def longest(self) -> tuple[float, float]:
        """(of any one producer, of all together) in seconds, since begin."""
        return self._longest, self._together

    def stop(self) -> None:
        """Look no more."""
        self._stopping = True
        self.join(10)


@dataclass
class Round:
    """What happened in one round. gap_s: a producer's longest wait for an ack; service_gap_s: that of all together."""

    number: int
    kind: str
    struck: list[str]
    hit: bool
    seconds: float
    gap_s: float = 0.0
    service_gap_s: float = 0.0
    healed_s: float = 0.0
    moves: int = 0


@dataclass
class Result:
    """Of a campaign."""

    seed: int
    rounds: list[Round] = field(default_factory=list)
    findings: Findings = field(default_factory=Findings)
    planted: dict[str, bool] = field(default_factory=dict)
    outputs_read: int = 0
    reader_restarts: int = 0
    emitted: int = 0
    connections: int = 0
    seconds: float = 0.0

    def told(self) -> dict[str, Any]:
        """As JSON has it."""
        gaps = [one.gap_s for one in self.rounds]
        together = [one.service_gap_s for one in self.rounds]
        found = asdict(self.findings)
        return {
            "date": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d"),
            "command": machine.command(), "commit": machine.commit(), "machine": machine.facts(), "seed": self.seed,
            "rounds": len(self.rounds), "hit": sum(one.hit for one in self.rounds),
            "kinds": dict(Counter(one.kind for one in self.rounds)), "seconds": round(self.seconds, 1),
            "gap_s": {"p50": round(statistics.median(gaps), 2), "max": round(max(gaps), 2)},
            "service_gap_s": {"p50": round(statistics.median(together), 2), "max": round(max(together), 2)},
            "moves": sum(one.moves for one in self.rounds), "connections": self.connections,
            "emitted_over_lanes": self.emitted, "outputs_read": self.outputs_read,
            "reader_restarts": self.reader_restarts, "findings": found,
            "planted": self.planted, "each": [asdict(one) for one in self.rounds],
        }  # fmt: skip

    def require(self, resumed_s: float | None = RESUMED_S) -> Self:
        """Itself if every promise was kept. DefectFoundError names what was not.

        resumed_s None: however long producers waited.
        """
        self.findings.require()
        missed = [f"round {one.number} ({one.kind})" for one in self.rounds if not one.hit]
        if missed:
            raise DefectFoundError(f"faults that did not hit: {', '.join(missed)}")
        most = float("inf") if resumed_s is None else resumed_s
        late = [f"round {one.number} ({one.kind}): {one.gap_s:.1f} s" for one in self.rounds if one.gap_s > most]
        if late:
            raise DefectFoundError(f"producers waited for more than {most:g} s: {', '.join(late)}")
        unseen = [name for name, seen in self.planted.items() if not seen]
        if unseen or not self.planted:
            raise DefectFoundError(f"the checker does not see a planted {', '.join(unseen)}")
        return self


class Campaign:
    """Starts everything; `round` does one, `finish` stops the load and judges. say: told what happens."""

    def __init__(
        self,
        directory: Path,
        seed: int,
        *,
        producers: int = 3,
        signals: int = 200_000,
        pause_s: float = 0.03,
        lanes: int = 8,
        lease_s: float = 1.5,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.directory, self.lanes, self.lease_s, self.say = directory, lanes, lease_s, say or _say
        self.result = Result(seed)
        self.dice = random.Random(seed)
        self.app = cluster_app.app
        self._stack = contextlib.ExitStack()
        self._signals, self._producers, self._pause_s = signals, producers, pause_s
        self._begun = time.monotonic()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            cluster = Cluster(
                self.directory, APP, replicas=0, advertise=False, cluster_lanes=self.lanes,
                cluster_lease_s=self.lease_s, snapshot_every_s=SNAPSHOT_S, snapshot_keep=1000,
                nats_size_bytes_max="1GiB",
            )  # fmt: skip
            stack.callback(cluster.close)
            self.field = Field(cluster, {})
            self._link_servers(stack)
            for number in range(3):
                name = f"r{number}"
                links = [stack.enter_context(Link(port)) for port in cluster.nats.ports]
                self.field.links[name] = links
                urls = ",".join(f"nats://127.0.0.1:{link.port}" for link in links)
                cluster.replicas.append(cluster.make(name, nats_urls=urls))
            cluster.start()
            self.cluster = cluster
            self._load(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for replica in self.cluster.replicas:
            if replica.is_running():
                replica.resume()
        self._stack.close()

    def _link_servers(self, stack: contextlib.ExitStack) -> None:
        """Let every server reach every other by a link of its own, and in no other way."""
        servers = self.field.cluster.nats
        for ends in itertools.permutations(range(servers.nodes), 2):
            link = self.field.routes[ends] = stack.enter_context(Link(servers.route_ports[ends[1]]))
            servers.dial[ends] = link.port

    def _load(self, stack: contextlib.ExitStack) -> None:
        dev = self.cluster.directory / "dev"
        self._client = stack.enter_context(
            ba.Client(
                self.cluster.addresses, producer="reader", token_file=dev / "token", ca_file=dev / "ca.pem",
                server_name="localhost",
            )
        )  # fmt: skip
        self.reader = Reader(self._client)
        self.reader.start()
        ports = [replica.port for replica in self.cluster.replicas]
        self.producers = []
        for number in range(self._producers):
            label = f"desk-{number}"
            signals = stream(self.app, label, self._signals, self.result.seed, kinds=self.app.kinds[:1])
            signals["aux"] %= cluster_app.SITES
            turn = ports[number:] + ports[:number]
            one = Wanderer(self.cluster.directory, turn, label, signals, seed=self.result.seed)
            one.pause_s = self._pause_s
            self.producers.append(one)
        for one in self.producers:
            one.start()
        self.watch = Watch(self.producers)
        self.watch.start()
        stack.callback(self.watch.stop)
        for one in self.producers:
            stack.callback(one.stop)

    def deck(self, rounds: int) -> list[str]:
        """Kinds of faults for so many rounds: all of them in turn, in an order of chance."""
        drawn: list[str] = []
        while len(drawn) < rounds:
            some = list(KINDS)
            self.dice.shuffle(some)
            drawn += some
        return drawn[:rounds]

    def round(self, kind: str) -> Round:
        """Do harm, heal, and wait until all is as before and every producer hears acknowledgements again."""
        number = len(self.result.rounds) + 1
        time.sleep(self.dice.uniform(0.2, 1.0))
        self.watch.begin()
        moves = self._moves()
        faults = [fault(self.field, self.dice) for fault in KINDS[kind]]
        begun = time.monotonic()
        struck = [next(one) for one in faults]
        self.say(f"{time.monotonic() - self._begun:7.1f} s  {kind}: {', '.join(name for name, _ in struck)}")
        self.reader.begin_anew()
        time.sleep(self.lease_s * self.dice.uniform(1.5, 3.0))
        hit = self._did_hit(struck)
        self.dice.shuffle(faults)
        seconds = time.monotonic() - begun
        for one in faults:
            next(one, None)
        healed = time.monotonic()
        self.cluster.settled()
        for producer in self.producers:
            producer.acknowledged()
        gap, together = self.watch.longest()
        after = self._moves()
        moved = sum(after[lane] != moves.get(lane) for lane in after)
        done = Round(
            number, kind, [name for name, _ in struck], hit, round(seconds, 2), round(gap, 2), round(together, 2),
            round(time.monotonic() - healed, 2), moved,
        )  # fmt: skip
        self.result.rounds.append(done)
        self.say(
            f"{time.monotonic() - self._begun:7.1f} s  round {number}: {kind} ({', '.join(done.struck)}), longest wait "
            f"{gap:.1f} s, of all {together:.1f} s; {moved} lanes moved; {sum(p.acked for p in self.producers):,} acked"
        )
        for producer in self.producers:
            if producer.failure is not None:
                raise DefectFoundError(f"{producer.label}: {producer.failure}") from producer.failure
        return done

    def _did_hit(self, struck: list[Struck]) -> bool:
        """Whether all of it was seen to do harm, a moment after it should have at most."""
        with contextlib.suppress(ServiceFailedError):
            wait_until(lambda: all(done() for _, done in struck), "that it strikes", STRUCK_S)
            return True
        return False

    def _moves(self) -> dict[int, int]:
        """The generation of each lane, as any replica tells."""
        for replica in self.cluster.running:
            with contextlib.suppress(*UNANSWERED):
                return {lane["lane"]: lane.get("generation", 0) for lane in replica.ask("cluster")["lanes"]}
        return {}

    def finish(self) -> Result:
        """Stop the load, wait until nothing is on its way, and judge all lanes and outputs."""
        for one in self.producers:
            one.end_after()
        for one in self.producers:
            one.pause_s = 0
            one.finished()
        self.watch.stop()
        self._quiet()
        result, known = self.result, known_of(self.producers)
        result.findings, truths = self._judged(known)
        if len(truths) == self.lanes:
            result.emitted = sum(len(some) for truth in truths for some in truth.emitted.values())
            expected = sum(len(truth.outputs) for truth in truths)
            with contextlib.suppress(ServiceFailedError):
                wait_until(lambda: self.reader.count >= expected, "all outputs", 30)
            got = self.reader.stop()
            result.reader_restarts = self.reader.restarts
            result.outputs_read = len(got)
            result.planted = lanes.prove(truths, known, got)
            result.findings.add(lanes.check_outputs(truths, got))
        result.connections = sum(one.connections for one in self.producers)
        result.seconds = time.monotonic() - self._begun
        return result

    def _judged(self, known: Sequence[Sent]) -> tuple[Findings, lanes.Truths]:
        """Write a snapshot of each lane and read everything back; again when a heartbeat came in between."""
        prefix = f"bitactor-{self.app.name}"
        turn = 0
        while True:
            turn += 1
            for replica in self.cluster.replicas:
                asked(partial(replica.ask, "snapshot", {}, timeout_s=60))
            findings, truths = lanes.check_cluster(
                self.cluster.nats.urls, prefix, self.app, self.lanes, known, self.directory / f"oracle{turn}"
            )
            late = [text for text in findings.problems if lanes.LAST_SNAPSHOT in text]
            if not late or late != findings.problems or turn == SNAPSHOTS_MAX:
                return findings, truths

    def _quiet(self) -> None:
        """Wait until all that was emitted has arrived where it belongs."""
        acked = sum(one.acked for one in self.producers)

        def arrived() -> bool:
            with contextlib.suppress(*UNANSWERED):
                sites = self.cluster.running[0].rows("site").values()
                regions = self.cluster.running[0].rows("region").values()
                visits = sum(row["count"] for row in sites)
                tallies = sum(row["count"] for row in regions)
                return bool(visits >= acked and tallies == sum(row["count"] // 2 for row in sites))
            return False

        self.cluster.settled()
        wait_until(arrived, "what was emitted arrives in its lanes", 90, every_s=0.3)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def run(
    directory: Path,
    rounds: int,
    seed: int,
    say: Callable[[str], None] = _say,
    *,
    kind: str | None = None,
    **options: Any,
) -> Result:
    """A whole campaign; its result, judged but not required to be good. kind: of fault, None: all of them."""
    say(f"seed {seed}")
    with Campaign(directory, seed, say=say, **options) as campaign:
        for drawn in campaign.deck(rounds):
            campaign.round(kind or drawn)
        return campaign.finish()


def main() -> int:
    """The command line: status 1 when a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=None, help="of all chance in it; default: another each time")
    parser.add_argument("--directory", type=Path, default=None, help="keep everything there")
    parser.add_argument("--kind", choices=list(KINDS), default=None, help="draw this kind alone")
    parser.add_argument("--out", type=Path, default=Path("chaos_cluster.json"))
    given = parser.parse_args()
    seed = secrets.randbits(32) if given.seed is None else given.seed
    with tempfile.TemporaryDirectory(prefix="bitactor-rounds-") as directory:
        result = run(
            given.directory or Path(directory), given.rounds, seed, signals=60_000 * given.rounds, kind=given.kind
        )  # fmt: skip
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(result.told(), indent=1) + "\n")
    _say(f"{given.out}: {result.findings}")
    try:
        result.require()
    except DefectFoundError as error:
        sys.stderr.write(f"a promise was broken: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
