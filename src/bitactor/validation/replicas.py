"""A cluster on this machine: NATS servers and replicas of `bitactor serve`, each a process of its own. One thread.

All replicas have the same development CA and token, so a client of one may go to another.
"""

import json
import shutil
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from bitactor.validation.nats import NatsServers
from bitactor.validation.probes import UNANSWERED
from bitactor.validation.service import Served, ServiceFailedError

SETTLED_S: Final = 90.0


class Replica(Served):
    """One replica. Its admin address is known once it is ready."""

    @property
    def admin(self) -> str:
        """Of its admin interface."""
        return str(self.said["admin"]).rstrip("/")

    def ask(self, path: str, body: dict[str, Any] | None = None, timeout_s: float = 30) -> Any:
        """What its API answers at /api/v1/PATH; with a body it is posted."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(f"{self.admin}/api/v1/{path}", data, headers)  # noqa: S310  (our own)
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:  # noqa: S310
            return json.load(answer)

    def rows(self, actor: str) -> dict[int, dict[str, Any]]:
        """An actor's table, by key."""
        sql = f"select * from {actor}"  # noqa: S608  (the caller's own app)
        said = self.ask("query", {"sql": sql, "limit": 100_000}, timeout_s=60)
        names = [column["name"] for column in said["columns"]]
        return {row[0]: dict(zip(names, row, strict=True)) for row in said["rows"]}


class Cluster:
    """Servers and replicas; `start` begins with all of them. flags: settings of every replica, as Served takes them.

    advertise: as NatsServers'.
    """

    def __init__(
        self,
        directory: Path | str,
        app: Path | str,
        *,
        nodes: int = 3,
        replicas: int = 3,
        sync_always: bool = True,
        advertise: bool = True,
        **flags: Any,
    ) -> None:
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.app = app
        self.nats = NatsServers(self.directory / "nats", nodes, sync_always=sync_always, advertise=advertise)
        self.flags = {
            "log_kind": "jetstream",
            "nats_urls": self.nats.urls,
            "nats_monitor_urls": self.nats.monitor_urls,
            "nats_replicas": nodes if nodes in (1, 3, 5) else 1,
            "nats_size_bytes_max": "256MiB",
            **flags,
        }
        self.replicas = [self.make(f"r{number}") for number in range(replicas)]

    def make(self, name: str, app: Path | str | None = None, **flags: Any) -> Replica:
        """A replica, not started. flags: settings of its own."""
        replica = Replica(self.directory / name, app or self.app, cluster_replica=name, **{**self.flags, **flags})
        replica.data.mkdir(parents=True, exist_ok=True)
        return replica

    def start(self) -> Self:
        """Start everything and wait until each lane has an owner."""
        self.nats.start_all()
        for replica in self.replicas:
            self.start_replica(replica)
        self.settled()
        return self

    def start_replica(self, replica: Replica, **environ: str) -> None:
        """Start one and wait until it is ready to take signals. The first one makes CA and token for all."""
        shared = self.directory / "dev"
        if shared.exists() and not (replica.data / "dev").exists():
            shutil.copytree(shared, replica.data / "dev")
        replica.start(**environ)
        replica.ready()
        if not shared.exists():
            shutil.copytree(replica.data / "dev", shared)

    @property
    def running(self) -> list[Replica]:
        """Replicas whose process has not ended."""
        return [replica for replica in self.replicas if replica.is_running()]

    @property
    def addresses(self) -> str:
        """Of all replicas, as Client takes them."""
        return ",".join(f"127.0.0.1:{replica.port}" for replica in self.replicas)

    def settled(self, timeout_s: float = SETTLED_S) -> list[dict[str, Any]]:
        """Wait until every lane has an owner among the replicas that run, evenly; the lanes."""
        deadline = time.monotonic() + timeout_s
        lanes: list[dict[str, Any]] = []
        while time.monotonic() < deadline:
            names = {replica.directory.name for replica in self.running}
            try:
                lanes = self.running[0].ask("cluster")["lanes"]
            except UNANSWERED:
                lanes = []
            held = [sum(lane["owner"] == name for lane in lanes) for name in names]
            if lanes and sum(held) == len(lanes) and max(held) - min(held) <= 1:
                return lanes
            time.sleep(0.1)
        raise ServiceFailedError(f"the lanes did not settle: {lanes}: {self.running[0].errors()}")

    def close(self) -> None:
        """End everything, whatever state it is in."""
        for replica in self.replicas:
            if replica.is_running():
                replica.kill()
            replica.holder.close()
        self.nats.stop_all()

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
