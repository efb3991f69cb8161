"""What there is to set: one model for each section, with units last in the names, limits, and a line of help each.

Immutable; any thread. Making one checks types, ranges and what values say about each other; files are looked at by
`check_files`, which `bitactor.config.load` calls. docs/configuration.md is made from these models.
"""

import ipaddress
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, SecretStr, model_validator

from bitactor.config.units import seconds, size_bytes

Bytes = Annotated[int, BeforeValidator(size_bytes)]
Seconds = Annotated[float, BeforeValidator(seconds), Field(allow_inf_nan=False)]
Port = Annotated[int, Field(ge=0, le=65535)]

FRAME_SIGNALS_MAX: Final = 8192


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True)


class Ingest(_Section):
    """Where producers and readers connect."""

    host: str = "127.0.0.1"
    """Address to listen on; "0.0.0.0" or "::" for all."""
    port: Port = 9090
    """Port to listen on; 0 lets the system choose one."""
    plain_text_on_loopback: bool = False
    """Speak without TLS. Only with a loopback host, for tests and benchmarks."""


class Tls(_Section):
    """Certificates of the ingest port, PEM files. Without any, on loopback, development ones are made in data_dir."""

    cert_file: Path | None = None
    """The server's certificate chain."""
    key_file: Path | None = None
    """Its private key, not encrypted, readable by this user only."""
    client_ca_file: Path | None = None
    """The CA of client certificates; with it a client may prove who it is by certificate instead of a token."""
    client_required: bool = False
    """Refuse connections without a client certificate, before their hello."""


class Auth(_Section):
    """Who may do what."""

    file: Path | None = None
    """TOML file of identities. Without it, on loopback, a development token is made in data_dir."""


class Log(_Section):
    """The log of everything that was accepted."""

    kind: Literal["sqlite", "none", "jetstream"] = "sqlite"
    """sqlite: durable in data_dir. none: nothing survives the process. jetstream: in the servers of [nats]."""
    durability: Literal["full", "normal", "off"] = "full"
    """When a signal is acknowledged. full: on the disk. normal: a power loss may undo the last. off: any crash of
    the machine may."""
    size_bytes_max: Annotated[Bytes, Field(ge=4 << 20)] = 10 << 30
    """What the log may take on the disk; when full, signals are refused until snapshots made room."""


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _is_url(url: str, *schemes: str) -> bool:
    """Whether it names a host, and a port that is one if it names any."""
    try:
        parts = urlsplit(url)
        return parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _without_user(url: str) -> str:
    return url.rpartition("@")[2]


class Nats(_Section):
    """The NATS servers whose JetStream is the log, when log.kind is jetstream."""

    urls: str = "nats://127.0.0.1:4222"
    """Servers to begin with, separated by commas; the others of their cluster are learned from them. tls:// asks for
    TLS."""
    credentials_file: Path | None = None
    """A user's credentials as `nsc` writes them: a JWT and the seed of its key."""
    nkey_file: Path | None = None
    """The seed of a user's key, alone."""
    user: str | None = None
    """A user's name, for servers that have passwords."""
    password_file: Path | None = None
    """File with that user's password."""
    tls_ca_file: Path | None = None
    """The CA of the servers' certificates, PEM; asks for TLS. Default: the system's CAs."""
    tls_cert_file: Path | None = None
    """This client's certificate chain, PEM, for servers that ask for one."""
    tls_key_file: Path | None = None
    """Its private key, not encrypted, readable by this user only."""
    plain_text: bool = False
    """Speak without TLS also to servers beyond this machine: whoever is on the way may read and forge."""
    stream: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] = "bitactor"
    """Prefix of the names of all streams, subjects and buckets: one for each service."""
    replicas: int = 3
    """Servers that keep each stream: 1, 3 or 5. A loss of less than half of them is survived."""
    size_bytes_max: Annotated[Bytes, Field(ge=1 << 20)] = 2 << 30
    """What each lane's stream may take on each of them; the servers set it aside. When full, signals are refused until
    snapshots made room."""
    snapshot_bytes_max: Annotated[Bytes, Field(ge=1 << 20)] = 8 << 30
    """What the snapshots of all lanes together may take on each of the servers; set aside too."""
    append_s: Annotated[Seconds, Field(gt=0)] = 30.0
    """How long an append is tried while servers fail over, before the service gives up and ends."""
    monitor_urls: str | None = None
    """HTTP monitoring addresses of all servers of the cluster, separated by commas. Only with them can it be known
    that servers sync before they acknowledge, and be said so to producers."""

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.replicas not in (1, 3, 5):
            raise ValueError(f"replicas is 1, 3 or 5; {self.replicas} was given")
        for url in _listed(self.urls):
            if not _is_url(url, "nats", "tls"):
                raise ValueError(f"urls: {_without_user(url)} is not of the form nats://host:port or tls://host:port")
            if "@" in urlsplit(url).netloc:
                raise ValueError("urls name no users: give user and password_file, or credentials_file")
        for url in _listed(self.monitor_urls or ""):
            if not _is_url(url, "http", "https"):
                raise ValueError(f"monitor_urls: {_without_user(url)} is not of the form http://host:port")
        return self

    @property
    def servers(self) -> tuple[str, ...]:
        """The servers to begin with."""
        return _listed(self.urls)

    @property
    def monitors(self) -> tuple[str, ...]:
        """The monitoring addresses, without a slash at the end."""
        return tuple(url.rstrip("/") for url in _listed(self.monitor_urls or ""))

    @property
    def uses_tls(self) -> bool:
        """Whether connections must be encrypted; the servers' certificates are then checked."""
        return self.tls_ca_file is not None or self.tls_cert_file is not None or "tls://" in self.urls


class Snapshot(_Section):
    """Snapshots of all state, from which recovery begins and up to which the log may be removed."""

    every_s: Annotated[Seconds, Field(gt=0)] = 300.0
    """Time between snapshots."""
    every_signals: Annotated[int, Field(ge=1)] = 50_000_000
    """Signals after which one is taken earlier."""
    keep: Annotated[int, Field(ge=1, le=1000)] = 2
    """How many are kept; recovery falls back to an older one when the newest is damaged."""


class Engine(_Section):
    """How the engine runs. What changes results (expiry, key cap) belongs to the app."""

    shards: Annotated[int, Field(ge=0, le=64)] | None = None
    """Worker threads; 0 runs actors on the writer's thread. Default: one less than the usable cores, at least 1."""
    ring_signals: Annotated[int, Field(ge=FRAME_SIGNALS_MAX, le=1 << 26)] = 65536
    """Signals that wait between log and shards: a power of two."""

    @model_validator(mode="after")
    def _power_of_two(self) -> Self:
        if self.ring_signals & (self.ring_signals - 1):
            below = 1 << (self.ring_signals.bit_length() - 1)
            raise ValueError(f"ring_signals is a power of two, such as {below} or {2 * below}")
        return self


class Limits(_Section):
    """What one peer, and all together, may use."""

    connections_max: Annotated[int, Field(ge=1)] = 1024
    """Connections to the ingest port."""
    connections_per_peer_max: Annotated[int, Field(ge=1)] = 256
    """Connections from one address."""
    handshake_s: Annotated[Seconds, Field(gt=0)] = 10.0
    """Time for TLS handshake and hello."""
    idle_s: Annotated[Seconds, Field(gt=0)] = 120.0
    """Time without any message after which a connection is closed."""
    frame_s: Annotated[Seconds, Field(gt=0)] = 30.0
    """Time from the first byte of a message to its last."""
    window_signals: Annotated[int, Field(ge=FRAME_SIGNALS_MAX)] = 1_048_576
    """Signals that a producer may have sent beyond its last acknowledgement."""
    rate_signals_per_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Signals a second from one identity, over all its connections; 0 for no limit."""
    output_bytes_max: Annotated[Bytes, Field(ge=1 << 16)] = 4 << 20
    """Bytes that wait for one peer that reads slowly."""
    producers_max: Annotated[int, Field(ge=1)] = 65536
    """Producers that are remembered; more are refused."""
    names_max: Annotated[int, Field(ge=1)] = 1_000_000
    """Names of text keys that are remembered; more are refused."""
    heartbeat_s: Annotated[Seconds, Field(gt=0)] = 1.0
    """Time after which a log without signals gets an empty record, so that wall time goes on."""


class Outputs(_Section):
    """What actors emitted to the outside."""

    window: Annotated[int, Field(ge=1)] = 262_144
    """Recent outputs that are kept in memory for readers that come late."""


class Cluster(_Section):
    """Replicas over NATS JetStream (log.kind = "jetstream"); the same for all replicas of an app, but for `replica`."""

    lanes: int = 16
    """Into how many lanes the state is split: most replicas that can share it. Fixed with the first start."""
    replica: str = Field(default_factory=socket.gethostname)
    """This replica's name, for people: in status, metrics and log lines."""
    lease_s: Annotated[Seconds, Field(ge=0.5, le=60)] = 3.0
    """A replica that was not heard for so long has lost its lanes to the others."""
    linger_ms: Annotated[float, Field(ge=0, le=1000)] = 1.0
    """Time for which signals of a producer are gathered before they go to their lanes."""

    @model_validator(mode="after")
    def _lanes_divide(self) -> Self:
        if self.lanes not in (1, 2, 4, 8, 16, 32, 64):
            raise ValueError(f"lanes is 1, 2, 4, 8, 16, 32 or 64; {self.lanes} was given")
        return self


class Admin(_Section):
    """HTTP: health, metrics, queries, dashboard."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: Port = 8080
    """Port to listen on; 0 lets the system choose one."""
    token_file: Path | None = None
    """File with the token that requests must carry. Needed unless the host is loopback."""


class Telemetry(_Section):
    """Traces, sent to an OpenTelemetry collector."""

    otlp_endpoint: str | None = None
    """URL of a collector's OTLP/HTTP port, such as http://localhost:4318; without it nothing is traced."""
    otlp_headers: SecretStr | None = None
    """Headers for the collector, "name=value,name=value"."""
    sample_ratio: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Share of the frames traced that come without a trace of their own."""

    @model_validator(mode="after")
    def _is_a_url(self) -> Self:
        if self.otlp_endpoint is not None and not self.otlp_endpoint.startswith(("http://", "https://")):
            raise ValueError("otlp_endpoint begins with http:// or https://")
        return self


class Logging(_Section):
    """What the process writes to standard error about itself."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least that is written."""
    format: Literal["json", "text"] | None = None
    """json: an object a line. text: for people. Default: text at a terminal, else json."""


class Shutdown(_Section):
    """The end."""

    grace_s: Annotated[Seconds, Field(gt=0)] = 30.0
    """Time to drain, acknowledge and snapshot after SIGTERM."""


class Settings(BaseModel):
    """All settings of a service."""

    model_config = _Section.model_config

    app: str | None = None
    """The app: a Python file, or a file and the name in it: market.py:app."""
    data_dir: Path = Path("bitactor-data")
    """Directory of log and snapshots; made if absent. One process at a time."""
    ingest: Ingest = Ingest()
    tls: Tls = Tls()
    auth: Auth = Auth()
    log: Log = Log()
    nats: Nats = Nats()
    snapshot: Snapshot = Snapshot()
    engine: Engine = Engine()
    limits: Limits = Limits()
    outputs: Outputs = Outputs()
    cluster: Cluster = Cluster()
    admin: Admin = Admin()
    telemetry: Telemetry = Telemetry()
    logging: Logging = Logging()
    shutdown: Shutdown = Shutdown()

    # Dotted name -> where its value came from, as `load` found it.
    _sources: dict[str, str] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _agree(self) -> Self:
        problems = list(_disagreements(self))
        if problems:
            raise ValueError("\n".join(problems))
        return self


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches that address. Names other than localhost count as reachable from outside."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def leaves(model: type[BaseModel] = Settings, prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    """Each setting: dotted name, pydantic's field, help."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from leaves(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field, " ".join((field.description or "").split())


def is_secret(field: Any) -> bool:
    """Whether a value of this field must not be shown; such a setting may be given as NAME_file too."""
    return "SecretStr" in str(field.annotation)


def _disagreements(settings: Settings) -> Iterator[str]:
    """What values say against each other, each beginning with the setting to change."""
    outside = not is_loopback(settings.ingest.host)
    tls = settings.tls
    if settings.ingest.plain_text_on_loopback and outside:
        yield f"ingest.plain_text_on_loopback: {settings.ingest.host} is not loopback; without TLS anyone could read"
    if settings.ingest.plain_text_on_loopback and (tls.cert_file or tls.key_file):
        yield "ingest.plain_text_on_loopback: tls.cert_file and tls.key_file ask for TLS; choose one"
    if tls.client_required and tls.client_ca_file is None:
        yield "tls.client_ca_file: needed, because tls.client_required asks for client certificates"
    if (tls.cert_file is None) != (tls.key_file is None):
        given, missing = ("cert", "key") if tls.cert_file else ("key", "cert")
        yield f"tls.{missing}_file: needed, because tls.{given}_file is given"
    if outside and tls.cert_file is None and not settings.ingest.plain_text_on_loopback:
        yield (
            f"tls.cert_file: needed to listen on {settings.ingest.host}; "
            "development certificates are for loopback only (`bitactor certs` makes a CA and certificates)"
        )
    if outside and settings.auth.file is None:
        yield f"auth.file: needed to listen on {settings.ingest.host}; the development token is for loopback only"
    if not is_loopback(settings.admin.host) and settings.admin.token_file is None:
        yield f"admin.token_file: needed to listen on {settings.admin.host}"
    yield from _nats_disagreements(settings.nats)
    if settings.limits.connections_per_peer_max > settings.limits.connections_max:
        yield (
            f"limits.connections_per_peer_max: {settings.limits.connections_per_peer_max} is more than "
            f"limits.connections_max, {settings.limits.connections_max}"
        )


def _nats_disagreements(nats: Nats) -> Iterator[str]:
    ways = {"credentials_file": nats.credentials_file, "nkey_file": nats.nkey_file, "user": nats.user}
    given = [name for name, value in ways.items() if value is not None]
    if len(given) > 1:
        yield f"nats.{given[1]}: nats.{given[0]} says already who this is; choose one"
    if (nats.user is None) != (nats.password_file is None):
        have, missing = ("user", "password_file") if nats.user else ("password_file", "user")
        yield f"nats.{missing}: needed, because nats.{have} is given"
    if (nats.tls_cert_file is None) != (nats.tls_key_file is None):
        have, missing = ("cert", "key") if nats.tls_cert_file else ("key", "cert")
        yield f"nats.tls_{missing}_file: needed, because nats.tls_{have}_file is given"
    if nats.plain_text and nats.uses_tls:
        yield "nats.plain_text: nats.tls_ca_file, nats.tls_cert_file or tls:// in nats.urls ask for TLS; choose one"
    outside = [url for url in nats.servers if not is_loopback(urlsplit(url).hostname or "")]
    if outside and not nats.uses_tls and not nats.plain_text:
        yield (
            f"nats.urls: {outside[0]} is not on this machine: write tls://, or give nats.tls_ca_file; "
            "nats.plain_text goes without TLS"
        )


def check_files(settings: Settings) -> Iterator[str]:
    """What is wrong with the files that are named, each beginning with the setting that names it."""
    named = {
        "tls.cert_file": settings.tls.cert_file,
        "tls.key_file": settings.tls.key_file,
        "tls.client_ca_file": settings.tls.client_ca_file,
        "auth.file": settings.auth.file,
        "admin.token_file": settings.admin.token_file,
        "nats.credentials_file": settings.nats.credentials_file,
        "nats.nkey_file": settings.nats.nkey_file,
        "nats.password_file": settings.nats.password_file,
        "nats.tls_ca_file": settings.nats.tls_ca_file,
        "nats.tls_cert_file": settings.nats.tls_cert_file,
        "nats.tls_key_file": settings.nats.tls_key_file,
    }
    secrets = {
        *("tls.key_file", "admin.token_file", "nats.credentials_file", "nats.nkey_file", "nats.password_file"),
        "nats.tls_key_file",
    }
    for name, file in named.items():
        if file is None:
            continue
        try:
            with file.open("rb") as opened:
                mode = os.fstat(opened.fileno()).st_mode
        except OSError as error:
            yield f"{name}: {file}: {error.strerror or error}"
            continue
        if name in secrets and mode & (stat.S_IROTH | stat.S_IWOTH):
            yield f"{name}: {file} can be read or written by everyone on this machine: chmod 600 {file}"
    data = settings.data_dir
    if data.exists() and not data.is_dir():
        yield f"data_dir: {data} is not a directory"
    elif data.is_dir() and not os.access(data, os.W_OK | os.X_OK):
        yield f"data_dir: {data} is not writable for user {os.geteuid()}"
