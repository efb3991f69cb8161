"""The cases: what each attacks, how bad it would be, what must come of it, and the function that does it.

    @case(cwe=354, vector="AV:N/AC:L/PR:L/UI:N/S:U/C:N/I:H/A:N", surface="ingest", steps="…", expected="…")
    def crc_of_data(site: Site) -> str:
        '''A data frame whose CRC is wrong.'''

A case returns what it observed, when that was as expected, and raises otherwise: `NotAsExpected` with what it observed,
`NotRun` with why it could not be done here. Its id is its category, which is its module's name up to an underscore, and
its own name; registered when imported.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bitactor.validation.adversarial import cvss

if TYPE_CHECKING:
    from collections.abc import Callable

    from bitactor.validation.adversarial.site import Site

SURFACES: Final = ("ingest", "admin", "files", "library", "client", "cli", "deployment")


class NotAsExpected(Exception):  # noqa: N818
    """The attack worked, or something else came of it than must. The message: what was observed."""


class NotRun(Exception):  # noqa: N818
    """It could not be done on this machine or against this target. The message: why."""


@dataclass(frozen=True, slots=True)
class Case:
    """vector: CVSS 3.1 base vector of the weakness that there would be. short: also part of the short form."""

    id: str
    title: str
    surface: str
    cwe: int
    vector: str
    precondition: str
    steps: str
    expected: str
    short: bool
    remote: bool
    run: "Callable[[Site], str]"

    @property
    def category(self) -> str:
        """What its id begins with."""
        return self.id.partition(".")[0]


CASES: Final[dict[str, Case]] = {}


def case(
    *,
    cwe: int,
    vector: str,
    surface: str,
    steps: str,
    expected: str,
    precondition: str = "none",
    short: bool = False,
    remote: bool = False,
) -> "Callable[[Callable[[Site], str]], Callable[[Site], str]]":
    """Register the function below as a case. ValueError: a bad vector, an unknown surface, an id that is taken."""
    cvss.score(vector)
    if surface not in SURFACES:
        raise ValueError(f"surface {surface!r}: one of {', '.join(SURFACES)}")

    def register(run: "Callable[[Site], str]") -> "Callable[[Site], str]":
        category = run.__module__.rpartition(".")[2].partition("_")[0]
        title = " ".join((run.__doc__ or "").split())
        add(f"{category}.{run.__name__}", title, run)
        return run

    def add(id_: str, title: str, run: "Callable[[Site], str]") -> None:
        if id_ in CASES or not title:
            raise ValueError(f"case {id_} is there already, or has no docstring")
        CASES[id_] = Case(id_, title, surface, cwe, vector, precondition, steps, expected, short, remote, run)

    return register


def expect(holds: bool, observed: str) -> None:
    """Raise NotAsExpected with what was observed unless it holds."""
    if not holds:
        raise NotAsExpected(observed)
