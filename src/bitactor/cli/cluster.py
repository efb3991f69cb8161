"""`bitactor cluster`: look at the replicas of a service over NATS and their lanes, drain one, or try it all here."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from bitactor.cli import cluster_demo
from bitactor.cli.apps import load_app
from bitactor.cli.asking import URL, ask
from bitactor.cli.run import USAGE, Failed
from bitactor.cli.settings import with_settings
from bitactor.config.settings import Settings

verbs = typer.Typer(add_completion=False)

Url = Annotated[str, typer.Option(envvar="BITACTOR_ADMIN_URL", help="The admin interface of any replica.")]
TokenFile = Annotated[Path | None, typer.Option(help="File with the token, where one is needed.")]


@verbs.command()
def status(
    url: Url = URL,
    token_file: TokenFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print the replicas, and for each lane its owner, position, lag and newest snapshot.

    Exit status 1 when a lane has no owner.
    """
    body, _ = ask(url, "cluster", token_file)
    told = json.loads(body)
    if as_json:
        typer.echo(json.dumps(told, indent=2))
    else:
        _print(told)
    if any(lane["owner"] is None for lane in told["lanes"]):
        raise typer.Exit(1)


@verbs.command()
def drain(
    url: Annotated[str, typer.Option(envvar="BITACTOR_ADMIN_URL", help="The admin interface of that replica.")] = URL,
    token_file: TokenFile = None,
) -> None:
    """Make one replica give its lanes to the others, each with a snapshot, and take none again until it restarts.

    Returns when it owns none. It goes on taking signals for the others until it is stopped.
    """
    body, _ = ask(url, "cluster/drain", token_file, body={})
    typer.echo(f"{json.loads(body)['drained']} owns no lane now")


@verbs.command("import")
@with_settings
def import_(
    settings: Settings,
    source: Annotated[
        Path, typer.Option("--from", help="Data directory of a service on one machine, stopped in order.")
    ] = Path("bitactor-data"),
    log: Annotated[
        str | None, typer.Option("--log", help="nats://host:4222,...: --log-kind and --nats-urls in one.")
    ] = None,
) -> None:
    """Take state, producers and names of a service on one machine into lanes, before the first replica is started.

    The data directory stays as it is. Its log is not taken: the lanes begin with the state that it led to.
    """
    del log  # with_settings has made settings of it
    import asyncio

    from bitactor.cli.cluster_import import run

    if settings.log.kind != "jetstream":
        raise Failed("where to? Give --log nats://host:4222", USAGE)
    keys, producers = asyncio.run(run(settings, load_app(settings.app), source))
    lanes = settings.cluster.lanes
    typer.echo(f"{keys:,} states in {lanes} lanes, {producers:,} producers; replicas may be started now")


verbs.command()(cluster_demo.demo)


def _print(told: dict[str, Any]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False, emoji=False)
    replicas = Table(box=box.SIMPLE, pad_edge=False)
    for name in ("replica", "lanes", "moves", "app", "signals at", "state"):
        replicas.add_column(name, justify="right" if name in ("lanes", "moves") else "left")
    for one in told["replicas"]:
        state = "draining" if one["draining"] else f"{len(one['barred'])} lanes barred" if one["barred"] else "ready"
        replicas.add_row(
            one["replica"],
            str(len(one["lanes"])),
            str(one["moves"]),
            one["fingerprint"],
            ", ".join(one["ingest"]),
            state,
        )
    console.print(replicas)
    lanes = Table(box=box.SIMPLE, pad_edge=False)
    for name in ("lane", "owner", "generation", "position", "lag", "snapshot at"):
        lanes.add_column(name, justify="left" if name == "owner" else "right")
    for one in told["lanes"]:
        if one["owner"] is None:
            lanes.add_row(str(one["lane"]), f"nobody{': ' if one['why'] else ''}{one['why'] or ''}")
            continue
        snapshot = "-" if one["snapshot"] is None else f"{one['snapshot']:,}"
        numbers = f"{one['generation']:,}", f"{one['position']:,}", f"{one['lag']:,}", snapshot
        lanes.add_row(str(one["lane"]), one["owner"], *numbers)
    console.print(lanes)
