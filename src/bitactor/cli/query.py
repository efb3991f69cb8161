"""`bitactor query "select …"`: SQL over a running service's live state, by its admin interface."""

import csv
import json
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from bitactor.cli.asking import URL, ask
from bitactor.cli.run import USAGE, Failed

_ARROW: Final = "application/vnd.apache.arrow.stream"


class Format(StrEnum):
    """How rows are written."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    ARROW = "arrow"


def run(
    sql: Annotated[
        str, typer.Argument(help='One SELECT, such as "from vwap limit 10"; a table is named as its actor.')
    ],
    format: Annotated[
        Format, typer.Option(help="table, json (an object a row), csv or arrow (a stream).")
    ] = Format.TABLE,
    limit: Annotated[int, typer.Option(min=0, max=100_000, help="Most rows.")] = 1000,
    url: Annotated[str, typer.Option(envvar="BITACTOR_ADMIN_URL", help="The admin interface.")] = URL,
    token_file: Annotated[Path | None, typer.Option(help="File with the token, where one is needed.")] = None,
) -> None:
    """Ask a running service for live state in SQL.

    What is cut by the limit is said on standard error.
    """
    if format is Format.ARROW:
        if sys.stdout.isatty():
            raise Failed("an Arrow stream is not for a terminal: redirect it, as in `> rows.arrows`", USAGE)
        body, _ = ask(url, "query", token_file, body={"sql": sql, "limit": limit}, accept=_ARROW)
        sys.stdout.buffer.write(body)
        return
    body, position = ask(url, "query", token_file, body={"sql": sql, "limit": limit})
    answer = json.loads(body)
    names = [column["name"] for column in answer["columns"]]
    if format is Format.JSON:
        for row in answer["rows"]:
            typer.echo(json.dumps(dict(zip(names, row, strict=True))))
    elif format is Format.CSV:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(names)
        writer.writerows(answer["rows"])
    else:
        _print_table(answer, position)
    if answer["truncated"]:
        typer.echo(f"bitactor: cut after {limit} rows; --limit takes more", err=True)


def _print_table(answer: dict[str, Any], position: str) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE, pad_edge=False)
    for column in answer["columns"]:
        numeric = column["name"] != "key" and column["type"].rstrip("0123456789,()") not in ("VARCHAR", "BOOLEAN")
        table.add_column(column["name"], justify="right" if numeric else "left", overflow="fold")
    for row in answer["rows"]:
        table.add_row(*(_cell(value) for value in row))
    width = None if sys.stdout.isatty() else max(200, int(os.environ.get("COLUMNS", "0") or 0))
    console = Console(width=width, highlight=False, markup=False, emoji=False)
    console.print(table)
    count = len(answer["rows"])
    console.print(f"{count:,} row{'s' * (count != 1)} at position {int(position):,}" if position else f"{count:,} rows")


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.9g}" if isinstance(value, float) else _shown(str(value))


def _shown(text: str) -> str:
    """A text for a terminal: what a terminal would obey, or show as something else, stands as its escape."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
