"""Alerts, runbooks and dashboards: promtool's unit tests pass, every metric exists, every alert has page and tests."""

import json
import re
import shutil
import subprocess

import pytest
import yaml

from bitactor.admin import metrics
from tests.k8s_chart import CHART, ROOT, one, render, renderer

PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="no promtool here: Debian's package prometheus has it")
needs_helm = pytest.mark.skipif(renderer() is None, reason="neither helm nor helm-python-sdk is here")
RULES = CHART / "files/rules/bitactor.yml"
TESTS = CHART / "files/rules/bitactor.test.yml"
RUNBOOKS = ROOT / "docs/runbooks"
DASHBOARDS = sorted((CHART / "files/dashboards").glob("*.json"))
SECTIONS = ["Meaning", "Impact", "Diagnosis", "Mitigation"]


def alerts():
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def known():
    names = {name for name, *_ in metrics.documentation()}
    return names | {name + end for name in names for end in ("_bucket", "_count", "_sum")}


def queries():
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", []):
                yield f"{path.stem}: {panel['title']}", target["expr"]


@needs_promtool
def test_promtool_takes_the_alert_rules_and_their_unit_tests_pass():
    for command in (["check", "rules", "--lint-fatal", RULES], ["test", "rules", TESTS]):
        done = subprocess.run([PROMTOOL, *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_a_planted_threshold_fails_the_unit_tests(tmp_path):
    text = RULES.read_text()
    assert "> 0.8" in text
    (tmp_path / RULES.name).write_text(text.replace("> 0.8", "> 8"))
    shutil.copy(TESTS, tmp_path)
    command = [PROMTOOL, "test", "rules", tmp_path / TESTS.name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "BitActorBackpressure" in done.stdout + done.stderr


def test_every_alert_fires_in_one_unit_test_and_is_silent_in_another():
    fires, silent = set(), set()
    for test in yaml.safe_load(TESTS.read_text())["tests"]:
        for row in test.get("alert_rule_test", []):
            (fires if row["exp_alerts"] else silent).add(row["alertname"])
        for row in test.get("promql_expr_test", []):
            fires |= set(re.findall(r'alertname="(\w+)"', str(row["exp_samples"])))
    names = {rule["alert"] for rule in alerts()}
    assert fires == names
    assert silent == names


def test_every_alert_has_a_runbook_that_says_all_four_things():
    names = [rule["alert"] for rule in alerts()]
    assert len(set(names)) == len(names)
    index = (RUNBOOKS / "README.md").read_text()
    for rule in alerts():
        page = RUNBOOKS / f"{rule['alert']}.md"
        assert rule["annotations"]["runbook_url"] == f"docs/runbooks/{page.name}"
        text = page.read_text()
        assert re.findall(r"^## (\w+)$", text, re.MULTILINE) == SECTIONS
        assert all(re.split(r"^## \w+$", text, flags=re.MULTILINE)[i].strip() for i in range(1, 5))
        assert f"Severity: {rule['labels']['severity']}" in text
        assert f"[{rule['alert']}]({page.name}) | {rule['labels']['severity']}" in index
        for link in re.findall(r"\]\((\w+\.md)\)", text):
            assert (RUNBOOKS / link).exists(), f"{page.name} points at {link}"
    assert {page.stem for page in RUNBOOKS.glob("*.md")} - {"README"} == set(names)


def test_alerts_and_dashboards_name_metrics_that_exist():
    assert DASHBOARDS
    for where, text in [("rules", RULES.read_text()), *queries()]:
        used = set(re.findall(r"\bbitactor_[a-z_]+", text))
        assert used <= known(), f"{where}: {used - known()}"


@needs_promtool
def test_every_query_of_a_dashboard_is_one_that_prometheus_parses(tmp_path):
    rules = [
        {"record": f"panel:{number}:x", "expr": expr.replace("$__rate_interval", "5m").replace("$instance", ".*")}
        for number, (_, expr) in enumerate(queries())
    ]
    file = tmp_path / "panels.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run([PROMTOOL, "check", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_dashboards_have_ids_of_their_own_units_and_a_datasource_to_choose():
    seen = set()
    for path in DASHBOARDS:
        board = json.loads(path.read_text())
        assert board["uid"] not in seen
        seen.add(board["uid"])
        assert {one["name"] for one in board["templating"]["list"]} >= {"datasource", "instance"}
        panels = [panel for panel in board["panels"] if panel["type"] != "row"]
        assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
        for panel in panels:
            assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
            assert panel["description"], panel["title"]
            assert panel["datasource"]["uid"] == "${datasource}"


@needs_helm
def test_the_chart_ships_the_rules_with_links_and_the_dashboards_whole():
    monitoring = {"prometheusRule": {"enabled": True, "runbooks": "https://example.com/r/"}}
    found = render({"mode": "standalone", "monitoring": monitoring})
    rules = one(found, "PrometheusRule")["spec"]["groups"]
    shipped = [rule for group in rules for rule in group["rules"]]
    for kept, got in zip(alerts(), shipped, strict=True):
        link = got["annotations"].pop("runbook_url")
        assert link == f"https://example.com/r/{kept['alert']}.md"
        kept["annotations"].pop("runbook_url")
        assert got == kept
    boards = [doc for doc in found if "grafana_dashboard" in doc["metadata"]["labels"]]
    texts = [text for doc in boards for text in doc["data"].values()]
    assert [json.loads(text) for text in texts] == [json.loads(path.read_text()) for path in DASHBOARDS]
