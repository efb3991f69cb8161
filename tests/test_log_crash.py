"""A writing process killed with -9 at each of the log's crash points: the log then holds what was acknowledged."""

import contextlib
import os
import random
import secrets
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bitactor import faults
from bitactor.log.contract import CorruptionError
from bitactor.log.snapshots import SnapshotStore
from bitactor.log.sqlite import SqliteLog
from tests.log_contract.records import record

ROOT = Path(__file__).parent.parent
LOG_POINTS = [point for point in faults.POINTS if point.startswith("log.")]
SNAPSHOT_POINTS = [point for point in faults.POINTS if point.startswith("snapshot.")]
LENGTH = 30_000


def killed(command, proof, point, passing, timeout=120):
    """Run the command, which has to die at that passing of the point; what it printed."""
    environment = {"BITACTOR_CRASH_AT": f"{point}:{passing}", "BITACTOR_CRASH_PROOF": str(proof)}
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=os.environ | environment, capture_output=True, text=True,
        timeout=timeout, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, (point, passing, done.stderr)
    assert proof.read_text() == f"{point} {passing}\n", "the point was not reached"
    return done.stdout


def contents(log):
    return [bytes(each) for each in log.read(log.first().sequence)]


@pytest.mark.parametrize("durability", ["full", "normal", "off"])
@pytest.mark.parametrize("point", LOG_POINTS)
def test_a_killed_writer_leaves_every_record_whose_append_returned(tmp_path, point, durability):
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    most = {"log.append": 60, "log.checkpoint": 3, "log.truncate": 2}[point.rpartition(".")[0]]
    end = 0
    for life in range(2):  # the second one goes on from what the first one left
        proof = tmp_path / f"proof{life}"
        command = ["-m", "tests.log_contract.writer", str(tmp_path / "data"), durability, "400", str(LENGTH)]
        printed = killed(command, proof, point, dice.randint(1, most))
        end += len(printed.split())
        with contextlib.closing(SqliteLog.open(tmp_path / "data", durability=durability)) as log:
            assert log.end().sequence == end + (point == "log.append.synced")
            end, first = log.end().sequence, log.first().sequence
            assert first <= max(0, end - 30)
            assert contents(log) == [record(sequence, LENGTH).record for sequence in range(first, end)]


SNAPSHOTS = """
import sys
from bitactor.log.snapshots import SnapshotStore
store = SnapshotStore(sys.argv[1], keep=2)
for sequence in range(100):
    store.write({"sequence": sequence}, [("numbers", bytes([sequence]) * 1000)])
    print(sequence, flush=True)
"""


@pytest.mark.parametrize("point", SNAPSHOT_POINTS)
def test_a_killed_snapshot_leaves_a_whole_one(tmp_path, point):
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    passing = random.Random(seed).randint(1, 20)
    printed = killed(["-c", SNAPSHOTS, str(tmp_path / "s")], tmp_path / "proof", point, passing).split()
    assert len(printed) == passing - 1
    snapshot, problems = SnapshotStore(tmp_path / "s").newest()
    assert problems == []
    done = passing - 1 if point in ("snapshot.renamed", "snapshot.done") else passing - 2
    if done < 0:
        assert snapshot is None
    else:
        assert snapshot.meta["sequence"] == done
        assert bytes(snapshot.sections["numbers"]) == bytes([done]) * 1000


# --- crash points themselves


def point_in_a_process(environment):
    code = "from bitactor import faults; faults.refuse_in_production(); faults.point('apply.before'); print('lives')"
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_crash_point_is_refused_in_production_and_by_a_wrong_name():
    assert point_in_a_process({}).stdout == "lives\n"
    refused = point_in_a_process({"BITACTOR_CRASH_AT": "apply.before"})
    assert "BITACTOR_CRASH_AT=apply.before:1 would kill this service: unset it" in refused.stderr
    assert refused.returncode == 1
    wrong = point_in_a_process({"BITACTOR_CRASH_AT": "aply.before"})
    assert "'aply.before', which is no crash point; did you mean apply.before" in wrong.stderr
    for spec in ("apply.before:0", "apply.before:x", "apply.before:"):
        assert "after the colon stands which passing" in point_in_a_process({"BITACTOR_CRASH_AT": spec}).stderr


def test_an_armed_point_kills_at_its_passing_and_no_other_does(tmp_path):
    armed = {"BITACTOR_TEST_FAULTS": "1", "BITACTOR_CRASH_PROOF": str(tmp_path / "proof")}
    assert point_in_a_process(armed | {"BITACTOR_CRASH_AT": "apply.after"}).stdout == "lives\n"
    assert point_in_a_process(armed | {"BITACTOR_CRASH_AT": "apply.before:2"}).stdout == "lives\n"
    assert not (tmp_path / "proof").exists()
    assert point_in_a_process(armed | {"BITACTOR_CRASH_AT": "apply.before"}).returncode == -signal.SIGKILL
    assert (tmp_path / "proof").read_text() == "apply.before 1\n"


def test_points_of_the_log_stand_in_the_code_once_each():
    files = (path for path in (ROOT / "src" / "bitactor").rglob("*.py") if path.name != "jetstream.py")  # another log
    text = "".join(path.read_text() for path in files)
    for point in (*LOG_POINTS, *SNAPSHOT_POINTS):
        assert text.count(f'faults.point("{point}")') == 1, point


def test_corruption_errors_say_where():
    error = CorruptionError("a/log.sqlite", "its CRC differs", sequence=7, offset=32)
    assert str(error) == "a/log.sqlite: record 7, offset 32: its CRC differs"
    assert str(CorruptionError("x", "it ends", offset=5)) == "x, offset 5: it ends"
