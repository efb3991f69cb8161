"""One run of the suite: choose the cases, attack, weaken and attack again, report. What the verb and tests call."""

import shutil
import ssl
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bitactor.validation.adversarial import cases as _cases
from bitactor.validation.adversarial import report
from bitactor.validation.adversarial.campaign import Outcome, Trial, run
from bitactor.validation.adversarial.rawhttp import Web
from bitactor.validation.adversarial.registry import CASES, Case
from bitactor.validation.adversarial.service import Place
from bitactor.validation.adversarial.site import RemoteSite, Site
from bitactor.validation.adversarial.variants.defects import DEFECTS

__all__ = ["CASES", "DEFECTS", "Target", "attack", "chosen"]
TRIALS_AT_ONCE: Final = 3
assert _cases is not None  # importing it registers the cases


@dataclass(frozen=True, slots=True)
class Target:
    """A service that is not ours. address: host:port; token: of an identity that may send `kind` as `prefix`*."""

    address: str
    token: str
    ca_file: Path | None = None
    admin_url: str = ""
    admin_token: str = ""
    kind: int = 1
    prefix: str = "attacker-"

    def place(self) -> Place:
        """Where it is."""
        host, _, port = self.address.rpartition(":")
        web = Web(self.admin_url, self.admin_token) if self.admin_url else None
        return Place((host.strip("[]"), int(port)), web, ssl.create_default_context(cafile=self.ca_file))


def chosen(*, short: bool = False, only: Sequence[str] = ()) -> list[Case]:
    """The cases of the short form, or those whose id begins with one of `only`, or all. ValueError: it fits none."""
    for start in only:
        if not any(id_.startswith(start) for id_ in CASES):
            raise ValueError(
                f"no case begins with {start!r}; categories: {', '.join(sorted({c.category for c in CASES.values()}))}"
            )
    return [
        case for case in CASES.values() if (not short or case.short) and (not only or case.id.startswith(tuple(only)))
    ]


def attack(
    cases: Sequence[Case],
    *,
    seed: int,
    target: Target | None = None,
    variants: Sequence[str] = (),
    form: str = "full form",
    tell: Callable[[str, Outcome], None] = lambda where, outcome: None,
) -> dict[str, Any]:
    """Run the cases, then each weakened variant with the cases that must find it; the report (report.document).

    tell: called with "" or the variant's name and each outcome as it comes. Starts services of its own on loopback,
    which have ended when this returns.
    """
    began = time.time()
    outcomes: list[Outcome] = []
    if cases:
        site = _site(target, seed)
        try:
            outcomes = run(site, cases, lambda outcome: tell("", outcome), remote=target is not None)
        finally:
            site.close()
    with ThreadPoolExecutor(TRIALS_AT_ONCE) as pool:  # they wait for processes that start, mostly
        trials = list(pool.map(lambda name: _trial(name, seed, tell), variants))
    where = target.address if target is not None else "services of its own on loopback"
    return report.document(outcomes, trials, seed=seed, target=where, form=form, began=began)


def _site(target: Target | None, seed: int, variant: str = "") -> Site:
    directory = Path(tempfile.mkdtemp(prefix="bitactor-adversarial-"))
    if target is None:
        return Site(directory, seed, variant)
    try:
        return RemoteSite(directory, seed, target.place(), target.token, kind=target.kind, prefix=target.prefix)
    except BaseException:
        shutil.rmtree(directory)
        raise


def _trial(name: str, seed: int, tell: Callable[[str, Outcome], None]) -> Trial:
    site = _site(None, seed, name)
    try:
        found_by = [CASES[id_] for id_ in DEFECTS[name].found_by]
        return Trial(name, DEFECTS[name].what, run(site, found_by, lambda outcome: tell(name, outcome)))
    finally:
        site.close()
