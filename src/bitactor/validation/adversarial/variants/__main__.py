"""Run a program with one defect planted: `python -m bitactor.validation.adversarial.variants NAME PROGRAM …`."""

import runpy
import sys

from bitactor.validation.adversarial.variants.defects import DEFECTS


def main() -> None:
    """Plant the defect, then be the program."""
    name, *rest = sys.argv[1:]
    if name not in DEFECTS or not rest:
        sys.exit(f"usage: NAME -m MODULE | FILE; NAME is one of {', '.join(DEFECTS)}")
    DEFECTS[name].plant()
    if rest[0] == "-m":
        sys.argv = rest[1:]
        runpy.run_module(rest[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = rest
        runpy.run_path(rest[0], run_name="__main__")


main()
