"""`bitactor version`."""

import platform
from importlib.metadata import PackageNotFoundError, version

import typer

from bitactor import __version__


def run() -> None:
    """Print the versions of BitActor and of what it stands on."""
    typer.echo(f"bitactor {__version__}")
    typer.echo(f"{platform.python_implementation()} {platform.python_version()} on {platform.platform()}")
    for package in ("numpy", "llvmlite", "apsw", "uvloop", "pydantic", "cryptography", "duckdb", "opentelemetry-sdk"):
        try:
            typer.echo(f"{package} {version(package)}")
        except PackageNotFoundError:
            typer.echo(f"{package} is not installed")
