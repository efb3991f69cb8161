"""`bitactor chaos`: faults injected for real into a service, and the report of what it kept through them."""

import secrets
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bitactor.cli.run import USAGE, Failed
from bitactor.cli.validate import finish, given_app

if TYPE_CHECKING:
    from bitactor.validation.kubernetes.release import Release


def run(
    app: Annotated[str | None, typer.Option(help="Your app: a Python file, or file:name; else one of ours.")] = None,
    profile: Annotated[
        str, typer.Option(help="quick: some minutes; full: 500 kills and more, about half an hour.")
    ] = "quick",
    only: Annotated[list[str] | None, typer.Option(help="Run this section alone; may be repeated.")] = None,
    out: Annotated[Path, typer.Option(help="Where chaos_report.json, .html and .md go.")] = Path(),
    seed: Annotated[int | None, typer.Option(help="Of all chance in it; default: another each time.")] = None,
    kills: Annotated[int | None, typer.Option(min=1, help="How many, instead of the profile's; of crashes.")] = None,
    kubernetes: Annotated[
        str | None,
        typer.Option(
            metavar="NAMESPACE", help="Strike the pods of the release there instead, on KUBECONFIG's cluster."
        ),
    ] = None,
    release: Annotated[str | None, typer.Option(help="Which release, where there are several in NAMESPACE.")] = None,
    token_secret: Annotated[
        str | None, typer.Option(help="Secret of NAMESPACE with a client's `token`; default: the one the chart makes.")
    ] = None,
    sections: Annotated[bool, typer.Option("--sections", help="List the sections and run nothing.")] = False,
) -> None:
    """Inject faults into a service that it starts itself, and check by its history that every promise was kept.

    Kill -9 at every crash point and at random, disks that fail, connections that networks damage, processes that stand
    still, clocks that jump, certificates that expire, files that a disk changed. A fault that never fired is a failure.
    Status 1 when a criterion fails or a count does not add up. Only temporary directories and --out are touched.

    With --kubernetes: pods of a release are deleted, killed inside, evicted and cut off, while a pod beside them sends
    as a producer of its own, chaos-SEED, whose keys stay in that service's state: use one that may keep them.
    """
    from bitactor.validation import campaign
    from bitactor.validation.plan import chaos_parts, kubernetes_parts
    from bitactor.validation.profiles import PROFILES

    _refuse_mixed(
        kubernetes,
        {"--app": app, "--only": only, "--kills": kills},
        {"--release": release, "--token-secret": token_secret},
    )
    parts = chaos_parts() if kubernetes is None else kubernetes_parts()
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
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # what was begun is undone
    chosen = secrets.randbits(32) if seed is None else seed
    report = campaign.new_report("chaos", profile, chosen)
    loaded, file = given_app(app)
    sizes = PROFILES[profile] | ({} if kills is None else {"crashes": kills})
    there = None if kubernetes is None else {"release": _release(kubernetes, release, token_secret)}
    campaign.run_parts(report, parts, campaign.Run(sizes, chosen, loaded, file, there), campaign.Progress())
    finish(report, out, "chaos_report")


def _refuse_mixed(namespace: str | None, without: "dict[str, object]", only_with: "dict[str, object]") -> None:
    """Failed when options are given that mean nothing beside, or without, --kubernetes."""
    wrong = next((name for name, value in (only_with if namespace is None else without).items() if value), None)
    if wrong is not None:
        how = "only with" if namespace is None else "not with"
        raise Failed(f"{wrong} goes {how} --kubernetes", USAGE)


def _release(namespace: str, release: str | None, token_secret: str | None) -> "Release":
    """The release to strike. Failed when there is none: a report in which nothing was run would be no answer."""
    from bitactor.validation.campaign import CannotRun
    from bitactor.validation.kubernetes.release import find

    try:
        return find(namespace, release, token_secret)
    except CannotRun as why:
        raise Failed(str(why)) from None
