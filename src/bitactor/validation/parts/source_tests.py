"""The core's own tests: all of them, and by name those of the races and of the byte order. Needs the source tree."""

from bitactor.validation import source
from bitactor.validation.campaign import Part, Run
from bitactor.validation.criteria import Criterion, Threshold

COMMAND = "bitactor validate --only tests"
RACES = ("stress_test_bitactor", "test_bitactor_fixes", "test_shm_ring")
BYTE_ORDER = ("test_codec_baseline", "test_codec_avx2", "test_codec_avx512", "test_record", "test_signal")


def run(run: Run) -> None:
    """Build with asserts, run, count."""
    root = source.tree("core/meson.build", "tools/meson-build")
    run.say("building")
    names = () if run.size("source_tests") else (*RACES, *BYTE_ORDER, "test_ring", "test_store", "test_engine")
    results = source.core_tests(root, "build/debug", source.DEBUG, *names)
    bad = {name: result for name, result in results.items() if result != "OK"}
    said = f"{len(results)} test programs" + (f"; not good: {bad}" if bad else "")
    run.count("tests.programs", {"run": len(results)}, {"good": len(results) - len(bad), "not good": len(bad)})
    run.measure("tests.core", len(bad), said)
    for name, programs in (("races", RACES), ("byte-order", BYTE_ORDER)):
        wrong = [each for each in programs if results.get(each) != "OK"]
        run.measure(f"tests.{name}", len(wrong), f"{', '.join(programs)}" + (f"; not good: {wrong}" if wrong else ""))


PART = Part(
    "tests",
    "Unit and security-fix tests",
    (
        Criterion("tests.core", "Test programs of the core that fail", Threshold("==", 0), "programs", COMMAND),
        Criterion("tests.races", "Of them, those of the ring's races", Threshold("==", 0), "programs", COMMAND),
        Criterion("tests.byte-order", "Of them, those of the byte order", Threshold("==", 0), "programs", COMMAND),
    ),
    run,
)
