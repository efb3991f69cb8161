"""`bitactor send`: the rows of files as signals to a service, once each, over as many runs as it takes."""

import hashlib
import ssl
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bitactor.cli.run import USAGE, Failed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bitactor.client import Client
    from bitactor.client.files import Columns, Piece
    from bitactor.protocol.messages import Ack

_DEVELOPMENT = "dev"  # directory in data_dir, made by `bitactor serve` on loopback


def run(
    files: Annotated[
        list[Path], typer.Argument(help="Parquet, Arrow, Feather, CSV, JSON lines, .npy, .npz; in order.")
    ],
    kind: Annotated[str | None, typer.Option(help="The kind of all rows; not for .npy files of whole signals.")] = None,
    key: Annotated[str | None, typer.Option(help="Column of the keys: integers or texts.")] = None,
    value: Annotated[str | None, typer.Option(help="Column of the values.")] = None,
    aux: Annotated[str | None, typer.Option(help="Column of the second number; default 0.")] = None,
    time_: Annotated[
        str | None,
        typer.Option("--time", help="Column of timestamps, or numbers of --time-unit since 1970; default 0."),
    ] = None,
    time_unit: Annotated[str, typer.Option(help="ns, us, ms or s, for a time column of numbers.")] = "ns",
    skip_missing: Annotated[bool, typer.Option(help="Leave out rows without a key, value or time.")] = False,
    to: Annotated[str, typer.Option("--to", help="host:port of the service.")] = "127.0.0.1:9090",
    producer: Annotated[
        str | None,
        typer.Option(help="Name of this stream of signals; default: made of the first file and the columns."),
    ] = None,
    append: Annotated[bool, typer.Option(help="Send all rows behind what this producer sent before.")] = False,
    token_file: Annotated[Path | None, typer.Option(help="File with the token.")] = None,
    ca_file: Annotated[Path | None, typer.Option(help="Who signed the service's certificate.")] = None,
    cert_file: Annotated[Path | None, typer.Option(help="This client's certificate (mTLS).")] = None,
    key_file: Annotated[Path | None, typer.Option(help="The certificate's key.")] = None,
    server_name: Annotated[str | None, typer.Option(help="Name in the service's certificate, if not the host.")] = None,
    plain_text: Annotated[bool, typer.Option(help="No TLS; to this machine only.")] = False,
    data_dir: Annotated[
        Path, typer.Option(help="Of a service on this machine, whose development certificate and token are used.")
    ] = Path("bitactor-data"),
) -> None:
    """Send the rows of files as signals and wait until the service has acknowledged them all.

    The service knows how many signals this producer has sent: a re-run with the same files, in the same order, goes on
    where the last one ended, and sends nothing twice. Another file, or other columns of it, are another producer.

        bitactor send trades.parquet --kind trade --key symbol --value price --aux size --time at
    """
    from bitactor.client import Client
    from bitactor.client.files import Columns, read_signals, read_whole_signals

    for file in files:
        if not file.is_file():
            raise Failed(f"{file}: no such file", USAGE)
    try:
        columns = None if key is None or value is None else Columns(key, value, aux, time_, time_unit, skip_missing)
    except ValueError as error:
        raise Failed(str(error), USAGE) from None
    if (kind is None) != (columns is None):
        raise Failed("columns need --kind, --key and --value; files of whole signals need none of them", USAGE)
    if producer == "":
        raise Failed("--producer is empty: give the stream a name, or leave it out", USAGE)
    for option, path in (("token", token_file), ("ca", ca_file), ("cert", cert_file), ("key", key_file)):
        if path is not None and not path.is_file():
            raise Failed(f"--{option}-file: {path}: no such file", USAGE)
    if token_file is None and cert_file is None and not plain_text:
        token_file, ca_file = _development(data_dir, to, ca_file)
    try:
        client = Client(
            to,
            producer=_stream(files[0], kind, columns) if producer is None else producer,
            token_file=token_file,
            ca_file=ca_file,
            cert_file=cert_file,
            key_file=key_file,
            server_name=server_name,
            plain_text=plain_text,
            connect_s=3.0,
        )
    except ssl.SSLCertVerificationError as error:
        raise Failed(
            f"{to}: its certificate is not trusted: {error.verify_message}; --ca-file names who signed it"
        ) from error
    with client:
        if columns is None:
            pieces = (piece for file in files for piece in read_whole_signals(file))
        else:
            declared = _declared(client, kind)
            pieces = (piece for file in files for piece in read_signals(file, columns, declared, client.key))
        _send(client, files, pieces, 0 if append else client.next)


def _stream(file: Path, kind: str | None, columns: "Columns | None") -> str:
    """The producer of files that name none: of the first file's path and what its rows become.

    Were it the same for all, the rows of a second file would be taken for those of the first, and skipped.
    """
    what = repr((str(file.resolve()), kind, columns)).encode()
    return f"send:{file.name}:{hashlib.blake2b(what, digest_size=4).hexdigest()}"


def _development(data_dir: Path, to: str, ca_file: Path | None) -> tuple[Path | None, Path | None]:
    """Token and CA that a service on this machine made for itself, if they are there."""
    from bitactor.client.target import Target, is_loopback

    folder = data_dir / _DEVELOPMENT
    if is_loopback(Target(address=to).host_port()[0]) and (folder / "token").is_file():
        return folder / "token", ca_file or folder / "ca.pem"
    return None, ca_file


def _declared(client: "Client", kind: str | None) -> Any:
    for known in client.kinds:
        if kind in (known.name, str(known.number)):
            return known
    names = ", ".join(known.name for known in client.kinds)
    raise Failed(f"the service's app has no kind {kind!r}; it has {names or 'none'}", USAGE)


def _send(client: "Client", files: list[Path], pieces: "Iterator[Piece]", there: int) -> None:
    """Send what lies behind the first `there` signals; say what was done."""
    skip, rows, left_out, sent, begun = there, 0, 0, 0, time.monotonic()
    with _progress(files) as advance:
        for piece in pieces:
            rows, left_out = rows + piece.rows, left_out + piece.left_out
            known = min(skip, len(piece.signals))
            skip -= known
            if known < len(piece.signals):
                _give(client, files, piece.signals[known:])
                sent += len(piece.signals) - known
            advance(piece.rows)
        ack = _flush(client)
    if skip:
        raise Failed(
            f"producer {client.producer!r} has sent {there:,} signals, these files have {there - skip:,}: they are not "
            "what it sent before. Choose another --producer, or --append"
        )
    seconds = time.monotonic() - begun
    typer.echo(
        f"{sent:,} signals sent and acknowledged ({_DURABILITIES[ack.durability]}) in {seconds:.1f} s"
        + (f"; {there:,} were there already" if there else "")
        + (f"; {left_out:,} of {rows:,} rows left out" if left_out else "")
    )


def _give(client: "Client", files: list[Path], signals: Any) -> None:
    try:
        client.send_batch(signals)
    except (ValueError, KeyError, TypeError) as error:  # what the file holds, not how this is written
        names = ", ".join(map(str, files))
        raise Failed(f"{names}: {error}; {client.next:,} signals were given before") from error


def _flush(client: "Client") -> "Ack":
    """Wait for the last acknowledgement, and say each ten seconds what stands in its way."""
    while True:
        try:
            return client.flush(_TELL_S)
        except TimeoutError as error:
            typer.echo(f"bitactor: still waiting, nothing is lost: {error}", err=True)


_TELL_S = 10.0
_DURABILITIES = {0: "in memory", 1: "survives the process", 2: "normal", 3: "on disk"}


@contextmanager
def _progress(files: list[Path]) -> "Iterator[Callable[[int], None]]":
    """What to call with rows that are done; a bar at a terminal, nothing elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    from bitactor.client.files import rows_in

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    counts = [rows_in(file) for file in files]
    total = None if None in counts else sum(count or 0 for count in counts)
    columns = SpinnerColumn(), TextColumn("rows"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("rows", total=total)
        yield lambda rows: bar.advance(task, rows)
