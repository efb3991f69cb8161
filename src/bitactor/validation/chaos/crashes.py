"""Kill -9 at every named crash point and at random moments, hundreds of times, with signals in flight over TLS.

The kills are spread over data directories, so that a log stays small enough to be replayed from its first record; each
directory's history is checked once it was stopped in order. Four for each core run at a time: a start waits for the
disk as well. The points of retention need a log whose beginning goes away: they have a directory of their own, which is
checked by `bitactor log replay` and by the position at its end.
"""

import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from bitactor import faults, host
from bitactor.testing.history import end_of
from bitactor.validation.campaign import DefectFoundError, Part, Run
from bitactor.validation.criteria import Criterion, Threshold
from bitactor.validation.history import Findings, known_of, prove
from bitactor.validation.plots import line
from bitactor.validation.served import World, promises, tell, world
from bitactor.validation.service import command_line

COMMAND: Final = "bitactor chaos --only crashes"
RETENTION: Final = ("log.truncate.before", "log.truncate.after")
# How often each point is passed before the one that kills: late enough that signals are in flight.
PASSINGS: Final = {"ingest.decoded": 40, "log.checkpoint.before": 1, "log.checkpoint.after": 1}
KILLS_A_DIRECTORY: Final = 25
RANDOM_SHARE: Final = 0.5


class Tally:
    """What was hit, over all threads."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.begun = time.monotonic()
        self.hit: Counter[str] = Counter()
        self.findings = Findings()
        self.over_time: list[tuple[float, float]] = []
        self.longest_recovery_s = 0.0
        self.planted: dict[str, bool] = {}
        self.failures: list[str] = []
        self.stopping = False

    def kill(self, where: str) -> None:
        """Count a kill there."""
        with self.lock:
            self.hit[where] += 1
            self.over_time.append((time.monotonic() - self.begun, float(self.hit.total())))


def schedule(points: tuple[str, ...], kills: int, chance: random.Random) -> list[str]:
    """Where each kill happens: every point first, then points and random moments ("") by chance."""
    places = [*points]
    while len(places) < kills:
        places.append("" if chance.random() < RANDOM_SHARE else chance.choice(points))
    chance.shuffle(places)
    return places


def run(run: Run) -> None:
    """All kills, then the figures."""
    wanted, chance = run.size("crashes"), run.random("crashes")
    points = tuple(p for p in faults.POINTS if p not in RETENTION)
    places = schedule(points, wanted, chance)
    batches = [places[at : at + KILLS_A_DIRECTORY] for at in range(0, len(places), KILLS_A_DIRECTORY)]
    tally = Tally()
    with ThreadPoolExecutor(4 * max(1, int(host.usable_cores()))) as pool:
        try:
            for _ in pool.map(lambda job: _guarded(run, job[0], job[1], tally), enumerate(batches)):
                pass
        except BaseException:
            tally.stopping = True
            pool.shutdown(cancel_futures=True)
            raise
    try:
        _retention(run, tally, run.size("retention_crashes"))
    except Exception as error:  # told with the rest
        tally.failures.append(f"retention: {type(error).__name__}: {str(error)[-400:]}")
    restarts = tally.hit.total()
    missed = [point for point in faults.POINTS if not tally.hit[point]]
    run.measure("crashes.restarts", restarts, f"{tally.hit['random']} at random moments; in {len(batches)} directories")
    run.measure("crashes.points-missed", len(missed), f"hit: {dict(sorted(tally.hit.items()))}; missed: {missed}")
    run.measure("crashes.recovery", tally.longest_recovery_s, "the longest")
    run.measure("crashes.checker", sum(tally.planted.values()), f"planted: {', '.join(tally.planted)}")
    tell(run, "crashes", tally.findings)
    run.count("crashes.kills", {"scheduled": wanted, "retention": 2 * run.size("retention_crashes")},
              {"hit": restarts})  # fmt: skip
    run.plot(line("crashes", "Kills survived", "seconds", "kills", kills=tally.over_time))
    run.measure("crashes.directories-failed", len(tally.failures), "; ".join(tally.failures[:3]))


def _guarded(run: Run, number: int, places: list[str], tally: Tally) -> None:
    """One directory's kills. What goes wrong there is a failure of the report, and the others go on."""
    try:
        _directory(run, number, places, tally)
    except Exception as error:
        run.happened("a directory failed", f"{number}: {error!r}")
        with tally.lock:
            tally.failures.append(f"directory {number}: {type(error).__name__}: {str(error)[-400:]}")


def _directory(run: Run, number: int, places: list[str], tally: Tally) -> None:
    chance = run.random(f"crashes {number}")
    with world(run, directory=run.directory / f"d{number}", frame_max=30) as w:
        for place in places:
            if tally.stopping:
                return
            run.say(f"{tally.hit.total()} kills")
            if place:
                _kill_at(w, place, chance)
            else:
                _kill_by_chance(w, chance, tally)
            tally.kill(place or "random")
        said = w.served.start().ready()
        with tally.lock:
            tally.longest_recovery_s = max(tally.longest_recovery_s, float(said["recovery_s"]))
        w.finish(2000)
        findings = w.judge()
        with tally.lock:
            tally.findings.add(findings)
            if not tally.planted:
                known = known_of(w.producers)
                tally.planted = prove({one.number: one.signals[: one.acked] for one in known}, known)


def _kill_at(w: World, point: str, chance: random.Random) -> None:
    at = f"{point}:{PASSINGS.get(point, chance.randint(1, 5))}"
    for producer in w.producers:
        producer.pause_s = 0.0 if point.startswith("log.checkpoint") else producer.pause_s  # a WAL's worth comes sooner
    w.served.start(at)
    w.served.died(at)


def _kill_by_chance(w: World, chance: random.Random, tally: Tally) -> None:
    w.served.start()
    if chance.random() < 0.3:  # while it starts or recovers
        time.sleep(chance.random())
    else:
        said = w.served.ready()
        with tally.lock:
            tally.longest_recovery_s = max(tally.longest_recovery_s, float(said["recovery_s"]))
        w.wait_for_acks(chance.randint(1, 500))
    w.served.kill()


def _retention(run: Run, tally: Tally, rounds: int) -> None:
    """Kills in the removal of old records; one producer, so that the end's position is what it has acknowledged."""
    flags: dict[str, Any] = {"snapshot_every_s": 0.05, "snapshot_every_signals": 5000, "snapshot_keep": 2}
    with world(run, "r", directory=run.directory / "retention", frame_max=3000, **flags) as w:
        for point in RETENTION * rounds:
            w.served.start(point)
            w.served.died(point)
            tally.kill(point)
        w.served.start().ready()
        w.finish(5000)
        if (status := w.served.stop()) != 0:
            raise DefectFoundError(f"SIGTERM ended it with status {status}: {w.served.errors()}")
        acked = w.producers[0].acked
        first, position = end_of(w.served.data)
        if first == 0:
            raise DefectFoundError("retention removed nothing: its crash points proved nothing")
        tally.findings.acked += acked
        tally.findings.logged += position
        tally.findings.lost += max(0, acked - position)
        tally.findings.duplicated += max(0, position - acked)
        replayed = command_line("log", "replay", run.app_file, str(w.served.data))
        if replayed.returncode:
            tally.findings.state_differs += 1
            tally.findings.problems.append(f"bitactor log replay: {(replayed.stdout + replayed.stderr)[-300:]}")


PART = Part(
    "crashes",
    "Kill -9 at every crash point and at random",
    (
        Criterion("crashes.restarts", "Kills survived", Threshold(">=", 1), "kills", COMMAND, at_least="crashes"),
        Criterion(
            "crashes.directories-failed", "Data directories whose kills or judgement failed", Threshold("==", 0), "",
            COMMAND,
        ),
        Criterion(
            "crashes.points-missed", "Named crash points that no kill hit", Threshold("==", 0), "points", COMMAND
        ),
        Criterion("crashes.recovery", "The longest recovery", Threshold("<=", 30, warn=5), "s", COMMAND),
        Criterion("crashes.checker", "Defects planted into the history and found", Threshold("==", 6), "of 6", COMMAND),
        *promises("crashes", COMMAND),
    ),
    run,
)  # fmt: skip
