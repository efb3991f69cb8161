"""The machine's clock jumps by hours, forwards and backwards, while signals come and while the service is down.

Only the service's wall clock is moved (libfaketime, preloaded; it reads the offset from a file at every call).
Expected: records' wall time never goes back, signals go on, state is that of an inline replay of those records.
"""

import math
import os
from pathlib import Path
from typing import Final

from bitactor.validation.campaign import CannotRun, Part, Run
from bitactor.validation.criteria import Criterion, Threshold
from bitactor.validation.probes import asked
from bitactor.validation.served import LONG_PAUSE_S, promises, tell, world
from bitactor.validation.service import Served, wait_until

COMMAND: Final = "bitactor chaos --only clock"
PLACES: Final = ("/usr/lib/x86_64-linux-gnu/faketime", "/usr/lib/aarch64-linux-gnu/faketime", "/usr/local/lib/faketime")
JUMPS_S: Final = (3600, -7200, 86_400, 30, -90_000, 7 * 86_400)


def library() -> str:
    """Where libfaketime is. CannotRun names the package."""
    for place in PLACES:
        if (path := Path(place) / "libfaketimeMT.so.1").exists():
            return str(path)
    raise CannotRun("libfaketime is not on this machine (Debian: libfaketime)")


def offset_of(served: Served) -> float:
    """How far the service's clock is from the last signal's time, in seconds. NaN until it has applied one."""
    lag: float = asked(lambda: served.metrics(10)).get("bitactor_event_time_lag_seconds", math.nan)
    return lag


def run(run: Run) -> None:
    """Jump while it runs; every second time also kill it, so that it starts in another time."""
    preload, offset = library(), run.directory / "offset"
    environ = {
        "LD_PRELOAD": preload, "FAKETIME_TIMESTAMP_FILE": str(offset), "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1",
    }  # fmt: skip
    seen = 0
    offset.write_text("+0s")
    with world(run, pause_s=LONG_PAUSE_S) as w:
        w.served.start(**environ).ready()
        wait_until(lambda: math.isfinite(offset_of(w.served)), "a signal applied")
        before = offset_of(w.served)
        for turn in range(run.size("clock_jumps")):
            jump = JUMPS_S[turn % len(JUMPS_S)]
            run.say(f"{jump:+d} s")
            beside = offset.with_suffix(".new")
            beside.write_text(f"{jump:+d}s")
            os.replace(beside, offset)  # noqa: PTH105
            run.happened("clock", f"{jump:+d} s")
            if turn % 2:
                w.served.kill()
                w.served.start(**environ).ready()
            w.wait_for_acks(200)
            wait_until(
                lambda jump=jump: abs(offset_of(w.served) - before - jump) < 600, f"a clock {jump:+d} s away", 120
            )
            seen += 1
        w.finish(500)
        findings = w.judge()
    run.measure("clock.not-seen", run.size("clock_jumps") - seen, "by the service's own lag of event time")
    tell(run, "clock", findings)


PART = Part(
    "clock",
    "A clock that jumps",
    (
        Criterion("clock.not-seen", "Jumps that the service did not see", Threshold("==", 0), "jumps", COMMAND),
        *promises("clock", COMMAND),
    ),
    run,
)
