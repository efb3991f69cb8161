"""SIGSTOP and SIGCONT: the service, then its clients, stand still for seconds; then everything goes on."""

import os
import signal
import time
from pathlib import Path
from typing import Final

from bitactor import text_key
from bitactor.validation.campaign import Part, Run
from bitactor.validation.criteria import Criterion, Threshold
from bitactor.validation.history import Sent
from bitactor.validation.load import Load, signals_at
from bitactor.validation.served import LONG_PAUSE_S, promises, tell, world
from bitactor.validation.streams import input_kinds, stream

COMMAND: Final = "bitactor chaos --only pauses"


def state_of(pid: int) -> str:
    """The letter of a process's state: T when it is stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


def pause(pid: int, seconds: float) -> bool:
    """Stop a process for so long; whether it was seen to stand still."""
    os.kill(pid, signal.SIGSTOP)
    time.sleep(seconds / 2)
    stood = state_of(pid) == "T"
    time.sleep(seconds / 2)
    os.kill(pid, signal.SIGCONT)
    return stood


def run(run: Run) -> None:
    """Stop the service; stop a process of clients beside it."""
    rounds, chance, stood = run.size("pauses"), run.random("pauses"), 0
    template = stream(run.app, "load", 4096, run.seed % 2**32, kinds=input_kinds(run.app)[:1])
    with world(run, "ab", pause_s=LONG_PAUSE_S) as w:
        w.served.start().ready()
        for turn in range(rounds):
            run.say(f"pause {turn + 1} of {rounds}")
            w.wait_for_acks(200)
            stood += pause(w.served.pid, 0.5 + chance.random() * run.sizes["pause_s"])
            run.happened("service stopped", f"round {turn + 1}")
        w.wait_for_acks(200)
        seconds = rounds * (2 + run.sizes["pause_s"])
        load = Load(run.directory, w.served.data, w.served.port, template, ["c0", "c1"], seconds, rate=5000, batch=100)
        try:
            time.sleep(1)
            for turn in range(rounds):
                stood += pause(load.process.pid, 0.5 + chance.random() * run.sizes["pause_s"])
                run.happened("clients stopped", f"round {turn + 1}")
                w.wait_for_acks(100)
            acked = load.result(120)
        finally:
            load.stop()
        w.finish(500)
        findings = w.judge([Sent(n, text_key(n), signals_at(template, 0, k + 1000), k) for n, k in acked.items()])
    run.measure("pauses.not-stopped", 2 * rounds - stood, f"{stood} times a process was seen in state T")
    tell(run, "pauses", findings)


PART = Part(
    "pauses",
    "Processes that stand still",
    (
        Criterion("pauses.not-stopped", "Pauses that did not stop anything", Threshold("==", 0), "pauses", COMMAND),
        *promises("pauses", COMMAND),
    ),
    run,
)
