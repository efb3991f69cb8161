"""`bitactor log`: look at a data directory, verify, replay, compact, back it up and restore it."""

import json
import sys
import time
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from bitactor.cli.run import Failed

verbs = typer.Typer(add_completion=False)

Directory = Annotated[Path, typer.Argument(metavar="DIRECTORY", help="A service's data directory.")]
Json = Annotated[bool, typer.Option("--json", help="As JSON instead of lines.")]
DEFAULT = Path("bitactor-data")


@verbs.command()
def inspect(directory: Directory = DEFAULT, as_json: Json = False) -> None:
    """Say where the log begins and ends, how large it is and which snapshots there are. A service may be running."""
    from bitactor.log import maintenance

    found = maintenance.inspect(directory)
    if as_json:
        _echo_json(found)
        return
    typer.echo(f"{found.path}  format {found.format}  {_bytes(found.file_bytes)} and {_bytes(found.wal_bytes)} of WAL")
    first, end = found.first, found.end
    typer.echo(f"records   {first.sequence:,} to {end.sequence:,} (not included)")
    typer.echo(f"signals   {first.position:,} to {end.position:,}")
    if end.wall_ns:
        typer.echo(f"last      {_time(end.wall_ns)}")
    for each in found.snapshots:
        what = each.problem or f"of record {each.sequence:,}, signal {each.position:,}"
        typer.echo(f"snapshot  {each.path.name}  {_bytes(each.bytes)}  {what}")


@verbs.command()
def verify(directory: Directory = DEFAULT, as_json: Json = False) -> None:
    """Read every record, every snapshot and SQLite's pages. Status 1 and a line for each thing that is wrong."""
    from bitactor.log import maintenance

    found = maintenance.verify(directory, _progress("verified"))
    if as_json:
        _echo_json(found)
    else:
        for problem in found.problems:
            typer.echo(f"wrong  {problem}")
        typer.echo(
            f"{found.records:,} records with {found.signals:,} signals in {_bytes(found.bytes)}, "
            f"{found.snapshots} snapshots: {f'{len(found.problems)} problems' if found.problems else 'all is well'}"
        )
    if found.problems:
        raise typer.Exit(1)


@verbs.command()
def replay(
    app: Annotated[str, typer.Argument(help="The app: a Python file, or file:name.")],
    directory: Directory = DEFAULT,
    as_json: Json = False,
) -> None:
    """Apply the log to one side and compare each snapshot with it, bit for bit. Status 1 when one differs."""
    from bitactor.cli.apps import load_app
    from bitactor.runtime.replay import replay as run_replay

    done = run_replay(directory, load_app(app), lambda message: typer.echo(f"left out  {message}", err=True))
    if as_json:
        _echo_json({**asdict(done), "same": {str(path): same for path, same in done.same.items()}})
    else:
        for path, same in done.same.items():
            typer.echo(f"{'same     ' if same else 'DIFFERENT'}  {path}")
        rate = done.signals / done.seconds / 1e6 if done.seconds else 0.0
        typer.echo(
            f"records {done.begun.sequence:,} to {done.end.sequence:,} replayed: {done.signals:,} signals in "
            f"{done.seconds:.2f} s ({rate:.1f} M/s), up to signal {done.end.position:,}"
        )
    if not done.agrees:
        raise typer.Exit(1)


@verbs.command()
def compact(directory: Directory = DEFAULT) -> None:
    """Remove the records before the oldest good snapshot, and give free space back. The service must be stopped."""
    from bitactor.log import maintenance

    before, after = maintenance.compact(directory)
    removed = after.first.sequence - before.first.sequence
    typer.echo(f"{removed:,} records removed: {_bytes(before.file_bytes)} before, {_bytes(after.file_bytes)} now")


@verbs.command()
def backup(
    target: Annotated[Path, typer.Argument(help="A new folder, or a new file whose name ends in .tar.")],
    directory: Directory = DEFAULT,
) -> None:
    """Copy log and snapshots, each record checked on its way. The service may go on."""
    from bitactor.log import maintenance

    made = maintenance.backup(directory, target, _progress("copied"))
    typer.echo(
        f"wrote {made.path}: records {made.first.sequence:,} to {made.end.sequence:,}, {made.snapshots} snapshots, "
        f"{_bytes(made.bytes)}"
    )


@verbs.command()
def restore(
    source: Annotated[Path, typer.Argument(help="What `bitactor log backup` wrote.")],
    directory: Annotated[Path, typer.Argument(metavar="DIRECTORY", help="A new data directory.")],
) -> None:
    """Make a data directory from a backup; all of it is verified before it is there."""
    from bitactor.log import maintenance

    if not source.exists():
        raise Failed(f"{source}: no such backup")
    made = maintenance.restore(source, directory)
    typer.echo(
        f"restored {made.path}: records {made.first.sequence:,} to {made.end.sequence:,}, {made.snapshots} snapshots; "
        f"serve it with --data-dir {made.path}"
    )


def _progress(what: str) -> "Any":
    """Called with (done, total): a line that is written over, on a terminal; nothing elsewhere."""
    if not sys.stderr.isatty():
        return None

    def show(done: int, total: int) -> None:
        print(f"\r{what} {100 * done // max(total, 1)} %", end="\r", file=sys.stderr, flush=True)  # noqa: T201

    return show


def _echo_json(found: Any) -> None:
    typer.echo(json.dumps(asdict(found) if is_dataclass(found) else found, indent=2, default=str))  # type: ignore[arg-type]


def _bytes(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def _time(wall_ns: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(wall_ns / 1e9))
