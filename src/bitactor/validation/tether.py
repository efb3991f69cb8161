"""Processes that do not outlive who started them, not even when that one is killed with SIGKILL.

`tethered` is for a single process, whose number stays that of the Popen: the kernel kills it when the *thread* that
started it ends (PR_SET_PDEATHSIG), so start it from one that lives as long as it is wanted. `run_tree` is for commands
that start others, as make and pytest do: a supervisor (supervisor.py) ends whatever descends from them. Any thread.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

# Becomes the command, after it told the kernel; ends at once if the one that started it has gone meanwhile.
_TETHER: Final = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    os._exit(1)
os.execvp(sys.argv[2], sys.argv[2:])
"""
_SUPERVISOR: Final = Path(__file__).with_name("supervisor.py")
_ENDS_S: Final = 30.0


def tethered(command: Sequence[str]) -> list[str]:
    """The command line that becomes this command, tethered to the calling thread's life; for Popen right away.

    A program that is not there gives status 1 and a traceback on standard error, not FileNotFoundError.
    """
    return [sys.executable, "-I", "-S", "-c", _TETHER, str(os.getpid()), *command]


def run_tree(
    command: Sequence[str], *, cwd: Path | None = None, env: dict[str, str] | None = None, timeout_s: float
) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end; its status and what it wrote. Nothing that it started is left, in any case.

    FileNotFoundError: there is no such program. subprocess.TimeoutExpired: it was ended.
    """
    argv: list[Any] = [sys.executable, "-I", str(_SUPERVISOR), *command]
    with subprocess.Popen(
        argv, cwd=cwd, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        kept, process.stdin = process.stdin, None  # communicate would close it, and that ends the tree
        try:
            out, error = process.communicate(timeout=timeout_s)
        except BaseException:
            kept.close()
            process.communicate(timeout=_ENDS_S)
            raise
        kept.close()
    if process.returncode == 127 and error.startswith("no such program: "):
        raise FileNotFoundError(2, "no such program", command[0])
    return subprocess.CompletedProcess(command, process.returncode, out, error)
