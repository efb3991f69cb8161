"""Signals for a profile: out of a file of columns or whole signals, or made up for an app. Functions of any thread."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from bitactor.cli.run import USAGE, Failed
from bitactor.signals import SIGNAL_DTYPE, make_signals, signal_dtype, text_key

if TYPE_CHECKING:
    from bitactor.actors import App
    from bitactor.schema import Kind

COLUMNS: Final = ("kind", "key", "value", "aux", "time")
_GENERATED_AT_NS: Final = 1_700_000_000_000_000_000
_GENERATED_STEP_NS: Final = 1_000


def fed_kinds(app: "App") -> "list[Kind]":
    """Kinds that come from outside: handled by an actor, and emitted by none; else all that are handled."""
    handled = {kind for actor in app.actors for kind in actor.kinds}
    emitted = {kind for actor in app.actors for kind in actor.emits}
    return [kind for kind in app.kinds if kind in handled - emitted] or [kind for kind in app.kinds if kind in handled]


def generate(app: "App", signals: int, keys: int, seed: int) -> npt.NDArray[Any]:
    """Made-up signals of the kinds that come from outside, in equal parts: keys evenly drawn, values near 100."""
    random = np.random.default_rng(seed)
    made = np.zeros(signals, SIGNAL_DTYPE)
    chosen = random.choice([kind.number for kind in fed_kinds(app)], signals)
    made["kind"] = chosen
    made["key"] = random.integers(keys, size=signals)
    made["time"] = _GENERATED_AT_NS + _GENERATED_STEP_NS * np.arange(signals)
    made["aux"] = random.integers(1, 100, signals)
    for kind in fed_kinds(app):
        mine, typed = chosen == kind.number, made.view(signal_dtype(kind.value, kind.aux))
        typed["value"][mine] = random.normal(100, 1, int(mine.sum()))
        typed["aux"][mine] = random.integers(1, 100, int(mine.sum()))
    return made


def read(file: Path, app: "App", kind: str | None = None) -> npt.NDArray[Any]:
    """The signals of a file: .npy of signals, or columns key, value and perhaps kind, aux, time in .parquet or .csv.

    kind: for files without that column. A text key becomes a number as text_key says. Failed says what does not fit.
    """
    if not file.is_file():
        raise Failed(f"{file}: no such file", USAGE)
    if file.suffix == ".npy":
        return _whole(file)
    if file.suffix not in {".parquet", ".csv", ".tsv"}:
        raise Failed(f"{file}: give .npy, .parquet, .csv or .tsv", USAGE)
    columns = _columns(file)
    if columns["key"].dtype.kind in "OUS":
        numbers = {text: text_key(str(text)) for text in np.unique(columns["key"])}
        columns["key"] = np.array([numbers[text] for text in columns["key"]], np.uint64)
    made = np.zeros(len(columns["key"]), SIGNAL_DTYPE)
    for one, mine in _by_kind(file, app, columns, kind):
        columns_of_kind = {name: values[mine] for name, values in columns.items() if name != "kind"}
        for name, type_ in (("value", one.value), ("aux", one.aux)):
            if name in columns_of_kind and type_[0] in "iu":
                columns_of_kind[name] = _whole_numbers(columns_of_kind[name])
        try:
            signals = make_signals(one, time=columns_of_kind.pop("time", 0), n=int(mine.sum()), **columns_of_kind)
        except (TypeError, ValueError) as error:
            raise Failed(f"{file}: kind {one.name!r}: {error}") from error
        made[mine] = signals.view(SIGNAL_DTYPE)
    return made


def _whole(file: Path) -> npt.NDArray[Any]:
    try:
        found = np.load(file, allow_pickle=False)
    except ValueError as error:
        raise Failed(f"{file}: {error}") from error
    if found.ndim != 1 or found.dtype.itemsize != SIGNAL_DTYPE.itemsize or found.dtype.names != SIGNAL_DTYPE.names:
        raise Failed(f"{file}: holds {found.dtype} of shape {found.shape}; wanted is an array of bitactor.SIGNAL_DTYPE")
    signals: npt.NDArray[Any] = found.view(SIGNAL_DTYPE)
    return signals


def _columns(file: Path) -> dict[str, npt.NDArray[Any]]:
    import duckdb

    with duckdb.connect(config={"threads": 2}) as connection:
        try:
            relation = (
                connection.read_parquet(str(file)) if file.suffix == ".parquet" else connection.read_csv(str(file))
            )
            has = ", ".join(relation.columns)
            for name in ("key", "value"):
                if name not in relation.columns:
                    wanted = "key, value and perhaps kind, aux, time"
                    raise Failed(f"{file}: no column {name!r}; it has {has}, and needs {wanted}")
            found = relation.select(*(name for name in relation.columns if name in COLUMNS)).fetchnumpy()
        except duckdb.Error as error:
            raise Failed(f"{file}: {str(error).splitlines()[0]}") from error
    for name, values in found.items():
        if np.ma.is_masked(values):
            raise Failed(f"{file}: column {name!r} has rows without a value")
    return {name: np.asarray(values) for name, values in found.items()}


def _whole_numbers(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Floats that are whole numbers as integers: a column that kinds of several types share is of floats."""
    exact = values.dtype.kind == "f" and np.all(np.isfinite(values)) and np.all(np.abs(values) <= 2**53)
    return values.astype(np.int64) if exact and np.all(values == np.trunc(values)) else values


def _by_kind(
    file: Path, app: "App", columns: dict[str, npt.NDArray[Any]], kind: str | None
) -> "list[tuple[Kind, npt.NDArray[np.bool_]]]":
    """Each kind of the file with the mask of its rows."""
    known = {name: one for one in app.kinds for name in (one.name, str(one.number))}
    if "kind" in columns:
        named = columns["kind"].astype(str)
        wanted = list(np.unique(named))
    else:
        fed = fed_kinds(app)
        if kind is None and len(fed) != 1:
            names = ", ".join(one.name for one in fed)
            raise Failed(f"{file}: no column 'kind', and the app takes {names}: say which with --kind", USAGE)
        wanted = [kind if kind is not None else fed[0].name]
        named = np.full(len(columns["key"]), wanted[0])
    for name in wanted:
        if name not in known:
            raise Failed(f"{file}: the app declares no kind {name}; it has {', '.join(one.name for one in app.kinds)}")
    return [(known[name], named == name) for name in wanted]
