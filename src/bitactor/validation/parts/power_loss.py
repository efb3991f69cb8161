"""Power loss: disks as a cut may leave them, of a log and of a service, each opened and compared. Part of `full`."""

import re

from bitactor.validation import source
from bitactor.validation.campaign import CannotRun, DefectFoundError, Part, Run
from bitactor.validation.criteria import Criterion, Threshold

COMMAND = "bitactor validate --profile full --only power-loss"


def run(run: Run) -> None:
    """The two campaigns of `make powerloss`."""
    if not run.size("source_tests"):
        raise CannotRun("the quick profile leaves it out: --profile full")
    root = source.tree("tests/powerloss/campaign.py")
    images = str(run.size("powerloss_images"))
    for name, module in (("log", "tests.powerloss.campaign"), ("service", "tests.powerloss.service_campaign")):
        run.say(f"{images} disks of a {name}")
        command = ["python", "-m", module, images, "--seed", str(run.seed)]
        said = source.call(root, command, 1800)
        last = said.stdout.strip().splitlines()[-1] if said.stdout.strip() else said.stderr[-300:]
        judged = re.match(r"(\d+) images", last)
        if judged is None:
            raise DefectFoundError(f"{' '.join(command)} ended with {said.returncode}: {last}")
        run.measure(f"power-loss.{name}", 0 if said.returncode == 0 else 1, last)
        run.measure(f"power-loss.{name}-disks", int(judged[1]))


PART = Part(
    "power-loss",
    "Power loss",
    tuple(
        criterion
        for name in ("log", "service")
        for criterion in (
            Criterion(f"power-loss.{name}", f"Promises broken on disks of a {name}", Threshold("==", 0), "", COMMAND),
            Criterion(f"power-loss.{name}-disks", f"Disks of a {name} judged", Threshold(">=", 100), "disks", COMMAND),
        )
    ),
    run,
)
