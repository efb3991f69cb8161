"""The adversarial suite: attacks on services of its own, and weakened variants that its cases must catch.

quick: the short form's cases. full: all cases, then every variant. The cases in detail are `bitactor adversarial`'s
report; here are its counts, and what was not as expected. It serves the suite's own app, whatever --app says.
"""

from itertools import zip_longest
from typing import TYPE_CHECKING

from bitactor.validation.campaign import Part, Run
from bitactor.validation.criteria import Criterion, Threshold

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bitactor.validation.adversarial.registry import Case

COMMAND = "bitactor validate --only adversarial"
FULL = "bitactor validate --profile full --only adversarial"


def spread(cases: "Sequence[Case]", most: int) -> "list[Case]":
    """So many of them, over all categories alike; in their order."""
    by_category: dict[str, list[Case]] = {}
    for one in cases:
        by_category.setdefault(one.category, []).append(one)
    rows = zip_longest(*by_category.values())
    taken = {one.id for one in [one for row in rows for one in row if one is not None][:most]}
    return [one for one in cases if one.id in taken]


def run(run: Run) -> None:
    """Attack, count, name what is wrong."""
    from bitactor.validation.adversarial.campaign import Outcome
    from bitactor.validation.adversarial.main import DEFECTS, attack, chosen

    everything = bool(run.size("adversarial_all"))
    cases = chosen() if everything else spread(chosen(short=True), run.size("adversarial_cases"))
    weakened = list(DEFECTS) if everything else []

    def tell(variant: str, outcome: Outcome) -> None:
        run.say(f"{variant}: {outcome.case.id}" if variant else outcome.case.id)
        if outcome.state == "failed" and not variant:
            run.happened("not as expected", f"{outcome.case.id}: {outcome.observed}")

    found = attack(
        cases, seed=run.seed, variants=weakened, tell=tell, form="full form" if everything else "part of the short form"
    )
    summary = found["summary"]
    passed, failed, not_run = summary["passed"], summary["failed"], summary["not_run"]
    wrong = [f"{one['id']}: {one['observed']}" for one in found["cases"] if one["state"] == "failed"]
    left_out = [one["id"] for one in found["cases"] if one["state"] == "not run"]
    run.count("adversarial.cases", {"cases": summary["cases"]},
              {"as expected": passed, "not as expected": failed, "not run": not_run})  # fmt: skip
    run.measure("adversarial.cases", passed + failed, f"{len(found['categories'])} categories; not run: {left_out}")
    run.measure("adversarial.failed", failed, "; ".join(wrong[:3]))
    if not weakened:
        for name in ("variants", "missed"):
            run.not_run(f"adversarial.{name}", "the quick profile leaves variants out: --profile full")
        return
    missed = [one["variant"] for one in found["variants"] if not one["caught"]]
    run.measure("adversarial.variants", summary["variants"], "one defect planted into each")
    run.measure("adversarial.missed", len(missed), f"{summary['variants_caught']} caught; missed: {missed}")


PART = Part(
    "adversarial",
    "Attacks",
    (
        Criterion("adversarial.cases", "Cases run", Threshold(">=", 1), "cases", COMMAND, at_least="adversarial_cases"),
        Criterion("adversarial.failed", "Cases not as expected", Threshold("==", 0), "cases", COMMAND),
        Criterion("adversarial.variants", "Weakened variants attacked", Threshold(">=", 10), "variants", FULL),
        Criterion("adversarial.missed", "Of them, not caught by any case", Threshold("==", 0), "variants", FULL),
    ),
    run,
)
