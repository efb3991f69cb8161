"""The oracle of lanes: logs made by hand, good ones and such with a record lost, doubled, moved or changed."""

import numpy as np
import pytest

from bitactor.cluster.parts import part_of
from bitactor.protocol.frames import kind_set
from bitactor.protocol.messages import Producer
from bitactor.protocol.records import RecordBuilder, read_record
from bitactor.signals import SIGNAL_DTYPE, lanes_of
from bitactor.testing.history import HistoryError
from bitactor.testing.lanes import lane_truth
from bitactor.validation.cluster_app import app, tally
from bitactor.validation.history import Sent
from bitactor.validation.lanes import check_lanes

LANES, DESK, BATCH = 4, 7_000, 50
KINDS = kind_set(app.kinds)
WIRE = np.dtype([(n, f">u{SIGNAL_DTYPE[n].itemsize}") for n in SIGNAL_DTYPE.names])


def signals(count=1000):
    made = np.zeros(count, SIGNAL_DTYPE)
    made["kind"] = tally.number
    made["key"] = np.random.default_rng(3).integers(0, 40, count)
    made["value"] = np.arange(count)
    return made


def wire(rows):
    made = np.empty(len(rows), WIRE)
    for name in WIRE.names:
        made[name] = np.ascontiguousarray(rows[name]).view(f"u{WIRE[name].itemsize}")
    return made.tobytes()


def contents(lane, rows):
    """What each record of a lane holds, in order: a registration, then a part of every batch that touches it."""
    where, after = lanes_of(np.ascontiguousarray(rows["key"]), LANES), 0
    made = [[Producer(DESK, 1, "", "desk").encode()]]
    for begin in range(0, len(rows), BATCH):
        some = slice(begin, begin + BATCH)
        mine = np.flatnonzero(where[some] == lane)
        if len(mine):
            touched = sum(1 << int(one) for one in np.unique(where[some]))
            part = part_of(
                DESK, 1, begin=begin, end=begin + BATCH, after=after, floor=0, lanes=touched,
                rows=[wire(rows[some][mine])], offsets=[mine],
            )  # fmt: skip
            after = begin + BATCH
            made.append([part[: len(part) - 64 - 32 * len(mine)], part[len(part) - 64 - 32 * len(mine) :]])
    return made


def log(lane, items):
    """Records of that content, numbered and positioned as they stand."""
    records, position = [], 0
    for number, (message, *frames) in enumerate(items):
        builder = RecordBuilder()
        builder.add_message(message)
        for frame in frames:
            builder.add_frame(frame, KINDS)
        records.append(bytes(builder.finish(number, position, 1 + number, lane, 5)))
        position += read_record(records[-1]).count
    return records


def truths(rows, change=lambda items: items):
    """change: made to what lane 2's records hold."""
    return [
        lane_truth(log(lane, change(made) if lane == 2 else made), app, lane, LANES)
        for lane in range(LANES)
        if (made := contents(lane, rows))
    ]


def judged(rows, found):
    return check_lanes(found, [Sent("desk", DESK, rows, len(rows))])


def test_good_logs_are_good_and_give_every_signal_its_sequence():
    rows = signals()
    found = truths(rows)
    findings = judged(rows, found)
    assert findings.good
    assert findings.logged == findings.acked == len(rows)
    assert all((rows[truth.came[DESK].sequences] == truth.came[DESK].signals).all() for truth in found)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda items: items[:5] + items[6:], "one is missing"),
        (lambda items: [*items[:5], items[4], *items[5:]], "there twice"),
        (lambda items: [*items[:5], items[6], items[5], *items[7:]], "out of order"),
        (lambda items: items[1:], "the lane knows None"),
        (lambda items: [*items[:3], items[3][:1], *items[4:]], "not followed by them|one is missing"),
    ],
)
def test_a_record_that_is_lost_doubled_or_moved_is_seen_in_its_lane(change, said):
    with pytest.raises(HistoryError, match=said):
        truths(signals(), change)


def test_what_is_missing_at_the_end_of_a_lane_is_seen_over_all_lanes():
    rows = signals()
    findings = judged(rows, truths(rows, lambda items: items[:-2]))
    assert not findings.good
    assert findings.lost > 0 == findings.duplicated


def test_signals_of_another_content_are_foreign():
    rows, others = signals(), signals()
    others["value"][500] = -1
    findings = judged(rows, truths(others))
    assert (findings.good, findings.foreign, findings.lost) == (False, 1, 0)


def test_a_signal_in_a_lane_that_is_not_its_own_is_seen():
    rows = signals()
    with pytest.raises(HistoryError, match="belong to another lane"):
        lane_truth(log(2, [*contents(2, rows)[:1], *contents(1, rows)[1:]]), app, 2, LANES)
