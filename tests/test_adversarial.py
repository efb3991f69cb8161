"""The adversarial suite: its short form against a real service, two weakened variants that it must catch, its parts."""

import json
import os
import random
import subprocess
import sys
import tempfile
from dataclasses import replace
from types import SimpleNamespace

import pytest

from bitactor.validation.adversarial import rawwire, report
from bitactor.validation.adversarial.campaign import Outcome, run
from bitactor.validation.adversarial.main import CASES, DEFECTS, attack, chosen
from bitactor.validation.parts.adversarial import spread
from bitactor.validation.service import Served

SEED = int(os.environ.get("BITACTOR_SEED", random.randrange(1 << 32)))


@pytest.mark.timeout(900)
def test_no_attack_of_the_short_form_works_and_the_service_is_unchanged_after_each():
    print("seed", SEED)
    found = attack(chosen(short=True), seed=SEED, form="short form")
    wrong = {one["id"]: one["observed"] for one in found["cases"] if one["state"] == "failed"}
    assert not wrong, wrong
    assert found["summary"]["passed"] > 40
    assert {one["category"] for one in ({"category": case["id"].partition(".")[0]} for case in found["cases"])} > {
        "framing", "access", "tls", "exhaustion", "state", "replay", "http", "injection", "loading", "files", "secrets",
    }  # fmt: skip


@pytest.mark.timeout(300)
@pytest.mark.parametrize("variant", ["gap_accepted", "host_unchecked"])
def test_a_weakened_variant_is_caught_by_the_case_that_it_names(variant):
    print("seed", SEED)
    found = attack([], seed=SEED, variants=[variant], form="weakened variants")
    assert [one["by"] for one in found["variants"]] == [list(DEFECTS[variant].found_by)]
    assert report.good(found)


def test_there_are_a_hundred_cases_of_distinct_names_and_each_defect_names_cases_that_exist():
    assert len(CASES) >= 100
    assert len(DEFECTS) >= 10
    for name, defect in DEFECTS.items():
        assert defect.found_by, name
        assert set(defect.found_by) <= CASES.keys(), name
    assert all(case.title.endswith(".") and case.expected and case.steps for case in CASES.values())


def test_a_report_whose_counts_do_not_agree_is_not_written(tmp_path):
    case = CASES["framing.magic"]
    found = report.document([Outcome(case, "failed", "it worked", 0.1)], [], seed=1, target="x", form="y", began=0)
    assert not report.good(found)
    report.write(found, tmp_path / "report.json")
    written = json.loads((tmp_path / "report.json").read_text())
    (row,) = written["cases"]
    assert (row["pass"], row["cwe"], row["severity"]["score"]) == (False, 20, 6.5)
    assert row["severity"]["vector"].startswith("CVSS:3.1/AV:N/")
    assert "framing.magic" in (tmp_path / "report.md").read_text()
    for change in ({"passed": 1}, {"cases": 2}):
        spoiled = {**found, "summary": {**found["summary"], **change}}
        with pytest.raises(ValueError, match="counts do not agree"):
            report.write(spoiled, tmp_path / "spoiled.json")
        assert not (tmp_path / "spoiled.json").exists()


def test_the_suite_speaks_the_protocol_as_its_document_says():
    assert rawwire.crc32c(b"123456789") == 0xE3069283
    assert rawwire.text_key("desk-1") == 0x00578526248AE165
    assert (
        rawwire.message(rawwire.PING, (7).to_bytes(8, "big")).hex() == "424146310106000000000008"
        "15a88bad"
        "0000000000000007"
    )
    hello = rawwire.hello("desk-1", "secret", client="doc")
    assert hello[:16].hex() == "42414631010200000000001d7afcb876"
    at = 1700000000000000000
    one = rawwire.signal(42, 0x4045800000000000, aux=100, at=at)
    frame = rawwire.frame(one, producer=7, sequence=1000, epoch=3)
    assert frame[32:36].hex() == "d064e291"


@pytest.mark.timeout(600)
def test_a_service_that_was_started_apart_is_attacked_over_the_network_alone(tmp_path):
    app = tmp_path / "staging.py"
    app.write_text(
        "import bitactor as ba\napp = ba.App('staging')\nbid = app.kind('bid', 9, value='u8')\n"
        "@app.actor(bid, state={'n': 'u8'})\ndef bids(state, signal):\n    state.n += 1\n"
    )
    with Served(tmp_path / "service", app) as served:
        admin = served.start().ready()["admin"]
        dev = served.data / "dev"
        only = (
            "framing.crc_of_data",
            "framing.magic",
            "state.",
            "replay.same_frame",
            "http.foreign_host",
            "files.modes",
        )
        command = [
            sys.executable, "-m", "bitactor", "adversarial", "--target", f"localhost:{served.port}", "--kind", "9",
            "--ca-file", str(dev / "ca.pem"), "--token-file", str(dev / "token"), "--admin-url", admin,
            "--prefix", "staging-", "--seed", str(SEED), "--out", str(tmp_path / "report.json"),
            *(word for begin in only for word in ("--only", begin)),
        ]  # fmt: skip
        said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=500)
        found = json.loads((tmp_path / "report.json").read_text())
        states = {one["id"]: (one["state"], one["observed"]) for one in found["cases"]}
        assert said.returncode == 0, states
        assert found["target"] == f"localhost:{served.port}"
        assert states["framing.crc_of_data"][0] == "passed"
        assert {state for state, _ in states.values()} == {"passed", "not run"}
        assert all("service of our own" in why for state, why in states.values() if state == "not run")
        assert served.metrics()["bitactor_signals_accepted_total"] > 0
    assert str(tmp_path) not in (tmp_path / "report.json").read_text()


def test_the_quick_cases_of_a_campaign_are_of_every_category():
    short = chosen(short=True)
    few = spread(short, 20)
    assert len(few) == 20
    assert {case.category for case in few} == {case.category for case in short}
    assert few == [case for case in short if case in few]


def test_the_directory_of_the_site_is_not_in_what_was_observed(tmp_path):
    def attack_(site):
        return f"wrote {site.directory}/main/data beside {tempfile.gettempdir()}/x"

    site = SimpleNamespace(directory=tmp_path, used=set(), witnesses={})
    (one,) = run(site, [replace(CASES["framing.magic"], run=attack_)])
    assert (one.state, one.observed) == ("passed", "wrote SITE/main/data beside TMP/x")
