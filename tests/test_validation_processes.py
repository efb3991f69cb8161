"""What the campaign starts ends with it, also after kill -9; a question that a service does not answer ends nothing."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import pytest

from bitactor.validation import places, probes, soak
from bitactor.validation.campaign import DefectFoundError, Run, run_parts
from bitactor.validation.profiles import TINY
from bitactor.validation.report import Report
from bitactor.validation.served import World
from bitactor.validation.service import Served, wait_until
from bitactor.validation.tether import run_tree, tethered
from tests.service_process import APP


def runs(pid):
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


def pids_of(code):
    """A runner that executes this, which prints numbers of processes and waits; it is killed with SIGKILL. They."""
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE) as runner:
        pids = [int(word) for word in runner.stdout.readline().split()]
        assert all(map(runs, pids)), "they have ended before the runner did"
        runner.kill()
    return pids


def test_a_service_and_its_like_end_when_the_runner_is_killed():
    pids = pids_of("""
        import subprocess, time
        from bitactor.validation.tether import tethered
        process = subprocess.Popen(tethered(["sleep", "600"]))
        while open(f"/proc/{process.pid}/comm").read() != "sleep\\n":
            time.sleep(0.01)
        print(process.pid, flush=True)
        time.sleep(600)
    """)
    wait_until(lambda: not any(map(runs, pids)), "the end of what a killed runner had started", 30)


def test_a_tree_of_commands_ends_when_the_runner_is_killed(tmp_path):
    # One in a session of its own, one whose parent has ended: what a test run of a test run leaves behind.
    pids = pids_of(f"""
        import threading, time
        from pathlib import Path
        from bitactor.validation.tether import run_tree
        script = "sleep 600 & echo $! > a; (setsid sleep 601 & echo $! > b); touch ready; wait"
        here = Path({str(tmp_path)!r})
        threading.Thread(target=run_tree, args=(["sh", "-c", script],), kwargs=dict(cwd=here, timeout_s=600)).start()
        while not (here / "ready").exists():
            time.sleep(0.01)
        print((here / "a").read_text().strip(), (here / "b").read_text().strip(), flush=True)
        time.sleep(600)
    """)
    wait_until(lambda: not any(map(runs, pids)), "the end of the tree", 30)


def test_a_tree_says_how_it_ended_and_is_ended_when_it_takes_too_long(tmp_path):
    done = run_tree(["sh", "-c", "echo out; echo error >&2; sleep 600 & exit 3"], cwd=tmp_path, timeout_s=120)
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "error\n")
    with pytest.raises(FileNotFoundError, match="no-such-program"):
        run_tree(["no-such-program"], timeout_s=120)
    with pytest.raises(subprocess.TimeoutExpired):
        run_tree(["sh", "-c", "echo $$ > pid; sleep 600"], cwd=tmp_path, timeout_s=2)
    assert not runs((tmp_path / "pid").read_text().strip())


def test_a_tethered_process_has_the_number_and_the_status_of_its_command():
    with subprocess.Popen(tethered(["sh", "-c", "echo $$; kill -9 $$"]), stdout=subprocess.PIPE) as process:
        assert int(process.stdout.readline()) == process.pid
    assert process.returncode == -signal.SIGKILL


def test_a_scrape_that_is_not_answered_is_counted_and_one_of_a_dead_service_is_a_defect(tmp_path):
    told = []
    with Served(tmp_path, APP) as served:
        served.start().ready()
        asking = probes.Probes(served, lambda kind, what: told.append((kind, what)), timeout_s=2)
        served.pause()
        assert asking.metrics() is None
        assert (asking.failed, told[0][0]) == (1, "scrape failed")
        assert asking.longest_s >= 1.9
        served.resume()
        assert asking.insist()["bitactor_signals_queued"] == 0
        served.kill()
        with pytest.raises(DefectFoundError, match="the service ended with -9"):
            asking.metrics()


def test_a_short_soak_goes_on_after_scrapes_that_fail_adds_up_and_leaves_slopes_out(monkeypatch):
    real, calls = Served.metrics, []

    def sometimes(served, timeout_s=30):
        calls.append(1)
        if len(calls) <= 2:
            raise TimeoutError("timed out")
        return real(served, timeout_s)

    monkeypatch.setattr(Served, "metrics", sometimes)
    sizes = TINY | {"soak_s": 4, "soak_rate": 2000, "burst_every_s": 1.5, "burst_s": 0.3}
    found = Report("soak", "tiny", "", "", {}, 7, "")
    run_parts(found, [soak.part("bitactor soak")], of(sizes))
    outcomes = {outcome.criterion.id: outcome for outcome in found.outcomes}
    assert found.sections[0].error == ""
    assert not found.disagreements
    assert not found.failures
    assert found.totals["not-run"] == 4
    assert outcomes["soak.scrapes-failed"].figure == 2
    assert str(outcomes["soak.scrapes-failed"].verdict) == "warn"
    assert outcomes["soak.replay"].figure == 0
    assert outcomes["soak.volume"].figure > 0
    assert probes.criterion("soak", "").threshold.verdict(4) == "fail"


def of(sizes):
    from bitactor.validation import app

    return Run(sizes, 7, app.app, str(app.__file__))


def test_what_a_soak_saw_is_told_when_its_service_dies(monkeypatch):
    real = soak._look

    def killing(at, probe, seconds):
        real(at, probe, seconds)
        at.served.kill()

    monkeypatch.setattr(soak, "_look", killing)
    found = Report("soak", "tiny", "", "", {}, 7, "")
    sizes = TINY | {"soak_s": 60, "soak_rate": 2000, "burst_every_s": 90, "burst_s": 0.3}
    run_parts(found, [soak.part("bitactor soak")], of(sizes))
    assert "the service ended with -9" in found.sections[0].error
    assert not found.good
    assert {plot.title for plot in found.plots} >= {"rss over time", "Acknowledgements of a small producer"}


def test_paths_of_the_machine_are_not_in_what_reports_say(tmp_path):
    site = tmp_path / "site"
    text = f"b'{site}/main/data' and {site}, {site}-2, {Path.cwd()}/x.py, {sys.prefix}/lib/y.py; not a{site}"
    said = places.stable(text, {site: "SITE"})
    assert said.startswith("b'SITE/main/data' and SITE, ")
    assert str(tmp_path) not in said.partition("not a")[0]
    assert "./x.py" in said
    assert f"{os.sep}lib{os.sep}y.py" in said
    assert sys.prefix not in said


def test_a_part_that_outlasts_its_producers_says_so_at_once():
    spent = SimpleNamespace(label="a", acked=5, total=5, failure=None)
    with pytest.raises(DefectFoundError, match="nothing left"):
        World(None, [spent], None).wait_for_acks(1)
