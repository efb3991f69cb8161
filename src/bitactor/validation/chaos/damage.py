"""Files that a disk damaged: a small log and a small snapshot with each byte changed, and cut at each length.

Of the snapshot every change must be detected. Of the log's file, which is SQLite's, bytes of free space may change
without any effect: there a change must be detected, or what is read must be the same to the last byte. Reading other
records than were written, without an error, is the defect. A WAL that was cut short is, by its format, a commit that
did not happen: of a killed process's WAL what is read must be a prefix of what was written.
"""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from bitactor.testing.history import load_snapshot, records_of, refusals
from bitactor.validation.campaign import DefectFoundError, Part, Run
from bitactor.validation.criteria import Criterion, Threshold
from bitactor.validation.served import world

COMMAND: Final = "bitactor chaos --only damage"


def places(data: bytes, most: int, chance: Any) -> Iterator[int]:
    """Offsets to change: all if they are few enough, else those of bytes that are not zero, and some by chance."""
    if len(data) <= most:
        yield from range(len(data))
        return
    used = [at for at in range(len(data)) if data[at]]
    yield from (used if len(used) <= most else sorted(chance.sample(used, most)))
    yield from (chance.randrange(len(data)) for _ in range(most // 4))


def judge(path: Path, read: Callable[[], Any], wanted: Any, *, prefix: bool = False) -> str:
    """Tell detected, harmless (what was written is read) or silent. prefix: the first records alone are fine too."""
    try:
        found = read()
    except refusals():
        return "detected"
    except Exception as error:
        raise DefectFoundError(
            f"{path.name}: {type(error).__name__} is no error that reading should give: {error}"
        ) from error
    if found == wanted or (prefix and found == wanted[: len(found)]):
        return "harmless"
    return "silent"


def flips(
    run: Run, path: Path, read: Callable[[], Any], wanted: Any, most: int, *, prefix: bool = False
) -> dict[str, int]:
    """Change one bit at each place, read, put it back."""
    chance, found = run.random(path.name), {"detected": 0, "harmless": 0, "silent": 0}
    data = path.read_bytes()
    beside = {other: other.read_bytes() for other in path.parent.glob(f"{path.name.removesuffix('-wal')}*")}
    for at in places(data, most, chance):
        changed = bytearray(data)
        changed[at] ^= 1 << chance.randrange(8)
        path.write_bytes(changed)
        found[judge(path, read, wanted, prefix=prefix)] += 1
        _put_back(path, beside)
    return found


def cuts(
    run: Run, path: Path, read: Callable[[], Any], wanted: Any, most: int, *, prefix: bool = False
) -> dict[str, int]:
    """Cut the file at many lengths, read, put it back. The whole length is not tried."""
    chance, found = run.random(f"cuts of {path.name}"), {"detected": 0, "harmless": 0, "silent": 0}
    data = path.read_bytes()
    beside = {other: other.read_bytes() for other in path.parent.glob(f"{path.name.removesuffix('-wal')}*")}
    lengths = range(len(data)) if len(data) <= most else sorted(chance.sample(range(len(data)), most))
    for length in lengths:
        path.write_bytes(data[:length])
        found[judge(path, read, wanted, prefix=prefix)] += 1
        _put_back(path, beside)
    return found


def _put_back(path: Path, beside: dict[Path, bytes]) -> None:
    for other in path.parent.glob(f"{path.name.removesuffix('-wal')}*"):
        if other not in beside:
            other.unlink()
    for other, data in beside.items():
        other.write_bytes(data)


def run(run: Run) -> None:
    """Make a small log and snapshot by a service, damage copies of them."""
    most = run.size("damages")
    closed, killed = run.directory / "closed", run.directory / "killed"
    with world(run, "a", frame_max=20, snapshot_every_s=3600) as w:
        w.producers[0].signals = w.producers[0].signals[:400]
        w.producers[0].total = 400
        w.served.start().ready()
        w.producers[0].finished()
        w.served.kill()
        shutil.copytree(w.served.data, killed)
        w.served.start().ready()
        if (status := w.served.stop()) != 0:
            raise DefectFoundError(f"SIGTERM ended it with status {status}")
        shutil.copytree(w.served.data, closed)
    snapshot = next((closed / "snapshots").glob("*.snapshot"))
    log, wal = closed / "log.sqlite", killed / "log.sqlite-wal"
    wanted, written = records_of(closed), None
    keep = {p: p.read_bytes() for p in killed.glob("log.sqlite*")}
    written = records_of(killed)
    _put_back(killed / "log.sqlite", keep)
    sections = load_snapshot(snapshot)
    jobs: list[tuple[str, Path, Callable[[], Any], Any, bool]] = [
        ("snapshot", snapshot, lambda: load_snapshot(snapshot), sections, False),
        ("log", log, lambda: records_of(closed), wanted, False),
        ("wal", wal, lambda: records_of(killed), written, True),
    ]
    for name, path, read, right, prefix in jobs:
        run.say(f"{name}: {path.stat().st_size:,} bytes")
        tries = 20 * most if name == "snapshot" else most  # it is read in a moment
        flipped = flips(run, path, read, right, tries, prefix=prefix)
        cut = cuts(run, path, read, right, tries // 4, prefix=prefix)
        run.happened("damage", f"{name}: {flipped}, {cut}")
        size = path.stat().st_size
        said = f"{size:,} bytes: {sum(flipped.values()):,} changed {flipped}, {sum(cut.values()):,} cut {cut}"
        undetected = flipped["silent"] + cut["silent"]
        if name == "snapshot":  # every byte of it is checked
            undetected += flipped["harmless"] + cut["harmless"]
        run.measure(f"damage.{name}", undetected, said)
        run.measure(f"damage.{name}-detected", flipped["detected"] + cut["detected"])
        run.count(f"damage.{name}", {"done": sum(flipped.values()) + sum(cut.values())},
                  {k: flipped[k] + cut[k] for k in flipped})  # fmt: skip


PART = Part(
    "damage",
    "Log and snapshot damaged",
    tuple(
        criterion
        for name, title in (("snapshot", "a snapshot"), ("log", "a log"), ("wal", "a killed process's WAL"))
        for criterion in (
            Criterion(f"damage.{name}", f"Damages of {title} not told", Threshold("==", 0), "damages", COMMAND),
            Criterion(f"damage.{name}-detected", f"Damages of {title} told", Threshold(">", 0), "damages", COMMAND),
        )
    ),
    run,
)
