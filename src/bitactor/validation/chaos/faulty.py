"""A service whose disk fails on plan: `python -m bitactor.validation.chaos.faulty serve APP ...`, as `bitactor serve`.

FAULT_PLAN names a JSON file: what ("write", "torn", "sync", "full": of the log's files, by a VFS under SQLite;
"snapshot-write", "snapshot-sync": of snapshots), after (how many such operations succeed first), proof (a file that
gets a line for each fault that fires). "full" and "write" last until the process ends, as a full disk does.
"""

import errno
import json
import os
import runpy
import sys
from pathlib import Path
from typing import Any

import apsw


class Plan:
    """What fails, and when. Any thread: the writer's operations come one after the other."""

    def __init__(self, file: str) -> None:
        given = json.loads(Path(file).read_text())
        self.what: str = given["what"]
        self.left: int = given["after"]
        self.proof = given["proof"]
        self.fired = False

    def due(self, what: str) -> bool:
        """Whether this operation is to fail; says so in the proof."""
        if what != self.what.removeprefix("snapshot-").replace("torn", "write").replace("full", "write"):
            return False
        if self.fired and self.what in {"sync", "torn", "snapshot-write", "snapshot-sync"}:
            return False
        self.left -= 1
        if self.left >= 0:
            return False
        self.fired = True
        with Path(self.proof).open("a") as proof:
            proof.write(f"{self.what}\n")
        return True


def failure(extended: int) -> apsw.Error:
    """What SQLite is told of a failed operation."""
    error = apsw.IOError("a fault of the plan")
    error.extendedresult = extended  # type: ignore[attr-defined]  # apsw reads it
    return error


class FaultyFile(apsw.VFSFile):
    """A file of SQLite's that fails on plan."""

    def __init__(self, plan: Plan, name: Any, flags: list[int]) -> None:
        self.plan = plan
        super().__init__("unix", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        """Write, or fail; torn: with half of it written."""
        if self.plan.due("write"):
            if self.plan.what == "torn":
                super().xWrite(bytes(data)[: len(data) // 2], offset)
            if self.plan.what == "full":
                raise apsw.FullError("a fault of the plan")
            raise failure(apsw.SQLITE_IOERR_WRITE)
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:  # noqa: N802
        """Sync, or fail."""
        if self.plan.due("sync"):
            raise failure(apsw.SQLITE_IOERR_FSYNC)
        super().xSync(flags)


class FaultyVfs(apsw.VFS):
    """The usual file system with faulty files, under all that opens SQLite files in this process."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        super().__init__("faulty", "unix", makedefault=True)

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        """Open; temporary files are left alone."""
        return apsw.VFSFile("unix", name, flags) if name is None else FaultyFile(self.plan, name, flags)


def break_snapshots(plan: Plan) -> None:
    """Make writes or syncs of files under snapshots/ fail on plan; all others are the system's."""
    real = {"write": os.write, "sync": os.fsync}

    def is_snapshot(file: int) -> bool:
        return Path(f"/proc/self/fd/{file}").readlink().suffix == ".tmp"

    def write(file: int, data: Any) -> int:
        if is_snapshot(file) and plan.due("write"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real["write"](file, data)  # type: ignore[no-any-return, operator]

    def sync(file: int) -> None:
        if is_snapshot(file) and plan.due("sync"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real["sync"](file)  # type: ignore[operator]

    os.write, os.fsync = write, sync  # type: ignore[assignment]


def main() -> None:
    """Install the plan's faults, then be the command line."""
    plan = Plan(os.environ["FAULT_PLAN"])
    vfs = None
    if plan.what.startswith("snapshot-"):
        break_snapshots(plan)
    else:
        vfs = FaultyVfs(plan)  # noqa: F841  (registered for as long as it lives)
    sys.argv[0] = "bitactor"
    runpy.run_module("bitactor", run_name="__main__")


if __name__ == "__main__":
    main()
