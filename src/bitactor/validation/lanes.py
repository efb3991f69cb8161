"""The history checker of a replicated service: what producers were acknowledged, against the logs of all lanes.

For each producer, over all lanes together: every acknowledged signal is there once, with its content, in its order in
each lane, and nothing that was never sent is. For each pair of lanes: what one has of the other's emits is, number by
number, what a replay of the other's log emits. For each snapshot that the store names: its state is bit for bit that
of an inline replay of the lane's log up to it. `prove` plants defects and tells which of them are then found.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bitactor.protocol.messages import LANE_SHIFT
from bitactor.testing.history import HistoryError, assert_same_state
from bitactor.testing.lanes import (
    LANE_PRODUCERS,
    Came,
    LaneSnapshot,
    LaneTruth,
    lane_truth,
    read_lane,
    read_snapshots,
)
from bitactor.validation.history import Findings, Sent

if TYPE_CHECKING:
    from bitactor import App

Truths = Sequence[LaneTruth]
LAST_SNAPSHOT = "the last snapshot is of record"


def check_cluster(
    urls: str, prefix: str, app: "App", lanes: int, sent: Sequence[Sent], directory: Path, *, quiet: bool = True
) -> tuple[Findings, Truths]:
    """Read every lane from the servers and judge it all; the findings, and what the lanes say.

    quiet: everything that was emitted has arrived, and each lane's newest snapshot covers its log.
    """
    truths: list[LaneTruth] = []
    snapshots: list[list[LaneSnapshot]] = []
    try:
        for lane in range(lanes):
            records = asyncio.run(read_lane(urls, prefix, lane))
            kept = asyncio.run(read_snapshots(urls, prefix, lane, directory))
            truths.append(lane_truth(records, app, lane, lanes, at=[one.sequence for one in kept]))
            snapshots.append(kept)
    except HistoryError as error:
        return Findings(duplicated=1, problems=[f"lane {len(truths)}: {error}"]), truths
    findings = check_lanes(truths, sent)
    findings.add(check_emits(truths, quiet=quiet))
    for truth, kept in zip(truths, snapshots, strict=True):
        findings.add(check_snapshots(truth, kept, quiet=quiet))
    findings.records = sum(truth.records for truth in truths)
    findings.outputs = sum(len(truth.outputs) for truth in truths)
    return findings, truths


def check_lanes(truths: Truths, sent: Sequence[Sent]) -> Findings:
    """Compare what all lanes together have of each producer with what it knows."""
    findings = Findings()
    for one in sent:
        _check_producer(findings, one, [t.came[one.number] for t in truths if one.number in t.came])
    known = {one.number for one in sent}
    for truth in truths:
        for number in truth.came.keys() - known:
            if number >= LANE_PRODUCERS:
                findings.foreign += len(truth.came[number].signals)
                findings.problems.append(f"producer {number} is in lane {truth.lane}, and none of that name sent")
    return findings


def _check_producer(findings: Findings, one: Sent, came: Sequence[Came]) -> None:
    sequences = np.concatenate([some.sequences for some in came]) if came else np.empty(0, "u8")
    foreign = differing = reordered = 0
    for some in came:
        reordered += int((some.sequences[1:] < some.sequences[:-1]).sum())
        sent_ = some.sequences < len(one.signals)
        foreign += int((~sent_).sum())
        there = np.ascontiguousarray(some.signals[sent_]).view("V32")
        differing += int((there != np.ascontiguousarray(one.signals[some.sequences[sent_]]).view("V32")).sum())
    times = np.bincount(sequences.astype("i8"), minlength=one.acked)
    lost, duplicated = int((times[: one.acked] == 0).sum()), int((times - 1).clip(0).sum())
    findings.acked += one.acked
    findings.logged += len(sequences)
    findings.lost += lost
    findings.duplicated += duplicated
    findings.reordered += reordered
    findings.foreign += foreign + differing
    if lost or duplicated or reordered or foreign or differing:
        findings.problems.append(
            f"{one.label}: of {one.acked} acknowledged signals {lost} are in no lane; {duplicated} are there again, "
            f"{reordered} out of order, {differing} differ from what was sent, {foreign} were never sent"
        )


def check_emits(truths: Truths, *, quiet: bool = True) -> Findings:
    """Compare what each lane has of every other's emits with what a replay of that one emits."""
    findings = Findings()
    nothing = Came(np.empty(0, "u8"), np.empty(0, "V32"))
    for source in truths:
        for target in truths:
            came, made = target.came.get(source.lane, nothing), source.emitted.get(target.lane)
            count, of = len(came.signals), 0 if made is None else len(made)
            where = f"emits of lane {source.lane} to lane {target.lane}"
            if not np.array_equal(came.sequences, np.arange(count, dtype="u8")):
                findings.duplicated += 1
                findings.problems.append(f"{where} are not numbered 0 to {count} - 1, each once")
            elif count > of or (quiet and count != of):
                findings.lost += max(of - count, 0)
                findings.foreign += max(count - of, 0)
                findings.problems.append(f"{where}: {count} are there, and a replay makes {of}")
            elif count and made is not None and came.signals.tobytes() != made[:count].tobytes():
                findings.foreign += 1
                findings.problems.append(f"{where} are not those that a replay makes")
    return findings


def check_snapshots(truth: LaneTruth, kept: Sequence[LaneSnapshot], *, quiet: bool = True) -> Findings:
    """Compare each snapshot of a lane with a replay of its log up to there."""
    findings = Findings()
    if quiet and (not kept or kept[0].sequence != truth.records):
        of = kept[0].sequence if kept else None
        findings.problems.append(f"lane {truth.lane}: {LAST_SNAPSHOT} {of}, the log has {truth.records}")
    for one in kept:
        where = f"lane {truth.lane}: the snapshot of record {one.sequence}"
        if one.sequence > truth.records:
            findings.problems.append(f"{where} is ahead of the log, which has {truth.records}")
            continue
        try:
            assert_same_state(one.state, truth.states[one.sequence])
        except AssertionError as error:
            findings.state_differs += 1
            findings.problems.append(f"{where} is not a replay of the log: {error}")
        made = np.frombuffer(one.sections.get("remote_made", bytes(8 * truth.lanes)), "<u8").tolist()
        if made != truth.made[one.sequence]:
            findings.state_differs += 1
            findings.problems.append(f"{where} counts emits {made}, and a replay makes {truth.made[one.sequence]}")
    return findings


def check_outputs(truths: Truths, got: Any) -> Findings:
    """Compare the outputs that one subscription gave with what replays make: each once, in each lane's order."""
    findings = Findings()
    where = got["index"] >> np.uint64(LANE_SHIFT)
    for truth in truths:
        mine = got[where == truth.lane].copy()
        mine["index"] &= np.uint64((1 << LANE_SHIFT) - 1)
        made = truth.outputs
        if len(mine) == len(made) and mine.tobytes() == made.tobytes():
            continue
        places = [tuple(row) for row in mine[["position", "index"]].tolist()]
        wanted = {tuple(row) for row in made[["position", "index"]].tolist()}
        findings.lost += len(wanted - set(places))
        findings.duplicated += len(places) - len(set(places))
        findings.foreign += len(set(places) - wanted)
        findings.problems.append(
            f"outputs of lane {truth.lane}: {len(made)} are made by a replay, {len(wanted - set(places))} of them did "
            f"not come, {len(places) - len(set(places))} came again, {len(set(places) - wanted)} are others"
        )
    return findings


def prove(truths: Truths, sent: Sequence[Sent], outputs: Any) -> dict[str, bool]:
    """Plant defects into what lanes hold and what came out; whether each is found as such."""
    one = max(sent, key=lambda other: other.acked)
    counts = [len(t.came[one.number].signals) if one.number in t.came else 0 for t in truths]
    at = int(np.argmax(counts))
    good = truths[at].came[one.number]
    emits = max(((t.lane, id_) for t in truths for id_ in t.came if id_ < LANE_PRODUCERS), default=None)
    every, middle = np.arange(len(good.sequences)), len(good.sequences) // 2
    swapped = every.copy()
    swapped[[middle, middle + 1]] = every[[middle + 1, middle]]
    changed = good.signals.copy()
    changed["key"][middle] ^= np.uint64(1 << 40)

    def damaged(lane: int, producer: int, came: Came) -> Truths:
        return [replace(t, came={**t.came, producer: came}) if t.lane == lane else t for t in truths]

    def chosen(came: Came, rows: Any) -> Came:
        return Came(came.sequences[rows], came.signals[rows])

    def found(came: Came, what: str) -> bool:
        findings = check_lanes(damaged(at, one.number, came), sent)
        return not findings.good and getattr(findings, what) > 0

    seen = {
        "loss": found(chosen(good, np.delete(every, middle)), "lost"),
        "loss at the end": found(chosen(good, every[:-1]), "lost"),
        "duplicate": found(chosen(good, np.insert(every, middle, middle)), "duplicated"),
        "duplicate at the end": found(chosen(good, np.append(every, every[-1:])), "duplicated"),
        "reorder": found(chosen(good, swapped), "reordered"),
        "foreign": found(Came(good.sequences, changed), "foreign"),
        "lost output": not check_outputs(truths, outputs[1:]).good,
        "doubled output": not check_outputs(truths, np.append(outputs, outputs[-1:])).good,
    }
    if emits is not None:
        lane, source = emits
        came = truths[lane].came[source]
        rows = np.arange(len(came.sequences))
        twice = Came(np.arange(len(rows) + 1, dtype="u8"), came.signals[np.append(rows, rows[-1:])])
        for what, instead in (("lost emit", chosen(came, rows[:-1])), ("doubled emit", twice)):
            seen[what] = not check_emits(damaged(lane, source, instead)).good
    return seen
