"""Where values come from: flag > BITACTOR_* environment > TOML file > default; anything unknown is an error.

`load` reports all problems at once, each with the file and line, variable or flag that it came from. Any thread.
"""

import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from bitactor.config.settings import Settings, check_files, is_secret, leaves

DEFAULT_FILE: Final = "bitactor.toml"
# BITACTOR_ variables that are not settings of the service, with what they do.
OTHER_VARIABLES: Final[dict[str, str]] = {
    "BITACTOR_CONFIG": "the TOML file, instead of ./bitactor.toml",
    "BITACTOR_JIT": "off: handlers run as Python, slowly and with the same results",
    "BITACTOR_CACHE_DIR": "where compiled handlers are kept",
    "BITACTOR_ADMIN_URL": "query: the admin interface to ask",
    "BITACTOR_PROGRAMS": "test runs: directory of the core's built programs",
    "BITACTOR_SEED": "test runs: seed of what is random in them",
    "BITACTOR_RESERVE_KEYS": "test runs: keys to make room for",
    "BITACTOR_CRASH_AT": "test runs: the crash point at which to die",
    "BITACTOR_PAUSE_AT": "test runs: the crash point at which to stand still until SIGCONT",
    "BITACTOR_CRASH_PROOF": "test runs: file that says which crash point fired",
    "BITACTOR_TEST_FAULTS": "test runs: 1 allows them",
    "BITACTOR_TEST_APP": "test runs: which of several apps in a file to serve",
}
_PREFIX: Final = "BITACTOR_"
# What Kubernetes sets in pods for each Service of the namespace; a Service may well be named bitactor.
_SERVICE_LINK: Final = re.compile(
    r"\w+_(SERVICE_(HOST|PORT(_\w+)?)=.*|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?=.*|PORT=\w+://.*)"
)


class ConfigError(ValueError):
    """Settings that cannot be used. `problems`: one line each, with where the value came from."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems: Final = tuple(problems)
        super().__init__("\n".join(self.problems))


@dataclass(frozen=True, slots=True)
class _Given:
    value: Any
    source: str


def load(
    flags: Mapping[str, Any] | None = None,
    *,
    config: Path | None = None,
    environ: Mapping[str, str] | None = None,
    files: bool = True,
) -> Settings:
    """Settings out of all sources. ConfigError lists everything that is wrong with them.

    flags: dotted setting -> value, where None means not given. config: the TOML file, instead of BITACTOR_CONFIG or
    ./bitactor.toml. files: whether certificate, key and token files are looked at, as a server must.
    """
    environ = os.environ if environ is None else environ
    problems: list[str] = []
    known = {name: field for name, field, _ in leaves()}
    given: dict[str, _Given] = {}
    given.update(_from_file(_config_file(config, environ), known, problems))
    given.update(_from_environment(environ, known, problems))
    for name, value in (flags or {}).items():
        if name not in known:
            raise KeyError(f"no setting is named {name}{_nearest(name, known)}")
        if value is not None:
            given[name] = _Given(value, flag(name))
    if problems:
        raise ConfigError(problems)
    settings = _validated(given)
    if files:
        problems = [_with_source(problem, given) for problem in check_files(settings)]
        if problems:
            raise ConfigError(problems)
    return settings


def sources(settings: Settings) -> dict[str, str]:
    """Dotted name of each setting -> where its value came from: "--port", "BITACTOR_…", "file:line", "default"."""
    return {name: settings._sources.get(name, "default") for name, _, _ in leaves()}


def value_of(settings: Settings, name: str) -> Any:
    """The value of a setting by its dotted name."""
    found: Any = settings
    for part in name.split("."):
        found = getattr(found, part)
    return found


def variable(name: str) -> str:
    """The environment variable of a setting: ingest.port -> BITACTOR_INGEST__PORT."""
    return _PREFIX + name.replace(".", "__").upper()


def flag(name: str) -> str:
    """The command line's flag for a setting: ingest.port -> --ingest-port. The app is no flag but the argument."""
    return "argument" if name == "app" else "--" + name.replace(".", "-").replace("_", "-")


def _config_file(config: Path | None, environ: Mapping[str, str]) -> Path | None:
    if config is not None:
        return config
    if environ.get("BITACTOR_CONFIG"):
        return Path(environ["BITACTOR_CONFIG"])
    return Path(DEFAULT_FILE) if Path(DEFAULT_FILE).is_file() else None


def _from_file(file: Path | None, known: Mapping[str, Any], problems: list[str]) -> Iterator[tuple[str, _Given]]:
    if file is None:
        return
    try:
        text = file.read_text(encoding="utf-8")
        document = tomllib.loads(text)
    except OSError as error:
        problems.append(f"{file}: {error.strerror or error}")
        return
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        problems.append(f"{file}: not TOML: {error}")
        return
    sections = {name.rpartition(".")[0] for name in known}
    for name, value in _flattened(document, sections):
        where = f"{file}:{_line_of(text, name)}"
        if name in sections:
            problems.append(f"{where}: {name} is a section: write [{name}] and its settings below")
        elif (secret := _of_file_variant(name, known)) is not None:
            if (read := _read_secret(Path(str(value)), where, problems)) is not None:
                yield secret, _Given(read, f"{where}: {name}")
        elif name not in known:
            problems.append(f"{where}: {name} is not a setting{_nearest(name, known)}")
        else:
            yield name, _Given(value, where)


def _from_environment(
    environ: Mapping[str, str], known: Mapping[str, Any], problems: list[str]
) -> Iterator[tuple[str, _Given]]:
    variables = {variable(name): name for name in known}
    in_pod = "KUBERNETES_SERVICE_HOST" in environ
    for name in sorted(environ):
        if not name.startswith(_PREFIX) or name in OTHER_VARIABLES:
            continue
        setting = name.removeprefix(_PREFIX).lower().replace("__", ".")
        if name in variables:
            field = known[variables[name]]
            value = None if environ[name] == "" and _may_be_none(field) else environ[name]
            yield variables[name], _Given(value, name)
        elif (secret := _of_file_variant(setting, known)) is not None:
            if (read := _read_secret(Path(environ[name]), name, problems)) is not None:
                yield secret, _Given(read, name)
        elif not (in_pod and _SERVICE_LINK.fullmatch(f"{name}={environ[name]}")):
            problems.append(f"{name}: not a setting{_nearest(name, [*variables, *OTHER_VARIABLES])}")


def _flattened(document: Mapping[str, Any], sections: set[str], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in document.items():
        name = prefix + key
        if isinstance(value, dict) and (name in sections or not prefix):
            if name in sections or not value:
                yield from _flattened(value, sections, name + ".")
            else:
                yield from ((f"{name}.{inner}", one) for inner, one in value.items())
        else:
            yield name, value


def _line_of(text: str, name: str) -> int:
    """The line that sets a dotted name: of its key, else of its section, else 1. Only errors depend on it."""
    section, found = "", 1
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[+\s*([\w.\"'-]+)\s*\]+", line):
            section = header[1].replace('"', "") + "."
            if name.startswith(section):
                found = number
        elif key := re.match(r"\s*([\w.\"'-]+)\s*=", line):
            whole = section + key[1].replace('"', "")
            if whole == name:
                return number
            if name.startswith(whole + "."):
                found = number
    return found


def _of_file_variant(name: str, known: Mapping[str, Any]) -> str | None:
    """The secret whose value is in the file that this name gives, if it is one of those."""
    base = name.removesuffix("_file")
    return base if name not in known and base != name and base in known and is_secret(known[base]) else None


def _read_secret(file: Path, where: str, problems: list[str]) -> str | None:
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"{where}: {file}: {getattr(error, 'strerror', None) or 'not UTF-8 text'}")
        return None


def _may_be_none(field: Any) -> bool:
    return field.default is None


def _nearest(name: str, names: Iterable[str]) -> str:
    names = list(names)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if not near:  # the right name in the wrong section, or in none
        tail = re.split(r"\.|__", name)[-1].lower()
        near = [one for one in names if re.split(r"\.|__", one)[-1].lower() == tail][:1]
    return f"; did you mean {near[0]}?" if near else ""


def _validated(given: Mapping[str, _Given]) -> Settings:
    tree: dict[str, Any] = {}
    for name, one in given.items():
        *path, last = name.split(".")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[last] = one.value
    try:
        settings = Settings.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(dict.fromkeys(_explained(error, given))) from None
    settings._sources.update({name: one.source for name, one in given.items()})
    return settings


def _explained(error: ValidationError, given: Mapping[str, _Given]) -> Iterator[str]:
    known = {name: field for name, field, _ in leaves()}
    for one in error.errors(include_url=False):
        name = ".".join(str(part) for part in one["loc"])
        message = one["msg"].removeprefix("Value error, ")
        while name and name not in known and name.rpartition(".")[0] in known:  # a member of a union
            name = name.rpartition(".")[0]
        if name not in known:  # a section or all of it: each line of the message begins with a setting
            yield from (_with_source(line if not name else f"{name}.{line}", given) for line in message.splitlines())
        else:
            value = "" if is_secret(known[name]) else f"{given[name].value!r}: " if name in given else ""
            yield _with_source(f"{name}: {value}{message[:1].lower()}{message[1:]}", given)


def _with_source(problem: str, given: Mapping[str, _Given]) -> str:
    """The problem, which begins with a setting, with the place in front that gave the setting its value."""
    name = re.split(r"[: ]", problem, maxsplit=1)[0]
    return f"{given[name].source}: {problem}" if name in given else problem
