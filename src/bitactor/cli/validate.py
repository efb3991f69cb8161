"""`bitactor validate`: the campaign that measures this installation, and the report that it writes."""

import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bitactor.cli.run import FAILED, INTERRUPTED, USAGE, Failed

if TYPE_CHECKING:
    from bitactor import App
    from bitactor.validation.report import Report


def run(
    app: Annotated[str | None, typer.Option(help="Your app: a Python file, or file:name; else one of ours.")] = None,
    profile: Annotated[str, typer.Option(help="quick: under 3 minutes; full: under 45, on 2 cores.")] = "quick",
    only: Annotated[list[str] | None, typer.Option(help="Run this section alone; may be repeated.")] = None,
    target: Annotated[str | None, typer.Option(help="host:port of a running service, which is then measured.")] = None,
    token_file: Annotated[Path | None, typer.Option(help="For --target: file with the token.")] = None,
    ca_file: Annotated[Path | None, typer.Option(help="For --target: who signed its certificate.")] = None,
    server_name: Annotated[str | None, typer.Option(help="For --target: name in its certificate.")] = None,
    kubernetes: Annotated[
        str | None, typer.Option(help="Namespace of KUBECONFIG's cluster whose deployment is looked at.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where validation_report.json, .html and .md go.")] = Path(),
    seed: Annotated[int | None, typer.Option(help="Of all chance in it; default: another each time.")] = None,
    compare: Annotated[
        tuple[Path, Path] | None, typer.Option(help="OLD NEW: compare two reports and run nothing.")
    ] = None,
    sections: Annotated[bool, typer.Option("--sections", help="List the sections and run nothing.")] = False,
) -> None:
    """Measure this installation, or a running service, against written criteria; write a report.

    Every criterion has its command, threshold, figure, machine, seed and commit. Status 1 when one fails or a count
    does not add up; what cannot be run here is counted apart. Nothing outside temporary directories and --out is
    touched. --target sends signals to a service as the producers validate-...: use one that may keep them.
    """
    from bitactor.validation import campaign
    from bitactor.validation.plan import parts_of
    from bitactor.validation.profiles import PROFILES

    if compare is not None:
        _compare(*compare)
        return
    if profile not in PROFILES:
        raise Failed(f"--profile {profile}: it is quick or full", USAGE)
    parts = parts_of(against_target=target is not None)
    if sections:
        for part in parts:
            typer.echo(f"{part.name:<14} {part.title}: {len(part.criteria)} criteria")
        return
    if only:
        unknown = set(only) - {part.name for part in parts}
        if unknown:
            raise Failed(f"--only {min(unknown)}: the sections are {', '.join(part.name for part in parts)}", USAGE)
        parts = [part for part in parts if part.name in only]
    chosen = secrets.randbits(32) if seed is None else seed
    report = campaign.new_report("validate", profile, chosen)
    loaded, file = given_app(app)
    there = None
    if target is not None:
        there = {"address": target, "token_file": token_file, "ca_file": ca_file, "server_name": server_name}
    elif kubernetes is not None:
        there = {"namespace": kubernetes}
    run = campaign.Run(PROFILES[profile], chosen, loaded, file, there)
    campaign.run_parts(report, parts, run, campaign.Progress())
    finish(report, out, "validation_report")


def given_app(given: str | None) -> "tuple[App, str]":
    """The app that the command line names, and how `bitactor serve` is told of it; else the campaign's own."""
    from bitactor.cli.apps import load_app
    from bitactor.validation import app as own

    if given is None:
        return own.app, str(own.__file__)
    file, colon, name = given.partition(":")
    return load_app(given), str(Path(file).resolve()) + colon + name


def finish(report: "Report", out: Path, name: str) -> None:
    """Write the report, say what is in it; status 1 unless it is good."""
    from bitactor.validation import campaign

    paths = campaign.write(report, out, name)
    said = ", ".join(f"{n} {verdict.replace('-', ' ')}" for verdict, n in report.totals.items())
    typer.echo(f"{len(report.outcomes)} criteria: {said}; {len(report.counts)} counts, ", nl=False)
    typer.echo(f"{len(report.disagreements)} do not add up; {report.seconds:.0f} s, seed {report.seed}")
    for severity, risk in report.risks:
        typer.echo(f"{severity:<8} {risk}")
    typer.echo(f"wrote {' '.join(map(str, paths))}")
    if report.interrupted:
        raise typer.Exit(INTERRUPTED)
    if not report.good:
        raise typer.Exit(FAILED)


def _compare(old: Path, new: Path) -> None:
    from bitactor.validation import compare
    from bitactor.validation.report import load

    try:
        before, after = load(old), load(new)
    except ValueError as error:
        raise Failed(str(error), USAGE) from error
    if different := compare.machines_differ(before, after):
        typer.echo(f"beware: {different}", err=True)
    changes = compare.compare(before, after)
    for change in changes:
        typer.echo(f"{change.kind:<12} {change.id}: {change.text}")
    worse = sum(change.kind in ("regression", "gone") for change in changes)
    typer.echo(
        f"{len(before.outcomes)} and {len(after.outcomes)} criteria; {worse} regressions, {len(changes)} changes"
    )
    if worse:
        raise typer.Exit(FAILED)
