"""What the admin tests serve: a real engine with the face of the service, and a real admin server on its own loop."""

import asyncio
import contextlib
import http.client
import json
import threading
import time
from dataclasses import replace

import numpy as np
import uvloop

import bitactor as ba
from bitactor.admin.server import AdminServer
from bitactor.config import Settings
from bitactor.runtime.reports import (
    SECONDS_BOUNDS,
    Health,
    IngestStatistics,
    LogStatistics,
    ProducerInfo,
    Seconds,
    ServiceStatistics,
    SnapshotInfo,
    SnapshotStatistics,
)

WALL_NS = 1_700_000_000 * 10**9


def make_app():
    app = ba.App("market")
    trade = app.kind("trade", 1, value="f8", aux="u4")
    alert = app.kind("alert", 2, value="f8")

    @app.actor(trade, state={"notional": "f8", "volume": "u8", "last": "f8", "recent": ("f8", 2)}, tick_budget=100_000)
    def vwap(state, signal, emit):
        if signal.value < 0:
            raise ValueError("a price is not negative")
        state.notional += signal.value * signal.aux
        state.volume += signal.aux
        state.recent[signal.aux % 2] = signal.value
        if state.last > 0 and signal.value > 1.05 * state.last:
            emit(alert, signal.key, signal.value)
        state.last = signal.value

    @app.actor(alert, state={"count": "u8"})
    def alerts(state, signal):
        state.count += 1

    return app


def trades(count, keys=100, seed=7, start=0):
    """Count trades of `keys` keys."""
    rng = np.random.default_rng(seed)
    signals = np.zeros(count, ba.signal_dtype("f8", "u4"))
    signals["kind"] = 1
    signals["key"] = rng.integers(start, start + keys, count)
    signals["time"] = WALL_NS
    signals["value"] = rng.uniform(10, 20, count).round(3)
    signals["aux"] = rng.integers(1, 50, count)
    return signals


class Stub:
    """The attributes of bitactor.runtime.Service that the admin part uses, over an engine and counters set by hand."""

    def __init__(self, settings=None, shards=1):
        self.settings = settings or Settings(admin={"port": 0})
        self.app = make_app()
        self.engine = ba.Engine(self.app, shards, clock="records")
        self.names = {}
        self.identities = None
        self.wall = WALL_NS
        self.told = Health(True, True, True, ())
        self.table = [ProducerInfo(2**63 + 5, "eu-1", "collector", 1, 4096, True)]
        self.calls = []
        self.started_at = time.time() - 3600
        self.log = LogStatistics(
            "sqlite", 3, 12, 5000, 4000, 11, 160_000, 1 << 20, 1 << 30, False,
            *(Seconds(SECONDS_BOUNDS, (0, 0, 0, 3, 5, 2, 1) + (0,) * 13, total) for total in (0.0041, 0.0031, 0.1)),
        )  # fmt: skip
        self.refused = {"crc": 2, "auth_failed": 1}

    def apply(self, signals):
        self.wall += 10**6
        self.engine.apply(signals, self.wall)
        self.engine.flush()

    def health(self):
        return self.told

    def statistics(self):
        durations = Seconds(SECONDS_BOUNDS, (0, 0, 0, 0, 1, 6, 2) + (0,) * 13, 0.0009)
        return ServiceStatistics(
            engine=self.engine.statistics(),
            ring_signals=32768,
            ingest=IngestStatistics(3, 9, 40, 5000, 165_000, 17, dict(self.refused), 38, 1000, 0, True),
            log=self.log,
            snapshot=SnapshotStatistics(4000, 12.5, 0.2, 0.01, 90_000, 2, 0, False),
            ingest_to_done=durations,
            event_time_lag_s=0.25,
            certificate_expires=time.time() + 90 * 86400,
            compile_seconds=0.4,
            recovery_s=0.1,
            replayed=123,
            started_at=self.started_at,
            fatal=None,
        )

    def producers(self):
        return list(self.table)

    def name_of(self, key):
        return self.names.get(key)

    async def snapshot_now(self):
        self.calls.append("snapshot")
        return SnapshotInfo("snapshots/12", self.engine.statistics().position, 12, 1000, 0.1, 0.01)

    async def erase_key(self, key):
        self.calls.append(("erase", key))
        await asyncio.get_running_loop().run_in_executor(None, self.engine.erase, key)

    async def forget_producer(self, number):
        if number not in {one.id for one in self.table}:
            raise KeyError(f"no producer {number}")
        self.calls.append(("forget", number))

    def unready(self, *reasons):
        self.told = replace(self.told, ready=False, started=False, reasons=reasons)


@contextlib.contextmanager
def served(service):
    """An AdminServer over a service on a loop in its own thread; yields the AdminServer, with `call` for that loop."""
    started = threading.Event()
    failed = []

    async def main():
        admin = AdminServer(service)
        try:
            await admin.start()
        except Exception as error:  # noqa: BLE001
            failed.append(error)
            started.set()
            return
        admin.loop, admin.done = asyncio.get_running_loop(), asyncio.Event()
        shared.append(admin)
        started.set()
        await admin.done.wait()
        await admin.stop()

    shared = []
    thread = threading.Thread(target=lambda: uvloop.run(main()), name="admin")
    thread.start()
    started.wait(30)
    if failed:
        thread.join(10)
        raise failed[0]
    try:
        yield shared[0]
    finally:
        shared[0].loop.call_soon_threadsafe(shared[0].done.set)
        thread.join(30)
        assert not thread.is_alive()


class Reply:
    """status, headers (lower case), body; json()."""

    def __init__(self, response):
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.body = response.read()

    def json(self):
        return json.loads(self.body)


def ask(port, path, method="GET", body=None, timeout=30, **headers):
    """One request over a connection of its own. body: bytes, or what JSON takes."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
        sent.setdefault("content-type", "application/json")
    try:
        connection.request(method, path, body, sent)
        return Reply(connection.getresponse())
    finally:
        connection.close()
