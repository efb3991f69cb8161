"""Deterministic signals for any app: sequence i of a producer is always the same signal, and no two are alike. Pure."""

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from bitactor.signals import SIGNAL_DTYPE, signal_dtype

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bitactor import App
    from bitactor.schema import Kind

TIME_NS: Final = 1_700_000_000_000_000_000  # of the first signal; each is a nanosecond later, so that all differ
KEYS: Final = 500


def input_kinds(app: "App") -> "list[Kind]":
    """The kinds that actors handle, by number: what a producer may send to some effect."""
    handled = {kind.number: kind for actor in app.actors for kind in actor.kinds}
    return [handled[number] for number in sorted(handled)]


def stream(
    app: "App", name: str, count: int, seed: int = 0, keys: int = KEYS, kinds: "Sequence[Kind] | None" = None
) -> npt.NDArray[Any]:
    """`count` signals of the producer `name`, of these kinds, or of all input kinds of the app; a new array."""
    rng = np.random.default_rng([seed, *name.encode()])
    kinds = kinds or input_kinds(app)
    signals = np.zeros(count, SIGNAL_DTYPE)
    chosen = np.minimum(rng.geometric(0.7, count) - 1, len(kinds) - 1)
    signals["kind"] = np.array([kind.number for kind in kinds], "u2")[chosen]
    signals["key"] = rng.integers(0, keys, count)
    signals["time"] = np.arange(count, dtype="u8") + np.uint64(TIME_NS)
    whole = rng.integers(1, 100, count)
    price = rng.random(count) * 100 + 1
    for kind in kinds:
        mine = signals["kind"] == kind.number
        view = signals.view(signal_dtype(kind.value, kind.aux))
        view["value"][mine] = (price if kind.value == "f8" else np.arange(count))[mine]
        view["aux"][mine] = whole[mine]
    return signals.view(signal_dtype(kinds[0].value, kinds[0].aux)) if len(kinds) == 1 else signals
