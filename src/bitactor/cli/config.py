"""`bitactor config show` and `bitactor config check`: the settings, and where each comes from."""

import json
from typing import Annotated, Any

import typer

from bitactor.cli.run import USAGE, Failed
from bitactor.cli.settings import with_settings
from bitactor.config.load import sources, value_of
from bitactor.config.settings import Settings, is_secret, leaves

verbs = typer.Typer(add_completion=False)


@verbs.command()
@with_settings
def show(
    settings: Settings, as_json: Annotated[bool, typer.Option("--json", help="As JSON instead of a table.")] = False
) -> None:
    """Show every setting, its value and where that comes from. Secrets are not shown."""
    came_from = sources(settings)
    values = {name: value_of(settings, name) for name, _, _ in leaves()}
    secret = {name for name, field, _ in leaves() if is_secret(field) and values[name] is not None}
    values |= dict.fromkeys(secret, "(set, not shown)")
    if as_json:
        rows = {name: {"value": _plain(value), "source": came_from[name]} for name, value in values.items()}
        typer.echo(json.dumps(rows, indent=2))
        return
    widths = max(map(len, values)), max(len(_text(value)) for value in values.values())
    for name, value in values.items():
        typer.echo(f"{name:<{widths[0]}}  {_text(value):<{widths[1]}}  {came_from[name]}")


@verbs.command()
@with_settings
def check(settings: Settings) -> None:
    """Check the settings and the files that they name, certificates and identities too; a line for each problem."""
    _use_files(settings)
    given = sum(source != "default" for source in sources(settings).values())
    typer.echo(f"good: {given} settings given, the others at their defaults")


def _use_files(settings: Settings) -> None:
    """Read the named files as a server does. Failed: one of them cannot be used."""
    from bitactor.ingest import auth, tls

    certificates = settings.tls
    try:
        if settings.auth.file is not None:
            auth.load(settings.auth.file)
        if certificates.cert_file is not None and certificates.key_file is not None:
            tls.server_context(tls.TlsFiles(certificates.cert_file, certificates.key_file, certificates.client_ca_file))
        if settings.admin.token_file is not None:
            auth.read_token(settings.admin.token_file)
    except (auth.AuthError, tls.TlsFilesError) as error:
        raise Failed(str(error), USAGE) from None


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, (bool, int, float)) else str(value)


def _text(value: Any) -> str:
    return "-" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
