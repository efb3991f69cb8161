"""`bitactor serve market.py`: the app as a service, until it is told to stop."""

import resource
import sys
from typing import Annotated, Any

import typer

from bitactor import telemetry
from bitactor.cli.apps import load_app
from bitactor.cli.machine import FILES_BESIDE_CONNECTIONS
from bitactor.cli.run import Failed
from bitactor.cli.settings import with_settings
from bitactor.config.settings import Settings


@with_settings
def run(
    settings: Settings,
    log: Annotated[
        str | None,
        typer.Option("--log", help="sqlite, none, or nats://host:4222,...: --log-kind and --nats-urls in one."),
    ] = None,
) -> None:
    """Serve an app: signals over TLS into a durable log, state that is exactly once, HTTP for operators.

    Prints one line when it is ready. SIGTERM or Ctrl-C: drain, acknowledge, snapshot, exit 0; once more: exit at once.
    """
    del log  # with_settings has made settings of it
    import uvloop

    from bitactor.admin.server import start_admin
    from bitactor.log.contract import CorruptionError
    from bitactor.runtime.serve import serve
    from bitactor.runtime.service import Service

    make: Any = Service
    if settings.log.kind == "jetstream":
        make = import_replica()
    telemetry.setup(settings.logging.level, settings.logging.format)
    _allow_open_files(settings.limits.connections_max + FILES_BESIDE_CONNECTIONS)
    try:
        status = uvloop.run(serve(settings, load_app(settings.app), start_admin=start_admin, make=make))
    except CorruptionError as error:
        raise Failed(
            f"{error}; nothing is skipped: `bitactor log verify {settings.data_dir}` lists all that is damaged, "
            "`bitactor log restore` makes another data directory from a backup"
        ) from error
    sys.stdout.flush()
    raise typer.Exit(status)


def import_replica() -> Any:
    """The Replica class. Failed: its package is not installed."""
    try:
        from bitactor.cluster.replica import Replica
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("nats"):
            raise
        raise Failed("log.kind = jetstream needs nats-py: pip install 'bitactor[service,cluster]'") from error
    return Replica


def _allow_open_files(wanted: int) -> None:
    """Raise the soft limit of open files as far as the hard one allows; a lack is what `doctor` tells."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
