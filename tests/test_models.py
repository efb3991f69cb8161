"""Ring, table, log and dispatcher against plain Python models: Hypothesis chooses what is done, and when.

Each machine's model is what a reader would write first: a list, dicts and a loop over signals, a list of records. A
defect is planted for each machine, which must find it.
"""

import contextlib
import shutil
import tempfile
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import bitactor as ba
from bitactor.actors.app import PARTITIONS
from bitactor.log.contract import LogFullError, RemovedError
from bitactor.log.sqlite import SqliteLog
from bitactor.ring import Consumer
from bitactor.testing import FakeClock
from tests.log_contract.records import record

EXAMPLES = settings(
    max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck), database=None
)


class RingModel(RuleBasedStateMachine):
    """A ring that refuses is a bounded list: what is pushed is popped, in order, and counted."""

    @initialize(capacity=st.sampled_from([2, 8, 64]), many=st.booleans())
    def open(self, capacity, many):
        sides = "many" if many else "one"
        self.ring = ba.Ring(capacity, np.dtype("u8"), producers=sides, consumers=sides, full="refuse")
        self.producer, self.consumer = self.ring.producer(), self.ring.consumer()
        self.model, self.pushed, self.popped, self.refused, self.closed = [], 0, 0, 0, False

    @precondition(lambda self: not self.closed)
    @rule(n=st.integers(0, 80))
    def push(self, n):
        items = np.arange(self.pushed + self.refused, self.pushed + self.refused + n, dtype="u8")
        taken = self.producer.push_batch(items)
        assert taken == min(n, self.ring.capacity - len(self.model))
        self.model += items[:taken].tolist()
        self.pushed, self.refused = self.pushed + taken, self.refused + n - taken

    @rule(most=st.integers(1, 80))
    def pop(self, most):
        batch = self.consumer.pop_batch(most, timeout=0)
        expected = self.model[:most]
        if not expected and self.closed:
            assert batch is None
        else:
            assert batch.tolist() == expected
        del self.model[: len(expected)]
        self.popped += len(expected)

    @rule()
    def close(self):
        self.ring.close()
        self.closed = True

    @invariant()
    def counts(self):
        if hasattr(self, "ring"):
            found = self.ring.statistics()
            assert (found.pushed, found.popped, found.refused) == (self.pushed, self.popped, self.refused)
            assert found.queued == len(self.model)


app = ba.App("modelled")
add = app.kind("add", 1, value="i8", aux="u4")
spill = app.kind("spill", 2, value="i8")
out = app.kind("out", 3, value="i8")
KEYS_MAX = 2 * PARTITIONS


@app.actor(add, state={"n": "u8", "sum": "i8"}, keys_max=KEYS_MAX, expire_after="10s")
def adder(state, signal, emit):
    state.n += 1
    state.sum += signal.value
    if signal.aux > 0:
        emit(spill, signal.key + signal.aux, state.sum)


@app.actor(spill, state={"last": "i8"})
def spills(state, signal, emit):
    if signal.value != state.last:
        emit(out, signal.key, signal.value)
    state.last = signal.value


def partition_of(key):
    from bitactor._core._codec import partition

    return partition(key)


class EngineModel(RuleBasedStateMachine):
    """Dispatcher and tables: dicts, a loop over the signals, then one over what they emitted."""

    signals = st.lists(
        st.tuples(st.integers(0, 120), st.integers(-1000, 1000), st.sampled_from([0, 0, 0, 1, 5])), max_size=60
    )

    @initialize(shards=st.sampled_from([0, 1, 3]))
    def open(self, shards):
        self.clock = FakeClock()
        self.engine = ba.Engine(app, shards=shards, clock=self.clock)
        self.reader = self.engine.subscribe(out, capacity=1 << 14)
        self.adders, self.spills, self.seen, self.outputs = {}, {}, {}, []
        self.accepted = self.capped = self.unmade = 0

    def teardown(self):
        if hasattr(self, "engine"):
            self.engine.close()

    @rule(given=signals)
    def send(self, given):
        if not given:
            return
        keys, values, auxes = (np.array(column) for column in zip(*given, strict=True))
        self.engine.send_batch(
            kind=add, key=keys.astype("u8"), value=values.astype("i8"), aux=auxes.astype("u4"), time=1
        )
        self.accepted += len(given)
        self.expire()
        emitted = []
        for key, value, aux in given:
            if key not in self.adders:
                mine = partition_of(key)
                if sum(partition_of(other) == mine for other in self.adders) >= KEYS_MAX // PARTITIONS:
                    self.capped += 1
                    continue
            n, total = self.adders.get(key, (0, 0))
            self.adders[key] = (n + 1, total + value)
            self.seen[key] = self.clock.now_ns
            if aux:
                emitted.append((key + aux, total + value))
        for key, value in emitted:
            if value != self.spills.get(key, 0):
                self.outputs.append((key, value))
            self.spills[key] = value

    def expire(self):
        """Idle for ten seconds of wall time: removed before the next step's signals."""
        for key in [key for key, at in self.seen.items() if self.clock.now_ns - at >= 10_000_000_000]:
            del self.adders[key], self.seen[key]

    @rule(seconds=st.sampled_from([1, 4, 30]))
    def wait(self, seconds):
        self.clock.advance(seconds)

    @rule(key=st.integers(0, 120))
    def erase(self, key):
        self.engine.flush()
        self.engine.erase(key)
        self.adders.pop(key, None)
        self.seen.pop(key, None)
        self.spills.pop(key, None)

    @rule()
    def compare(self):
        self.engine.flush()
        statistics = self.engine.statistics()
        assert statistics.conserved
        assert statistics.accepted == self.accepted
        assert statistics.dropped["key_cap"] == self.capped
        table = self.engine.table(spills).to_numpy()
        assert {int(row["key"]): int(row["last"]) for row in table} == self.spills
        found = {}
        for row in self.engine.table(adder).to_numpy():
            found[int(row["key"])] = (int(row["n"]), int(row["sum"]))
        kept = {key: value for key, value in self.adders.items() if self.clock.now_ns - self.seen[key] < 10_000_000_000}
        assert found.items() >= kept.items()
        assert self.adders.items() >= {k: v for k, v in found.items() if k in self.adders}.items()
        got = []
        while len(batch := self.reader.read(timeout=0)):
            got += [(int(row["key"]), int(row["value"])) for row in batch]
        expected, self.outputs = self.outputs, []
        assert got == expected


class LogModel(RuleBasedStateMachine):
    """A log is a list of records of which a beginning may be gone; what was appended is there after any reopening."""

    LENGTHS = st.sampled_from([0, 10, 300, 5_000, 70_000])

    @initialize(durability=st.sampled_from(["full", "normal", "off"]))
    def open(self, durability):
        self.directory = tempfile.mkdtemp()
        self.durability, self.model, self.first = durability, [], 0
        self.reopen()

    def reopen(self):
        self.log = SqliteLog.open(self.directory, durability=self.durability, checkpoint_bytes=1 << 17)

    def teardown(self):
        if hasattr(self, "log"):
            self.log.close()
            shutil.rmtree(self.directory)

    @rule(lengths=st.lists(LENGTHS, min_size=1, max_size=6))
    def append(self, lengths):
        for length in lengths:
            made = record(len(self.model), length)
            made.to(self.log)
            self.model.append(made)

    @rule(share=st.floats(0, 1))
    def truncate(self, share):
        before = int(share * len(self.model))
        self.log.truncate_before(before)
        while self.log.tidy():
            pass
        if self.model:
            self.first = max(self.first, min(before, len(self.model) - 1))

    @rule()
    def close_and_open(self):
        self.log.close()
        self.reopen()

    @rule()
    def refuse_another_place(self):
        made = record(len(self.model) + 1)
        with pytest.raises(ValueError, match="does not go on"):
            made.to(self.log)

    @rule(share=st.floats(0, 1))
    def read(self, share):
        begin = int(share * len(self.model))
        if begin < self.log.first().sequence:
            with pytest.raises(RemovedError):
                list(self.log.read(begin))
        else:
            assert [bytes(each) for each in self.log.read(begin)] == [made.record for made in self.model[begin:]]

    @invariant()
    def ends(self):
        if hasattr(self, "log"):
            assert self.log.end().sequence == len(self.model)
            assert self.log.first().sequence <= self.first or not self.model
            assert self.log.end().position == sum(made.count for made in self.model)


MACHINES = {"ring": RingModel, "engine": EngineModel, "log": LogModel}


@pytest.mark.parametrize("name", MACHINES)
def test_what_is_built_does_what_its_plain_model_does(name):
    run_state_machine_as_test(MACHINES[name], settings=EXAMPLES)


def skipping_pop(self, max=8192, timeout=None, real=Consumer.pop_batch):
    """Loses the last item of a batch of two or more."""
    batch = real(self, max, timeout)
    return batch[:-1] if batch is not None and len(batch) >= 2 else batch


def forgetful_erase(self, key):
    """Says that it erased."""
    return 0


def forgetful_read(self, from_sequence, real=SqliteLog.read):
    """Leaves the second record out."""
    return (each for n, each in enumerate(real(self, from_sequence)) if n != 1)


DEFECTS = {
    "ring": (Consumer, "pop_batch", skipping_pop),
    "engine": (ba.Engine, "erase", forgetful_erase),
    "log": (SqliteLog, "read", forgetful_read),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_a_machine_finds_what_is_planted(name):
    more = settings(EXAMPLES, max_examples=150, report_multiple_bugs=False, phases=[Phase.generate], derandomize=True)
    with mock.patch.object(*DEFECTS[name]), pytest.raises(AssertionError), contextlib.redirect_stdout(None):
        run_state_machine_as_test(MACHINES[name], settings=more)


def test_a_log_that_is_full_is_as_it_was(tmp_path):
    with contextlib.closing(SqliteLog.open(tmp_path, size_bytes_max=8 << 20)) as log:
        made = 0
        with contextlib.suppress(LogFullError):
            for made in range(1000):
                record(made, 200_000).to(log)
        assert 0 < made < 999
        assert [bytes(each) for each in log.read(0)] == [record(n, 200_000).record for n in range(made)]
