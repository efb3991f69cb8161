"""Puts the figures of a run into the documentation: page.py build/k8s-e2e.json [build/k8s-planted.json].

The files are copied to docs/kubernetes-figures/; of these come the claims, the table of faults and a row for each check
in docs/kubernetes-figures.md, and the sizing in docs/kubernetes.md. Without arguments: of the files that are there.
"""

import json
import re
import shutil
import sys
from pathlib import Path

DOCS = Path(__file__).parent.parent.parent / "docs"
FIGURES = DOCS / "kubernetes-figures"
PAGE, GUIDE = DOCS / "kubernetes-figures.md", DOCS / "kubernetes.md"
TITLES = {
    "1": "Installed as the earlier report has it",
    "2": "Real flights through the Service",
    "3": "Exact under faults, three replicas over three NATS servers",
    "3b": "`bitactor chaos --kubernetes`",
    "4": "Autoscaling",
    "4b": "`validate_deployment.sh --load --kill`",
    "5": "Confined",
    "5b": "NATS over TLS with a password",
    "6": "Standalone",
    "6b": "Standalone becomes replicas",
    "7": "Monitored",
    "8": "Removed",
}


def seen(report, step, check):
    """What was seen of a check, each time."""
    return [row["seen"] for row in report["rows"] if row["step"] == step and row["check"] == check]


def numbers(pattern, texts):
    """Every number that the pattern finds, as a float."""
    return [float(one.replace(",", "")) for text in texts for one in re.findall(pattern, text)]


def span(found, digits=1):
    """The least and the largest."""
    low, high = f"{min(found):.{digits}f}", f"{max(found):.{digits}f}"
    return low if low == high else f"{low} to {high}"


def claims(report):
    """The earlier report's claims, each beside what this run saw."""
    begun = [text for step in ("1", "6") for text in seen(report, step, "validate: start time")]
    (replica,), (alone,) = seen(report, "4", "pod start"), seen(report, "6", "pod start")
    (scaled,) = seen(report, "4", "scale up")
    use = {step: seen(report, step, "validate: usage")[0] for step in ("1", "6")}
    rate = re.search(r"(\d+) a second", use["1"])[1]
    yield from ("| claimed | seen in this run |", "|---|---|")
    yield (
        f"| pods start in under 10 s | {span(numbers('took signals ([0-9.]+) s', begun))} s from being scheduled to "
        f"taking signals, compiling included; from creation to Ready {first(replica)} s (replica) and {first(alone)} s "
        "(standalone) |"
    )
    yield (f"| autoscaling in under 30 s | {scaled.partition(';')[0]} (the controller looks every 5 s here, else 15) |")
    yield (
        f"| 500m CPU, 512 Mi | at {rate} signals/s, three replicas: {use['1'].partition('; ')[2]}; "
        f"standalone: {use['6'].partition('; ')[2]} |"
    )
    yield (
        "| under 1 ms inside the cluster | a signal and its acknowledgement, pod to pod over TLS, without durability; "
        f"beside three replicas: {rounds(report, '1')}; beside standalone: {rounds(report, '6')} |"
    )


def rounds(report, step):
    """The round trips of each round."""
    text = seen(report, step, "validate: one signal")[0]
    return ", ".join(
        f"p50 {p50} ms, p99 {p99} ms" for p50, p99 in re.findall(r"p50 ([\d.]+) ms, p99 ([\d.]+) ms", text)
    )


def first(text):
    """The first number of a text."""
    return re.search(r"[\d.]+", text)[0]


def sizing(report):
    """What one pod takes at each rate."""
    yield "| signals a second | CPU | memory | log |"
    yield "|---|---|---|---|"
    for row in report["rows"]:
        found = re.fullmatch(r"\S+ a second: (\w+) CPU, ([\d.]+ MiB), ([\d.]+ MB/s) of log", str(row["seen"]))
        if found:
            rate = row["check"].removeprefix("at ").removesuffix(" signals/s")
            yield f"| {rate} | {found[1]} | {found[2]} | {found[3]} |"
    (alone,), (replicas,) = seen(report, "6", "validate: usage"), seen(report, "1", "validate: usage")
    yield ""
    yield "At 10,000 signals/s by the cluster's own metrics, where the memory is the working set:"
    yield f"standalone {alone.partition('; ')[2]}; three replicas {replicas.partition('; ')[2]}."


def faults(report):
    """Which step found which fault."""
    commits = ", ".join(dict.fromkeys(row["commit"] for row in report["rows"]))
    yield f"Run of {report['at'][:10]}, commit {commits}, {report['machine']}."
    yield ""
    yield "| fault | step | what is planted | what was said |"
    yield "|---|---|---|---|"
    for row in report["rows"]:
        said = row["said"].replace("|", "/")[:220]
        mark = "" if row["found"] else "**not found:** "
        yield f"| `{row['plant']}` | {row['step']} | {row['what']} | {mark}{said} |"


def rows(report):
    """A row for each check of the steps that ran."""
    changed = ", changed" if report["changed"] else ""
    where = f"Kubernetes {report['kubernetes']}, {report['machine']}"
    yield f"Run of {report['at'][:10]}: commit {report['commit']}{changed}, {where}."
    for number, title in TITLES.items():
        found = [row for row in report["rows"] if row["step"] == number]
        if not found:
            continue  # a step that is newer than this run
        took = next((row["seen"] for row in found if row["check"] == "seconds"), 0.0)
        load = "".join(f", load {row['seen']:.0f}" for row in found if row["check"] == "load")
        yield from ("", f"### {number}. {title} ({took:.0f} s{load})", "", "| check | seen |", "|---|---|")
        for row in found:
            if row["result"]:
                mark = "" if row["result"] == "ok" else "**failed:** "
                yield f"| {row['check']} | {mark}{str(row['seen']).replace('|', '/')[:400]} |"


def put(text, name, lines):
    """The text, with these lines between the marks of that name."""
    begin, end = f"<!-- {name}: made by k8s/e2e/page.py -->\n", f"<!-- end of {name} -->\n"
    before, _, rest = text.partition(begin)
    _, marked, after = rest.partition(end)
    if not marked:
        sys.exit(f"no marks of {name}")
    return before + begin + "\n".join(lines) + "\n" + end + after


def pages():
    """{page: its text} of the files in docs/kubernetes-figures."""
    run = json.loads((FIGURES / "e2e.json").read_text())
    planted = json.loads((FIGURES / "planted.json").read_text())
    page = put(PAGE.read_text(), "claims", claims(run))
    page = put(page, "faults", faults(planted))
    return {PAGE: put(page, "rows", rows(run)), GUIDE: put(GUIDE.read_text(), "sizing", sizing(run))}


def main(run=None, planted=None):
    """Rewrite what lies between the marks."""
    FIGURES.mkdir(exist_ok=True)
    for source, name in ((run, "e2e.json"), (planted, "planted.json")):
        if source:
            shutil.copyfile(source, FIGURES / name)
    for page, text in pages().items():
        page.write_text(text)


if __name__ == "__main__":
    main(*sys.argv[1:])
