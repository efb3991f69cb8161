"""The report of a campaign: verdicts are computed, what is missing fails, counts must add up, no hand puts in."""

import json
import math
import subprocess
import sys
from html.parser import HTMLParser

import publish_reports
import pytest

from bitactor.validation import campaign, compare, html, markdown, plots, source, svg
from bitactor.validation.campaign import CannotRun, Part, Run, run_parts, write
from bitactor.validation.criteria import Criterion, Outcome, Threshold, Verdict
from bitactor.validation.report import Report, load

MACHINE = {"name": "a machine", "cores": 2}


def criterion(name, op="<=", bound=10.0, warn=None):
    return Criterion(f"part.{name}", f"what {name} says", Threshold(op, bound, warn), "s", "bitactor validate")


def report_of(run, *criteria, kind="validate"):
    report = Report(kind, "quick", "bitactor validate", "abc123", dict(MACHINE), 7, "2026-01-01")
    return run_parts(report, [Part("part", "A part", criteria, run)], Run({}, 7, None, ""))


@pytest.mark.parametrize(
    ("figure", "threshold", "verdict"),
    [
        (10, Threshold("<=", 10), "pass"),
        (10.1, Threshold("<=", 10), "fail"),
        (9, Threshold("<=", 10, warn=8), "warn"),
        (8, Threshold("<=", 10, warn=8), "pass"),
        (0, Threshold("==", 0), "pass"),
        (1, Threshold("==", 0), "fail"),
        (math.nan, Threshold(">=", -math.inf), "fail"),
        (math.inf, Threshold("<", 1e300), "fail"),
    ],
)
def test_a_verdict_follows_from_figure_and_threshold(figure, threshold, verdict):
    assert str(threshold.verdict(figure)) == verdict


def test_a_threshold_that_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="no comparison"):
        Threshold("=<", 1)
    with pytest.raises(ValueError, match="after a failure"):
        Threshold("<=", 10, warn=11)


def test_what_was_promised_and_not_measured_fails():
    report = report_of(lambda run: run.measure("part.one", 1), criterion("one"), criterion("two"))
    assert report.totals == {"pass": 1, "fail": 1, "warn": 0, "not-run": 0}
    assert not report.good
    assert "without a figure" in report.failures[0].note


def test_a_part_that_raises_fails_all_that_it_had_not_measured():
    def run(run):
        run.measure("part.one", 1)
        raise RuntimeError("the disk has gone")

    report = report_of(run, criterion("one"), criterion("two"))
    assert [str(each.verdict) for each in report.outcomes] == ["pass", "fail"]
    assert "the disk has gone" in report.sections[0].error
    assert not report.good


def test_what_cannot_be_run_is_counted_apart_and_no_pass():
    def run(run):
        run.measure("part.one", 1)
        raise CannotRun("no compiler here: install gcc")

    report = report_of(run, criterion("one"), criterion("two"))
    assert report.totals == {"pass": 1, "fail": 0, "warn": 0, "not-run": 1}
    assert report.good
    assert ("unknown", "what two says was not run: no compiler here: install gcc") in report.risks


def test_an_interrupted_campaign_says_what_was_not_reached():
    def run(run):
        run.measure("part.one", 1)
        raise KeyboardInterrupt

    report = Report("validate", "quick", "", "", dict(MACHINE), 7, "")
    later = [Part("later", "Later", [Criterion("later.a", "a", Threshold("==", 0))], None)]
    run_parts(report, [Part("part", "A part", [criterion("one"), criterion("two")], run), *later], Run({}, 7, None, ""))
    assert report.interrupted
    assert report.totals == {"pass": 1, "fail": 1, "warn": 0, "not-run": 1}
    assert not report.good


def test_a_count_that_does_not_add_up_fails_the_report_whatever_else_is_green():
    def run(run):
        run.measure("part.one", 1)
        run.count("part.signals", {"sent": 153_098_205}, {"processed": 57_779_854, "dropped": 0})

    report = report_of(run, criterion("one"))
    assert report.totals["fail"] == 0
    assert not report.good
    assert report.risks[0][0] == "high"
    assert "sent 153,098,205 ≠ processed 57,779,854" in report.risks[0][1]


def test_a_figure_is_given_once_and_only_for_what_was_declared():
    def twice(run):
        run.measure("part.one", 1)
        run.measure("part.one", 2)

    assert "measured twice" in report_of(twice, criterion("one")).sections[0].error
    assert "was not declared" in report_of(lambda run: run.measure("part.x", 1), criterion("one")).sections[0].error
    with pytest.raises(ValueError, match="same criterion"):
        report_of(lambda _: None, criterion("one"), criterion("one"))


def filled():
    def run(run):
        run.measure("part.one", 1, "a <note> with | signs")
        run.measure("part.two", 9.5)
        run.measure("part.infinite", math.inf)
        run.not_run("part.three", "no cluster")
        run.count("part.signals", {"sent": 3}, {"processed": 2, "dropped": 1})
        run.plot(plots.line("part", "over time", "s", "signals/s", rate=[(0, 1.0), (1, 2.0)], other=[(0, 3.0)]))
        run.plot(plots.histogram("part", "latency", "ms", [0.1 * i for i in range(1, 3000)]))
        run.happened("kill -9", "at <ack.before>")

    return report_of(
        run, criterion("one"), criterion("two", warn=9.0), criterion("three"), criterion("infinite", "<", 5.0)
    )


def test_a_report_is_written_read_back_and_the_same(tmp_path):
    report = filled()
    paths = write(report, tmp_path / "new", "validation_report")
    assert [path.name for path in paths] == [f"validation_report.{suffix}" for suffix in ("json", "html", "md")]
    again = load(paths[0])
    assert again.to_json() == report.to_json()
    row = json.loads(paths[0].read_text())["criteria"][0]
    assert {"id", "section", "command", "threshold", "figure", "unit", "machine", "seed", "commit", "verdict"} <= set(
        row
    )
    assert row["machine"] == "a machine"
    assert row["commit"] == "abc123"
    assert row["seed"] == 7


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data["criteria"][1].update(verdict="pass"),
        lambda data: data["criteria"][3].update(figure=1.0),
        lambda data: data["totals"].update({"pass": 4}),
        lambda data: data.update(good=True),
        lambda data: data.update(format=2),
        lambda data: data.pop("counts"),
    ],
)
def test_a_report_that_was_changed_by_hand_is_refused(tmp_path, change):
    path = write(filled(), tmp_path, "r")[0]
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    with pytest.raises(ValueError, match="no report of this program"):
        load(path)


def test_a_count_that_was_changed_does_not_add_up_when_it_is_read(tmp_path):
    path = write(filled(), tmp_path, "r")[0]
    data = json.loads(path.read_text())
    data["counts"][0]["right"]["processed"] = 3
    path.write_text(json.dumps(data))
    assert [count.id for count in load(path).disagreements] == ["part.signals"]


class Page(HTMLParser):
    """Tags that do not close, and what would be fetched from elsewhere."""

    def __init__(self, text):
        super().__init__()
        self.open, self.wrong, self.fetched, self.text = [], [], [], ""
        self.feed(text)
        self.wrong += self.open

    def handle_starttag(self, tag, attributes):
        if tag != "meta":
            self.open.append(tag)
        self.fetched += [value for name, value in attributes if name in ("src", "href")]
        self.fetched += [tag] if tag in ("script", "link", "img", "iframe") else []

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data):
        self.text += data


def test_the_page_stands_alone_closes_its_tags_and_says_what_failed():
    report = filled()
    text = html.render(report)
    page = Page(text)
    assert page.wrong == []
    assert page.fetched == []
    assert "prefers-color-scheme: dark" in text
    assert "http" not in text
    assert "FAILED" in page.text
    assert "a <note> with | signs" in page.text
    assert "not run" in page.text
    assert text.count("<svg") == 3
    assert "at <ack.before>" in page.text


def test_the_markdown_has_a_row_for_each_criterion_and_count():
    text = markdown.render(filled())
    for verdict in ("pass", "warn", "not run", "fail"):
        assert f"\n| {verdict} | " in text
    assert "a <note> with \\| signs" in text
    assert "| adds up | `part.signals` |" in text


def test_a_picture_shows_the_highest_and_the_lowest_of_many_points():
    points = [(i, 1.0) for i in range(100_000)]
    points[54_321] = (54_321, 9.0)
    points[77_777] = (77_777, -3.0)
    plot = plots.line("part", "t", "x", "y", a=points)
    assert len(plot.series[0].xs) <= plots.POINTS_MAX
    assert max(plot.series[0].ys) == 9.0
    assert min(plot.series[0].ys) == -3.0
    assert svg.render(plot).count("<polyline") == 1


@pytest.mark.parametrize("values", [[], [5.0], [0.0, 0.0], [1e-6, 1.0, 1e6], list(range(1000))])
def test_a_distribution_keeps_every_value(values):
    plot = plots.histogram("part", "t", "x", values)
    assert sum(plot.series[0].ys) == len(values)
    Page(svg.render(plot))
    assert "nan" not in svg.render(plot)


def test_comparing_tells_regressions_first():
    old, new = filled(), filled()
    new.outcomes[0] = Outcome(criterion("one"), 11.0)
    new.outcomes[1] = Outcome(criterion("two", warn=9.0), 8.0)
    new.outcomes[2] = Outcome(criterion("four"), 1.0)
    new.counts[0].right["processed"] = 1
    changes = compare.compare(old, new)
    assert [(change.kind, change.id) for change in changes] == [
        ("regression", "part.one"),
        ("regression", "part.signals"),
        ("gone", "part.three"),
        ("improvement", "part.two"),
        ("new", "part.four"),
    ]
    assert compare.compare(old, old) == []
    assert compare.machines_differ(old, old) == ""
    new.machine["cores"] = 64
    assert "machines differ" in compare.machines_differ(old, new)


def test_a_figure_that_went_towards_its_bound_is_told():
    old, new = filled(), filled()
    old.outcomes[0], new.outcomes[0] = Outcome(criterion("one"), 1.0), Outcome(criterion("one"), 1.5)
    assert [change.kind for change in compare.compare(old, new)] == ["shift"]
    assert compare.compare(new, old) == []


def test_progress_names_what_failed(capsys):
    progress = campaign.Progress()
    progress.begin(1, 2, "A part")
    report = report_of(lambda run: run.measure("part.one", 11), criterion("one"))
    progress.end(report.outcomes, report.sections[0])
    said = capsys.readouterr().err
    assert "[ 1/2] A part: 1 fail" in said
    assert "FAIL part.one: 11 s" in said
    assert report.outcomes[0].verdict == Verdict.FAIL


def test_a_report_is_published_only_if_it_passed_at_a_commit_and_names_no_machines_path(tmp_path, monkeypatch):
    git = ["git", "-C", publish_reports.ROOT, "rev-parse", "--short=12", "HEAD"]
    said = subprocess.run(git, capture_output=True, text=True, check=False)
    if said.returncode:
        pytest.skip("not a checkout")
    head = said.stdout.strip()
    good = {"good": True, "commit": head}
    attacks = {"commit": head, "summary": {"failed": 0, "variants": 30, "variants_caught": 30}}
    for report_ in (good, attacks):
        assert publish_reports.wrong_with(report_, json.dumps(report_)) == ""
    for change, why in (
        ({"good": False}, "did not pass"),
        ({"commit": f"{head}-dirty"}, "not run at a commit"),
        ({"commit": "installed 0.1.0"}, "not run at a commit"),
        ({"commit": "0" * 12}, "not in this branch"),
        ({"note": "/tm" + "p/bitactor-service-x/stderr"}, "path of a machine"),
    ):
        assert why in publish_reports.wrong_with(good | change, json.dumps(good | change))
    assert "not pass" in publish_reports.wrong_with(attacks | {"summary": attacks["summary"] | {"failed": 1}}, "")
    monkeypatch.setattr(publish_reports, "DOCS", tmp_path)
    (tmp_path / "source.json").write_text(json.dumps(good))
    (tmp_path / "source.md").write_text("# passed\n")
    assert publish_reports.publish(tmp_path / "source.json", tmp_path / "target.json") == ""
    assert (tmp_path / "target.md").read_text() == "# passed\n"


def test_the_tests_that_fail_are_named(tmp_path):
    (tmp_path / "test_sample.py").write_text(
        "import pytest\n@pytest.fixture\ndef broken(): raise OSError\n@pytest.fixture\ndef breaks():\n yield\n 1 / 0\n"
        "def test_good(): pass\ndef test_bad(): assert 0\ndef test_before(broken): pass\ndef test_after(breaks): pass\n"
        "def test_twice(breaks): assert 0\n@pytest.mark.parametrize('x', ['a:b'])\ndef test_x(x): assert 0\n"
        "def test_skipped(): pytest.skip()\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--junitxml=tests.xml", "test_sample.py"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode == 1
    tests = source.junit(tmp_path / "tests.xml")
    names = ["test_bad", "test_before", "test_after", "test_twice", "test_x[a:b]"]
    assert tests.bad == tuple(f"test_sample::{name}" for name in names)
    assert tests.note("tests").startswith("6 tests ran, 1 were skipped, 5 failed: test_sample::test_bad (assert 0), ")
