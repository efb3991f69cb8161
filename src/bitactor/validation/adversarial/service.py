"""A real `bitactor serve` of the suite's app, and a witness that knows exactly what must be in it.

The witness is an honest producer. After each attack it sends more signals over a new connection, and compares: every
key of the actor's table, every producer's next sequence, the count of names, and the engine's own conservation. One
thread at a time.
"""

import json
import os
import select
import signal
import ssl
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bitactor.validation.adversarial.rawhttp import Web
from bitactor.validation.adversarial.rawwire import ERROR, TRADE, Peer
from bitactor.validation.adversarial.rawwire import signal as one_signal
from bitactor.validation.adversarial.registry import NotAsExpected
from bitactor.validation.tether import tethered

APP: Final = Path(__file__).parent / "app.py"
ROUND: Final = 64  # signals that the witness sends after an attack
START_S: Final = 120.0


@dataclass
class Place:
    """Where a service is to be met, and with what. context: TLS for who trusts its CA; None: plain text."""

    address: tuple[str, int]
    web: Web | None
    context: ssl.SSLContext | None
    heard: bytearray = field(default_factory=bytearray)  # all that it said to anybody

    def connect(self, *, context: ssl.SSLContext | None = None, source: str = "", plain: bool = False) -> Peer:
        """A connection to the ingest port; plain: without TLS."""
        return Peer(
            self.address, None if plain else context or self.context, source=source, heard=self.heard,
            name="localhost" if self.address[0].startswith("127.") else self.address[0],
        )  # fmt: skip

    @property
    def admin(self) -> Web:
        """Its admin interface. It must have one."""
        assert self.web is not None
        return self.web


class Served(Place):
    """A service of our own: a process, killed and started as often as wanted, on ports that stay the same."""

    def __init__(
        self,
        directory: Path,
        command: Sequence[str],
        flags: Sequence[str],
        *,
        context: ssl.SSLContext | None,
        token: str,
        environ: dict[str, str] | None = None,
    ) -> None:
        """command: what stands before the verb `serve`. token: the admin interface's."""
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.data = directory / "data"
        self.error = directory / "stderr"
        self.said: dict[str, Any] = {}
        self.process: subprocess.Popen[bytes] | None = None
        self._command = [*command, "serve", str(APP), "--data-dir", str(self.data), *flags]
        self._token = token
        self._environ = environment(environ)
        self._ports: tuple[int, int] = (0, 0)
        super().__init__(("127.0.0.1", 0), None, context)
        self.start()

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self.process is not None
        return self.process.pid

    @property
    def errors(self) -> bytes:
        """What it wrote to standard error, over all its lives."""
        return self.error.read_bytes()

    def start(self) -> None:
        """Start and wait until it is ready. NotAsExpected: it is not."""
        ports = ["--ingest-port", str(self._ports[0]), "--admin-port", str(self._ports[1])]
        with self.error.open("ab") as error:
            self.process = subprocess.Popen(
                tethered([*self._command, *ports]), env=self._environ, cwd=self.directory, stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=error,
            )  # fmt: skip
        assert self.process.stdout is not None
        line = self.process.stdout.readline() if select.select([self.process.stdout], [], [], START_S)[0] else b""
        if not line:
            self.kill()
            raise NotAsExpected(f"the service did not start: {self.errors[-600:].decode(errors='replace')}")
        self.said = json.loads(line)
        port = int(self.said["ingest"][0].rpartition(":")[2])
        self.address = ("127.0.0.1", port)
        self.web = Web(self.said["admin"], self._token, self.heard)
        self._ports = (port, self.web.address[1])

    def kill(self) -> None:
        """Kill -9 and wait until it is gone."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        return self._end(signal.SIGTERM)

    def resident_bytes(self) -> int:
        """Memory that the process has."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        return 0

    def _end(self, number: signal.Signals) -> int:
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            status = self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.process = None
        return status


def environment(more: dict[str, str] | None = None) -> dict[str, str]:
    """This process's environment without settings of BitActor, which would change what is attacked."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BITACTOR_")}
    return kept | (more or {})


def python() -> list[str]:
    """This interpreter."""
    return [sys.executable]


class Witness:
    """What must be in a service, and a producer that goes on sending. keys: key -> [count, sum]."""

    def __init__(
        self, place: Place, token: str, *, producer: str = "honest-1", kind: int = TRADE, exact: bool = True
    ) -> None:
        """exact: nobody but the suite sends to this service, so all of its state can be foretold."""
        self.place = place
        self.producer = producer
        self.kind = kind
        self.exact = exact
        self.keys: dict[int, list[int]] = {}
        self.producers: dict[str, int] = {}
        self.names = 0
        self.dropped = 0
        self._token = token
        self._value = 0

    def sent(self, producer: str, *signals: tuple[int, int]) -> None:
        """Note signals (key, value) that an attack had a right to send, and that were acknowledged."""
        self.producers[producer] = self.producers.get(producer, 0) + len(signals)
        for key, value in signals:
            entry = self.keys.setdefault(key, [0, 0])
            entry[0] += 1
            entry[1] += value

    def joined(self, producer: str) -> None:
        """Note a producer that an attack had a right to open, whether or not it sent anything."""
        self.producers.setdefault(producer, 0)

    def send(self, source: str = "127.0.0.9", attempts: int = 4) -> None:
        """Send a round and wait for its acknowledgement. NotAsExpected: it is refused, or begins elsewhere."""
        signals = [(1_000 + (self._value + at) % 97, self._value + at) for at in range(ROUND)]
        self._value += ROUND
        try:
            own = self.place.address[0].startswith("127.")
            with self.place.connect(source=source if own else "") as peer:
                answer = peer.greet(self.producer, self._token, client="witness")
                if answer.kind == ERROR and answer.code == "handshake_timeout" and attempts > 1:
                    self._value -= ROUND
                    self.send(source, attempts - 1)  # a busy machine; the protocol lets clients try again
                    return
                if answer.kind == ERROR:
                    raise NotAsExpected(f"the honest producer is refused: {answer.code}: {answer.words}")
                following = peer.welcome.next
                if following != self.producers.get(self.producer, following):
                    told = f"{following}, not {self.producers[self.producer]}"
                    raise NotAsExpected(f"the honest producer's next sequence is {told}")
                self.producers.setdefault(self.producer, following)
                peer.admit(b"".join(one_signal(key, value, kind=self.kind) for key, value in signals))
        except (OSError, EOFError) as error:
            raise NotAsExpected(f"the honest producer could not send: {error!r}") from None
        self.sent(self.producer, *signals)

    def check(self) -> None:
        """Send a round, then compare everything. NotAsExpected says what differs."""
        self.send()
        if self.place.web is None:
            return
        self._conserved()
        if self.exact:
            self._same_table()
            self._same_producers()

    def _conserved(self) -> None:
        answer = self.place.admin.get("/readyz", token="")
        if answer.status != 200:
            raise NotAsExpected(f"/readyz answers {answer.status}: {answer.body[:200]!r}")
        body = self._json("/api/v1/statistics")
        engine = body["statistics"]["engine"]
        dropped = sum(engine["dropped"].values())
        if engine["accepted"] != engine["processed"] + engine["queued"] + dropped:
            raise NotAsExpected(f"accepted {engine['accepted']} is not processed + queued + dropped: {engine}")
        if not self.exact:
            return
        if engine["accepted"] != sum(self.producers.values()):
            told = f"{engine['accepted']} signals were accepted, and {sum(self.producers.values())} were sent"
            raise NotAsExpected(told)
        if dropped != self.dropped:
            raise NotAsExpected(f"{dropped} signals were dropped, {self.dropped} should have been: {engine['dropped']}")
        if body["names"] != self.names:
            raise NotAsExpected(f"{body['names']} names are known, {self.names} should be")

    def _same_table(self) -> None:
        body = self._json("/api/v1/actors/totals/table?limit=10000&columns=n,total")
        columns = [column["name"] for column in body["columns"]]
        at = columns.index("key"), columns.index("n"), columns.index("total")
        found = {row[at[0]]: [row[at[1]], row[at[2]]] for row in body["rows"]}
        if found != self.keys:
            wrong = {key for key in found.keys() | self.keys.keys() if found.get(key) != self.keys.get(key)}
            told = ", ".join(f"{key}: {found.get(key)}, not {self.keys.get(key)}" for key in sorted(wrong)[:5])
            raise NotAsExpected(f"state of {len(wrong)} keys is not that of what was sent ([count, sum]): {told}")

    def _same_producers(self) -> None:
        body = self._json("/api/v1/producers")
        found = {row["name"]: row["next"] for row in body["producers"]}
        if found != self.producers:
            wrong = sorted(name for name in found.keys() | self.producers.keys()
                           if found.get(name) != self.producers.get(name))  # fmt: skip
            told = ", ".join(f"{n!r}: {found.get(n)}, not {self.producers.get(n)}" for n in wrong[:5])
            raise NotAsExpected(f"the producer table differs: {told}")

    def _json(self, path: str) -> Any:
        answer = self.place.admin.get(path)
        if answer.status != 200:
            raise NotAsExpected(f"{path} answers {answer.status}: {answer.body[:200]!r}")
        return answer.json()
