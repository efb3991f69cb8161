"""Puts the figures of a run into docs/kubernetes-figures.md: page.py build/k8s-e2e.json. A row for each check."""

import json
import sys
from pathlib import Path

PAGE = Path(__file__).parent.parent.parent / "docs/kubernetes-figures.md"
BEGIN = "<!-- made by k8s/e2e/page.py -->\n"
TITLES = {
    "1": "Installed as the earlier report has it",
    "2": "Real flights through the Service",
    "3": "Exact under faults, three replicas over three NATS servers",
    "4": "Autoscaling",
    "5": "Confined",
    "6": "Standalone",
    "6b": "Standalone becomes replicas",
    "7": "Monitored",
    "8": "Removed",
}


def main(file):
    """Rewrite the part of the page below BEGIN."""
    report = json.loads(Path(file).read_text())
    lines = [f"Run of {report['at'][:10]}: Kubernetes {report['kubernetes']}, {report['machine']}.", ""]
    for number, title in TITLES.items():
        rows = [row for row in report["rows"] if row["step"] == number]
        if not rows:
            continue
        took = next((row["seen"] for row in rows if row["check"] == "seconds"), 0.0)
        lines += [f"### {number}. {title} ({took:.0f} s)", "", "| check | seen |", "|---|---|"]
        for row in rows:
            if row["check"] != "seconds":
                mark = "" if row["result"] == "ok" else "**failed:** "
                lines.append(f"| {row['check']} | {mark}{str(row['seen']).replace('|', '/')[:400]} |")
        lines.append("")
    before = PAGE.read_text().partition(BEGIN)[0]
    PAGE.write_text(before + BEGIN + "\n".join(lines))


if __name__ == "__main__":
    main(sys.argv[1])
