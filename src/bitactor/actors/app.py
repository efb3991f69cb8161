"""App: kinds and actors under one name. What an Engine runs."""

import ctypes
import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from bitactor.actors import abi
from bitactor.actors import language as L
from bitactor.actors.check import check
from bitactor.actors.compile import CompiledHandler, compile_program, program_fingerprint
from bitactor.schema import Kind, StateLayout, duration_ns, fingerprint, make_kind, make_layout

PARTITIONS = 64
_C_FUNCTION: Any = ctypes.CFUNCTYPE(None).__mro__[1]  # what every ctypes function pointer is
IDLE_NS_MIN = 1_000_000


def _is_count(given: Any) -> bool:
    return isinstance(given, int) and not isinstance(given, bool) and given >= 1


def _is_text(given: Any) -> bool:
    return isinstance(given, str) and bool(given)


def _is_kind(given: Any) -> bool:
    return isinstance(given, Kind)


class Actor:
    """A declared actor: its kinds, its state, its handler. Made by App.actor and App.c_actor; immutable."""

    def __init__(
        self,
        name: str,
        kinds: tuple[Kind, ...],
        layout: StateLayout,
        emits: tuple[Kind, ...],
        *,
        function: Callable[..., Any] | None,
        program: L.Program | None,
        sites: tuple[L.Site, ...],
        filename: str | None,
        address: int,
        keepalive: Any,
        expire_after: str | float | timedelta | None,
        keys_max: int | None,
        tick_budget: int | None,
        reads_wall: bool,
    ) -> None:
        self.name = name
        self.kinds = kinds
        self.layout = layout
        self.emits = emits
        self.function = function
        self.program = program
        self.sites = sites
        self.filename = filename
        self.idle_ns = 0 if expire_after is None else duration_ns(expire_after, f"actor {name!r}: expire_after")
        if 0 < self.idle_ns < IDLE_NS_MIN:
            raise ValueError(f"actor {name!r}: expire_after is {expire_after!r}; the shortest is 1 ms")
        if keys_max is not None and not _is_count(keys_max):
            raise ValueError(f"actor {name!r}: keys_max is {keys_max!r}; give 1 or more, or None for no cap")
        if tick_budget is not None and not _is_count(tick_budget):
            raise ValueError(f"actor {name!r}: tick_budget is {tick_budget!r}; give ticks a signal, 1 or more, or None")
        self.partition_keys_max = 0 if keys_max is None else -(-keys_max // PARTITIONS)
        self.tick_budget = tick_budget or 0
        self.reads_wall = reads_wall
        self.may_raise = program is None or program.may_raise
        self.fingerprint = fingerprint(
            "actor", name, repr(kinds), repr(layout.fields), layout.init.hex(), str(self.partition_keys_max),
            str(self.idle_ns),
            program_fingerprint(program) if program is not None else "C",
        )  # fmt: skip
        self._handler = None if program is not None else CompiledHandler(address, keepalive)

    def compile(self, jit: bool | None = None) -> CompiledHandler:
        """The handler's address; compiled (or read from the cache) at the first call. Any thread."""
        if self._handler is not None:
            return self._handler
        assert self.program is not None
        return compile_program(self.program, jit)

    def raise_site(self, error: int) -> tuple[str | None, int | None, str]:
        """(file, line, message) of an error code."""
        if error == abi.TOO_MANY_EMITS:
            return self.filename, None, f"it emitted more than {abi.EMITS_MIN} signals at once"
        if error == abi.FAILED:
            return (
                self.filename,
                None,
                "it returned without a status: a bug in a handler of the C ABI, or an error in Python",
            )
        if 0 < error <= len(self.sites):
            site = self.sites[error - 1]
            return self.filename, site.line, site.message
        return self.filename, None, f"error {error}"

    def __repr__(self) -> str:
        return f"<Actor {self.name!r} of {', '.join(kind.name for kind in self.kinds)}>"


Fields = dict[str, tuple[str, int | None]]  # of a state: name -> type and count, None for a scalar


@dataclass(frozen=True, slots=True)
class Migration:
    """How states of an actor that had other fields become its states now; made by App.migration."""

    name: str
    actor: str
    from_fields: Fields
    function: Callable[..., Any]


@dataclass(frozen=True, slots=True)
class KindMigration:
    """That a kind had other types, and that its states may be kept all the same; made by App.kind_migration."""

    name: str
    kind: str
    value: str
    aux: str


class App:
    """Kinds of signals and the actors that handle them. Declared once, at import; not while an engine is made of it.

    Nothing runs here: bitactor.Engine(app) runs it.
    """

    def __init__(self, name: str) -> None:
        if not _is_text(name):
            raise ValueError(f"an app has a name, not {name!r}")
        self.name = name
        self._kinds: dict[str, Kind] = {}
        self._actors: dict[str, Actor] = {}
        self._migrations: list[Migration] = []
        self._kind_migrations: list[KindMigration] = []

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Declared kinds, in order."""
        return tuple(self._kinds.values())

    @property
    def actors(self) -> tuple[Actor, ...]:
        """Declared actors, in order; their order is the order of their emits for one signal."""
        return tuple(self._actors.values())

    @property
    def fingerprint(self) -> str:
        """Of everything that results depend on: kinds, states, handlers, caps and expiry."""
        return fingerprint(
            "app", self.name, *(repr(kind) for kind in self.kinds), *(actor.fingerprint for actor in self.actors)
        )

    def kind(self, name: str, number: int, *, value: str = "f8", aux: str = "u4") -> Kind:
        """Declare a kind of signal: value is f8, i8 or u8, aux is u4, i4 or f4, number 1 to 65535.

        ValueError when the name or the number is taken, naming who has it.
        """
        kind = make_kind(name, number, value, aux)
        if name in self._kinds:
            raise ValueError(f"kind {name!r} is declared twice; the first has number {self._kinds[name].number}")
        for other in self._kinds.values():
            if other.number == number:
                raise ValueError(f"kind {name!r}: number {number} is that of kind {other.name!r}; give each its own")
        if len(self._kinds) == 255:
            raise ValueError("an app has at most 255 kinds")
        self._kinds[name] = kind
        return kind

    def actor(
        self,
        *kinds: Kind,
        state: Mapping[str, Any],
        name: str | None = None,
        expire_after: str | float | timedelta | None = None,
        keys_max: int | None = None,
        tick_budget: int | None = None,
    ) -> Callable[[Callable[..., Any]], Actor]:
        """Declare the decorated function as the handler of these kinds; it becomes an Actor.

        state: field name -> "f8", ("f8", 16) or bitactor.field(...). expire_after: idle wall time after which a key is
        forgotten. keys_max: most keys; each of the 64 partitions holds a 64th of it, rounded up, and refuses more.
        tick_budget: ticks allowed a signal; more is counted. The function is checked here (HandlerError), not run.
        """

        def declare(function: Callable[..., Any]) -> Actor:
            called = name or str(getattr(function, "__name__", ""))
            handled = self._handled(called, kinds)
            layout = make_layout(called, state)
            program, emits, sites, source = check(function, self.kinds, handled, layout)
            return self._add(
                Actor(
                    called, handled, layout, emits, function=function, program=program, sites=sites,
                    filename=source.filename, address=0, keepalive=None, expire_after=expire_after,
                    keys_max=keys_max, tick_budget=tick_budget, reads_wall=False,
                )
            )  # fmt: skip

        return declare

    def c_actor(
        self,
        name: str,
        *kinds: Kind,
        state: Mapping[str, Any],
        function: Any,
        emits: Iterable[Kind] = (),
        expire_after: str | float | timedelta | None = None,
        keys_max: int | None = None,
        tick_budget: int | None = None,
        reads_wall: bool = True,
    ) -> Actor:
        """Declare a handler of the C ABI: a ctypes or cffi function pointer, a numba.cfunc, or an address.

        The ABI is core/include/bitactor/actor.h. The function is trusted: a bug in it can crash the process.
        emits: every kind it may emit. reads_wall: whether it may read ctx->wall_ns; an app of which no handler does
        (and nothing expires, and no actor feeds another) is run in longer batches, across steps.
        """
        handled = self._handled(name, kinds)
        declared = tuple(emits)
        for kind in declared:
            if self._kinds.get(kind.name) is not kind:
                raise ValueError(f"actor {name!r}: emitted kind {kind.name!r} belongs to another app")
        return self._add(
            Actor(
                name, handled, make_layout(name, state), declared, function=None, program=None, sites=(), filename=None,
                address=_address(name, function), keepalive=function, expire_after=expire_after, keys_max=keys_max,
                tick_budget=tick_budget, reads_wall=reads_wall,
            )
        )  # fmt: skip

    # --- from an older version of the app to this one: bitactor.migration.migrate uses them ---

    @property
    def migrations(self) -> tuple[Migration, ...]:
        """Declared migrations of states, in order."""
        return tuple(self._migrations)

    @property
    def kind_migrations(self) -> tuple[KindMigration, ...]:
        """Declared migrations of kinds, in order."""
        return tuple(self._kind_migrations)

    def migration(
        self, actor: Actor, *, name: str, from_fields: Mapping[str, Any]
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Declare how states with other fields become states of this actor, when a field's type or shape changed.

        from_fields: the state as it was declared then. The decorated function takes two structured NumPy arrays of n
        states, `old` (to be read) and `new`, and fills in `new`: there every field has its default, or what the field
        of the same name, type and shape had. It runs once, when a state of such fields is first taken in; fields that
        are only added or removed need no migration.
        """
        if self._actors.get(getattr(actor, "name", "")) is not actor:
            raise ValueError(f"migration {name!r}: {actor!r} is not an actor of app {self.name!r}")
        fields = _fields(make_layout(actor.name, from_fields))
        if fields == _fields(actor.layout):
            raise ValueError(
                f"migration {name!r}: from_fields are the fields that {actor.name!r} has now, so nothing would tell "
                "old states from new ones: give a field that changes its meaning another name"
            )
        for other in self._migrations:
            if name == other.name or (other.actor == actor.name and other.from_fields == fields):
                raise ValueError(f"migration {name!r}: {other.name!r} has that name, or the same actor and from_fields")

        def declare(function: Callable[..., Any]) -> Callable[..., Any]:
            self._migrations.append(Migration(name, actor.name, fields, function))
            return function

        return declare

    def kind_migration(self, kind: Kind, *, name: str, value: str, aux: str) -> None:
        """Declare that a kind had these types for value and aux, and that states made of it then are good now.

        Where they are not, migrate the states of its actors too.
        """
        if self._kinds.get(getattr(kind, "name", "")) is not kind:
            raise ValueError(f"migration {name!r}: {kind!r} is not a kind of app {self.name!r}")
        make_kind(kind.name, kind.number, value, aux)
        if (value, aux) == (kind.value, kind.aux):
            raise ValueError(f"migration {name!r}: kind {kind.name!r} has these types now: give those it had before")
        self._kind_migrations.append(KindMigration(name, kind.name, value, aux))

    def _handled(self, actor: str, kinds: tuple[Kind, ...]) -> tuple[Kind, ...]:
        if not kinds:
            raise ValueError(f"actor {actor!r} handles no kind: @app.actor(kind, state=...)")
        for kind in kinds:
            if not _is_kind(kind):
                near = difflib.get_close_matches(str(kind), self._kinds, n=1)
                hint = (
                    f": give the object that app.kind({near[0]!r}, ...) returned"
                    if near
                    else ": give what app.kind(...) returned"
                )
                raise TypeError(f"actor {actor!r}: {kind!r} is not a kind{hint}")
            if self._kinds.get(kind.name) is not kind:
                raise ValueError(f"actor {actor!r}: kind {kind.name!r} belongs to another app")
        return tuple(dict.fromkeys(kinds))

    def _add(self, actor: Actor) -> Actor:
        if actor.name in self._actors:
            raise ValueError(f"actor {actor.name!r} is declared twice: give one of them another name=")
        if len(self._actors) == 254:
            raise ValueError("an app has at most 254 actors")
        self._actors[actor.name] = actor
        return actor

    def __repr__(self) -> str:
        return f"<App {self.name!r}: {len(self._kinds)} kinds, {len(self._actors)} actors>"


def _fields(layout: StateLayout) -> Fields:
    return {field.name: (field.type, field.count) for field in layout.fields}


def _address(name: str, function: Any) -> int:
    """The address of a C function, however it is given."""
    if isinstance(function, int) and not isinstance(function, bool) and function > 0:
        return function
    if isinstance(getattr(function, "address", None), int):  # numba.cfunc
        return int(function.address)
    if isinstance(function, _C_FUNCTION):
        return ctypes.cast(function, ctypes.c_void_p).value or 0
    if type(function).__module__ == "_cffi_backend":
        import cffi  # type: ignore[import-untyped]

        return int(cffi.FFI().cast("uintptr_t", function))
    raise TypeError(
        f"actor {name!r}: function is {function!r}: give a ctypes or cffi function pointer, a numba.cfunc or an address"
    )
