"""Runs groups of measuring processes, interleaved (A B C, A B C), and keeps every figure of every round.

One process at a time, so that none disturbs another. A process that fails or is left out in one round is not run
again; the reason is kept. Ratios are taken round by round, then the median: noise that lasts longer than a round
falls on both sides.
"""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from benchmarks import environments
from benchmarks.machine import ROOT
from benchmarks.measure import LEFT_OUT


@dataclass(frozen=True)
class Measure:
    """One process: something that is run with arguments."""

    name: str
    runs: (
        str  # by `kind`: a module of benchmarks.measures, a program of the core, a crate or a class of benchmarks.peers
    )
    arguments: tuple[str, ...] = ()
    environment: str = ""  # of a module; empty: this process's own
    kind: Literal["python", "core", "cargo", "java"] = "python"
    timeout_s: float = 300.0


@dataclass
class Results:
    """Figures by name, one value a round (None where that round has none), and what was left out, with reasons."""

    values: dict[str, list[float | None]] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    details: dict[str, list[dict[str, object]]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def median(self, figure: str) -> float | None:
        """Median over the rounds, or None."""
        values = [value for value in self.values.get(figure, ()) if value is not None]
        return statistics.median(values) if values else None

    def ratio(self, figure: str, against: str) -> float | None:
        """Median of the ratios of each round, or None without a round that has both."""
        ratios = [
            mine / theirs
            for mine, theirs in zip(self.values.get(figure, ()), self.values.get(against, ()), strict=False)
            if mine is not None and theirs
        ]
        return statistics.median(ratios) if ratios else None


def command_of(measure: Measure, *, may_install: bool) -> list[str] | str:
    """The command line, or why there is none."""
    if measure.kind == "java":
        command = environments.java_command(measure.runs, may_install=may_install)
        return command if isinstance(command, str) else [*command, *measure.arguments]
    if measure.kind != "python":
        find = environments.core_program if measure.kind == "core" else environments.cargo_program
        program = find(measure.runs, may_install=may_install)
        return program if isinstance(program, str) else [str(program), *measure.arguments]
    interpreter = environments.python(measure.environment, may_install=may_install)
    if isinstance(interpreter, str):
        return interpreter
    return [str(interpreter), "-m", f"benchmarks.measures.{measure.runs}", *measure.arguments]


def figures_of(output: str) -> list[dict[str, object]]:
    """The JSON lines among a process's output."""
    lines = [json.loads(line) for line in output.split("\n") if line.startswith("{")]
    return [figure for line in lines for figure in ([line] if "value" in line or "left_out" in line else split(line))]


CONDITIONS = ("keys", "shards", "threads", "batch", "capacity")  # fields that say under what a figure was measured


def split(line: dict[str, object]) -> list[dict[str, object]]:
    """A line of a core program, with several measured fields, as one figure a field."""
    name = str(line.pop("bench", line.pop("name", "")))
    under = ", ".join(f"{line.pop(each)} {each}" for each in CONDITIONS if each in line)
    title = f"{name} ({under})" if under else name
    numbers = {field: value for field, value in line.items() if isinstance(value, int | float)}
    return [{"figure": f"{title} {field}", "value": value} for field, value in numbers.items()]


def run_once(measure: Measure, command: Sequence[str], results: Results, round_: int) -> None:
    """Run one process and file its figures under round `round_`, or its reason for having none."""
    surroundings = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=surroundings, capture_output=True, text=True, timeout=measure.timeout_s, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        results.failed[measure.name] = str(error)
        return
    figures = figures_of(done.stdout)
    if done.returncode == LEFT_OUT:
        results.left_out[measure.name] = str(figures[-1].get("left_out")) if figures else "it says no reason"
        return
    if done.returncode or not figures:
        last = (done.stderr or done.stdout).strip().split("\n")[-1]
        results.failed[measure.name] = f"status {done.returncode}: {last}"
        return
    for figure in figures:
        part = str(figure.pop("figure", ""))
        name = f"{measure.name}: {part}" if part else measure.name
        values = results.values.setdefault(name, [])
        values.extend([None] * (round_ - len(values)))
        values.append(float(str(figure.pop("value"))))
        results.units[name] = str(figure.pop("unit", ""))
        results.details.setdefault(name, []).append(figure)


def run_group(measures: Sequence[Measure], rounds: int, results: Results, *, may_install: bool) -> None:
    """Run each measure once a round, in their order, `rounds` times."""
    commands: dict[str, list[str]] = {}
    for measure in measures:
        command = command_of(measure, may_install=may_install)
        if isinstance(command, str):
            results.left_out[measure.name] = command
        else:
            commands[measure.name] = command
    for round_ in range(rounds):
        for measure in measures:
            bad = measure.name in results.left_out or measure.name in results.failed
            if bad or measure.name not in commands:
                continue
            print(f"bench: round {round_ + 1} of {rounds}: {measure.name}", file=sys.stderr, flush=True)
            run_once(measure, commands[measure.name], results, round_)
