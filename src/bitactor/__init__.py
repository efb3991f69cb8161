"""Keyed actors over streams of tiny fixed-size events, written in Python and run as machine code.

Public names load on first use, so that ``import bitactor`` stays cheap (no NumPy, no compiler). To add one, add a
row to ``_HOME`` and the same name to the ``TYPE_CHECKING`` block; a test holds the two together.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from bitactor.actors import Actor as Actor
    from bitactor.actors import App as App
    from bitactor.actors import HandlerError as HandlerError
    from bitactor.client import AsyncClient as AsyncClient
    from bitactor.client import Client as Client
    from bitactor.engine import ClosedError as ClosedError
    from bitactor.engine import Engine as Engine
    from bitactor.engine import OutputsFullError as OutputsFullError
    from bitactor.engine import SignalError as SignalError
    from bitactor.outputs import Subscription as Subscription
    from bitactor.protocol import Frame as Frame
    from bitactor.protocol import FrameError as FrameError
    from bitactor.protocol import ProtocolError as ProtocolError
    from bitactor.protocol import decode_frame as decode_frame
    from bitactor.protocol import encode_frame as encode_frame
    from bitactor.ring import PeerDiedError as PeerDiedError
    from bitactor.ring import Ring as Ring
    from bitactor.ring import RingStatistics as RingStatistics
    from bitactor.schema import Kind as Kind
    from bitactor.schema import field as field
    from bitactor.signals import OUTPUT_DTYPE as OUTPUT_DTYPE
    from bitactor.signals import SIGNAL_DTYPE as SIGNAL_DTYPE
    from bitactor.signals import make_signals as make_signals
    from bitactor.signals import signal_dtype as signal_dtype
    from bitactor.signals import text_key as text_key
    from bitactor.statistics import DeadLetter as DeadLetter
    from bitactor.statistics import Statistics as Statistics
    from bitactor.tables import State as State
    from bitactor.tables import Table as Table

# Public name -> the module that defines it under that name. One a line, sorted.
_HOME: Final[dict[str, str]] = {
    "Actor": "bitactor.actors",
    "App": "bitactor.actors",
    "AsyncClient": "bitactor.client",
    "Client": "bitactor.client",
    "ClosedError": "bitactor.engine",
    "DeadLetter": "bitactor.statistics",
    "Engine": "bitactor.engine",
    "Frame": "bitactor.protocol",
    "FrameError": "bitactor.protocol",
    "HandlerError": "bitactor.actors",
    "Kind": "bitactor.schema",
    "OUTPUT_DTYPE": "bitactor.signals",
    "OutputsFullError": "bitactor.engine",
    "PeerDiedError": "bitactor.ring",
    "ProtocolError": "bitactor.protocol",
    "Ring": "bitactor.ring",
    "RingStatistics": "bitactor.ring",
    "SIGNAL_DTYPE": "bitactor.signals",
    "SignalError": "bitactor.engine",
    "State": "bitactor.tables",
    "Statistics": "bitactor.statistics",
    "Subscription": "bitactor.outputs",
    "Table": "bitactor.tables",
    "decode_frame": "bitactor.protocol",
    "encode_frame": "bitactor.protocol",
    "field": "bitactor.schema",
    "make_signals": "bitactor.signals",
    "signal_dtype": "bitactor.signals",
    "text_key": "bitactor.signals",
}

__version__: Final = "0.1.0"


def _refuse_free_threading() -> None:
    """Raise ImportError on a free-threaded build: its threads' rules are untested here."""
    import sysconfig

    gil_enabled = getattr(sys, "_is_gil_enabled", None)  # Python 3.13 and later
    if sysconfig.get_config_var("Py_GIL_DISABLED") or (gil_enabled is not None and not gil_enabled()):
        raise ImportError(
            "bitactor does not run on free-threaded Python yet: its waits and callbacks are tested with the GIL only. "
            "Use a build with the GIL, for example python3.14 instead of python3.14t."
        )


_refuse_free_threading()

if not TYPE_CHECKING:  # type checkers see the imports above, so that a mistyped name is an error to them
    __all__ = ["__version__", *sorted(_HOME)]  # noqa: PLE0604

    def __getattr__(name: str) -> object:
        """Load a public name on its first use (PEP 562); AttributeError suggests the nearest one."""
        if name not in _HOME:
            import difflib

            near = difflib.get_close_matches(name, __all__, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}{hint}")
        value = getattr(import_module(_HOME[name]), name)
        globals()[name] = value  # the next use is a plain lookup
        return value

    def __dir__() -> list[str]:
        """Public names, loaded or not."""
        return list(__all__)
