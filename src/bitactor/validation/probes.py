"""Questions to a running service that may go unanswered: counted and reported, never the end of a campaign. One thread.

A service under load may once take longer than a scrape waits, as every monitoring system knows. A few of them are told;
more than `FAILED_MAX` of them fail a criterion of the part that asked.
"""

import http.client
import time
from collections.abc import Callable
from typing import Any, Final

from bitactor.validation.campaign import DefectFoundError
from bitactor.validation.criteria import Criterion, Threshold
from bitactor.validation.service import Served

FAILED_MAX: Final = 3
UNANSWERED: Final = (OSError, http.client.HTTPException, ValueError)
_TRIES: Final = 5


class Probes:
    """Scrapes of one service. failed: of `tried`; happened: told the kind and the words of each failure."""

    def __init__(
        self, served: Served, happened: Callable[[str, str], None] = lambda *_: None, timeout_s: float = 30
    ) -> None:
        self.served = served
        self.tried = self.failed = 0
        self.longest_s = 0.0
        self._happened, self._timeout_s = happened, timeout_s

    def metrics(self) -> dict[str, float] | None:
        """The samples by name with labels, or None: no answer. DefectFoundError: the service has ended."""
        begun = time.monotonic()
        self.tried += 1
        try:
            return self.served.metrics(self._timeout_s)
        except UNANSWERED as error:
            if not self.served.is_running():
                status = self.served.running.returncode
                raise DefectFoundError(f"the service ended with {status}: {self.served.errors()}") from error
            self.failed += 1
            self._happened("scrape failed", f"after {time.monotonic() - begun:.1f} s: {error!r}")
            return None
        finally:
            self.longest_s = max(self.longest_s, time.monotonic() - begun)

    def insist(self) -> dict[str, float]:
        """The samples, asked for some times. DefectFoundError: never an answer, or the service has ended."""
        for _ in range(_TRIES):
            if (found := self.metrics()) is not None:
                return found
        raise DefectFoundError(f"/metrics gave no answer {_TRIES} times in a row")

    @property
    def note(self) -> str:
        """For the criterion's row."""
        return f"of {self.tried:,}; the longest took {self.longest_s:.2f} s"


def criterion(section: str, command: str) -> Criterion:
    """What a part that scrapes declares; its figure is `failed`, its note `note`."""
    title = f"Scrapes of /metrics without an answer (up to {FAILED_MAX} are told and let pass)"
    return Criterion(f"{section}.scrapes-failed", title, Threshold("<=", FAILED_MAX, warn=0), "scrapes", command)


def asked(question: Callable[[], Any], tries: int = _TRIES, wait_s: float = 0.5) -> Any:
    """The answer to a question that may fail some times; the last failure is raised."""
    for turn in range(tries):
        try:
            return question()
        except UNANSWERED:
            if turn == tries - 1:
                raise
            time.sleep(wait_s)
    raise AssertionError("no try was allowed")
