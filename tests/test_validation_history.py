"""The history checker finds what is planted: in producers' signals, in records of a log, in a snapshot's state."""

import contextlib

import numpy as np
import pytest

import bitactor as ba
from bitactor.log.sqlite import SqliteLog
from bitactor.protocol.frames import encode_frame
from bitactor.protocol.messages import Producer as ProducerMessage
from bitactor.protocol.records import RecordBuilder, encode_app_record
from bitactor.testing.history import HistoryError, read_log
from bitactor.validation.app import app
from bitactor.validation.campaign import DefectFoundError
from bitactor.validation.history import Sent, check, check_signals, known_of, prove
from bitactor.validation.producers import Producer
from bitactor.validation.service import Served
from bitactor.validation.streams import input_kinds, stream
from tests.service_process import APP

NUMBER = ba.text_key("a")


def sent_of(acked=900):
    return [Sent("a", NUMBER, stream(app, "a", 1000), acked), Sent("b", ba.text_key("b"), stream(app, "b", 50), 50)]


def logged_of(sent):
    return {one.number: one.signals[: one.acked + (50 if one.label == "a" else 0)] for one in sent}


def test_a_good_history_has_no_findings():
    sent = sent_of()
    findings = check_signals(logged_of(sent), sent)
    assert findings.good
    assert (findings.acked, findings.logged) == (950, 1000)
    findings.require()


def test_every_planted_defect_is_found_as_what_it_is():
    sent = sent_of()
    assert prove(logged_of(sent), sent) == dict.fromkeys(
        ["loss", "loss at the end", "duplicate", "duplicate at the end", "reorder", "foreign"], True
    )


def test_a_producer_that_nobody_was_is_found():
    sent = sent_of()
    findings = check_signals({**logged_of(sent), 77: sent[0].signals[:3]}, sent)
    assert findings.foreign == 3
    with pytest.raises(DefectFoundError, match="producer 77"):
        findings.require()


def log_of(directory, frames, defect=""):
    """A log with the frames [(sequence, signals)] of producer a, each in a record of its own."""
    with contextlib.closing(SqliteLog.open(directory)) as log:
        wall, position, sequence = 1_700_000_000_000_000_000, 0, 0

        def append(raw, count):
            nonlocal position, sequence
            log.append(raw, sequence=sequence, position=position, count=count, wall_ns=wall)
            position, sequence = position + count, sequence + 1

        append(encode_app_record(b"{}", sequence=0, position=0, wall_ns=wall, fingerprint=1), 0)
        builder = RecordBuilder()
        for number, (at, signals) in enumerate(frames):
            builder.clear()
            if not number:
                builder.add_message(ProducerMessage(NUMBER, 1, "", "a").encode())
            builder.add_frame(encode_frame(signals, producer=NUMBER, sequence=at, epoch=1))
            append(bytes(builder.finish(sequence, position, wall, 0, 1)), len(signals))


def cut(signals, *places):
    return [(begin, signals[begin:end]) for begin, end in zip((0, *places), (*places, len(signals)), strict=True)]


def test_a_log_is_read_back_as_it_was_written(tmp_path):
    signals = stream(app, "a", 1000)
    log_of(tmp_path, cut(signals, 100, 350))
    truth = read_log(tmp_path, app)
    assert truth.sent[NUMBER].tobytes() == signals.tobytes()
    assert (truth.position, truth.records) == (1000, 4)
    assert check(tmp_path, app, [Sent("a", NUMBER, signals, 1000)], snapshot=False).good
    wanted = np.count_nonzero(signals["kind"] == 2)
    assert int(truth.state.actor("notes").rows["n"].sum()) == wanted


@pytest.mark.parametrize("planted", ["a frame twice", "a frame missing", "two frames swapped"])
def test_a_log_that_contradicts_itself_is_told_with_the_record(tmp_path, planted):
    frames = cut(stream(app, "a", 1000), 100, 350, 600)
    if planted == "a frame twice":
        frames.insert(2, frames[1])
    elif planted == "a frame missing":
        del frames[2]
    else:
        frames[1], frames[2] = frames[2], frames[1]
    log_of(tmp_path, frames)
    with pytest.raises(HistoryError, match="record [23]: a frame of producer"):
        read_log(tmp_path, app)
    findings = check(tmp_path, app, [Sent("a", NUMBER, stream(app, "a", 1000), 1000)], snapshot=False)
    assert not findings.good


def test_a_log_that_lacks_what_was_acknowledged_is_found(tmp_path):
    signals = stream(app, "a", 1000)
    log_of(tmp_path, cut(signals, 100, 350)[:-1])
    findings = check(tmp_path, app, [Sent("a", NUMBER, signals, 360)], snapshot=False)
    assert (findings.lost, findings.good) == (10, False)


def test_streams_are_deterministic_all_different_and_fit_any_app():
    one, other = stream(app, "a", 5000, seed=3), stream(app, "a", 5000, seed=3)
    assert one.tobytes() == other.tobytes()
    assert len(np.unique(one)) == 5000
    assert stream(app, "b", 5000, seed=3).tobytes() != one.tobytes()
    assert {kind.number for kind in input_kinds(app)} == {1, 2, 4} == set(np.unique(one["kind"]).tolist())
    with ba.Engine(app, shards=0, clock="records") as engine:
        engine.apply(one, 1_700_000_000_000_000_000)
        assert engine.statistics().processed >= 5000


def test_a_service_that_is_killed_and_stopped_has_a_good_history_and_a_damaged_copy_has_not(tmp_path):
    flags = {"snapshot_every_s": 0.2, "snapshot_keep": 1000, "outputs_window": 1 << 20}
    with Served(tmp_path, APP, **flags) as served:
        from tests.service_app import app as served_app

        producers = [
            Producer(served.data, served.port, name, stream(served_app, name, 20_000), seed=1) for name in ("a", "b")
        ]
        for producer in producers:
            producer.start()
        served.start().ready()
        producers[0].acknowledged()
        served.kill()
        served.start().ready()
        for producer in producers:
            producer.finished()
        assert served.stop() == 0
        sent = known_of(producers)
        findings = check(served.data, served_app, sent).require()
        assert findings.acked == findings.logged == 40_000
        assert findings.outputs > 100
        more = [Sent(one.label, one.number, np.concatenate([one.signals, one.signals[:1]]), 20_001) for one in sent]
        assert check(served.data, served_app, more).lost == 2
        served.start(BITACTOR_JIT="off").ready()  # state that another service made
        extra = Producer(served.data, served.port, "c", stream(served_app, "c", 10), seed=1)
        extra.start()
        extra.finished()
        assert served.stop() == 0
        assert check(served.data, served_app, sent).foreign == 10


def test_what_is_about_to_leave_a_producer_is_waited_for_by_who_ends_it(tmp_path):
    one = Producer(tmp_path, 1, "p", np.zeros(1000, ba.SIGNAL_DTYPE), seed=1, frame_max=50)
    count = one._leaving(0, 10_000)
    one.end_after()  # before it was sent
    assert one.total == one.sent == count > 0
    assert one._leaving(count, 10_000) == 0
    one.end_after(7)
    assert one.total == count
    two = Producer(tmp_path, 1, "p", np.zeros(1000, ba.SIGNAL_DTYPE), seed=1, frame_max=50)
    two.acked = 30
    two.end_after(7)
    assert two.total == 37
