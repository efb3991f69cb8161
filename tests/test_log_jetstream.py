"""The log in JetStream under what only it meets: other owners, silence of servers, full and changed streams."""

import asyncio
import json
import secrets
import threading
import time

import pytest

from bitactor.log import streams
from bitactor.log.contract import (
    CorruptionError,
    Durability,
    FatalLogError,
    LogFencedError,
    LogFullError,
    LogSettingsError,
)
from bitactor.log.nats_sync import SyncWatch
from tests.jetstream_tools import JetStream, unique
from tests.log_contract.records import make, record


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    with JetStream(tmp_path_factory.mktemp("nats")) as jetstream:
        jetstream.connect()
        yield jetstream


@pytest.fixture
def own(tmp_path):
    """A server of this test's own, to be paused and killed."""
    with JetStream(tmp_path / "nats", sync_always=True) as jetstream:
        jetstream.connect()
        yield jetstream


def fill(log, first, end, length=200):
    made = [record(sequence, length) for sequence in range(first, end)]
    for each in made:
        each.to(log)
    return [each.record for each in made]


def contents(log):
    return [bytes(each) for each in log.read(log.first().sequence)]


class Appending(threading.Thread):
    """An append in a thread, and how it ended."""

    def __init__(self, log, made):
        super().__init__(daemon=True)
        self.log, self.made, self.error = log, made, None
        self.start()

    def run(self):
        try:
            self.made.to(self.log)
        except BaseException as error:  # noqa: BLE001
            self.error = error

    def ended(self):
        self.join(60)
        assert not self.is_alive()
        return self.error


# --- owners


def test_an_owner_that_was_replaced_appends_nothing_and_says_so(one):
    prefix = unique()
    former, owner = one.open(prefix), None
    fill(former, 0, 3)
    owner = one.open(prefix, one.connect())
    kept = fill(owner, 3, 5)
    with pytest.raises(LogFencedError, match=r"nats:t\d+-lane-0: another owner has appended record 3; nothing of this"):
        record(3, seed=1).to(former)
    for use in (lambda: record(3).to(former), former.tidy, former.sync, lambda: former.truncate_before(1)):
        with pytest.raises(LogFencedError):
            use()
    assert len(contents(former)) == 3  # what it knows may still be read
    again = one.open(prefix)
    assert contents(again)[3:] == kept
    fill(again, 5, 6)
    with pytest.raises(LogFencedError):
        record(5, seed=1).to(owner)


def test_the_same_record_of_two_owners_is_kept_once_and_both_may_believe_it(one):
    prefix = unique()
    logs = [one.open(prefix) for _ in range(2)]
    for log in logs:
        record(0).to(log)
    assert len(contents(one.open(prefix))) == 1


def test_of_many_that_append_at_once_one_wins_each_place(one):
    prefix = unique()
    won = []

    def own(number):
        log = one.open(prefix)
        for _ in range(60):
            made = record(log.end().sequence, 300, seed=number)
            try:
                made.to(log)
            except LogFencedError:
                log.close()
                log = one.open(prefix)
            else:
                won.append((made.sequence, made.record))
        log.close()

    threads = [threading.Thread(target=own, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log = one.open(prefix)
    assert sorted(won) == list(enumerate(contents(log)))
    assert log.end().sequence == len(won) > 60


def test_a_record_that_comes_late_from_a_former_owner_is_refused(own):
    former = own.open("late")
    fill(former, 0, 2)
    owner = own.open("late", own.connect())
    own.servers.pause(0)
    zombie = Appending(former, record(2, seed=1))  # sent, and nobody reads it yet
    time.sleep(0.3)
    own.loop.loop.call_soon_threadsafe(own.connections[0]._transport._io_writer.transport.pause_reading)
    own.servers.resume(0)
    kept = record(2, seed=2)
    error = Appending(owner, kept).ended()
    zombie_error = zombie.ended()
    assert [type(each) for each in (error, zombie_error)].count(LogFencedError) == 1  # whichever came second
    (found,) = contents(own.open("late"))[2:]
    assert found == (kept.record if error is None else zombie.made.record)


# --- no answer


def test_an_append_without_an_answer_is_sent_again_and_kept_once(own):
    log = own.open("paused")
    kept = fill(log, 0, 5)
    own.servers.pause(0)
    appending = Appending(log, record(5, 300_000))
    time.sleep(streams.TRY_S + 1)
    assert appending.is_alive()
    own.servers.resume(0)
    assert appending.ended() is None
    assert log.retried > 0
    kept += [record(5, 300_000).record, *fill(log, 6, 8)]
    assert contents(log) == contents(own.open("paused")) == kept


def test_an_append_that_is_not_decided_in_time_ends_the_log(own):
    log = own.open("down", append_s=1.0)
    kept = fill(log, 0, 2)
    own.servers.kill(0)
    with pytest.raises(FatalLogError, match=r"appending record 2 is not decided after 1 s.*start again"):
        record(2).to(log)
    for use in (lambda: record(2).to(log), log.tidy, log.end, log.first, lambda: log.read(0), log.sync):
        with pytest.raises(FatalLogError):
            use()
    log.close()
    own.servers.start(0)
    again = own.open("down")
    assert contents(again)[:2] == kept
    assert again.end().sequence in (2, 3)


def test_leaders_die_and_pause_under_appends_and_every_record_is_there_once(tmp_path):
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    with JetStream(tmp_path / "nats", 3, sync_always=True) as three:
        three.connect()
        log, made = three.open("chaos"), [record(sequence, 5_000, seed) for sequence in range(100_000)]
        stop, failed = threading.Event(), []

        def append():
            try:
                while not stop.is_set():
                    made[log.end().sequence].to(log)
            except BaseException as error:  # noqa: BLE001
                failed.append(error)

        thread = threading.Thread(target=append)
        thread.start()
        for stop_it, start_it in (
            (three.servers.kill, three.servers.start),
            (three.servers.pause, three.servers.resume),
        ):
            before = log.end().sequence
            until(lambda before=before: log.end().sequence > before + 20 or failed, 40)
            victim = three.servers.leader_of("chaos-lane-0")
            before = log.end().sequence
            stop_it(victim)
            until(lambda before=before: log.end().sequence > before + 20 or failed, 40)
            start_it(victim)
        stop.set()
        thread.join()
        assert failed == []
        expected = [each.record for each in made[: log.end().sequence]]
        assert contents(log) == expected
        assert contents(three.open("chaos", three.connect())) == expected


def until(condition, timeout_s):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# --- what is not as it was written


def unguarded(jetstream, prefix, monkeypatch):
    """A log whose stream lets an administrator delete messages."""
    really = streams.configuration
    with monkeypatch.context() as patch:
        patch.setattr(streams, "configuration", lambda *a, **k: {**really(*a, **k), "deny_delete": False})
        return jetstream.open(prefix)


def test_a_missing_message_is_named_and_nothing_behind_it_is_passed_on(one, monkeypatch):
    prefix = unique()
    log = unguarded(one, prefix, monkeypatch)
    kept = fill(log, 0, 40)
    one.loop(one.connections[0].jetstream().delete_msg(f"{prefix}-lane-0", 24))
    got = []
    with pytest.raises(
        CorruptionError, match=rf"nats:{prefix}-lane-0: record 23: it is missing \(message 24 of the"
    ) as e:
        got.extend(bytes(each) for each in log.read(0))
    assert e.value.sequence == 23
    assert got == kept[: len(got)]
    assert len(got) >= 16  # of the batches before it
    assert [bytes(each) for each in log.read(24)] == kept[24:]


def test_what_somebody_else_wrote_into_the_stream_is_found(one):
    connection = one.connections[0]
    damaged = bytearray(record(2).record)
    damaged[100] ^= 1
    for bytes_written, problem in (
        (record(1).record, "its header says that it is record 1"),
        (bytes(damaged), "its CRC says"),
        (record(2).record[:-1], "its payload should have 200 bytes and has 199"),
        (b"hello", "it has 5 bytes; a header alone has 64"),
        (make(2, 19, 10, 1_001, b""), "its position is 19; 20 is where it must go on"),
        (make(2, 20, 10, 999, b""), "its wall time 999 ns is before 1000 ns"),
    ):
        prefix = unique()
        log = one.open(prefix)
        kept = fill(log, 0, 2)
        one.loop(connection.request(f"{prefix}.lane.0", bytes_written, 5))
        log._end = log._end._replace(sequence=3)  # as if it were ours
        got = []
        with pytest.raises(CorruptionError, match=f"nats:{prefix}-lane-0: record 2.*{problem}"):
            got.extend(bytes(each) for batch in [log.read(0)] for each in batch)
        assert got in ([], kept)
        if "position" not in problem and "wall" not in problem:  # those agree with themselves
            with pytest.raises(CorruptionError, match="record 2"):
                one.open(prefix)


def flip(servers, i, stream):
    """Change one bit in the middle of what a server that does not run keeps of a stream."""
    (block,) = servers.store(i).rglob(f"{stream}/msgs/*.blk")
    data = bytearray(block.read_bytes())
    data[len(data) // 2] ^= 1
    block.write_bytes(data)


def test_a_single_server_that_drops_what_is_behind_a_flipped_bit_is_found_out(own, monkeypatch):
    monkeypatch.setattr("bitactor.log.jetstream._LATE_S", 0.1)
    log = own.open("flip")
    fill(log, 0, 40, 10_000)
    until(lambda: log._mark.records == 40, 10)
    own.servers.stop(0)
    flip(own.servers, 0, "flip-lane-0")
    own.servers.start(0)
    with pytest.raises(CorruptionError, match=r"the stream ends before it, with \d+ records, and 40 were acknowledged"):
        own.open("flip")


def test_an_append_behind_a_dropped_end_is_found_out_though_the_server_acknowledges_it(own, monkeypatch):
    monkeypatch.setattr("bitactor.log.jetstream._LATE_S", 0.1)
    log = own.open("flip")
    fill(log, 0, 40, 10_000)
    own.servers.stop(0)
    flip(own.servers, 0, "flip-lane-0")
    own.servers.start(0)  # says 40 messages, until one is looked at
    with pytest.raises(FatalLogError, match=r"record 40 was acknowledged as message \d+ of 'flip-lane-0'"):
        record(40).to(log)
    # What the server still has of it decides which of its contradictions is seen first.
    with pytest.raises(CorruptionError, match=r"the stream ends before it|says that it is record 40|it is missing"):
        own.open("flip")


def test_a_flipped_bit_and_a_wiped_store_of_one_server_of_three_are_harmless(tmp_path):
    with JetStream(tmp_path / "nats", 3, sync_always=True) as three:
        three.connect()
        log = three.open("harm")
        kept = fill(log, 0, 40, 10_000)
        for step, damage in enumerate((flip, wipe)):
            victim = three.servers.leader_of("harm-lane-0")
            three.servers.stop(victim)
            damage(three.servers, victim, "harm-lane-0")
            three.servers.start(victim)
            assert contents(three.open("harm")) == kept
            kept += fill(log, 40 + step, 41 + step)
            until(lambda: healthy(three.servers), 60)
            assert contents(three.open("harm")) == kept


def wipe(servers, i, stream):
    """Remove what a server keeps of a stream."""
    (messages,) = servers.store(i).rglob(f"{stream}/msgs")
    for file in messages.iterdir():
        file.unlink()


def healthy(servers):
    return all(servers._healthy(i) for i in range(servers.nodes))


def test_a_bad_copy_is_read_from_another_server(one, caplog):
    prefix = unique()
    log = one.open(prefix)
    kept = fill(log, 0, 30)
    really, bad = log._source.connection.request, iter(range(3))

    async def request(subject, *arguments, **named):
        answer = await really(subject, *arguments, **named)
        if "DIRECT.GET" in subject and next(bad, None) is not None:
            answer.data = answer.data[:-1] + b"?"
        return answer

    batches = log._batches(0)

    async def damaged_batch(request, really=batches._direct.get):
        return [(number, data[:-1] + b"?" if number == 7 else data) for number, data in await really(request)]

    batches._direct.get = damaged_batch
    log._source.connection.request = request
    try:
        got = []
        while some := one.loop(batches.next()):
            got += some
    finally:
        del log._source.connection.request
        one.loop(batches.close())
    assert got == kept
    assert "a server's copy of a record is damaged" in [each.getMessage() for each in caplog.records]


def test_a_lane_that_is_known_to_have_had_more_is_not_opened(one, monkeypatch):
    monkeypatch.setattr("bitactor.log.jetstream._LATE_S", 0.1)
    prefix = unique()
    log = one.open(prefix)
    fill(log, 0, 5)
    log.close()
    with pytest.raises(CorruptionError, match="with 5 records, and 6 were acknowledged: the servers lost them"):
        one.open(prefix, records_min=6)
    one.open(prefix, records_min=5).close()
    until(lambda: one.open(prefix)._mark.records == 5, 10)
    one.loop(one.connections[0].jetstream().delete_stream(f"{prefix}-lane-0"))
    with pytest.raises(CorruptionError, match="with 0 records, and 5 were acknowledged"):
        one.open(prefix)
    one.loop(one.connections[0].jetstream().purge_stream(f"KV_{prefix}-marks"))
    assert one.open(prefix).end().sequence == 0


# --- room


def test_a_full_stream_refuses_and_goes_on_when_old_records_are_gone(one):
    prefix = unique()
    log = one.open(prefix, size_bytes_max=1 << 20)
    kept = fill(log, 0, 10, 100_000)
    with pytest.raises(LogFullError, match=r"maximum bytes exceeded.*raise nats.size_bytes_max"):
        record(10, 100_000).to(log)
    assert log.full and log.statistics().refused == 1
    assert contents(log) == kept
    state = one.loop(log._info(streams.from_now(5)))["state"]
    assert log.size() == state["bytes"]
    log.truncate_before(4)
    kept += fill(log, 10, 11, 100_000)  # makes the room by itself
    assert not log.full
    assert log.first().sequence == 4
    assert contents(log) == kept[4:]
    assert log.size() == one.loop(log._info(streams.from_now(5)))["state"]["bytes"]


def test_a_record_longer_than_the_servers_take_is_refused_before_it_is_sent(one):
    log = one.open(unique())
    assert log.record_bytes_max == (8 << 20) - 256
    longest = record(0, log.record_bytes_max - 64)
    longest.to(log)
    with pytest.raises(ValueError, match=r"a record of 8388353 bytes; the NATS servers take 8388352 at most"):
        record(1, log.record_bytes_max - 63).to(log)
    fill(log, 1, 2)
    assert contents(log)[0] == longest.record


def test_on_the_loops_own_thread_waiting_is_refused_and_the_awaited_forms_do_the_same(one):
    log = one.open(unique())
    made = [record(sequence, 1_000) for sequence in range(50)]

    async def use():
        with pytest.raises(AssertionError, match="use the method that ends in _async"):
            made[0].to(log)
        for each in made:
            await log.append_async(each.record, **each.facts())
        log.truncate_before(7)
        await log.tidy_async()
        return [each async for batch in log.read_async(7) for each in batch]

    assert one.loop(use()) == [each.record for each in made[7:]]


# --- settings


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [
        ("storage", "memory", r'storage is "memory", "file" was asked for'),
        ("discard", "old", r'discard is "old", "new" was asked for'),
        ("retention", "workqueue", r'retention is "workqueue", "limits" was asked for'),
        ("max_age", 3_600_000_000_000, "max_age is 3600000000000, 0 was asked for"),
        ("max_msgs", 1000, "max_msgs is 1000, -1 was asked for"),
        ("max_msgs_per_subject", 5, "max_msgs_per_subject is 5, -1 was asked for"),
        ("max_bytes", 1 << 20, "max_bytes is 1048576, 67108864 was asked for"),
        ("deny_delete", False, "deny_delete is false, true was asked for"),
        ("allow_rollup_hdrs", True, "allow_rollup_hdrs is true, false was asked for"),
        ("allow_direct", False, "allow_direct is false, true was asked for"),
        ("subjects", ["other"], r'subjects is \["other"\]'),
        ("no_ack", True, "no_ack is true"),
        ("persist_mode", "async", "persist_mode is async: it acknowledges before anything is written"),
        ("metadata", {"bitactor.format": "9"}, "metadata is"),
    ],
)
def test_a_stream_that_is_weaker_than_asked_for_is_refused(one, setting, value, told):
    prefix = unique()
    wanted = streams.configuration(f"{prefix}-lane-0", [f"{prefix}.lane.0"], replicas=1, size_bytes_max=64 << 20)
    wanted |= {"metadata": {"bitactor.format": "1"}, setting: value}
    request = json.dumps(wanted).encode()
    answer = one.loop(one.connections[0].request(f"$JS.API.STREAM.CREATE.{prefix}-lane-0", request, 5))
    assert "error" not in json.loads(answer.data), answer.data
    with pytest.raises(LogSettingsError, match=f"the stream {prefix}-lane-0 is there with other settings .*{told}"):
        one.open(prefix)


def test_more_than_was_asked_for_is_fine(one):
    prefix = unique()
    one.open(prefix, size_bytes_max=2 << 20).close()
    one.open(prefix, size_bytes_max=1 << 20).close()


def test_replicas_that_servers_cannot_give_are_refused(one):
    with pytest.raises(LogSettingsError, match=r"with 3 replicas of 67108864 bytes cannot be made: .*replicas > 1"):
        one.open(unique(), replicas=3)


def test_a_size_that_servers_cannot_give_is_refused(one):
    with pytest.raises(LogSettingsError, match=r"cannot be made: insufficient storage resources"):
        one.open(unique(), size_bytes_max=1 << 50)


# --- what is claimed


def test_only_servers_that_say_that_they_sync_are_believed(tmp_path):
    with JetStream(tmp_path / "nats", 3, sync_always=True) as three:
        connection, servers = three.connect(), three.servers
        monitors = servers.monitor_urls.split(",")
        watches = [three.loop(SyncWatch.open(connection, some)) for some in (monitors, monitors[:2], [])]
        logs = [three.open("claim", sync=watch) for watch in watches]
        single = three.open("single", sync=watches[0], replicas=1)
        assert [log.durability for log in logs] == [Durability.MAJORITY_DISK, Durability.MAJORITY, Durability.MAJORITY]
        assert single.durability == Durability.SERVER_DISK
        assert three.open("single", replicas=1).durability == Durability.SERVER
        victim = next(i for i in range(3) if servers.ports[i] == connection.connected_url.port)
        servers.stop(victim)
        servers.sync_always = False
        servers.start(victim)  # came back with other settings; the connection had to be made again
        until(lambda: logs[0].durability == Durability.MAJORITY, 30)
        servers.stop(victim)
        servers.sync_always = True
        servers.start(victim)
        three.loop(watches[0].check())
        assert logs[0].durability == Durability.MAJORITY_DISK
        for watch in watches:
            three.loop(watch.close())
        assert connection.on_reconnect.count(watches[0].check) == 0


def test_the_numbers_of_durability_are_those_of_the_documents():
    assert {each.name: each.value for each in Durability if each >= 16} == {
        "SERVER": 16,
        "SERVER_DISK": 17,
        "MAJORITY": 18,
        "MAJORITY_DISK": 19,
    }
    assert asyncio.iscoroutinefunction(SyncWatch.check)
