"""Race detection: the core's tests built with ThreadSanitizer. Needs the source tree and a compiler; part of `full`."""

from bitactor.validation import source
from bitactor.validation.campaign import CannotRun, Part, Run
from bitactor.validation.criteria import Criterion, Threshold

COMMAND = "bitactor validate --profile full --only races"
TSAN = "halt_on_error=1:second_deadlock_stack=1"


def run(run: Run) -> None:
    """Build with -fsanitize=thread and run all tests."""
    if not run.size("source_tests"):
        raise CannotRun("the quick profile leaves it out: --profile full")
    root = source.tree("core/meson.build", "tools/meson-build")
    run.say("building with ThreadSanitizer")
    options = [*source.DEBUG, "-Db_sanitize=thread"]
    results = source.core_tests(root, "build/tsan", options, TSAN_OPTIONS=TSAN)
    bad = {name: result for name, result in results.items() if result != "OK"}
    run.measure("races.found", len(bad), f"{len(results)} test programs" + (f"; not good: {bad}" if bad else ""))


PART = Part(
    "races",
    "Race detection",
    (Criterion("races.found", "Test programs with a race", Threshold("==", 0), "programs", COMMAND),),
    run,
)
