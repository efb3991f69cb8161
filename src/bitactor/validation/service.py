"""A real `bitactor serve` in a process of its own: started, killed, stopped, started again. One thread at a time.

It does not outlive the thread that started it (tether.py).
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from bitactor.validation.tether import tethered

# Of our own variables these go on to the service; others would be settings, or belong to the program that asks.
KEPT_VARIABLES: Final = {"BITACTOR_CACHE_DIR", "BITACTOR_JIT", "BITACTOR_TEST_APP"}
READY_S: Final = 240.0


class ServiceFailedError(AssertionError):
    """The service did not do what it was asked; the message has the end of what it wrote to standard error."""


def held_port() -> socket.socket:
    """A socket bound to a free port, so that nobody else is given it while the service is down.

    It does not listen: connections are refused, and the service may bind the port beside it (both with SO_REUSEADDR).
    """
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    return holder


class Served:
    """`bitactor serve` on one data directory and one port.

    flags: settings, `snapshot_keep=3` for --snapshot-keep=3. module: what python -m runs in place of bitactor.
    """

    def __init__(self, directory: Path | str, app: Path | str, *, module: str = "bitactor", **flags: Any) -> None:
        self.directory = Path(directory)
        self.data = self.directory / "data"
        self.holder = held_port()
        self.port: int = self.holder.getsockname()[1]
        self.app = app
        self.module = module
        named = {name.replace("_", "-"): value for name, value in flags.items()}
        self.flags = [f"--{name}" if value is True else f"--{name}={value}" for name, value in named.items()]
        self.process: subprocess.Popen[bytes] | None = None
        self.proof = self.directory / "crash-proof"
        self.error = self.directory / "stderr"
        self.said: dict[str, Any] = {}
        self.directory.mkdir(exist_ok=True)

    def start(self, crash_at: str = "", *, wrapper: Sequence[str] = (), **environ: str) -> Self:
        """Begin, without waiting. crash_at: die at that point (bitactor.faults). wrapper: a command before python's."""
        surroundings = {k: v for k, v in os.environ.items() if not k.startswith("BITACTOR_") or k in KEPT_VARIABLES}
        surroundings |= environ
        if crash_at:
            self.proof.unlink(missing_ok=True)
            surroundings |= {
                "BITACTOR_CRASH_AT": crash_at,
                "BITACTOR_CRASH_PROOF": str(self.proof),
                "BITACTOR_TEST_FAULTS": "1",
            }
        command = [
            *wrapper, sys.executable, "-m", self.module, "serve", str(self.app), "--data-dir", str(self.data),
            "--ingest-port", str(self.port), "--admin-port", "0", *self.flags,
        ]  # fmt: skip
        with self.error.open("ab") as error:
            self.process = subprocess.Popen(tethered(command), env=surroundings, stdout=subprocess.PIPE, stderr=error)
        return self

    @property
    def running(self) -> "subprocess.Popen[bytes]":
        """The process that was started last."""
        if self.process is None:
            raise RuntimeError("nothing was started yet")
        return self.process

    @property
    def pid(self) -> int:
        """Of the process that was started last."""
        return self.running.pid

    def errors(self) -> str:
        """The end of what it wrote to standard error."""
        return self.error.read_text(errors="replace")[-2000:] if self.error.exists() else ""

    def ready(self, timeout_s: float = READY_S) -> dict[str, Any]:
        """Wait for the line that says so; what it says. ServiceFailedError when it ends first, or takes too long."""
        stdout = self.running.stdout
        assert stdout is not None
        if not select.select([stdout], [], [], timeout_s)[0]:
            raise ServiceFailedError(f"not ready within {timeout_s:g} s: {self.errors()}")
        line = stdout.readline()
        if not line:
            raise ServiceFailedError(f"it ended before it was ready ({self.running.wait()}): {self.errors()}")
        self.said = json.loads(line)
        return self.said

    def died(self, crash_at: str, timeout_s: float = READY_S) -> None:
        """Wait until it was killed at that point, and see that this was why."""
        status = self.ended(timeout_s)
        name = crash_at.partition(":")[0]
        if status != -signal.SIGKILL:
            raise ServiceFailedError(f"{crash_at}: status {status}: {self.errors()}")
        if not self.proof.read_text().startswith(name + " "):
            raise ServiceFailedError(f"{crash_at}: it was killed, but not there")

    def ended(self, timeout_s: float = READY_S) -> int:
        """Wait for its end; the exit status, negative for a signal."""
        status = self.running.wait(timeout_s)
        if self.running.stdout is not None:
            self.running.stdout.close()
        return status

    def kill(self) -> None:
        """Kill -9."""
        self.running.kill()
        self.ended()

    def pause(self) -> None:
        """SIGSTOP."""
        self.running.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self.running.send_signal(signal.SIGCONT)

    def stop(self, timeout_s: float = 120) -> int:
        """SIGTERM; the exit status."""
        self.running.send_signal(signal.SIGTERM)
        return self.ended(timeout_s)

    def is_running(self) -> bool:
        """Whether the process has not ended."""
        return self.process is not None and self.process.poll() is None

    def status(self, name: str) -> int:
        """A line of /proc/PID/status, in bytes: VmRSS, VmHWM."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) << 10
        raise ServiceFailedError(f"process {self.pid} has no {name}: it has ended")

    def rss_bytes(self) -> int:
        """Memory of the process that is in RAM now."""
        return self.status("VmRSS")

    def descriptors(self) -> int:
        """How many it has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))  # noqa: PTH208

    def get(self, path: str, timeout_s: float = 30) -> Any:
        """What the admin port answers: JSON parsed, other texts as they are."""
        with urllib.request.urlopen(self.said["admin"].rstrip("/") + path, timeout=timeout_s) as answer:  # noqa: S310
            text = answer.read().decode()
            return json.loads(text) if "json" in answer.headers["content-type"] else text

    def metrics(self, timeout_s: float = 30) -> dict[str, float]:
        """The samples of /metrics by name with labels."""
        text = self.get("/metrics", timeout_s)
        rows = (line.rpartition(" ") for line in text.splitlines() if line and line[0] != "#")
        return {name: float(value) for name, _, value in rows}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.is_running():
            self.running.send_signal(signal.SIGCONT)  # it may have been stopped
            self.kill()
        self.holder.close()


def command_line(*arguments: str, timeout_s: float = 300) -> "subprocess.CompletedProcess[str]":
    """Run `bitactor` with these arguments; its status and what it wrote."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("BITACTOR_") or k in KEPT_VARIABLES}
    command = [sys.executable, "-m", "bitactor", *arguments]
    return subprocess.run(
        tethered(command), env=environ, capture_output=True, text=True, check=False, timeout=timeout_s
    )


def wait_until(condition: Any, what: str, timeout_s: float = 120, every_s: float = 0.01) -> None:
    """Wait until the condition holds. ServiceFailedError says what did not come."""
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            raise ServiceFailedError(f"waited {timeout_s:g} s, and did not see: {what}")
        time.sleep(every_s)
