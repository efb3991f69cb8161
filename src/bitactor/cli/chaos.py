"""`bitactor chaos`: faults injected for real into a service of its own, and the report of what it kept through them."""

import secrets
from pathlib import Path
from typing import Annotated

import typer

from bitactor.cli.run import USAGE, Failed
from bitactor.cli.validate import finish, given_app


def run(
    app: Annotated[str | None, typer.Option(help="Your app: a Python file, or file:name; else one of ours.")] = None,
    profile: Annotated[
        str, typer.Option(help="quick: some minutes; full: 500 kills and more, about half an hour.")
    ] = "quick",
    only: Annotated[list[str] | None, typer.Option(help="Run this section alone; may be repeated.")] = None,
    out: Annotated[Path, typer.Option(help="Where chaos_report.json, .html and .md go.")] = Path(),
    seed: Annotated[int | None, typer.Option(help="Of all chance in it; default: another each time.")] = None,
    kills: Annotated[int | None, typer.Option(min=1, help="How many, instead of the profile's; of crashes.")] = None,
    sections: Annotated[bool, typer.Option("--sections", help="List the sections and run nothing.")] = False,
) -> None:
    """Inject faults into a service that it starts itself, and check by its history that every promise was kept.

    Kill -9 at every crash point and at random, disks that fail, connections that networks damage, processes that stand
    still, clocks that jump, certificates that expire, files that a disk changed. A fault that never fired is a failure.
    Status 1 when a criterion fails or a count does not add up. Only temporary directories and --out are touched.
    """
    from bitactor.validation import campaign
    from bitactor.validation.plan import chaos_parts
    from bitactor.validation.profiles import PROFILES

    parts = chaos_parts()
    if sections:
        for part in parts:
            typer.echo(f"{part.name:<14} {part.title}: {len(part.criteria)} criteria")
        return
    if profile not in PROFILES:
        raise Failed(f"--profile {profile}: it is quick or full", USAGE)
    if only:
        unknown = set(only) - {part.name for part in parts}
        if unknown:
            raise Failed(f"--only {min(unknown)}: the sections are {', '.join(part.name for part in parts)}", USAGE)
        parts = [part for part in parts if part.name in only]
    chosen = secrets.randbits(32) if seed is None else seed
    report = campaign.new_report("chaos", profile, chosen)
    loaded, file = given_app(app)
    sizes = PROFILES[profile] | ({} if kills is None else {"crashes": kills})
    campaign.run_parts(report, parts, campaign.Run(sizes, chosen, loaded, file), campaign.Progress())
    finish(report, out, "chaos_report")
