"""`bitactor certs`: a development CA, the certificates that it signs, and tokens. Each verb says what it wrote."""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bitactor.cli.run import USAGE, Failed

if TYPE_CHECKING:
    from collections.abc import Callable

    from bitactor.ingest.certs import CertificateFiles

verbs = typer.Typer(add_completion=False)

Directory = Annotated[Path, typer.Option("--dir", help="Where the files are; made if absent.")]
Days = Annotated[int, typer.Option(min=1, help="How long it is valid.")]


@verbs.command()
def ca(directory: Directory = Path("certs"), days: Days = 3650) -> None:
    """Make a CA: ca.pem, which clients trust, and ca.key, which stays secret."""
    from bitactor.ingest import certs

    try:
        _wrote(certs.make_ca(directory, days=days))
    except FileExistsError as error:
        raise Failed(f"{error.filename} exists; remove it and all that it signed, or choose another --dir") from None


@verbs.command()
def server(
    names: Annotated[list[str], typer.Argument(help="Host names and IP addresses that clients connect to.")],
    directory: Directory = Path("certs"),
    file: Annotated[str, typer.Option(help="Name of the files.")] = "server",
    days: Days = 397,
) -> None:
    """Make a server's certificate: server.pem and server.key, for tls.cert_file and tls.key_file."""
    from bitactor.ingest import certs

    _wrote(_signed(directory, lambda: certs.make_server(directory, names, file=file, days=days)))


@verbs.command()
def client(
    name: Annotated[str, typer.Argument(help="The common name: an identity's `certificate` in the auth file.")],
    directory: Directory = Path("certs"),
    uri: Annotated[list[str] | None, typer.Option(help="A URI to be known by as well; may be repeated.")] = None,
    file: Annotated[str | None, typer.Option(help="Name of the files, if not NAME.")] = None,
    days: Days = 397,
) -> None:
    """Make a client's certificate: NAME.pem and NAME.key."""
    from bitactor.ingest import certs

    _wrote(_signed(directory, lambda: certs.make_client(directory, name, uris=uri or (), file=file, days=days)))
    typer.echo(f"in the auth file:  certificate = {json.dumps(name)}")


@verbs.command()
def token(file: Annotated[Path, typer.Argument(help="The new file; only its owner may read it.")]) -> None:
    """Make a token for a client, and print what to put into the auth file for it: narrow kinds and producers there."""
    from bitactor.ingest import auth

    secret = auth.new_token().encode()
    try:
        auth.write_secret(file, secret + b"\n")
    except FileExistsError:
        raise Failed(f"{file} exists and is left alone; remove it, or name another") from None
    typer.echo(f"wrote {file}; for the auth file:", err=True)
    typer.echo(
        f'[[identity]]\nname = "{file.stem}"\ntoken_sha256 = "{hashlib.sha256(secret).hexdigest()}"\n'
        'kinds = ["*"]\nproducers = ["*"]\nread = false\nadmin = false'
    )


def _signed(directory: Path, make: "Callable[[], CertificateFiles]") -> "CertificateFiles":
    """What `make` makes, with what may be in its way said."""
    try:
        return make()
    except FileNotFoundError:
        raise Failed(f"{directory} has no CA: bitactor certs ca --dir {directory}") from None
    except FileExistsError as error:
        raise Failed(f"{error.filename} exists and is left alone; remove it and its certificate first") from None
    except ValueError as error:
        raise Failed(str(error), USAGE) from None


def _wrote(files: "CertificateFiles") -> None:
    typer.echo(f"wrote {files.cert_file}\nwrote {files.key_file}")
