"""The end-to-end check, as far as it can be looked at without a cluster: its app, its planted faults, its page."""

import json
import subprocess
import sys

import pytest

from tests.k8s_chart import ROOT

sys.path.insert(0, str(ROOT / "k8s/e2e"))

import faults
import flights_app
import page
import planted
from kube import Failed

STEPS = {"1", "2", "3", "3b", "4", "5", "6", "6b", "7", "8"}


def test_the_app_is_the_examples_and_counts_readings(tmp_path):
    file = tmp_path / "flights.py"
    file.write_text(flights_app.text())
    code = "import flights, bitactor as ba; print(sorted(actor.name for actor in flights.app.actors))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "['by_aircraft', 'by_carrier', 'readings']", done.stderr


def test_every_step_has_a_planted_fault():
    assert {one.step for one in planted.PLANTS.values()} == STEPS


@pytest.mark.parametrize("name", planted.PLANTS)
def test_what_is_planted_is_there_to_be_changed(name):
    one = planted.PLANTS[name]
    if one.edit:
        assert (planted.CHART / one.edit[0]).read_text().count(one.edit[1]) == 1
        assert one.edit[1] != one.edit[2]
    if one.app:
        assert flights_app.text().count(one.app[0]) == 1


@pytest.mark.parametrize(
    ("events", "says"),
    [
        ([("stopping", 5.0), ("stopped", 5.2)], None),
        ([("stopping", 5.0)], "did not stop in order"),
        ([], "did not stop in order"),
        ([("stopping", 0.1), ("stopped", 0.2)], "before it had left the Service"),
    ],
)
def test_a_pod_stops_in_order_when_it_drains_late_and_says_that_it_stopped(events, says):
    lines = ["not JSON", *(json.dumps({"event": event, "ts": f"1970-01-01T00:00:{s:09.6f}Z"}) for event, s in events)]
    if says is None:
        faults.in_order(lines, 0.0)
        return
    with pytest.raises(Failed, match=says):
        faults.in_order(lines, 0.0)


def test_the_pages_have_the_figures_of_the_reports():
    for file, text in page.pages().items():
        assert file.read_text() == text, f"python k8s/e2e/page.py makes {file.name}"
