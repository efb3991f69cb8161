"""The command line: one file for each verb, loaded when the verb is used.

To add a verb, add a row to VERBS and its file to meson.build. The module has either a function `run` with Typer's
annotations, or `verbs`, a typer.Typer, when the verb has verbs of its own (`bitactor log verify`). What goes wrong is
raised: `bitactor.cli.run.Failed("what, where, what to do")`, or any exception that BitActor defines; `run.main` makes
one line and an exit code of it:

    0  done        1  what was asked for did not work       2  wrong arguments or configuration
    70 a defect in BitActor                                 130 interrupted
"""

from typing import Final, NamedTuple


class Verb(NamedTuple):
    """module: where it is. help: its line in `bitactor --help`. panel: the heading under which it stands there."""

    module: str
    help: str
    panel: str = "Service"


VERBS: Final[dict[str, Verb]] = {
    "serve": Verb("bitactor.cli.serve", "Serve an app: signals over TLS into a durable log, HTTP for operators."),
    "log": Verb("bitactor.cli.log", "Inspect, verify, replay, compact, back up and restore a data directory."),
    "cluster": Verb("bitactor.cli.cluster", "Look at replicas and lanes, drain a replica, or try three here."),
    "send": Verb("bitactor.cli.send", "Send the rows of files as signals to a service."),
    "profile": Verb("bitactor.cli.profile", "Show where an app's time goes, stage by stage, actor by actor.", "Apps"),
    "query": Verb("bitactor.cli.query", "Ask a running service for live state in SQL."),
    "config": Verb("bitactor.cli.config", "Show or check the settings and where each comes from.", "Setup"),
    "certs": Verb("bitactor.cli.certs", "Make a development CA, certificates and tokens.", "Setup"),
    "doctor": Verb("bitactor.cli.doctor", "Check this machine: clock, limits, disk, packages, ports.", "Setup"),
    "validate": Verb(
        "bitactor.cli.validate", "Measure this installation or a service, and write a report.", "Validation"
    ),
    "adversarial": Verb(
        "bitactor.cli.adversarial", "Attack a service and report what came of each attack.", "Validation"
    ),
    "chaos": Verb("bitactor.cli.chaos", "Inject faults for real, and check that every promise was kept.", "Validation"),
    "soak": Verb("bitactor.cli.soak", "Load a service for hours, and tell what grows.", "Validation"),
    "version": Verb("bitactor.cli.version", "Print the versions of BitActor and of what it stands on.", "Setup"),
}


def main() -> None:
    """Run the command line; the process's arguments are its own. Exits."""
    import sys

    try:
        import typer  # noqa: F401
    except ModuleNotFoundError:
        print("bitactor: the command line needs more packages: pip install 'bitactor[service]'", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    from bitactor.cli.run import main as run_main

    sys.exit(run_main(sys.argv[1:]))
