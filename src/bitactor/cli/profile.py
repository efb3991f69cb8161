"""`bitactor profile market.py`: where an app's time goes, stage by stage, actor by actor, with its hottest keys."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bitactor.cli.apps import load_app
from bitactor.host import default_shards

if TYPE_CHECKING:
    from rich.table import Table

    from bitactor.cli.profiling import ActorFigures, HotKey, Run

BARS = " ▁▂▃▄▅▆▇█"
WIDTH = 120  # where there is no terminal
HOW = """\
Seconds and rates are by the clock over one run, after compiling and without a warm-up.
Engine stages are the engine's own tick counters, summed over its threads: with shards they add up to more than the run.
A handler's mean is over all its signals; percentiles and histogram are of single signals timed apart, one in 256, \
each with some tens of ticks for reading the counter.
Hottest keys are counted exactly, from the input. A machine that does other work too makes all times longer.
""".splitlines()


def run(
    app: Annotated[str, typer.Argument(help="The app: a Python file, or file:name.")],
    input: Annotated[
        Path | None, typer.Option(help="Signals: .npy of signals, or .parquet, .csv with columns key, value, …")
    ] = None,
    kind: Annotated[str | None, typer.Option(help="The kind of all signals of an input without that column.")] = None,
    signals: Annotated[int, typer.Option(min=1, help="How many to make up when there is no input.")] = 1_000_000,
    keys: Annotated[int, typer.Option(min=1, help="How many keys to make up.")] = 10_000,
    seed: Annotated[int, typer.Option(help="Of what is made up.")] = 1,
    shards: Annotated[
        int | None, typer.Option(min=1, max=64, help="Worker threads of the second run. Default: cores less one.")
    ] = None,
    log: Annotated[
        Literal["none", "sqlite"], typer.Option(help="sqlite: a run with a durable log in a temporary directory.")
    ] = "none",
    network: Annotated[bool, typer.Option("--network", help="A run through a service and a client over TLS.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON instead of tables.")] = False,
) -> None:
    """Show where an app's time goes: ring, resolving keys, each actor, emits, log, disk, network; and its hottest keys.

    The engine runs inline and with shards, over the signals of a file or made-up ones.
    """
    from bitactor.cli import inputs, profiling

    made = load_app(app)
    given = inputs.read(input, made, kind) if input is not None else inputs.generate(made, signals, keys, seed)
    threads = shards if shards is not None else default_shards()
    runs = [profiling.run_engine(made, given, 0), profiling.run_engine(made, given, threads)]
    if log == "sqlite":
        runs.append(profiling.run_logged(made, given, threads))
    if network:
        runs.append(profiling.run_network(made, app, given, threads, log))
    source = str(input) if input is not None else f"made up: {signals} signals, {keys} keys, seed {seed}"
    hottest = profiling.hottest(given)
    if as_json:
        report = {
            "app": made.name,
            "input": source,
            "signals": len(given),
            "runs": [dataclasses.asdict(one) for one in runs],
            "hottest_keys": [dataclasses.asdict(one) for one in hottest],
            "how": HOW,
        }
        typer.echo(json.dumps(report, indent=2))
        return
    _show(made.name, source, runs, hottest)


def _show(app: str, source: str, runs: "list[Run]", hottest: "list[HotKey]") -> None:
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    console.print(f"[bold]{app}[/bold]  {source}", highlight=False)
    for one in runs:
        console.print()
        console.print(
            f"[bold]{one.name}[/bold]: {one.signals:,} signals in {one.seconds:.3f} s, "
            f"{one.signals / one.seconds / 1e6:.2f} M signals/s",
            highlight=False,
        )
        console.print(_stages(one))
        if one.actors and one.name in {"inline", runs[-1].name}:
            console.print(_actors(one.actors))
        for note in one.notes:
            console.print(note, highlight=False)
    console.print()
    console.print(_keys(hottest))
    for line in HOW:
        console.print(f"[dim]{line}[/dim]", highlight=False)


def _table(*columns: str) -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for at, name in enumerate(columns):
        table.add_column(
            name,
            no_wrap=name != "what it covers",
            justify="left" if at == 0 or name in {"", "what it covers"} else "right",
        )
    return table


def _stages(run: "Run") -> "Table":
    table = _table("stage", "seconds", "share", "ns a signal", "what it covers")
    busy = sum(one.seconds for one in run.stages if one.name != "idle")
    for one in run.stages:
        share = f"{one.seconds / busy:.1%}" if one.name != "idle" and busy else "-"
        table.add_row(one.name, f"{one.seconds:.4f}", share, f"{one.seconds * 1e9 / run.signals:.1f}", one.covers)
    return table


def _actors(actors: "list[ActorFigures]") -> "Table":
    table = _table("actor", "signals", "keys", "ns mean", "p50", "p99", "p99.9", "raised", "refused", "")
    for one in actors:
        table.add_row(
            one.name,
            f"{one.signals:,}",
            f"{one.keys:,}",
            *(f"{ns:.1f}" for ns in (one.ns_mean, one.ns_p50, one.ns_p99, one.ns_p999)),
            str(one.raised),
            str(one.refused),
            _bars(one.histogram),
        )
    return table


def _bars(histogram: list[tuple[float, int]]) -> str:
    """A histogram as a line: octaves of ns, the tallest the most."""
    if not histogram:
        return ""
    most = max(count for _, count in histogram)
    bars = "".join(BARS[-(-count * (len(BARS) - 1) // most)] for _, count in histogram)
    return f"{histogram[0][0]:.0f} ns {bars} {histogram[-1][0] * 2:.0f} ns"


def _keys(hottest: "list[HotKey]") -> "Table":
    table = _table("hottest keys", "signals", "share")
    for one in hottest:
        table.add_row(str(one.key), f"{one.signals:,}", f"{one.share:.2%}")
    return table
