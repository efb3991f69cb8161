"""What the service's tests compare with: the log replayed inline (bitactor.testing.history), and producers' streams."""

import numpy as np

import bitactor as ba
from bitactor.testing.history import assert_same_state, read_log, truth_of

__all__ = ["assert_same_state", "read_log", "stream", "truth_of"]


def stream(name, count, seed=0):
    """The deterministic signals of a producer: sequence i is always the same signal, and no two are alike."""
    rng = np.random.default_rng([seed, *name.encode()])
    signals = np.zeros(count, ba.SIGNAL_DTYPE)
    signals["kind"] = np.where(rng.random(count) < 0.8, 1, 2)
    signals["key"] = rng.integers(0, 500, count)
    signals["aux"] = rng.integers(1, 100, count)
    prices = (rng.random(count) * 100 + 1).astype("f8")
    signals["value"] = np.where(signals["kind"] == 1, prices, np.arange(count).astype("u8").view("f8"))
    signals["time"] = np.arange(count, dtype="u8") + 1_700_000_000_000_000_000
    return signals
