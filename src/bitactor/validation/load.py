"""Producers that send as fast as they can, or at a rate, in a process of their own, by the shipped client.

`python -m bitactor.validation.load PLAN.json` prints {"acked": {producer: signals}, "sending_s": of the one that sent
for the shortest time} as JSON. The plan: data, port, template
(an .npy file of signals), names, seconds, rate (signals a second over all, 0: no limit), batch, buffer. Signal i of a
producer is template[i modulo its length], its time the first's plus i: so a log of any length can be checked without
keeping what was sent (`Checked`).
"""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

import bitactor as ba
from bitactor.testing.history import HistoryError
from bitactor.validation.streams import TIME_NS
from bitactor.validation.tether import tethered

BATCH: Final = 8192


def signals_at(template: npt.NDArray[Any], begin: int, count: int) -> npt.NDArray[Any]:
    """Signals begin .. begin + count of a producer; a new array."""
    index = np.arange(begin, begin + count, dtype="u8")
    signals: npt.NDArray[Any] = template[(index % np.uint64(len(template))).astype("i8")]
    signals["time"] = index + np.uint64(TIME_NS)
    return signals


class Checked:
    """Takes the frames of a log in order and compares each with what was sent; keeps how far each producer got."""

    def __init__(self, template: npt.NDArray[Any]) -> None:
        self.template = template
        self.reached: dict[int, int] = {}

    def frame(self, producer: int, sequence: int, signals: npt.NDArray[Any]) -> None:
        """HistoryError when these are not the next signals of that producer."""
        begin = self.reached.get(producer, 0)
        if sequence != begin or signals.tobytes() != signals_at(self.template, begin, len(signals)).tobytes():
            raise HistoryError(f"producer {producer}: signals {sequence} on are not those that were sent")
        self.reached[producer] = begin + len(signals)


class Load:
    """A running process of producers; `result` waits for its end."""

    def __init__(
        self, directory: Path, data: Path, port: int, template: npt.NDArray[Any], names: Sequence[str], seconds: float,
        *, rate: float = 0.0, batch: int = BATCH, buffer: int = 1 << 17,
    ) -> None:  # fmt: skip
        file = directory / f"template-{names[0]}.npy"
        np.save(file, template)
        plan = directory / f"load-{names[0]}.json"
        plan.write_text(json.dumps({
            "data": str(data), "port": port, "template": str(file), "names": list(names), "seconds": seconds,
            "rate": rate, "batch": batch, "buffer": buffer,
        }))  # fmt: skip
        self.begun = time.monotonic()
        self.sending_s = 0.0  # the producer that sent for the shortest time; known with the result
        self.process = subprocess.Popen(
            tethered([sys.executable, "-m", __name__, str(plan)]), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def result(self, timeout_s: float) -> dict[str, int]:
        """How many signals of each producer were acknowledged. RuntimeError when the process failed."""
        out, error = self.process.communicate(timeout=timeout_s)
        if self.process.returncode:
            raise RuntimeError(f"the producers' process ended with {self.process.returncode}: {error.decode()[-300:]}")
        said: dict[str, Any] = json.loads(out)
        self.sending_s = said["sending_s"]
        acked: dict[str, int] = said["acked"]
        return acked

    def stop(self) -> None:
        """End it at once."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


def _send(plan: dict[str, Any], template: npt.NDArray[Any], name: str, done: dict[str, tuple[int, float]]) -> None:
    data, batch = Path(plan["data"]), plan["batch"]
    rate = plan["rate"] / len(plan["names"])
    with ba.Client(
        f"127.0.0.1:{plan['port']}", producer=name, token_file=data / "dev" / "token", ca_file=data / "dev" / "ca.pem",
        server_name="localhost", buffer_signals=plan["buffer"], connect_s=60,
    ) as client:  # fmt: skip
        begun, first = time.monotonic(), client.next
        while (elapsed := time.monotonic() - begun) < plan["seconds"]:
            if rate and client.next - first > rate * elapsed:
                time.sleep(0.002)
                continue
            client.send_batch(signals_at(template, client.next, batch))
        done[name] = client.flush(120).next, elapsed


def main() -> None:
    """Carry out the plan that the command line names."""
    plan = json.loads(Path(sys.argv[1]).read_text())
    template = np.load(plan["template"])
    done: dict[str, tuple[int, float]] = {}
    threads = [threading.Thread(target=_send, args=(plan, template, name, done)) for name in plan["names"]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(done) < len(threads):
        sys.exit(1)
    acked = {name: count for name, (count, _) in done.items()}
    print(json.dumps({"acked": acked, "sending_s": min(seconds for _, seconds in done.values())}))  # noqa: T201


if __name__ == "__main__":
    main()
