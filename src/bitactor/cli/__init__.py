"""The command line: one file for each verb."""


def main() -> None:
    """Run the command line; the process's arguments are its own."""
    raise SystemExit("bitactor: the command line is not built yet")
