"""`bitactor doctor`: whether this machine suits the service, a line for each thing, with what to do."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from bitactor.cli.finding import Finding
from bitactor.cli.machine import checks
from bitactor.cli.settings import with_settings
from bitactor.config import Settings

_COLORS = {"ok": typer.colors.GREEN, "warn": typer.colors.YELLOW, "fail": typer.colors.RED}


@with_settings
def run(
    settings: Settings, as_json: Annotated[bool, typer.Option("--json", help="As JSON instead of lines.")] = False
) -> None:
    """Check this machine for the service: clock, limits, disk, packages, ports. Status 1 if something must be changed.

    The disk's sync speed is measured by writing to data_dir for up to a second.
    """
    findings = [finding for check in checks() for finding in check(settings)]
    if as_json:
        typer.echo(json.dumps([asdict(one) for one in findings], indent=2))
    else:
        width = max(len(one.name) for one in findings)
        for one in findings:
            typer.echo(f"{typer.style(f'{one.level:4}', fg=_COLORS[one.level])}  {_line(one, width)}")
    if any(one.level == "fail" for one in findings):
        raise typer.Exit(1)


def _line(one: Finding, width: int) -> str:
    advice = f"\n      {'':{width}}  -> {one.advice}" if one.advice else ""
    return f"{one.name:{width}}  {one.found}{advice}"
