"""Finding a verb, running it, and saying in one line what went wrong. The main thread only.

Verbs are named in bitactor.cli.VERBS; `--help` shows them without loading any.
"""

import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any, Final

import typer
import typer.core

from bitactor.cli import VERBS

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
INTERNAL: Final = 70
INTERRUPTED: Final = 130

# The class of what the parser of the command line raises; Typer brings its own copy of it.
_ParserError: Any = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")


class Failed(Exception):  # noqa: N818
    """What was asked for did not work. The message is for the user: what, where, what to do."""

    def __init__(self, message: str, code: int = FAILED) -> None:
        """code: the exit status; FAILED, or USAGE when what was given is wrong."""
        super().__init__(message)
        self.code: Final = code


class _Verbs(typer.core.TyperGroup):
    """The verbs of VERBS, each loaded when it is to run."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A stand-in with the verb's name and help: what lists of verbs are made of."""
        if cmd_name not in VERBS:
            return None
        verb = VERBS[cmd_name]
        return typer.core.TyperCommand(cmd_name, callback=None, help=verb.help, rich_help_panel=verb.panel)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The verb itself."""
        self.commands = {name: self.get_command(ctx, name) for name in VERBS}  # what suggestions are made from
        name, found, rest = super().resolve_command(ctx, args)
        return name, (None if found is None else load(str(name))), rest


def load(name: str) -> Any:
    """The parser's command of a verb, from its module's `run` or `verbs`."""
    verb = VERBS[name]
    module = import_module(verb.module)
    verbs = getattr(module, "verbs", None)
    if verbs is None:
        verbs = typer.Typer(add_completion=False)
        verbs.command(help=module.run.__doc__ or verb.help)(module.run)
    else:
        verbs.info.help = verbs.info.help or verb.help
        verbs.info.no_args_is_help = True
    command = typer.main.get_command(verbs)
    command.name = name
    return command


application = typer.Typer(
    name="bitactor",
    cls=_Verbs,
    help="Keyed actors over streams of tiny events: run them, send to them, look into them.",
    epilog="Exit status: 0 done, 1 did not work, 2 wrong arguments or configuration, 70 a defect, 130 interrupted.",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@application.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of what goes wrong.")] = False,
) -> None:
    del debug  # main looks for it wherever it stands


def main(arguments: Sequence[str]) -> int:
    """Run one command line; the exit status. Errors go to standard error, as one line."""
    arguments = list(arguments) or ["--help"]
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    debug = "--debug" in own
    if debug:  # allowed before and after the verb
        arguments.remove("--debug")
    try:
        status = application(arguments, prog_name="bitactor", standalone_mode=False)
    except Exception as error:  # noqa: BLE001
        if debug:
            traceback.print_exc()
        return _told(error)
    except KeyboardInterrupt:
        return INTERRUPTED
    return status if isinstance(status, int) else OK


def _told(error: Exception) -> int:
    """Write the line for an error; its exit status. The one place that every error comes to."""
    if isinstance(error, BrokenPipeError):  # the reader of our output has gone, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    if isinstance(error, typer.Abort):
        return INTERRUPTED
    if isinstance(error, _ParserError):
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()
            return USAGE
        context = getattr(error, "ctx", None)
        hint = f"; see `{context.command_path} --help`" if context is not None else ""
        return _line(error.format_message().rstrip(".?") + hint, USAGE)
    if isinstance(error, Failed):
        return _line(str(error), error.code)
    if type(error).__name__ == "ConfigError":  # not imported: most verbs have no settings
        return _line(str(error), USAGE)
    if type(error).__module__.startswith("bitactor."):  # errors that BitActor defines say what to do
        return _line(str(error), FAILED)
    if isinstance(error, ImportError):
        lacks = f"{error.name} is missing: pip install 'bitactor[service]'"
        return _line(lacks if isinstance(error, ModuleNotFoundError) else str(error), FAILED)
    if isinstance(error, OSError):
        names = " ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
        return _line(f"{names + ': ' if names else ''}{error.strerror or error}", FAILED)
    where = traceback.extract_tb(error.__traceback__)[-1]
    return _line(
        f"internal error: {type(error).__name__}: {error} ({os.path.basename(where.filename)}:{where.lineno}); "  # noqa: PTH119
        "this is a defect in BitActor: the same command with --debug shows a traceback to report",
        INTERNAL,
    )


def _line(message: str, status: int) -> int:
    for line in message.splitlines() or [""]:
        print(f"bitactor: {line}", file=sys.stderr)  # noqa: T201
    return status
