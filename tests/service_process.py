"""A real `bitactor serve` in a process of its own, and producers that send to it over TLS until everything is acked.

The producers here keep nothing but what was acknowledged: after each reconnection they go on from welcome's next, with
other cuts, and find out at once when something acknowledged is missing.
"""

import json
import os
import random
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import bitactor as ba
from bitactor.protocol.frames import encode_frame
from bitactor.protocol.messages import Ack, Hello, Welcome, decode_message, message_length
from tests.service_oracle import stream

APP = Path(__file__).parent / "service_app.py"


def held_port():
    """A socket bound to a free port, so that nobody else is given it while the service is down.

    It does not listen: connections are refused, and the service may bind the port beside it (both with SO_REUSEADDR).
    """
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    return holder


class Served:
    """`bitactor serve` on one data directory and one port; started, killed, started again."""

    def __init__(self, directory, app=APP, **flags):
        self.directory = Path(directory)
        self.holder = held_port()
        self.port = self.holder.getsockname()[1]
        self.app = app
        self.flags = [f"--{name.replace('_', '-')}={value}" for name, value in flags.items()]
        self.process = None
        self.proof = self.directory / "crash-proof"
        self.error = self.directory / "stderr"
        self.directory.mkdir(exist_ok=True)

    def start(self, crash_at="", **environ):
        """Begin, without waiting."""
        mine = ("BITACTOR_CRASH_ROUNDS", "BITACTOR_OVERLOAD_S")  # the tests' own, which no setting knows
        surroundings = {**{k: v for k, v in os.environ.items() if k not in mine}, **environ}
        if crash_at:
            self.proof.unlink(missing_ok=True)
            surroundings |= {
                "BITACTOR_CRASH_AT": crash_at, "BITACTOR_CRASH_PROOF": str(self.proof), "BITACTOR_TEST_FAULTS": "1",
            }  # fmt: skip
        command = [
            sys.executable, "-m", "bitactor", "serve", str(self.app), "--data-dir", str(self.directory / "data"),
            "--ingest-port", str(self.port), "--admin-port", "0", *self.flags,
        ]  # fmt: skip
        with self.error.open("ab") as error:
            self.process = subprocess.Popen(command, env=surroundings, stdout=subprocess.PIPE, stderr=error)
        return self

    def ready(self):
        """Wait for the line that says so; what it says."""
        line = self.process.stdout.readline()
        assert line, f"it ended before it was ready ({self.process.wait()}): {self.error.read_text()[-2000:]}"
        return json.loads(line)

    def died(self, crash_at, timeout_s=240):
        """Wait until it was killed at that point, and see that this was why."""
        status = self.process.wait(timeout_s)
        self.process.stdout.close()
        assert status == -signal.SIGKILL, f"{crash_at}: status {status}: {self.error.read_text()[-2000:]}"
        name = crash_at.partition(":")[0]
        assert self.proof.read_text().startswith(name + " ")

    def kill(self):
        """Kill -9."""
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def stop(self, timeout_s=120):
        """SIGTERM; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(timeout_s)
        self.process.stdout.close()
        return status

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process is not None and self.process.poll() is None:
            self.kill()
        self.holder.close()


class Producer(threading.Thread):
    """Sends stream(name, total) until all is acknowledged, whatever happens to the service."""

    def __init__(self, served, name, total, seed, frame_max=300):
        super().__init__(daemon=True)
        self.served, self.label, self.total = served, name, total
        self.signals = stream(name, total)
        self.random = random.Random(f"{seed} {name}")
        self.frame_max = frame_max
        self.acked = 0
        self.heard = threading.Event()  # set with each acknowledgement; for others to clear
        self.connections = 0
        self.failure = None
        self.pause_s = 0.0  # between frames
        self._data = b""

    def run(self):
        try:
            while self.acked < self.total:
                try:
                    self._connection()
                except (OSError, EOFError):
                    time.sleep(0.02)
        except BaseException as error:  # noqa: BLE001 (told to who waits for the thread)
            self.failure = error

    def acknowledged(self, timeout_s=120):
        """Wait until something more is acknowledged."""
        self.heard.clear()
        assert self.heard.wait(timeout_s), f"{self.label}: nothing acknowledged in {timeout_s} s: {self.failure!r}"

    def finished(self, timeout_s=120):
        self.join(timeout_s)
        assert self.failure is None, f"{self.label}: {self.failure!r}"
        assert not self.is_alive(), f"{self.label} has {self.acked} of {self.total} acknowledged"

    def token(self):
        """The development token."""
        return (self.served.directory / "data" / "dev" / "token").read_bytes().strip()

    def connect(self):
        """A TLS connection to the service."""
        context = ssl.create_default_context(cafile=self.served.directory / "data" / "dev" / "ca.pem")
        raw = socket.create_connection(("127.0.0.1", self.served.port), timeout=20)
        return context.wrap_socket(raw, server_hostname="localhost")

    def _connection(self):
        with self.connect() as connection:
            self._data = b""
            hello = Hello(self.label, token=self.token(), client="test")
            connection.sendall(hello.encode())
            welcome = self._receive(connection)
            if not isinstance(welcome, Welcome):
                raise EOFError(welcome.message)  # noqa: TRY004 (it was refused)
            assert welcome.next >= self.acked, f"acknowledged up to {self.acked}, and {welcome.next} is expected"
            self.acked = max(self.acked, welcome.next)
            self.connections += 1
            self._send(connection, welcome)

    def _send(self, connection, welcome):
        at, limit = welcome.next, welcome.limit
        back = self.random.random() < 0.5 and at > 0
        if back:  # as a client that lost track would: what is known is dropped
            at -= self.random.randint(1, min(at, 500))
        while self.acked < self.total:
            if at < min(self.total, limit):
                count = min(self.random.randint(1, self.frame_max), self.total - at, limit - at)
                frame = encode_frame(
                    self.signals[at : at + count], producer=welcome.producer, sequence=at, epoch=welcome.epoch
                )
                connection.sendall(frame)
                at += count
                if self.pause_s:
                    time.sleep(self.pause_s)
                connection.settimeout(0.0005)
            else:
                connection.settimeout(20)
            try:
                message = self._receive(connection)
            except TimeoutError:
                connection.settimeout(20)
                continue
            connection.settimeout(20)
            if isinstance(message, Ack):
                assert self.acked <= message.next <= at or back
                self.acked, limit = max(self.acked, message.next), message.limit
                self.heard.set()
            else:  # an error, or close
                raise EOFError(repr(message))  # noqa: TRY004

    def _receive(self, connection):
        while True:
            length = message_length(self._data) if self._data else 0
            if length and len(self._data) >= length:
                message, self._data = decode_message(self._data[:length]), self._data[length:]
                return message
            more = connection.recv(65536)
            if not more:
                raise EOFError("closed")
            self._data += more


def number_of(name):
    """A producer's number."""
    return ba.text_key(name)
