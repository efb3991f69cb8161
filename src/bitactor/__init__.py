"""Keyed actors over streams of tiny fixed-size events, written in Python and run as machine code.

Public names load on first use, so that ``import bitactor`` stays cheap (no NumPy, no compiler). To add one, add a
row to ``_HOME`` and the same name to the ``TYPE_CHECKING`` block; a test holds the two together.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    # The rows of _HOME again, for type checkers, as `from bitactor.ring import Ring as Ring`, one a line, sorted.
    pass  # noqa: TC005

# Public name -> the module that defines it under that name. One a line, sorted.
_HOME: Final[dict[str, str]] = {}

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
