"""`python -m benchmarks`: run the plan, print one table, write one JSON file with machine and commit."""

import argparse
import datetime as dt
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks import machine, plan
from benchmarks.runner import Results, run_group

RESULTS = Path(__file__).parent / "results"


def goal_rows(results: Results) -> list[dict[str, object]]:
    """Each goal with what was measured and whether it was reached (None: not run)."""
    rows: list[dict[str, object]] = []
    for goal in plan.GOALS:
        if goal.alone is not None and goal.of not in results.values:
            goal = replace(goal, of="", at_least=goal.alone)
        got = results.ratio(goal.figure, goal.of) if goal.of else results.median(goal.figure)
        reached = None
        if got is not None:
            reached = (goal.at_least is None or got >= goal.at_least) and (goal.at_most is None or got <= goal.at_most)
        rows.append({**asdict(goal), "measured": got, "reached": reached})
    return rows


def table(results: Results, rows: list[dict[str, object]]) -> str:
    """All figures (median, lowest, highest round), then the goals, then what was left out and why."""
    lines = [f"{'figure':64} {'median':>10} {'low':>10} {'high':>10}  unit"]
    for name, values in results.values.items():
        known = [value for value in values if value is not None]
        lines.append(
            f"{name:64} {results.median(name):10.3f} {min(known):10.3f} {max(known):10.3f}  {results.units[name]}"
        )
    lines += ["", f"{'goal':64} {'measured':>10} {'bound':>10}  reached"]
    answers = {True: "yes", False: "no"}
    run = [row for row in rows if row["reached"] is not None]
    for row in run:
        name = f"{row['figure']}" + (" /" if row["of"] else "")
        bound = f">= {row['at_least']:g}" if row["at_least"] is not None else f"<= {row['at_most']:g}"
        lines.append(f"{name:64} {row['measured']:10.3f} {bound:>10}  {answers[bool(row['reached'])]}")
        if row["of"]:
            lines.append(f"    {row['of']}")
    lines += [f"{len(rows) - len(run)} more goals are of figures that were not run"] * (len(run) < len(rows))
    lines += [""] * bool(results.left_out or results.failed)
    lines += [f"left out: {name}: {why}" for name, why in results.left_out.items()]
    lines += [f"FAILED: {name}: {why}" for name, why in results.failed.items()]
    return "\n".join(lines)


def main() -> int:
    """Run; status 1 when a benchmark failed (a wrong answer among them), 0 otherwise, goals reached or not."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, one round: shows that it runs, no figures")
    parser.add_argument("--peers", action="store_true", help="beside peers in Rust and Java; builds them")
    parser.add_argument("--only", metavar="TEXT", default="", help="measures whose name or group has this text")
    parser.add_argument("--rounds", type=int, help="rounds of each group (5; 1 with --quick)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the JSON goes (benchmarks/results/)")
    parser.add_argument("--no-install", action="store_true", help="leave out peers that are not installed already")
    options = parser.parse_args()
    about = {"commit": machine.commit(), "quick": options.quick, "machine": machine.describe()}
    results = Results()
    for group in plan.groups(quick=options.quick, peers=options.peers):
        chosen = group.measures
        if options.only.lower() not in group.name:
            chosen = tuple(measure for measure in chosen if options.only.lower() in measure.name.lower())
        rounds = options.rounds or (1 if options.quick else 5)
        run_group(chosen, rounds, results, may_install=not options.no_install)
    rows = goal_rows(results)
    print(table(results, rows))
    now = dt.datetime.now(dt.UTC)
    path = options.json
    if path is None and not options.quick:
        path = RESULTS / f"{now:%Y-%m-%d}-{about['commit']}{'-peers' if options.peers else ''}.json"
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"at": now.isoformat(), **about, **asdict(results), "goals": rows}, indent=1) + "\n")
        print(f"\nwritten: {path}", file=sys.stderr)
    return 1 if results.failed else 0


if __name__ == "__main__":
    sys.exit(main())
