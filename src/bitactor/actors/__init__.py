"""Actors: the App and its decorator, the checks, the compiler and its Python twin."""

from bitactor.actors.app import Actor, App
from bitactor.actors.errors import HandlerError

__all__ = ["Actor", "App", "HandlerError"]
