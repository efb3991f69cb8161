"""How long a user waits at the start: import, first compile of an actor, compile from cache, in fresh processes.

The time of Python's own start is not in it; the compile's figures run from the decorator to a handled signal, in an
inline engine, with a cache directory that is empty the first time.
"""

import os
import statistics
import subprocess
import sys
import tempfile

from benchmarks import measure

IMPORT = """
import time; begin = time.perf_counter()
import bitactor
print(time.perf_counter() - begin)
"""
FIRST_USE = """
import time; begin = time.perf_counter()
from bitactor import App, Engine
print(time.perf_counter() - begin)
"""
COMPILE = """
import time
import numpy as np
import bitactor as ba
from benchmarks.measures.engine_vwap import signals_of, vwap_app
from benchmarks.task import growth_signals
signals = signals_of(growth_signals(1, scattered=False))
begin = time.perf_counter()
app, vwap = vwap_app()
with ba.Engine(app, shards=0) as engine:
    engine.send_batch(signals)
    assert engine.state(vwap, 1).count == 1
    print(time.perf_counter() - begin)
"""


def seconds(program: str, cache: str) -> float:
    """What the program prints, run in a fresh process that caches under `cache`."""
    surroundings = {**os.environ, "XDG_CACHE_HOME": cache, "BITACTOR_CACHE_DIR": cache}
    done = subprocess.run([sys.executable, "-c", program], env=surroundings, capture_output=True, text=True, check=True)
    return float(done.stdout)


def main() -> None:
    """Median of five of each."""
    found: dict[str, list[float]] = {
        "import": [],
        "import with App and Engine": [],
        "first compile": [],
        "compile from cache": [],
    }
    for _ in range(5):
        with tempfile.TemporaryDirectory() as cache:
            found["import"].append(seconds(IMPORT, cache))
            found["import with App and Engine"].append(seconds(FIRST_USE, cache))
            found["first compile"].append(seconds(COMPILE, cache))
            found["compile from cache"].append(seconds(COMPILE, cache))
    for name, each in found.items():
        measure.report(name, statistics.median(each), "s", each=each)


if __name__ == "__main__":
    main()
