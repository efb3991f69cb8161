"""Each part of `bitactor validate` in a tiny size, for real; and each check in it finds the defect planted for it."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import bitactor as ba
from bitactor._core._engine import histogram_floors
from bitactor.cli import run as frame
from bitactor.validation import campaign, load, plan, report
from bitactor.validation.app import app
from bitactor.validation.campaign import Run, run_parts
from bitactor.validation.criteria import Criterion, Threshold, Verdict
from bitactor.validation.parts import (
    adversarial,
    byte_order,
    coverage,
    exactly_once,
    memory,
    overload,
    saturation,
    target,
    throughput,
)
from bitactor.validation.parts.coverage import branches_of
from bitactor.validation.profiles import FULL, QUICK, TINY
from bitactor.validation.service import Served
from tests.service_process import APP


def measured(part, sizes=TINY, **more):
    run = Run(sizes, 7, app, str(campaign.__file__).replace("campaign.py", "app.py"), more.get("target"))
    return run_parts(report.Report("validate", "tiny", "", "", {}, 7, ""), [part], run)


def figures(found):
    return {outcome.criterion.id: outcome.figure for outcome in found.outcomes}


@pytest.mark.parametrize("part", [throughput, exactly_once, memory, saturation, byte_order], ids=lambda m: m.PART.name)
def test_a_part_about_the_library_gives_every_figure_and_its_counts_add_up(part):
    found = measured(part.PART)
    assert found.sections[0].error == ""
    assert not found.disagreements
    speed = {"throughput.rate", "throughput.ticks", "exactly-once.rate", "byte-order.to-wire", "byte-order.from-wire"}
    for outcome in found.outcomes:
        assert outcome.figure is not None
        assert outcome.verdict in (Verdict.PASS, Verdict.WARN) or outcome.criterion.id in speed


def damaged(received, how):
    """What arrived, with one defect in it."""
    consumer = next(number for number, batches in enumerate(received) if sum(map(len, batches)) > 10)
    got = np.concatenate(received[consumer])
    order = np.flatnonzero(got["producer"] == got["producer"][0])
    if how == "missing":
        got = np.delete(got, 5)
    elif how == "doubled":
        got = np.append(got, got[-1:])
    elif how == "torn":
        got["check"][3] ^= np.uint64(1)
    else:
        got[order[[0, 1]]] = got[order[[1, 0]]]
    received[consumer] = [got]
    return received


@pytest.mark.parametrize("how", ["missing", "doubled", "reordered", "torn"])
def test_the_check_of_the_exchange_finds_what_is_planted(how):
    ring = ba.Ring(256, exactly_once.ITEM, producers="many", consumers="many")
    received = exactly_once.exchange(ring, 4, 4, 500, 1)
    assert not any(exactly_once.faults_in(received, 4, 500).values())
    assert exactly_once.faults_in(damaged(received, how), 4, 500)[how] > 0


def test_a_benchmark_that_loses_a_batch_fails_and_its_count_does_not_add_up(monkeypatch):
    real = throughput._send

    def careless(engine, given, each, sender):
        real(engine, given, each - (sender == 1), sender)

    monkeypatch.setattr(throughput, "_send", careless)
    found = measured(throughput.PART)
    assert figures(found)["throughput.missing"] == throughput.BATCH
    assert [count.id for count in found.disagreements] == ["throughput.signals"]
    assert not found.good


def test_a_benchmark_whose_signals_are_out_of_order_fails(monkeypatch):
    def swapped(engine, given, each, sender):
        for number in (1, 0, *range(2, each)):
            engine.send_batch(throughput.batches(sender, number))

    monkeypatch.setattr(throughput, "_send", swapped)
    found = measured(throughput.PART)
    assert figures(found)["throughput.order"] > 0
    assert figures(found)["throughput.missing"] == 0


def test_a_conversion_that_changes_a_bit_is_found(monkeypatch):
    def broken(signals):
        data = bytearray(signals.astype(byte_order.BIG_ENDIAN).tobytes())
        if len(data) > 40:
            data[40] ^= 1
        return bytes(data)

    monkeypatch.setattr(byte_order, "to_bytes", broken)
    assert figures(measured(byte_order.PART))["byte-order.differ"] > 0


def test_a_timed_signal_is_drawn_where_its_bucket_begins():
    counts = np.zeros(256, int)
    counts[[0, 9, 40, 200]] = 1
    floors = histogram_floors()
    assert throughput._timed(SimpleNamespace(counts=tuple(counts))) == [floors[i] for i in (0, 9, 40, 200)]


def test_a_load_is_checked_without_keeping_it():
    template = np.zeros(100, ba.SIGNAL_DTYPE)
    template["key"] = np.arange(100)
    checked = load.Checked(template)
    signals = load.signals_at(template, 0, 250)
    checked.frame(1, 0, signals[:120])
    checked.frame(1, 120, signals[120:])
    assert checked.reached == {1: 250}
    wrong = load.signals_at(template, 250, 10)
    wrong["key"][3] += 1
    for sequence, signals_ in [(250, wrong), (240, signals[240:250]), (260, load.signals_at(template, 260, 5))]:
        with pytest.raises(AssertionError, match="not those that were sent"):
            checked.frame(1, sequence, signals_)


def test_recovery_after_an_overload_is_when_latency_is_as_before():
    watch = overload.Watch(None, SimpleNamespace(latencies=[]), None)
    watch.begun = 0.0
    watch.now = lambda: 9.0
    watch.probe.latencies = [(5 + i / 100, 0.5 if i < 120 else 0.010) for i in range(400)]
    assert 1.1 < overload._recovered(watch, 5.0, 10.0) < 1.5
    assert overload._recovered(watch, 5.0, 1.0) == float("inf")


def test_branches_are_counted_per_file(tmp_path):
    path = tmp_path / "c.json"
    lines = [{"branches": [{"count": 1}, {"count": 0}]}, {"branches": [{"count": 9}]}, {"branches": []}]
    files = [{"file": name, "lines": [{"line_number": n, **line} for n, line in enumerate(lines, 1)]} for name in "ab"]
    path.write_text(json.dumps({"files": files}))
    assert branches_of(path, ("a",)) == ((2, 3), ["a:1"])


@pytest.mark.parametrize("missing", [False, True])
def test_a_branch_of_decoder_or_ring_that_is_not_taken_fails_the_coverage(tmp_path, capsys, monkeypatch, missing):
    branches = [{"count": 1}, {"count": 0 if missing else 4}]
    lines = [{"line_number": 7, "branches": branches}]
    files = [{"file": file, "lines": lines} for file in (*coverage.DECODER, coverage.RING[-1])]
    (tmp_path / "c.json").write_text(json.dumps({"files": files}))
    row = {"summary": {"covered_branches": 4, "num_branches": 4}, "missing_branches": []}
    (tmp_path / "frames.json").write_text(json.dumps({"files": {"site/bitactor/protocol/frames.py": row}}))
    monkeypatch.setattr(sys, "argv", ["coverage", str(tmp_path)])
    assert coverage.main() == missing
    said = capsys.readouterr().out
    assert f"branches of the decoder: {6 - missing} of 6" in said
    assert ("not taken: core/include/bitactor/mpmc.h:7" in said) == missing


def test_a_running_service_is_measured_from_outside(tmp_path):
    with Served(tmp_path, APP) as served:
        served.start().ready()
        there = {
            "address": f"127.0.0.1:{served.port}",
            "token_file": served.data / "dev" / "token",
            "ca_file": served.data / "dev" / "ca.pem",
            "server_name": "localhost",
        }
        found = measured(target.PART, target=there)
        assert found.sections[0].error == ""
        assert figures(found)["target.goes-on"] == 0
        assert figures(found)["target.durability"] == 3
        assert not found.disagreements
        served.kill()
    assert not measured(target.PART, target=there | {"connect_s": 0.5}).good


# What a campaign that passed has shown: rows of the full profile, and the least that their figures must be.
PROMISED = {
    "crashes.restarts": ">= 500", "crashes.lost": "== 0", "crashes.doubled": "== 0", "crashes.state": "== 0",
    "sigterm.rounds": ">= 50", "sigterm.exits": "== 1", "sigterm.lost": "== 0",
    "rotation.rounds": ">= 50", "rotation.dropped": "== 0", "rotation.lost": "== 0", "rotation.order": "== 0",
    "overload.factor": ">= 10", "overload.seconds": ">= 60", "overload.memory": "<= 1.25", "overload.lost": "== 0",
    "overload.recovered": "<= 2",
    "adversarial.cases": ">= 100", "adversarial.failed": "== 0", "adversarial.variants": ">= 10",
    "adversarial.missed": "== 0",
    "coverage.lines": ">= 92", "coverage.decoder-branches": ">= 100", "coverage.ring-branches": ">= 100",
    "nats.rounds": ">= 12", "nats.lost": "== 0", "nats.doubled": "== 0",
    "kubernetes.rounds": ">= 16", "kubernetes.lost": "== 0", "kubernetes.state": "== 0", "kubernetes.not-hit": "== 0",
}  # fmt: skip


def test_the_full_profile_has_the_thresholds_that_are_promised():
    parts = (*plan.parts_of(against_target=False), *plan.chaos_parts(), *plan.kubernetes_parts())
    criteria = {criterion.id: criterion.sized(FULL) for part in parts for criterion in part.criteria}
    assert {id_: str(criteria[id_].threshold) for id_ in PROMISED} == PROMISED


def test_a_profile_that_does_less_than_it_sets_out_to_fails():
    one = Criterion("part.kills", "Kills", Threshold(">=", 1), at_least="kills")
    report_ = report.Report("validate", "full", "", "", {}, 7, "")
    part = campaign.Part("part", "A part", (one,), lambda run: run.measure("part.kills", 499))
    run_parts(report_, [part], Run({"kills": 500}, 7, app, ""))
    assert [str(outcome.criterion.threshold) for outcome in report_.failures] == [">= 500"]


def test_attacks_are_a_part_of_the_campaign():
    found = measured(adversarial.PART)
    assert found.sections[0].error == ""
    assert figures(found)["adversarial.cases"] == TINY["adversarial_cases"]
    assert figures(found)["adversarial.failed"] == 0
    assert found.totals["not-run"] == 2
    assert found.good


def test_profiles_give_every_size_that_parts_ask_for_and_full_does_more():
    assert set(QUICK) == set(TINY) <= set(FULL)
    assert all(FULL[name] >= QUICK[name] for name in QUICK)
    ids = [criterion.id for part in plan.parts_of(against_target=False) for criterion in part.criteria]
    assert len(set(ids)) == len(ids) > 50
    assert all(criterion.command for part in plan.parts_of(against_target=False) for criterion in part.criteria)


@pytest.fixture
def bitactor(capsys):
    """Run a command line in this process."""

    def run(*arguments):
        status = frame.main(list(arguments))
        said = capsys.readouterr()
        return SimpleNamespace(returncode=status, stdout=said.out, stderr=said.err)

    return run


def test_the_verb_writes_a_report_compares_and_says_what_it_does_not_know(tmp_path, bitactor):
    said = bitactor("validate", "--profile", "tiny", "--only", "byte-order", "--seed", "5", "--out", str(tmp_path))
    assert said.returncode in (0, 1), said.stderr
    assert "seed 5" in said.stdout
    found = report.load(tmp_path / "validation_report.json")
    assert (found.seed, found.profile) == (5, "tiny")
    assert (tmp_path / "validation_report.html").stat().st_size > 3000
    path = str(tmp_path / "validation_report.json")
    assert bitactor("validate", "--compare", path, path).returncode == 0
    data = json.loads((tmp_path / "validation_report.json").read_text())
    row = data["criteria"][0]
    row["figure"], row["verdict"] = 3.0, "fail"
    data["totals"]["pass"], data["totals"]["fail"], data["good"] = (
        data["totals"]["pass"] - 1,
        data["totals"]["fail"] + 1,
        False,
    )
    (tmp_path / "worse.json").write_text(json.dumps(data))
    worse = bitactor("validate", "--compare", path, str(tmp_path / "worse.json"))
    assert worse.returncode == 1
    assert "regression   byte-order.differ: pass (0 arrays) -> fail (3 arrays)" in worse.stdout
    assert bitactor("validate", "--only", "nothing").returncode == 2
    assert bitactor("validate", "--profile", "slow").returncode == 2
    assert bitactor("validate", "--compare", path, str(APP)).returncode == 2
    assert "overload" in bitactor("validate", "--sections").stdout


def test_an_app_of_ones_own_is_validated(tmp_path, bitactor):
    (tmp_path / "mine.py").write_text(
        "import bitactor as ba\n"
        "app = ba.App('mine')\n"
        "a = app.kind('a', 7, value='i8', aux='f4')\n"
        "@app.actor(a, state={'n': 'i8', 'x': 'f8'})\n"
        "def f(state, signal):\n"
        "    state.n += signal.value\n"
        "    state.x += signal.aux\n"
    )
    arguments = ["--profile", "tiny", "--only", "service", "--out", str(tmp_path), "--app", str(tmp_path / "mine.py")]
    said = bitactor("validate", *arguments)
    found = report.load(tmp_path / "validation_report.json")
    assert figures(found)["service.lost"] == 0, said.stderr
    assert figures(found)["service.state"] == 0
    assert figures(found)["service.checker"] == 6
