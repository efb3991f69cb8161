"""What a simulated service stands on: a clock, a log and snapshots in memory with faults, a writer without a thread.

See simulation.py. One thread.
"""

import json
from concurrent.futures import Executor, Future
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from bitactor import faults
from bitactor.log.contract import End, FatalLogError, First, LogFullError
from bitactor.log.none import NoneLog
from bitactor.log.snapshots import Snapshot
from bitactor.runtime import writer
from bitactor.runtime.outputs import OutputHub


class Crash(BaseException):
    """The process is gone."""


class Inline(Executor):
    """Does at once what a thread would."""

    def __init__(self, *_):
        pass

    def submit(self, function, /, *arguments):
        future = Future()
        try:
            future.set_result(function(*arguments))
        except BaseException as error:  # noqa: BLE001
            future.set_exception(error)
        return future

    def shutdown(self, wait=True):
        pass


class Clock:
    """Wall time that stands still, runs, jumps and goes back."""

    def __init__(self, rng):
        self.rng = rng
        self.now_ns = 1_790_000_000_000_000_000

    def time_ns(self):
        self.now_ns += self.rng.choice((0, 1, 1_000_000, 1_000_000_000, -2_000_000_000, 1_200_000_000_000))
        return self.now_ns

    def perf_counter(self):
        return 1.0


class MemoryLog(NoneLog):
    """All records ever; those before `begin` are removed. fault: what the next appends do; alive: the process is."""

    kind = "sqlite"
    path = Path("memory")
    durability = 3

    def __init__(self, world):
        super().__init__()
        self.world = world
        self.process = None
        self.records = []
        self.ends = [End(0, 0, 0)]
        self.begin = self.floor = 0
        self.fault = None
        self.broken = False

    def opened_by(self, process):
        self.process, self.broken = process, False
        return self

    def first(self):
        return First(self.begin, self.ends[self.begin].position)

    def end(self):
        return self.ends[-1]

    def append(self, record, *, sequence, position, count, wall_ns):
        if self.broken:
            raise FatalLogError("broken")
        self.process.alive_or_crash()
        end = self.ends[-1].after(sequence, position, count, wall_ns)
        faults.point("log.append.before")
        if self.fault == "full":
            raise LogFullError("full")
        if self.fault == "failed, lost":
            self.fault, self.broken = None, True
            raise FatalLogError("lost")
        self.records.append(bytes(record))
        self.ends.append(end)
        if self.fault == "failed, kept":
            self.fault, self.broken = None, True
            raise FatalLogError("kept")
        faults.point("log.append.synced")

    def read(self, from_sequence):
        assert self.begin <= from_sequence <= len(self.records)
        return iter(self.records[from_sequence:])

    def truncate_before(self, sequence):
        self.floor = max(self.floor, sequence)

    def tidy(self):
        if self.begin < min(self.floor, len(self.records) - 1):
            self.process.alive_or_crash()
            faults.point("log.truncate.before")
            self.begin = min(self.begin + self.world.rng.randint(1, 4), self.floor, len(self.records) - 1)
            faults.point("log.truncate.after")
            return True
        return False

    def close(self):
        pass


class File:
    """A snapshot file in memory, and the little of Path that recovery asks of it."""

    def __init__(self, store, meta, sections):
        self.store, self.meta, self.sections = store, json.loads(json.dumps(meta)), sections
        self.stem = f"{meta['sequence']:020d}"

    def stat(self):
        return SimpleNamespace(st_size=1)


class MemoryStore:
    """The snapshots' directory."""

    def __init__(self, keep=2):
        self.keep = keep
        self.files = {}

    def latest(self):
        return [self.files[stem] for stem in sorted(self.files, reverse=True)]

    def write(self, meta, sections):
        faults.point("snapshot.begun")
        copies = {n: memoryview(np.ascontiguousarray(data).tobytes() if len(data) else b"") for n, data in sections}
        made = File(self, meta, copies)
        faults.point("snapshot.synced")
        self.files[made.stem] = made
        faults.point("snapshot.renamed")
        for old in self.latest()[self.keep :]:
            del self.files[old.stem]
        faults.point("snapshot.done")
        return made

    def load(self, file):
        return Snapshot(file, file.meta, file.sections)


class SimulatedWriter(writer.Writer):
    """The writer without its thread: it does one thing when told to."""

    def start(self):
        pass

    def step(self):
        if self._ended:
            return
        if self._queue.empty():
            self._log.tidy()
            return
        try:
            self._do(self._queue.get())
        except Exception as error:  # noqa: BLE001
            self._tell(self._reports.failed, error)
            self._end()

    def stop(self):
        while not self._queue.empty() and not self._ended:
            self.step()
        self._end()

    def _end(self):
        self._ended = True
        self._give_up()


class SimulatedHub(OutputHub):
    """Exports where it is: there is one thread."""

    def export(self):
        return self._export()
