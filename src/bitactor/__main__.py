"""`python -m bitactor`: the same as the command `bitactor`."""

from bitactor.cli import main

main()
