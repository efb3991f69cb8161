"""Clients of the service, for threads and for asyncio. Loads neither the compiler nor the engine."""

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from bitactor.client.aio import AsyncClient as AsyncClient
    from bitactor.client.subscription import Subscription as Subscription
    from bitactor.client.sync import Client as Client

_HOME: Final = {"AsyncClient": "aio", "Client": "sync", "Subscription": "subscription"}


def __getattr__(name: str) -> object:
    """Load a client when it is first asked for: that for threads does not need asyncio."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
