"""A handler's source: its syntax tree with the line numbers of its file, and the constants that its names stand for."""

import ast
import builtins
import inspect
import textwrap
from collections.abc import Callable
from types import FunctionType
from typing import Any

from bitactor.actors.errors import HandlerError

MISSING = object()


class Source:
    """One Python function as text and names. Read once, when the actor is declared."""

    def __init__(self, function: Callable[..., Any]) -> None:
        if not isinstance(function, FunctionType):
            raise TypeError(f"a handler is a plain function made with def, not {function!r}")
        self.function = function
        code = function.__code__
        self.filename = code.co_filename
        self.first = code.co_firstlineno
        try:
            text = textwrap.dedent(inspect.getsource(function))
            tree = ast.parse(text)
        except (OSError, SyntaxError):
            raise HandlerError(
                f"the source of {function.__name__} cannot be read: handlers are compiled from source, so define them "
                "with def in a file (not in exec, and not as a lambda)",
                self.filename,
                self.first,
            ) from None
        ast.increment_lineno(tree, self.first - 1)
        node = tree.body[0]
        if not isinstance(node, ast.FunctionDef):
            what = "an async function" if isinstance(node, ast.AsyncFunctionDef) else "not a function made with def"
            raise HandlerError(f"{function.__name__} is {what}: write def", self.filename, self.first)
        self.tree = node

    def named(self, name: str) -> Any:
        """What a free name stands for now, or MISSING."""
        free = self.function.__code__.co_freevars
        if name in free and self.function.__closure__ is not None:
            try:
                return self.function.__closure__[free.index(name)].cell_contents
            except ValueError:
                return MISSING
        if name in self.function.__globals__:
            return self.function.__globals__[name]
        return getattr(builtins, name, MISSING)

    def is_local(self, name: str) -> bool:
        """Whether the function assigns the name somewhere, so that it never stands for a global of that name."""
        return name in self.function.__code__.co_varnames

    def names(self) -> list[str]:
        """Names a free name can stand for, for suggestions."""
        return [*self.function.__code__.co_freevars, *self.function.__globals__]

    def error(self, node: ast.AST, message: str) -> HandlerError:
        """The error about this part of the source."""
        return HandlerError(message, self.filename, getattr(node, "lineno", self.first))
