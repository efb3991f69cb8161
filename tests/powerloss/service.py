"""A service's core on a recorded disk: producers, names, an erasure, snapshots with retention, in a few lives.

Each life ends with an orderly stop, a kill -9 at any operation on the files, or a sync that fails. The end is cut into
the trace: the next life begins with the files that the page cache shows then. What is sent follows from the seed;
how it is grouped into records also depends on the threads.
"""

import asyncio
import itertools
import random
from functools import lru_cache

import bitactor as ba
from bitactor.log.snapshots import SnapshotStore
from bitactor.log.sqlite import SqliteLog
from bitactor.protocol.messages import Name
from bitactor.runtime.core import Core
from tests.powerloss.images import Image, lay
from tests.powerloss.recorder import RecordingDisk, RecordingVfs, Trace
from tests.service_app import app
from tests.service_oracle import stream
from tests.test_runtime_core import Session, settings_of

PRODUCERS = ("a", "b", "c")
RECORDS = 40
_numbers = itertools.count()


@lru_cache
def signals_of(name):
    """All that a producer may ever send."""
    return stream(name, 20_000)


def settings(directory, durability, keep=2):
    """Settings of a small service."""
    return settings_of(
        directory, engine__shards=0, log__durability=durability, snapshot__keep=keep, outputs__window=1 << 16
    )


class NotedLog(SqliteLog):
    """Notes each record before it is appended. `trace` is set when it is open."""

    def append(self, record, *, sequence, **place):
        self.trace.add("note", ("record", sequence), bytes(record))
        super().append(record, sequence=sequence, **place)


class Acknowledged(Session):
    """Notes what it is acknowledged."""

    def _take_ack(self, reached, durability, position):
        self.core.trace.add("note", ("acked", self.name), reached)
        self.core.note_acknowledged()
        super()._take_ack(reached, durability, position)


class RecordedCore(Core):
    """Keeps its log and its snapshots on the disk of a run."""

    def __init__(self, run, directory):
        super().__init__(settings(directory, run.durability, run.keep), app, run.failures.append)
        self.trace, self.run = run.trace, run
        self.vfs = RecordingVfs(run.vfs, run.trace)
        self.disk = run.disk(directory, run.trace)

    async def _open_log(self):
        log = await self._do(
            lambda: self.run.log.open(
                self.settings.data_dir, durability=self.run.durability, vfs=self.run.vfs, disk=self.disk,
                checkpoint_bytes=self.run.checkpoint_bytes,
            )
        )  # fmt: skip
        log.trace = self.trace
        return log

    async def _open_store(self):
        return SnapshotStore(self.settings.data_dir / "snapshots", self.run.keep, self.disk)

    def note_acknowledged(self):
        """All that is in the log was or may be acknowledged."""
        self.trace.add("note", "acknowledged", self.writer.place.sequence)


class ServiceRun:
    """Lives until some 40 records are there. `trace` has all of it. log, disk: classes, with a defect perhaps."""

    def __init__(self, directory, durability, seed, log=NotedLog, disk=RecordingDisk):
        self.directory, self.durability = directory, durability
        self.log, self.disk = log, disk
        self.dice = random.Random(seed)
        self.keep = self.dice.choice([1, 2])
        self.checkpoint_bytes = self.dice.choice([1 << 18, 1 << 22])
        self.trace = Trace()
        self.failures = []

    async def live(self):
        """All lives; the first begins with nothing."""
        for number in itertools.count():
            home = self.directory / f"life{number}"
            lay(page_cache(self.trace.operations), home)
            begin = len(self.trace.operations)
            self.vfs = f"recorded-{next(_numbers)}"
            core = RecordedCore(self, home)
            await core.start()
            core.note_acknowledged()
            await self.one_life(core)
            ends = core.writer.place.sequence >= RECORDS
            killed = len(self.trace.operations)
            await core.stop(snapshot=self.dice.random() < 0.5)
            assert not self.failures
            if ends:
                return
            self.end(begin, killed)

    def end(self, begin, killed):
        """Cut the trace where this life ended, at or behind `begin`; from `killed` on it was stopping."""
        trace, how = self.trace, self.dice.choice(["closed", "killed", "killed", "sync failed"])
        if how == "killed":
            del trace.operations[self.dice.randint(begin, killed) :]
        elif how == "sync failed":
            syncs = [at for at in range(begin, len(trace.operations)) if trace.operations[at][0] == "sync"]
            if syncs:
                at = self.dice.choice(syncs)
                trace.operations[at:] = [("lost", trace.operations[at][1])]
        trace.files = names_of(trace.operations)

    async def one_life(self, core):
        dice = self.dice
        sessions = {}
        for name in dice.sample(PRODUCERS, dice.randint(1, 3)):
            sessions[name] = await Acknowledged(core, name).open(takeover=dice.random() < 0.3)
            core.note_acknowledged()
        sent = {name: session.producer.next for name, session in sessions.items()}
        snapshots = []
        for _ in range(dice.randint(2, 12)):
            name = dice.choice(list(sent))
            what = dice.random()
            if what < 0.12:
                text = f"name {dice.randrange(30)}"
                core.admission.admit_name(sessions[name].producer, Name(ba.text_key(text), text))
            elif what < 0.2:
                await core.admission.erase(
                    dice.choice([dice.randrange(500), ba.text_key(f"name {dice.randrange(30)}")])
                )
                core.note_acknowledged()
            elif what < 0.35:
                snapshots.append(asyncio.create_task(self.snapshot(core)))
            elif what < 0.4:
                core.admission.heartbeat()
            else:
                again = dice.randint(0, min(sent[name], 30))
                begin, end = sent[name] - again, min(sent[name] + dice.choice([1, 20, 300, 3000]), 20_000)
                await sessions[name].send_all(signals_of(name)[begin:end], begin, frame=dice.choice([7, 100, 1000]))
                sent[name] = end
            if dice.random() < 0.6:
                await core.admission.drained()
            else:
                await asyncio.sleep(0)
        await asyncio.gather(*snapshots)

    async def snapshot(self, core):
        info = await core.snapshots.take()
        self.trace.add("note", "snapshot", info.sequence)


def names_of(operations):
    """Name -> file, as whoever opens a name then finds it."""
    names = {}
    for what, *more in operations:
        if what == "create":
            names[more[0]] = more[1]
        elif what == "remove":
            names.pop(more[0])
        elif what == "rename":
            names[more[1]] = names.pop(more[0])
    return names


def page_cache(operations):
    """The files as every process sees them, synced or not."""
    image = Image()
    for each in operations:
        if each[0] not in ("note", "lost"):
            image.step(each)
    return image.latest()
