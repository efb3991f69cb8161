"""Named crash points: places where a test kills or stops the process, to see what is left. Any thread.

`BITACTOR_CRASH_AT="name[:n]"` makes the n-th passing (default: the first) of that point end the process with SIGKILL,
after a line "name n" was appended to the file BITACTOR_CRASH_PROOF, so that a test sees that its point was reached.
`BITACTOR_PAUSE_AT` does the same with SIGSTOP: the process goes on from there when it is told to (SIGCONT).
Read once, at import. Without it a point costs one test of a global. A service refuses to start with it
(`refuse_in_production`) unless BITACTOR_TEST_FAULTS=1 is set too.
"""

import difflib
import os
import signal
import threading
from typing import Final

POINTS: Final = (
    *("ingest.decoded", "log.append.before", "log.append.begun", "log.append.before_commit", "log.append.synced"),
    *("log.checkpoint.before", "log.checkpoint.after", "log.truncate.before", "log.truncate.after"),
    *("apply.before", "apply.after", "ack.before", "ack.sent"),
    *("snapshot.begun", "snapshot.written", "snapshot.synced", "snapshot.renamed", "snapshot.done"),
)
# Those that only a replica passes: before emits go to another lane, and when a snapshot's chunks are all stored.
REPLICA_POINTS: Final = ("emits.before", "snapshot.uploaded")
CRASH: Final = "BITACTOR_CRASH_AT"
PAUSE: Final = "BITACTOR_PAUSE_AT"


class _Armed:
    """A point to die or to stop at. 0 <= passed < at before that; variable: that says so."""

    def __init__(self, text: str, proof: str | None, variable: str = CRASH) -> None:
        name, colon, number = text.partition(":")
        known = (*POINTS, *REPLICA_POINTS)
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]}" if near else ""
            raise ValueError(f"{variable} names {name!r}, which is no crash point{hint}: see bitactor.faults")
        if colon and not (number.isdecimal() and int(number) > 0):
            raise ValueError(f"{variable} is {text!r}: after the colon stands which passing, from 1")
        self.variable = variable
        self.does, self.signal = ("stop", signal.SIGSTOP) if variable == PAUSE else ("kill", signal.SIGKILL)
        self.name = name
        self.at = int(number) if colon else 1
        self.passed = 0
        self.proof = proof
        self.lock = threading.Lock()

    def passing(self, name: str) -> None:
        """Count a passing; at the right one write the proof and die, or stand still."""
        if name != self.name:
            return
        with self.lock:
            self.passed += 1
            if self.passed != self.at:
                return
            if self.proof:
                file = os.open(self.proof, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
                os.write(file, f"{name} {self.passed}\n".encode())
                os.close(file)
            os.kill(os.getpid(), self.signal)


def _from_environment() -> _Armed | None:
    for variable in (CRASH, PAUSE):
        if text := os.environ.get(variable):
            return _Armed(text, os.environ.get("BITACTOR_CRASH_PROOF"), variable)
    return None


_armed = _from_environment()


def point(name: str) -> None:
    """Pass the point `name`, one of POINTS; the process may end here when a test asked for it."""
    if _armed:
        _armed.passing(name)


class FaultsSetError(RuntimeError):
    """A crash point is set where no test runs; the message says how to unset it."""


def refuse_in_production() -> None:
    """FaultsSetError when a crash point is set without BITACTOR_TEST_FAULTS=1: no service runs so by accident."""
    if _armed and os.environ.get("BITACTOR_TEST_FAULTS") != "1":
        raise FaultsSetError(
            f"{_armed.variable}={_armed.name}:{_armed.at} would {_armed.does} this service: unset it, or set "
            "BITACTOR_TEST_FAULTS=1 as well if this is a test"
        )
