"""State out of an engine and into another: how long shards stand still, how long export, check and import take.

States of 24 bytes; with --expiring also the touches of keys, last touched in random order. The pause is from setting
the boundary until the shards go on, as EngineState.pause_seconds says; the engine is idle but for that. The memory
for the export is made before, and not in its time.
"""

import argparse
import statistics
import time

import numpy as np

import bitactor as ba
from benchmarks import measure
from bitactor.state import EngineState

WALL = 1_700_000_000_000_000_000


def make_app(expiring: bool) -> ba.App:
    """One actor with a state of 24 bytes."""
    app = ba.App("state")
    trade = app.kind("trade", 1, value="f8", aux="u4")

    @app.actor(trade, state={"notional": "f8", "volume": "f8", "last": "f8"}, expire_after="1d" if expiring else None)
    def vwap(state, signal):  # type: ignore[no-untyped-def]
        state.notional += signal.value * signal.aux
        state.volume += signal.aux
        state.last = signal.value

    return app


def seconds(work: object, *arguments: object) -> float:
    """How long a call takes."""
    begin = time.perf_counter()
    work(*arguments)  # type: ignore[operator]
    return time.perf_counter() - begin


def main() -> None:
    """Export and import, each checked: the state that comes out of the second engine is that of the first."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--keys", type=int, default=1_000)
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--expiring", action="store_true")
    options = parser.parse_args()
    app = make_app(options.expiring)
    rng = np.random.default_rng(1)
    keys = np.unique(rng.integers(0, 2**63, options.keys, dtype=np.uint64))
    found: dict[str, list[float]] = {"pause": [], "export": [], "check": [], "import": []}
    with ba.Engine(app, options.shards, clock="records") as engine:
        for later in range(2 if options.expiring else 1):
            shuffled = rng.permutation(keys)
            for at in range(0, len(keys), 65536):
                record = ba.make_signals(1, shuffled[at : at + 65536], 1.5, 2, 7)
                engine.apply(record, WALL + later * 10**13 + at * 10**6)
        engine.flush()
        for _ in range(options.passes):
            buffers = engine.prepare_export()
            begin = time.perf_counter()
            state = engine.export_state(buffers)
            found["export"].append((time.perf_counter() - begin) * 1e3)
            found["pause"].append(state.pause_seconds * 1e3)
            found["check"].append(seconds(state.check) * 1e3)
            with ba.Engine(app, options.shards, clock="records") as other:
                found["import"].append(seconds(other.import_state, state) * 1e3)
                same(other.export_state(), state)
    for name, each in found.items():
        measure.report(name, statistics.median(each), "ms", exact=True, keys=len(keys))


def same(a: EngineState, b: EngineState) -> None:
    """AssertionError unless both are equal, bit for bit."""
    (meta, arrays), (other, others) = a.to_sections(), b.to_sections()
    if meta != other or any(x.tobytes() != y.tobytes() for (_, x), (_, y) in zip(arrays, others, strict=True)):
        raise AssertionError("the state that was imported is not the one that was exported")


if __name__ == "__main__":
    main()
