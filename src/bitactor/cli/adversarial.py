"""`bitactor adversarial`: attack a service of one's own, or a given one, and report what came of each attack."""

import secrets
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bitactor.cli.run import FAILED, USAGE, Failed

if TYPE_CHECKING:
    from bitactor.validation.adversarial.campaign import Outcome
    from bitactor.validation.adversarial.main import Target


def run(
    target: Annotated[
        str | None, typer.Option(help="host:port of a staging service to attack instead of one of our own.")
    ] = None,
    ca_file: Annotated[
        Path | None, typer.Option(help="Target: the CA of its certificate. [default: the system's]")
    ] = None,
    token_file: Annotated[Path | None, typer.Option(help="Target: a token that may send.")] = None,
    admin_url: Annotated[
        str, typer.Option(help="Target: its admin interface; without it attacks on HTTP are not run.")
    ] = "",
    admin_token_file: Annotated[Path | None, typer.Option(help="Target: a token that may read there.")] = None,
    kind: Annotated[int, typer.Option(help="Target: number of a kind that the token may send.")] = 1,
    prefix: Annotated[
        str, typer.Option(help="Target: what producers' names begin with that the token may use.")
    ] = "attacker-",
    only: Annotated[list[str] | None, typer.Option(help="Only cases whose id begins so; may be repeated.")] = None,
    short: Annotated[bool, typer.Option("--short", help="The short form: the quick cases of each category.")] = False,
    variants: Annotated[
        bool | None,
        typer.Option(
            "--variants/--no-variants",
            help="Only (or no) weakened variants. [default: after all cases of a full run]",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of what is random. [default: chosen, and printed]", show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option(help="The report; a page for people is written beside it.")] = Path(
        "adversarial_retest_report.json"
    ),
) -> None:
    """Attack a service in every way that is known to the suite, and report what came of it.

    Starts services of its own on loopback, with TLS and a CA of its own. Status 1 when something is not as expected.
    """
    from bitactor.validation.adversarial import report
    from bitactor.validation.adversarial.main import DEFECTS, attack, chosen

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # what was started ends with it
    there = _target(target, ca_file, token_file, admin_url, admin_token_file, kind, prefix)
    try:
        cases = [] if variants else chosen(short=short, only=only or ())
    except ValueError as error:
        raise Failed(str(error), USAGE) from None
    everything = not short and not only and there is None
    weakened = list(DEFECTS) if variants or (variants is None and everything) else []
    seed = secrets.randbelow(1 << 32) if seed is None else seed
    progress = _Progress(len(cases) + sum(len(DEFECTS[name].found_by) for name in weakened))
    typer.echo(f"{len(cases)} cases, {len(weakened)} weakened variants, seed {seed}", err=True)
    form = "weakened variants" if variants else "short form" if short else "full form"
    form = f"cases {', '.join(only)}" if only and not variants else form
    found = attack(cases, seed=seed, target=there, variants=weakened, form=form, tell=progress.tell)
    report.write(found, out)
    summary = found["summary"]
    if cases:
        counts = f"{summary['passed']} as expected, {summary['failed']} not, {summary['not_run']} not run"
        typer.echo(f"{summary['cases']} cases: {counts}")
    if weakened:
        typer.echo(f"weakened variants: {summary['variants_caught']} of {summary['variants']} caught")
        for one in found["variants"]:
            if not one["caught"]:
                typer.echo(f"missed: {one['variant']}: {one['defect']}")
    typer.echo(f"wrote {out} and {out.with_suffix('.md')}")
    if not report.good(found):
        raise typer.Exit(FAILED)


def _target(
    address: str | None,
    ca_file: Path | None,
    token_file: Path | None,
    admin_url: str,
    admin_token_file: Path | None,
    kind: int,
    prefix: str,
) -> "Target | None":
    from bitactor.validation.adversarial.main import Target

    if address is None:
        return None
    if token_file is None:
        raise Failed("--target needs --token-file: a token that may send, as producers that begin with --prefix", USAGE)
    if not address.rpartition(":")[2].isdigit():
        raise Failed(f"--target is {address!r}: give host:port", USAGE)
    admin_token = admin_token_file.read_text().strip() if admin_token_file is not None else ""
    return Target(address, token_file.read_text().strip(), ca_file, admin_url, admin_token, kind, prefix)


class _Progress:
    """A line a case on standard error; at a terminal only the last one stays, and what is not as expected."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0

    def tell(self, variant: str, outcome: "Outcome") -> None:
        """Say what came of it."""
        self._done += 1
        where = f"{variant}: {outcome.case.id}" if variant else outcome.case.id
        line = f"[{self._done:>3}/{self._total}] {outcome.state:<7} {where}  {outcome.seconds:.1f} s"
        wrong = outcome.state == "failed" and not variant
        if wrong:
            line += f"\n    expected: {outcome.case.expected}\n    observed: {outcome.observed}"
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\x1b[K{line}" + ("\n" if wrong or self._done == self._total else ""))
            sys.stderr.flush()
        else:
            typer.echo(line, err=True)
