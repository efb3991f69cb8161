"""Byte-order conversion: its rate, and that it loses no bit, compared with NumPy's own byte swap."""

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bitactor.signals import SIGNAL_DTYPE, from_bytes, to_bytes
from bitactor.validation.campaign import Part, Run
from bitactor.validation.criteria import Criterion, Threshold

if TYPE_CHECKING:
    from collections.abc import Callable

COMMAND = "bitactor validate --only byte-order"
BATCH = 8192
LENGTHS = (0, 1, 2, 3, 7, 15, 16, 17, 63, 64, 65, 1000)
BIG_ENDIAN = SIGNAL_DTYPE.newbyteorder(">")


def run(run: Run) -> None:
    """All bit patterns by chance, all alignments of length; then speed in the cache."""
    rng = np.random.default_rng(run.seed)
    differ = tried = 0
    for length in (*LENGTHS, *rng.integers(1, BATCH, run.size("byte_order_arrays"))):
        bits = rng.integers(0, 1 << 64, 4 * int(length), dtype="u8")
        signals: npt.NDArray[Any] = bits.view(SIGNAL_DTYPE)
        data = to_bytes(signals)
        differ += data != signals.astype(BIG_ENDIAN).tobytes()
        differ += from_bytes(data).tobytes() != signals.tobytes()
        tried += int(length)
    run.measure("byte-order.differ", differ, f"{tried:,} signals of random bits, NaNs of all payloads among them")
    signals = rng.integers(0, 1 << 64, 4 * BATCH, dtype="u8").view(SIGNAL_DTYPE)
    data = to_bytes(signals)
    seconds = run.sizes["byte_order_s"]
    ways: list[tuple[str, Callable[[Any], object], Any]]
    ways = [("to-wire", to_bytes, signals), ("from-wire", from_bytes, data)]
    for name, convert, given in ways:
        turns, begun = 0, time.perf_counter()
        while time.perf_counter() - begun < seconds:
            for _ in range(50):
                convert(given)
            turns += 50
        rate = turns * BATCH / (time.perf_counter() - begun)
        run.measure(
            f"byte-order.{name}",
            rate,
            f"{5 * rate / 1e6:,.0f} M fields/s; arrays of {BATCH:,}, one thread, a copy each",
        )


PART = Part(
    "byte-order",
    "Byte-order conversion",
    (
        Criterion("byte-order.differ", "Arrays that NumPy converts otherwise", Threshold("==", 0), "arrays", COMMAND),
        Criterion("byte-order.to-wire", "Rate to big-endian", Threshold(">=", 10e6, warn=50e6), "signals/s", COMMAND),
        Criterion("byte-order.from-wire", "Rate back", Threshold(">=", 10e6, warn=50e6), "signals/s", COMMAND),
    ),
    run,
)
