"""Runs cases one after another, has every service that a case touched checked afterwards, and notes what came of it."""

import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from bitactor.validation.adversarial.registry import Case, NotAsExpected, NotRun
from bitactor.validation.places import stable

if TYPE_CHECKING:
    from bitactor.validation.adversarial.site import Site

State = Literal["passed", "failed", "not run"]
_NOT_OURS: Final[tuple[State, str]] = ("not run", "needs a service of our own: its identities, files or process")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a case. seconds: with the check after it."""

    case: Case
    state: State
    observed: str
    seconds: float


def run(
    site: "Site",
    cases: Iterable[Case],
    tell: Callable[[Outcome], None] = lambda outcome: None,
    *,
    remote: bool = False,
) -> list[Outcome]:
    """Run the cases in their order; an Outcome each, also told as they come. Never raises for a case.

    In what was observed the site's directory reads SITE, and other places of this machine as `places.stable` says.

    remote: the site is a service of others; cases that need one of ours are not run.
    """
    outcomes = []
    for case in cases:
        begin = time.monotonic()
        site.used.clear()
        if remote and not case.remote:
            state, observed = _NOT_OURS
        else:
            state, observed = _check(site, *_attack(site, case))
        outcome = Outcome(case, state, stable(observed, {site.directory: "SITE"}), time.monotonic() - begin)
        outcomes.append(outcome)
        tell(outcome)
    return outcomes


def _attack(site: "Site", case: Case) -> tuple[State, str]:
    try:
        return "passed", case.run(site)
    except NotRun as why:
        return "not run", str(why)
    except NotAsExpected as found:
        return "failed", str(found)
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return "failed", f"{type(error).__name__}: {error} ({where.filename.rpartition('/')[2]}:{where.lineno})"


def _check(site: "Site", state: State, observed: str) -> tuple[State, str]:
    """Whether what the case touched still serves, unchanged; after a failure it begins anew, for the next case."""
    for name in sorted(site.used):
        try:
            if name in site.witnesses:
                site.witness_of(name).check()
            elif state == "passed":
                state, observed = "failed", f"{observed}; the service {name!r} was not there"
        except Exception as error:
            said = str(error) if isinstance(error, NotAsExpected) else repr(error)
            state, observed = "failed", f"{observed}; afterwards: {said}"
            site.renew(name)
    return state, observed


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of a weakened variant. by: the cases that it failed."""

    name: str
    what: str
    outcomes: list[Outcome]

    @property
    def by(self) -> list[str]:
        """The cases that found it."""
        return [one.case.id for one in self.outcomes if one.state == "failed"]

    @property
    def caught(self) -> bool:
        """Whether one did."""
        return bool(self.by)
