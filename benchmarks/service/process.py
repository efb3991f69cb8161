"""`bitactor serve` as a process to be measured, and what /proc says of it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from benchmarks.machine import ROOT

APP = Path(__file__).with_name("app.py")


class Served:
    """A service in a directory of its own, removed at the end unless it was given. ready_s: from spawn to ready."""

    def __init__(self, *flags, directory=None, environ=None):
        self._made = directory is None
        self.directory = Path(directory or tempfile.mkdtemp(prefix="bitactor-bench-"))
        self.data = self.directory / "data"
        command = [
            sys.executable, "-m", "bitactor", "serve", str(APP), f"--data-dir={self.data}", "--ingest-port=0",
            "--admin-port=0", "--logging-level=error", *flags,
        ]  # fmt: skip
        begun = time.perf_counter()
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, cwd=self.directory, env={**os.environ, **(environ or {})}
        )
        line = self.process.stdout.readline()
        self.ready_s = time.perf_counter() - begun
        if not line:
            raise RuntimeError(f"the service did not start: status {self.process.wait()}")
        self.said = json.loads(line)
        self.address = self.said["ingest"][0]

    @property
    def rss_bytes(self):
        """Resident memory now."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmRSS:"))

    @property
    def cpu_s(self):
        """Processor time used so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def ask(self, path, method="GET"):
        """The JSON that the admin port answers."""
        request = urllib.request.Request(f"{self.said['admin']}{path}", method=method)
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.loads(answer.read() or b"null")

    def peer(self, *arguments):
        """Run benchmarks.service.peer in a process of its own against this service; the JSON it prints."""
        command = [sys.executable, "-m", "benchmarks.service.peer", str(self.data), self.address, *map(str, arguments)]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=900, check=True)
        return json.loads(done.stdout.splitlines()[-1])

    def kill(self):
        """Kill -9; the directory stays."""
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.kill()
        self.process.stdout.close()
        if self._made:
            shutil.rmtree(self.directory, ignore_errors=True)
