"""A disk that fails: writes, torn writes, syncs, no room, by a failing VFS under SQLite; a small real one, full.

Expected: a failed write or sync of the log ends the process with status 1, nothing of that record is acknowledged, and
the next start has all that was. A snapshot that cannot be written is counted, and serving goes on.
"""

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bitactor.validation.campaign import CannotRun, DefectFoundError, Part, Run
from bitactor.validation.criteria import Criterion, Threshold
from bitactor.validation.history import Findings
from bitactor.validation.served import LONG_PAUSE_S, promises, tell, world
from bitactor.validation.service import wait_until

COMMAND: Final = "bitactor chaos --only disk"
MODULE: Final = "bitactor.validation.chaos.faulty"
LOG: Final = ("write", "torn", "sync", "full")
SNAPSHOTS: Final = ("snapshot-write", "snapshot-sync")
SMALL_MIB: Final = 28


def run(run: Run) -> None:
    """Each fault some times; then the small file system."""
    rounds, chance = run.size("disk_rounds"), run.random("disk")
    fired, findings, went_on, ended = 0, Findings(), 0, 0
    with world(run, module=MODULE, pause_s=LONG_PAUSE_S) as w:
        for what in (*LOG, *SNAPSHOTS) * rounds:
            run.say(what)
            after = chance.randint(0, 3) if what in SNAPSHOTS else chance.randint(40, 150)
            proof, plan = run.directory / "proof", run.directory / "plan.json"
            proof.unlink(missing_ok=True)
            plan.write_text(json.dumps({"what": what, "after": after, "proof": str(proof)}))
            w.served.start(FAULT_PLAN=str(plan)).ready()
            if what in LOG:
                status = w.served.ended(60)
                if status != 1:
                    raise DefectFoundError(f"{what}: status {status} and not 1: {w.served.errors()}")
                ended += 1
            else:
                wait_until(proof.exists, f"{what} to fire", 60)
                w.wait_for_acks(100)
                went_on += w.served.is_running()
                w.served.kill()
            fired += proof.exists()
            run.happened(what, f"after {after} operations")
        w.served.module = "bitactor"
        w.served.start().ready()
        w.finish(1000)
        findings.add(w.judge())
    run.measure(
        "disk.not-fired", rounds * len(LOG + SNAPSHOTS) - fired, f"{fired} faults of {', '.join(LOG + SNAPSHOTS)}"
    )
    run.measure(
        "disk.went-on", rounds * len(LOG) - ended, "processes that a failed write or sync of the log did not end"
    )
    run.measure("disk.snapshots", rounds * len(SNAPSHOTS) - went_on, "processes that a failed snapshot ended")
    try:
        findings.add(_full(run))
    except CannotRun as why:
        run.not_run("disk.room", str(why))
    tell(run, "disk", findings)


@contextlib.contextmanager
def small_disk(directory: Path) -> Iterator[Path]:
    """A file system of some MiB over a loop device. CannotRun without the right to mount, or mkfs.ext4."""
    if os.geteuid() != 0:
        raise CannotRun("mounting a small file system needs root")
    image, point = directory / "disk.img", directory / "disk"
    with image.open("wb") as file:
        file.truncate(SMALL_MIB << 20)
    point.mkdir()
    try:
        for command in (["mkfs.ext4", "-q", "-m", "0", str(image)], ["mount", "-o", "loop", str(image), str(point)]):
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
            if done.returncode:
                raise CannotRun(f"{' '.join(command[:1])}: {done.stderr.strip()[-200:]}")
    except FileNotFoundError as error:
        raise CannotRun(f"{error.filename} is missing") from error
    try:
        yield point
    finally:
        for _ in range(50):
            if subprocess.run(["umount", str(point)], capture_output=True, check=False, timeout=60).returncode == 0:  # noqa: S607
                break
            time.sleep(0.1)


def _full(run: Run) -> Findings:
    """Fill the small disk, give room again, go on."""
    with small_disk(run.directory) as point:
        filler = point / "filler"
        filler.write_bytes(bytes(14 << 20))
        with world(run, "xy", directory=point / "service", frame_max=2000, snapshot_every_s=3600) as w:
            for producer in w.producers:
                producer.pause_s = 0.0
            w.served.start().ready()
            status = w.served.ended(120)
            said = w.served.error.read_text()
            run.happened("no room", f"status {status}")
            full = status == 1 and ("full" in said or "No space" in said)
            for producer in w.producers:
                producer.pause_s = 0.05
            filler.unlink()
            w.served.start().ready()
            w.finish(100)
            findings = w.judge()
    run.measure("disk.room", 0 if full else 1, f"{SMALL_MIB} MiB of ext4: the process ended with status {status}")
    return findings


PART = Part(
    "disk",
    "A disk that fails or is full",
    (
        Criterion("disk.not-fired", "Faults that never fired", Threshold("==", 0), "faults", COMMAND),
        Criterion("disk.went-on", "Failed writes of the log survived", Threshold("==", 0), "processes", COMMAND),
        Criterion("disk.snapshots", "Failed snapshots that ended it", Threshold("==", 0), "processes", COMMAND),
        Criterion("disk.room", "A full disk that is not told", Threshold("==", 0), "", COMMAND),
        *promises("disk", COMMAND),
    ),
    run,
)
