"""`bitactor soak`: a steady and bursty load for hours, and what grew meanwhile."""

import secrets
from pathlib import Path
from typing import Annotated

import typer

from bitactor.cli.validate import finish, given_app

DAY_H = 24.0


def run(
    app: Annotated[str | None, typer.Option(help="Your app: a Python file, or file:name; else one of ours.")] = None,
    hours: Annotated[float, typer.Option(min=0.002, help="How long.")] = 20 / 60,
    day: Annotated[bool, typer.Option("--day", help="The profile of 24 hours, as --hours 24.")] = False,
    rate: Annotated[float, typer.Option(min=100, help="Signals a second of the steady load.")] = 20_000,
    burst_every_s: Annotated[float, typer.Option(min=5, help="A burst as fast as it goes, each so often.")] = 60,
    burst_s: Annotated[float, typer.Option(min=0.1, help="For so long.")] = 3,
    out: Annotated[Path, typer.Option(help="Where soak_report.json, .html and .md go.")] = Path(),
    seed: Annotated[int | None, typer.Option(help="Of all chance in it; default: another each time.")] = None,
) -> None:
    """Load a service that it starts itself for hours: slopes of memory, descriptors, latency and log, and a verdict.

    The first quarter of the time is left out of the slopes: caches fill and tables grow. What counts as growth is what
    is above twice the slope's standard error. At the end what was acknowledged must be what the log has, and a replay
    must give the newest snapshot's state. Status 1 when a criterion fails.
    """
    from bitactor.validation import campaign, soak

    if day:
        hours = DAY_H
    chosen = secrets.randbits(32) if seed is None else seed
    report = campaign.new_report("soak", f"{hours:g} hours", chosen)
    loaded, file = given_app(app)
    sizes = {"soak_s": hours * 3600, "soak_rate": rate, "burst_every_s": burst_every_s, "burst_s": burst_s}
    parts = [soak.part(f"bitactor soak --hours {hours:g}")]
    campaign.run_parts(report, parts, campaign.Run(sizes, chosen, loaded, file), campaign.Progress())
    finish(report, out, "soak_report")
