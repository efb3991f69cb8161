"""The engine: the same task as an actor, fed with NumPy arrays of signals by one thread.

`--shards 1` goes through the ring to one worker thread; `--shards 0` is inline. The state is as wide as the reference
loop's row. Checks, step numbering, tick accounting and 64 partitions are on, as they always are.
"""

import numpy as np

import bitactor as ba
from benchmarks import measure, task

FIELDS = {"notional": "f8", "high": "f8", "count": "u4", "volume": "u4"}


def vwap_app() -> tuple[ba.App, ba.Actor]:
    """The app of the common task and its actor."""
    app = ba.App("bench")
    trade = app.kind("trade", 1, value="f8", aux="u4")

    @app.actor(trade, state=FIELDS)
    def vwap(state, signal, emit):  # type: ignore[no-untyped-def]
        state.count += 1
        state.notional += signal.value * signal.aux
        state.volume += signal.aux
        if signal.value > state.high:
            state.high = signal.value

    return app, vwap


def signals_of(columns: task.Columns) -> np.ndarray:
    """Columns as an array of signals of kind 1."""
    signals = np.zeros(len(columns.key), ba.signal_dtype("f8", "u4"))
    signals["kind"] = 1
    for name in ("key", "value", "aux"):
        signals[name] = getattr(columns, name)
    return signals


def run(job: measure.Job) -> None:
    """Grow, time each pass from the first send to the end of flush, check."""
    app, vwap = vwap_app()
    growth, signals = signals_of(job.growth), signals_of(job.signals)
    with ba.Engine(app, shards=job.shards) as engine:
        with job.timed_growth():
            engine.send_batch(growth)
            engine.flush()
        for _ in range(job.passes):
            with job.timed():
                engine.send_batch(signals)
                engine.flush()
        table = engine.table(vwap)
        job.finish(
            task.Totals(*(np.asarray(table[name]) for name in ("key", "count", "notional", "volume", "high"))),
            grown=True,
        )


if __name__ == "__main__":
    measure.main(run)
