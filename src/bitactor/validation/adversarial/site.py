"""What the cases attack: services of several kinds, started when a case first asks for one, and what they share.

A case that uses a service has it checked by its witness afterwards. One thread.
"""

import hashlib
import json
import random
import secrets
import shutil
import ssl
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from bitactor.validation.adversarial.certificates import CLIENT, SERVER, Authority, Pair
from bitactor.validation.adversarial.rawwire import TRADE, WELCOME, Peer, signal
from bitactor.validation.adversarial.registry import NotAsExpected, NotRun
from bitactor.validation.adversarial.service import Place, Served, Witness, environment, python
from bitactor.validation.tether import tethered

TIMEOUT_S: Final = 120.0
IDENTITIES: Final = ("honest", "attacker", "reader", "operator", "admin")
LIMITS: Final = (
    "--limits-connections-max", "96", "--limits-connections-per-peer-max", "48", "--limits-handshake-s", "4",
    "--limits-frame-s", "4", "--limits-idle-s", "8", "--limits-output-bytes-max", "65536",
    "--limits-window-signals", "65536", "--limits-names-max", "4096", "--limits-producers-max", "4096",
    "--outputs-window", "65536", "--log-durability", "normal", "--snapshot-every-s", "3600",
)  # fmt: skip
TIGHT: Final = (
    "--limits-producers-max", "8", "--limits-names-max", "8", "--log-size-bytes-max", "4MiB",
    "--limits-window-signals", "8192", "--snapshot-every-s", "3600", "--outputs-window", "64",
    "--log-durability", "normal",
)  # fmt: skip


class Site:
    """Our own services. variant: the weakened one to attack instead, by its name."""

    def __init__(self, directory: Path, seed: int, variant: str = "") -> None:
        """directory: new, for everything that is written; removed by close."""
        self.directory = directory
        self.seed = seed
        self.random = random.Random(seed)
        self.used: set[str] = set()
        self.places: dict[str, Place] = {}
        self.witnesses: dict[str, Witness] = {}
        self.tokens = {name: secrets.token_urlsafe(32) for name in IDENTITIES}
        self.prefix = "attacker-"  # of producers that attacks may open
        self.kind = TRADE  # of signals that they may send
        self.commands: list[str] = []  # what the command line wrote, for the search for secrets
        self._variant = variant
        self._authority: Authority | None = None
        self._count = 0
        directory.mkdir(parents=True, exist_ok=True)

    # --- what is attacked ---

    @property
    def place(self) -> Place:
        """The ingest port and admin interface that most cases attack: TLS, tokens, certificates taken, small limits."""
        return self.own

    @property
    def own(self) -> Served:
        """The same, for what only a process of ours allows: its files, its death, certificates of its CA."""
        return self.serve("main", (*LIMITS, *self._client_ca(), "--logging-level", "debug", "--logging-format", "json"))

    @property
    def tight(self) -> Served:
        """One with room for little: 8 producers, 8 names, a log of 4 MiB. Writes text for people to its log."""
        return self.serve("tight", (*TIGHT, "--logging-format", "text"))

    @property
    def plain(self) -> Served:
        """One without TLS, on loopback."""
        return self.serve("plain", (*LIMITS, "--ingest-plain-text-on-loopback"), tls=False)

    @property
    def strict(self) -> Served:
        """One that asks every client for a certificate."""
        return self.serve("strict", (*LIMITS, *self._client_ca(), "--tls-client-required"))

    @property
    def witness(self) -> Witness:
        """The witness of `place`."""
        self.place  # noqa: B018 (it may have to be started)
        return self.witness_of("main")

    def witness_of(self, name: str) -> Witness:
        """The witness of a service that has been asked for."""
        return self.witnesses[name]

    def serve(self, name: str, flags: Sequence[str], *, tls: bool = True) -> Served:
        """The service of that name, started with these flags if it was not yet, or has ended."""
        self.used.add(name)
        found = self.places.get(name)
        if isinstance(found, Served):
            if found.process is None or found.process.poll() is not None:
                found.start()
            return found
        files = self.service_files(self.directory / name)
        given = [*flags, "--auth-file", str(files / "auth.toml"), "--admin-token-file", str(files / "admin.token")]
        if tls:
            server = self.server_pair
            given += ["--tls-cert-file", str(server.cert_file), "--tls-key-file", str(server.key_file)]
        served = Served(
            self.directory / name, self.command, given, token=self.tokens["admin"],
            context=self.trusting() if tls else None,
        )  # fmt: skip
        if name == "strict":
            served.context = self.trusting(self.client_pair)
        self.places[name] = served
        self.witnesses[name] = Witness(served, self.tokens["honest"])
        return served

    def join(self, peer: Peer, name: str, **given: Any) -> str:
        """Greet as a producer that attacks may open, on `place`; its name. NotAsExpected: it is refused."""
        producer = self.prefix + name
        answer = peer.greet(producer, self.tokens["attacker"], **given)
        if answer.kind != WELCOME:
            raise NotAsExpected(f"{producer!r} is refused: {answer.code}: {answer.words}")
        self.witness.joined(producer)
        return producer

    def admit(self, peer: Peer, producer: str, *signals: tuple[int, int]) -> None:
        """Send signals (key, value) as they should be, wait for their acknowledgement and note them."""
        peer.admit(self.signals(*signals))
        self.witness.sent(producer, *signals)

    def signals(self, *signals: tuple[int, int]) -> bytes:
        """Signals (key, value) that attacks may send."""
        return b"".join(signal(key, value, kind=self.kind) for key, value in signals)

    def renew(self, name: str) -> None:
        """Give a service up whose state is not what it should be; who asks for it next gets another."""
        place = self.places.pop(name, None)
        self.witnesses.pop(name, None)
        if isinstance(place, Served):
            place.kill()
            shutil.rmtree(place.directory, ignore_errors=True)

    # --- what attacks need ---

    @property
    def authority(self) -> Authority:
        """The CA that signed everything good."""
        if self._authority is None:
            self._authority = Authority(self.directory / "ca", "adversarial CA")
        return self._authority

    @property
    def server_pair(self) -> Pair:
        """The server's certificate."""
        pair = Pair(self.directory / "ca" / "server.pem", self.directory / "ca" / "server.key")
        if not pair.cert_file.exists():
            return self.authority.sign("server", "localhost", SERVER, names=("localhost", "127.0.0.1"))
        return pair

    @property
    def client_pair(self) -> Pair:
        """The certificate of the identity `certified`."""
        pair = Pair(self.directory / "ca" / "certified.pem", self.directory / "ca" / "certified.key")
        if not pair.cert_file.exists():
            return self.authority.sign("certified", "certified", CLIENT)
        return pair

    def trusting(self, client: Pair | None = None) -> ssl.SSLContext:
        """TLS for a client that trusts the CA, and shows a certificate if it has one."""
        context = ssl.create_default_context(cafile=self.authority.file)
        if client is not None:
            context.load_cert_chain(client.cert_file, client.key_file)
        return context

    def service_files(self, directory: Path) -> Path:
        """A directory with auth.toml and admin.token."""
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "auth.toml").write_text(self.identities())
        token = directory / "admin.token"
        token.touch(0o600)
        token.write_text(self.tokens["admin"])
        return directory

    def identities(self) -> str:
        """The identities file: who may do what."""
        given: dict[str, dict[str, Any]] = {
            "honest": {"kinds": ["trade", "quote"], "producers": ["honest-*", "shared-*"], "read": True},
            "attacker": {"kinds": ["trade"], "producers": ["attacker-*", "shared-*"]},
            "reader": {"kinds": ["*"], "read": True},
            "operator": {"read": True, "admin": True},
        }
        text = ""
        for name, rights in given.items():
            digest = hashlib.sha256(self.tokens[name].encode()).hexdigest()
            rows = {"name": name, "token_sha256": digest} | rights
            text += "[[identity]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in rows.items()) + "\n"
        return (
            text
            + '[[identity]]\nname = "certified"\ncertificate = "certified"\nkinds = ["trade"]\nproducers = ["cert-*"]\n'
        )

    @property
    def command(self) -> list[str]:
        """What starts the command line: BitActor's, or the weakened variant of it."""
        return [*self._interpreter, "-m", "bitactor"] if not self._variant else [*self._weakened, "-m", "bitactor"]

    def new_directory(self, name: str) -> Path:
        """An empty directory of a case's own."""
        self._count += 1
        path = self.directory / f"{name}-{self._count}"
        path.mkdir()
        return path

    def run(
        self,
        *arguments: str | Path,
        environ: dict[str, str] | None = None,
        cwd: Path | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> "subprocess.CompletedProcess[str]":
        """Run a verb of the command line to its end."""
        return self._run([*self.command, *map(str, arguments)], environ, cwd, timeout_s)

    def python(
        self, code: str, *, environ: dict[str, str] | None = None, timeout_s: float = TIMEOUT_S
    ) -> "subprocess.CompletedProcess[str]":
        """Run a program that uses the library, in a process of its own."""
        start = self._weakened if self._variant else self._interpreter
        path = self.new_directory("probe") / "probe.py"  # actors are read from their source file
        path.write_text(code)
        return self._run([*start, str(path)], environ, path.parent, timeout_s)

    def close(self) -> None:
        """End what was started, remove what was written."""
        for place in self.places.values():
            if isinstance(place, Served):
                place.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    # --- inside ---

    @property
    def _interpreter(self) -> list[str]:
        return python()

    @property
    def _weakened(self) -> list[str]:
        return [*python(), "-m", "bitactor.validation.adversarial.variants", self._variant]

    def _client_ca(self) -> tuple[str, str]:
        return "--tls-client-ca-file", str(self.authority.file)

    def _run(
        self, command: list[str], environ: dict[str, str] | None, cwd: Path | None, timeout_s: float
    ) -> "subprocess.CompletedProcess[str]":
        try:
            done = subprocess.run(
                tethered(command), env=environment(environ), cwd=cwd or self.directory, timeout=timeout_s, check=False,
                capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            words = " ".join(command[1:5])
            raise NotAsExpected(f"`{words} …` did not end within {timeout_s:g} s") from None
        self.commands.append(done.stdout + done.stderr)
        return done


class RemoteSite(Site):
    """A service that is not ours: what can be done to it over the network, with a token that may send."""

    def __init__(self, directory: Path, seed: int, place: Place, token: str, *, kind: int, prefix: str) -> None:
        """token: of an identity that may send this kind, as producers whose names begin with the prefix."""
        super().__init__(directory, seed)
        self.tokens = {"honest": token, "attacker": token}
        self.kind = kind
        self.prefix = prefix
        self._place = place
        self.places["main"] = place
        self.witnesses["main"] = Witness(place, token, producer=f"{prefix}witness", kind=kind, exact=False)

    def renew(self, name: str) -> None:
        """Nothing: it is not ours."""

    @property
    def place(self) -> Place:
        """The target."""
        self.used.add("main")
        return self._place

    @property
    def own(self) -> Served:
        """Nothing: NotRun."""
        raise NotRun("needs a service of our own: its files, its process or its CA")

    def serve(self, name: str, flags: Sequence[str], *, tls: bool = True) -> Served:
        """Nothing: NotRun."""
        raise NotRun("needs a service of our own, with settings for this case")
