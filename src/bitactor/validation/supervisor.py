"""Runs a command and ends with its status; once standard input ends, all that descends from it is killed first.

`python -I supervisor.py COMMAND...`, as `tether.run_tree` does; it imports nothing of BitActor. It is the subreaper of
its descendants, so that none of them escapes by losing its parent. Two threads: one waits for the command, one for the
end of standard input, which comes when who started this has died or gives up.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36


def descendants(of: int) -> set[int]:
    """Processes that descend from that one and have not ended."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, parent = (entry / "stat").read_text().rpartition(") ")[2].split()[:2]
            except OSError:
                continue
            if state != "Z":
                parents[int(entry.name)] = int(parent)
    found: set[int] = set()
    new = {of}
    while new:
        new = {pid for pid, parent in parents.items() if parent in new} - found
        found |= new
    return found


def kill_all() -> None:
    """Kill descendants until there is none; what they start meanwhile too."""
    while left := descendants(os.getpid()):
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def watch() -> None:
    """Wait for the end of standard input, then end everything."""
    while os.read(0, 1):
        pass
    kill_all()
    os._exit(128 + signal.SIGKILL)


def main() -> None:
    """Carry out the command line."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        command = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        sys.stderr.write(f"no such program: {sys.argv[1]}\n")
        sys.exit(127)
    threading.Thread(target=watch, daemon=True).start()
    status = command.wait()
    kill_all()
    sys.exit(status if status >= 0 else 128 - status)


if __name__ == "__main__":
    main()
