"""Runs a log and its snapshots on a recorded disk, cuts the power at random moments, and opens what may be left.

`python -m tests.powerloss.campaign IMAGES [--seed N] [--durability full|normal|off]` prints what was wrong.
"""

import argparse
import contextlib
import itertools
import random
import secrets
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

from bitactor.log.contract import FatalLogError, LogError
from bitactor.log.database import abandon
from bitactor.log.snapshots import SnapshotStore
from bitactor.log.sqlite import SqliteLog
from tests.log_contract.records import record
from tests.powerloss.images import Image, lay
from tests.powerloss.recorder import RecordingDisk, RecordingVfs, Trace

LENGTHS = (0, 40, 700, 9_000, 66_000, 150_000)
IMAGES_A_RUN = 50
DELICATE = {"lost", "truncate", "rename", "snapshot"}  # operations, and a note
_numbers = itertools.count()


def lengths_of(seed):
    """The payload lengths of the endless stream of records of a run."""
    dice = random.Random(seed)
    while True:
        yield dice.choice(LENGTHS)


class Run:
    """One run: a few lives of a log in a directory, each ended in its own way. `trace` has all of it."""

    def __init__(self, directory, durability, seed):
        self.directory, self.durability, self.seed = directory, durability, seed
        self.dice = random.Random(seed)
        self.lengths = list(itertools.islice(lengths_of(seed), 400))
        self.trace = Trace()
        self.vfs_name = f"recording-{next(_numbers)}"
        self.vfs = RecordingVfs(self.vfs_name, self.trace)
        self.disk = RecordingDisk(directory, self.trace)

    def record(self, sequence):
        return record(sequence, self.lengths[sequence], self.seed)

    def live(self):
        """Lives until some 60 records are there."""
        end = 0
        while end < 60:
            end = self.one_life()

    def open(self):
        log = SqliteLog.open(
            self.directory, durability=self.durability, checkpoint_bytes=1 << 18, vfs=self.vfs_name, disk=self.disk
        )
        # Whoever opens it sees these records, and acknowledges their duplicates.
        self.trace.add("note", "acknowledged", log.end().sequence)
        return log

    def append(self, log, sequence):
        self.trace.add("note", "begun", sequence + 1)
        self.record(sequence).to(log)
        self.trace.add("note", "acknowledged", sequence + 1)

    def die(self, log):
        abandon(log._connection)
        log._lock.release()

    def one_life(self):
        self.trace.stop_at = None
        log = self.open()
        end = log.end().sequence
        how = self.dice.choice(["closed", "killed", "killed syncing", "sync failed"])
        self.trace.loses = how == "sync failed"
        if how in ("killed syncing", "sync failed"):
            self.trace.stop_at = self.trace.syncs + self.dice.randint(1, 40)
        try:
            for _ in range(self.dice.randint(1, 25)):
                end = self.one_step(log, end)
        except (FatalLogError, OSError):
            assert self.trace.stop_at
        if how == "closed":
            log.close()
        else:
            self.die(log)
        return end

    def one_step(self, log, end):
        self.append(log, end)
        end += 1
        if self.dice.random() < 0.15:
            log.sync()
            store = SnapshotStore(self.directory / "snapshots", keep=2, disk=self.disk)
            store.write({"sequence": end}, [("state", random.Random(end).randbytes(self.dice.choice([10, 90_000])))])
            self.trace.add("note", "snapshot", end)
            log.truncate_before(int(store.latest()[-1].stem))
        log.tidy()
        return end


def images(run, count, dice):
    """`count` disks that may be left, at random moments; a third soon after what is delicate."""
    operations = run.trace.operations
    delicate = [at for at, operation in enumerate(operations, 1) if DELICATE & {operation[0], operation[1]}]

    def moment():
        if delicate and dice.random() < 1 / 3:
            return min(dice.choice(delicate) + dice.randrange(30), len(operations))
        return dice.randint(1, len(operations))

    return images_at(run, [moment() for _ in range(count)], dice)


def images_at(run, moments, dice):
    """(files, marks) of a disk that may be left at each moment; marks: what was acknowledged, begun, done by then."""
    wanted = Counter(moments)
    image, marks = Image(), Counter()
    for at, operation in enumerate(run.trace.operations, 1):
        if operation[0] == "note":
            marks[operation[1]] = operation[2]
        else:
            image.step(operation)
        for _ in range(wanted[at]):
            yield image.build(dice), dict(marks)


def judge(run, directory, marks):
    """What is wrong with the log and the snapshots found in that directory; () when every promise was kept."""
    acknowledged, begun, snapshot = (marks.get(what, 0) for what in ("acknowledged", "begun", "snapshot"))
    found = []
    try:
        log = SqliteLog.open(directory, durability=run.durability)
    except LogError as error:
        return [f"does not open: {error}"]
    with contextlib.closing(log):
        first, end = log.first().sequence, log.end().sequence
        try:
            contents = [bytes(each) for each in log.read(first)]
        except LogError as error:
            return [f"cannot be read: {error}"]
        if contents != [run.record(sequence).record for sequence in range(first, end)]:
            found.append("holds other records than were written")
        if end < acknowledged:
            found.append(f"lost acknowledged: it ends at {end} and {acknowledged} were acknowledged")
        if end > max(begun, acknowledged):
            found.append(f"ends at {end} and only {begun} were begun")
        newest, problems = SnapshotStore(directory / "snapshots").newest()
        found += [f"snapshot damaged: {problem}" for problem in problems]
        taken = newest.meta["sequence"] if newest else 0
        if taken < snapshot:
            found.append(f"snapshot lost: {taken} is the newest and {snapshot} was done")
        if not first <= taken <= end:
            found.append(f"snapshot outside of the log: at {taken}, the log is {first} to {end}")
        if newest and newest.sections["state"] != random.Random(taken).randbytes(len(newest.sections["state"])):
            found.append("snapshot holds another state")
    return found


def campaign(count, durability, seed, directory):
    """Judge `count` images; (what was found -> how often, images judged). Files go under `directory`."""
    dice = random.Random(seed)
    found, judged = Counter(), 0
    while judged < count:
        home = directory / f"run{judged}"
        run = Run(home / "live", durability, dice.getrandbits(32))
        run.live()
        for files, marks in images(run, min(IMAGES_A_RUN, count - judged), dice):
            place = home / f"image{judged}"
            lay(files, place)
            for each in judge(run, place, marks):
                found[each.partition(":")[0]] += 1
                print(f"image {judged} of seed {seed}, {durability}: {each}")
            shutil.rmtree(place)
            judged += 1
        shutil.rmtree(home)
    return found, judged


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=int)
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    parser.add_argument("--durability", choices=["full", "normal", "off"], default="full")
    options = parser.parse_args()
    print(f"seed {options.seed}")
    with tempfile.TemporaryDirectory() as directory:
        found, judged = campaign(options.images, options.durability, options.seed, Path(directory))
    print(f"{judged} images, synchronous={options.durability}: {dict(found) or 'nothing lost, every one opens'}")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
