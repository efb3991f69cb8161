"""What every log keeps, whatever it is made of and however durable it is."""

import functools
import random
import secrets
import shutil
import tempfile
import threading

import pytest

from bitactor.log.contract import Durability, End, First, LogError, RemovedError
from bitactor.log.none import NoneLog
from bitactor.log.sqlite import SqliteLog
from tests.jetstream_tools import JetStream, unique
from tests.log_contract.records import record


@functools.cache
def prefix_of(path):
    """The prefix of the streams of that test."""
    return unique()


_running = {}


def servers(nodes):
    """NATS servers for all tests of this module, started when they are first needed (see stop_servers)."""
    if nodes not in _running:
        directory = tempfile.mkdtemp(prefix="bitactor-nats-")
        _running[nodes] = directory, JetStream(directory, nodes).__enter__()
    return _running[nodes][1]


@pytest.fixture(scope="module", autouse=True)
def stop_servers():
    yield
    while _running:
        directory, running = _running.popitem()[1]
        running.__exit__(None, None, None)
        shutil.rmtree(directory)


OPENERS = {
    "none": lambda path: NoneLog(),
    **{f"sqlite-{each}": lambda path, each=each: SqliteLog.open(path, durability=each) for each in ("full", "normal")},
    "sqlite-off": lambda path: SqliteLog.open(path, durability="off", checkpoint_bytes=1 << 19),
    "sqlite-full-busy": lambda path: SqliteLog.open(path, checkpoint_bytes=1 << 18),
    "jetstream-1": lambda path: servers(1).open(prefix_of(path)),
    "jetstream-3": lambda path: servers(3).open(prefix_of(path)),
}
DURABILITY = {
    "none": Durability.MEMORY,
    "sqlite-full": Durability.DISK,
    "sqlite-full-busy": Durability.DISK,
    "sqlite-normal": Durability.NORMAL,
    "sqlite-off": Durability.OS,
    "jetstream-1": Durability.SERVER,
    "jetstream-3": Durability.MAJORITY,
}
KEEPS = [kind for kind in OPENERS if kind != "none"]


@pytest.fixture(params=OPENERS)
def kind(request):
    return request.param


@pytest.fixture(params=KEEPS)
def keeping(request):
    return request.param


class Opened:
    """A log in a directory, and the means to open it again."""

    def __init__(self, kind, path):
        self.kind, self.path = kind, path
        self.log = OPENERS[kind](path)

    def again(self):
        self.log.close()
        self.log = OPENERS[self.kind](self.path)
        return self.log

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.log.close()


def contents(log):
    return [bytes(each) for each in log.read(log.first().sequence)]


def made(first, end, length=200):
    return [record(sequence, length) for sequence in range(first, end)]


def test_a_new_log_begins_at_zero_and_says_its_durability(kind, tmp_path):
    with Opened(kind, tmp_path) as opened:
        log = opened.log
        assert log.first() == First(0, 0)
        assert log.end() == End(0, 0, 0)
        assert log.durability == DURABILITY[kind]
        assert log.kind == kind.partition("-")[0]
        assert contents(log) == []
        assert not log.full
        assert not log.tidy()


def test_the_end_goes_on_with_each_record(kind, tmp_path):
    with Opened(kind, tmp_path) as opened:
        for each in made(0, 5):
            each.to(opened.log)
            assert opened.log.end() == End(each.sequence + 1, each.position + 10, each.wall_ns)
        figures = opened.log.statistics()
        assert figures.records == 5
        assert figures.bytes == 5 * 264


def test_what_does_not_go_on_from_the_end_is_refused_and_changes_nothing(kind, tmp_path):
    with Opened(kind, tmp_path) as opened:
        log = opened.log
        for each in made(0, 3):
            each.to(log)
        fourth = record(3)
        for wrong in (
            {"sequence": 2},
            {"sequence": 4},
            {"position": 29},
            {"position": 31},
            {"wall_ns": 1_000},
            {"count": -1},
        ):
            with pytest.raises(ValueError, match="does not go on from the log's end"):
                log.append(fourth.record, **{**fourth.facts(), **wrong})
            assert log.end() == End(3, 30, 1_001)
        fourth.to(log)
        assert log.end() == End(4, 40, 1_001)


def test_records_come_back_in_order_from_any_sequence(keeping, tmp_path):
    with Opened(keeping, tmp_path) as opened:
        records = made(0, 50)
        for each in records:
            each.to(opened.log)
        for start in (0, 1, 15, 16, 17, 49, 50):
            assert [bytes(each) for each in opened.log.read(start)] == [each.record for each in records[start:]]
        with pytest.raises(ValueError, match="record 51 is beyond the end, 50"):
            opened.log.read(51)


def test_a_log_that_keeps_nothing_says_so_when_read(tmp_path):
    log = NoneLog()
    record(0).to(log)
    assert log.first() == First(1, 10)
    assert list(log.read(1)) == []
    with pytest.raises(RemovedError, match="log.kind = none"):
        log.read(0)
    with pytest.raises(ValueError, match="beyond the end"):
        log.read(2)
    assert log.size() == 0


def test_empty_and_large_records_come_back_whole(keeping, tmp_path):
    with Opened(keeping, tmp_path) as opened:
        lengths = [0, 1, 8_000, 65_472, 65_536, 65_537, 1_000_000, 2_300_000, 0]
        records = [record(sequence, length) for sequence, length in enumerate(lengths)]
        for each in records:
            each.to(opened.log)
        assert contents(opened.log) == [each.record for each in records]
        assert contents(opened.again()) == [each.record for each in records]


def test_the_bytes_may_change_after_append_has_returned(keeping, tmp_path):
    with Opened(keeping, tmp_path) as opened:
        first = record(0, 300_000)
        buffer = bytearray(first.record)
        opened.log.append(memoryview(buffer), **first.facts())
        buffer[:] = bytes(len(buffer))
        assert contents(opened.log) == [first.record]


def test_a_log_opened_again_goes_on_where_it_was(keeping, tmp_path):
    with Opened(keeping, tmp_path) as opened:
        records = made(0, 30)
        for each in records:
            each.to(opened.log)
            if each.sequence % 10 == 3:
                assert opened.again().end() == End(each.sequence + 1, each.position + 10, each.wall_ns)
                assert contents(opened.log) == [one.record for one in records[: each.sequence + 1]]


def test_retention_removes_what_is_before_and_the_last_record_stays(keeping, tmp_path):
    with Opened(keeping, tmp_path) as opened:
        log = opened.log
        records = made(0, 40, 50_000)
        for each in records:
            each.to(log)
        size = log.size()
        log.truncate_before(25)
        assert len(contents(log)) == 40  # nothing yet: tidy removes
        while log.tidy():
            pass
        assert log.first() == First(25, 250)
        assert contents(log) == [each.record for each in records[25:]]
        with pytest.raises(RemovedError, match="record 24 was removed by retention; the first one kept is 25"):
            log.read(24)
        assert log.statistics().truncated == 25
        assert log.size() < size / 2
        log.truncate_before(10)  # what is gone stays gone, what is there stays there
        assert not log.tidy()
        log.truncate_before(1_000)
        while log.tidy():
            pass
        assert log.first() == First(39, 390)
        assert opened.again().end() == End(40, 400, 1_019)
        assert contents(opened.log) == [records[39].record]
        record(40).to(opened.log)


def test_a_reader_sees_the_end_as_it_was_and_hinders_nobody(keeping, tmp_path):
    with Opened(keeping, tmp_path) as opened:
        log = opened.log
        records = made(0, 400, 20_000)
        for each in records[:40]:
            each.to(log)
        reading = log.read(0)
        begun = [bytes(next(reading)) for _ in range(5)]
        for each in records[40:]:
            each.to(log)
            log.tidy()
        assert begun + [bytes(each) for each in reading] == [each.record for each in records[:40]]
        wal = tmp_path / "log.sqlite-wal"
        if keeping in ("sqlite-off", "sqlite-full-busy"):  # 8 MB went through; the WAL started over many times
            assert wal.stat().st_size < 3 << 20


def test_a_reader_overtaken_by_retention_is_told(keeping, tmp_path):
    with Opened(keeping, tmp_path) as opened:
        for each in made(0, 100):
            each.to(opened.log)
        reading = opened.log.read(0)
        next(reading)
        opened.log.truncate_before(90)
        while opened.log.tidy():
            pass
        with pytest.raises(RemovedError, match="the first one kept is 90"):
            list(reading)


def test_any_thread_reads_while_the_writer_appends(keeping, tmp_path):
    with Opened(keeping, tmp_path) as opened:
        log, records = opened.log, made(0, 300, 3_000)
        wrong, stop = [], threading.Event()

        def read():
            while not stop.is_set():
                first, end = log.first(), log.end()
                got = [bytes(each) for each in log.read(first.sequence)]
                if len(got) < end.sequence - first.sequence or got != [one.record for one in records[: len(got)]]:
                    wrong.append((first, end, len(got)))

        threads = [threading.Thread(target=read) for _ in range(2)]
        for thread in threads:
            thread.start()
        for each in records:
            each.to(log)
            log.tidy()
        stop.set()
        for thread in threads:
            thread.join()
        assert wrong == []


def test_sync_and_tidy_may_come_at_any_time(kind, tmp_path):
    with Opened(kind, tmp_path) as opened:
        opened.log.sync()
        for each in made(0, 3):
            each.to(opened.log)
            opened.log.sync()
            opened.log.tidy()
        assert opened.log.end().sequence == 3


def test_a_closed_log_says_so_and_closes_twice(kind, tmp_path):
    with Opened(kind, tmp_path) as opened:
        record(0).to(opened.log)
        opened.log.close()
        opened.log.close()
        with pytest.raises((LogError, ValueError), match="closed"):
            record(1).to(opened.log)


def test_random_use_agrees_with_a_plain_list(keeping, tmp_path):
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    with Opened(keeping, tmp_path) as opened:
        records, first, floor = [], 0, 0
        for _ in range(250):
            step = dice.choice("aaaaaaattrocs")
            if step == "a":
                records.append(record(len(records), dice.choice([0, 10, 500, 70_000, 200_000]), seed))
                records[-1].to(opened.log)
            elif step == "t":
                opened.log.tidy()
            elif step == "r":
                floor = max(floor, dice.randint(0, len(records) + 2))
                opened.log.truncate_before(floor)
            elif step == "o":
                opened.again()
                floor = 0
            elif step == "c":
                first = opened.log.first().sequence
                assert first <= max(floor, first)
                assert contents(opened.log) == [each.record for each in records[first:]]
            else:
                opened.log.sync()
            assert opened.log.end().sequence == len(records)
            assert first <= opened.log.first().sequence <= max(len(records) - 1, 0)
            assert opened.log.first().position == opened.log.first().sequence * 10
