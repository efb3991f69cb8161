"""The house rules that no linter knows: `python tools/house.py [ROOT]` prints file:line: message, status 1 if any.

A rule is a function (path, text) -> (line, message) pairs; `tests/test_house.py` plants a defect for each of them.
Patterns that must not find themselves here are written with a character class, as in `foo[d]`.
"""

import ast
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

Finding = tuple[int, str]
Rule = Callable[[str, str], Iterator[Finding]]

LINES_MAX = 500
TEST_LINES_MAX = 700  # tests are lists of cases
# Files that are longer today, each with the most it may have; shorter is welcome, and then its row goes.
LONGER = {
    "core/tests/test_engine.c": 710,
    "src/bitactor/_core/_engine.pyx": 820,
    "src/bitactor/_core/_ring.pyx": 620,
}
SKIPPED_DIRS = {"build", "coverage", "dist", "target", "shared", "__pycache__", "node_modules"}
KEPT_HIDDEN_DIRS = {".ci", ".github"}
TEXT_SUFFIXES = {
    *(".c", ".h", ".py", ".pyi", ".pyx", ".pxd", ".sh", ".md", ".toml", ".yml", ".yaml", ".txt", ".build", ".rs"),
    *(".java", ".lock", ".xml", ".options", ""),
}

# Module of bitactor -> the modules it may import beside itself (docs/README.md, "Layout"). `bitactor` itself names all.
_BASE = {"_core", "errors"}
_LOW = {*_BASE, "signals", "ring", "config", "telemetry", "faults", "host"}
_MID = {*_LOW, "schema"}
_ENGINE = {*_MID, "actors", "protocol", "log", "outputs", "statistics", "tables", "state"}
_SERVED = {*_ENGINE, "engine", "migration"}
_RUNTIME = {*_SERVED, "ingest"}
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "_core": {"errors"},
    "faults": set(),  # named crash points
    "host": set(),  # facts of the machine
    **dict.fromkeys(("signals", "config"), _BASE),
    "telemetry": {*_BASE, "config"},
    "ring": {*_BASE, "signals"},  # a ring of signals is its default
    "schema": _LOW,
    **dict.fromkeys(("actors", "protocol", "log"), _MID),
    **dict.fromkeys(("outputs", "statistics", "tables", "state"), _MID),  # parts of the engine's face
    "migration": {*_MID, "state"},
    "engine": _ENGINE,
    "testing": _SERVED,
    "client": {*_MID, "protocol"},
    "ingest": _SERVED,
    "runtime": _RUNTIME,
    "cluster": {*_RUNTIME, "runtime"},  # a lane is a runtime's core; a replica owns several
    "admin": {*_RUNTIME, "runtime", "cluster"},
    # Meets the service as users do. protocol, signals: producers that cut frames as no client does; faults: the names
    # of crash points; host: facts of the machine for the report. Nothing of what it judges.
    "validation": {"client", "testing", "protocol", "signals", "faults", "host"},
    "cli": {*_RUNTIME, "runtime", "cluster", "admin", "client", "validation"},
    "__main__": {"cli"},
}

# Headers of the core, from what stands alone to what stands on the rest: each may include only what is before it.
HEADERS = (
    *("atomic", "alloc", "signal", "region", "ticks", "cpu", "crc32c", "byteorder", "frame", "record", "table"),
    *("store", "wait", "ring", "spsc", "mpmc", "shm_ring", "actor", "engine", "state", "outputs", "step_ring", "shard"),
)
INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)', re.MULTILINE)

_HOSTS = r"pypi\.or[g]|pythonhosted\.or[g]|crates\.i[o]|repo1?\.maven|registry\.npmj[s]|proxy\.golan[g]|deb\.debia[n]"
_PATHS = r"/hom[e]/\w|/roo[t]/|/Use[r]s/|/wor[k]/|/tm[p]/(?:wt|venv|b-|bp-|house)"
_SESSION = r"\b(?:Claud[e]|Anthropi[c]|ChatGP[T]|co-authored-b[y]|sub-?agen[t]|issues sho[w]|this sessio[n])\b"
_PRAISE = r"blazin[g]|world-clas[s]|cutting-edg[e]|revolutionar[y]|seamles[s]|supercharg[e]|unparallele[d]|effortles[s]"
WORDS = (
    (re.compile(r"\bjourna[l]", re.IGNORECASE), "say log"),
    (re.compile(_PRAISE, re.IGNORECASE), "plain words only"),
    (re.compile(_HOSTS, re.IGNORECASE), "names a package registry's host"),
    (re.compile(_PATHS), "names a path of one machine"),
    (re.compile(_SESSION, re.IGNORECASE), "tells how it was written, not what it is"),
)
RAW_ATOMIC = re.compile(r"\b(?:atomic_\w+|__atomic_\w+|__sync_\w+|memory_order_\w+|_Atomic)\b|stdatomic\.h")
RAW_ALLOC = re.compile(r"(?<![\w.>])(?:malloc|calloc|realloc|aligned_alloc|posix_memalign|strdup|free)\s*\(")
FOREIGN_KEYS = {'"max_bytes"'}  # of JetStream's requests
UNIT_BEFORE_LIMIT = re.compile(r"\b(max|min)_(\w*(?:ns|us|ms|bytes|ticks))\b")
IMPORT = re.compile(r"^\s*(?:from\s+(\.*[\w.]*)\s+c?import\s+([\w, ()*]+)|c?import\s+([\w.]+))", re.MULTILINE)


def line_of(text: str, offset: int) -> int:
    """Line, from 1, of an offset in the text."""
    return text.count("\n", 0, offset) + 1


def without_comments(text: str) -> str:
    """C text with comments and strings blanked out; offsets and lines stay."""
    pattern = r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"'
    return re.sub(pattern, lambda m: re.sub(r"[^\n]", " ", m[0]), text, flags=re.DOTALL)


def is_c(path: str) -> bool:
    """Whether the file is of the C core."""
    return path.startswith("core/") and path.endswith((".c", ".h"))


def short_files(path: str, text: str) -> Iterator[Finding]:
    """Say where a file is too long: one that needs a table of contents wants to be two."""
    usual = TEST_LINES_MAX if path.startswith(("tests/", "core/tests/")) else LINES_MAX
    lines, most = text.count("\n"), LONGER.get(path, usual)
    if lines > most and path != "LICENSE" and not path.endswith((".lock", ".txt")):
        yield most + 1, f"{lines} lines, at most {most}"
    if path in LONGER and lines <= usual:
        yield 1, "short enough now: take its row out of LONGER in tools/house.py"


def head_comments(path: str, text: str) -> Iterator[Finding]:
    """Every file of code says first what it is for."""
    if path.endswith((".c", ".h")):
        good = text.startswith(("/*", "//"))
    elif path.endswith((".py", ".pyi")):
        good = not text.strip() or bool(ast.get_docstring(ast.parse(text))) or text.startswith(('"""', "# "))
    elif path.endswith((".pyx", ".pxd", ".build")):
        good = text.startswith(("#", '"""'))
    elif text.startswith("#!"):
        good = text.partition("\n")[2].lstrip().startswith(("#", '"""'))
    else:
        good = True
    if not good:
        yield 1, "begins without a comment that says what it is for"


def plain_words(path: str, text: str) -> Iterator[Finding]:
    """Words, hosts and machine paths that have no place here."""
    if path == "LICENSE":
        return
    for pattern, why in WORDS:
        for match in pattern.finditer(text):
            yield line_of(text, match.start()), f"{match[0]!r}: {why}"


def atomics_through_one_header(path: str, text: str) -> Iterator[Finding]:
    """Atomic accesses go through atomic.h, so that a model checker can redirect them."""
    if is_c(path) and not path.endswith("/atomic.h"):
        code = without_comments(text)
        for match in RAW_ATOMIC.finditer(code):
            yield line_of(code, match.start()), f"{match[0]}: use the names of atomic.h"


def allocation_through_one_file(path: str, text: str) -> Iterator[Finding]:
    """Allocations go through alloc.h, so that tests can fail every N-th; test programs may do as they like."""
    if is_c(path) and not path.startswith(("core/tests/", "core/fuzz/")) and path != "core/src/alloc.c":
        code = without_comments(text)
        for match in RAW_ALLOC.finditer(code):
            yield line_of(code, match.start()), f"{match[0]}...): allocate through alloc.h"


def core_without_python(path: str, text: str) -> Iterator[Finding]:
    """Keep Python out of the core, which builds alone."""
    if is_c(path):
        for match in re.finditer(r'^\s*#\s*include\s*[<"]((?:Python|numpy/|py)[^>"]*)', text, re.MULTILINE):
            yield line_of(text, match.start()), f"the core must not include {match[1]}"


def include_edges(path: str, text: str) -> Iterator[Finding]:
    """Headers include downwards only, and the core includes neither tests nor, in its headers, its sources."""
    if not path.startswith(("core/include/", "core/src/")):
        return
    name = Path(path).stem
    public = path.startswith("core/include/")
    if public and name not in HEADERS:
        yield 1, f"{name}.h has no place in HEADERS of tools/house.py"
        return
    for match in INCLUDE.finditer(text):
        at, what = line_of(text, match.start(1)), match[1]
        if what.startswith("bitactor/"):
            there = what.removeprefix("bitactor/").removesuffix(".h")
            if public and (there not in HEADERS or HEADERS.index(there) >= HEADERS.index(name)):
                yield at, f"{name}.h must not include {what}: see HEADERS in tools/house.py"
        elif "tests/" in what or (public and f'"{what}' in text):
            yield at, f"{path} must not include {what}"


def import_edges(path: str, text: str) -> Iterator[Finding]:
    """Let packages import only what the layout draws; what only type checkers see is free."""
    root = "src/bitactor/"
    if not path.startswith(root) or not path.endswith((".py", ".pyi", ".pyx", ".pxd")):
        return
    parts = path.removeprefix(root).rsplit(".", 1)[0].split("/")
    here = parts[0]
    if here == "__init__":
        return
    if here not in MAY_IMPORT:
        yield 1, f"module {here!r} has no place in MAY_IMPORT of tools/house.py"
        return
    text = re.sub(
        r"^if TYPE_CHECKING:\n(?:(?:[ \t].*)?\n)+", lambda m: "\n" * m[0].count("\n"), text, flags=re.MULTILINE
    )
    for match in IMPORT.finditer(text):
        module, names, plain = match[1], match[2], match[3]
        if plain is None and module.startswith("."):
            dots = len(module) - len(module.lstrip("."))
            package = ["bitactor", *parts[:-1]]
            module = ".".join([*package[: len(package) - dots + 1], *filter(None, [module.lstrip(".")])])
        target = (plain or module).split(".")
        if target[0] != "bitactor":
            continue
        wanted = [target[1]] if len(target) > 1 else re.findall(r"\w+", names or "")
        for there in wanted:
            if there != here and there in MAY_IMPORT and there not in MAY_IMPORT[here]:
                yield line_of(text, match.start()), f"{here} must not import {there}; see MAY_IMPORT in tools/house.py"


def tests_are_sentences(path: str, text: str) -> Iterator[Finding]:
    """A test's name says what holds."""
    if path.startswith("tests/") and path.endswith(".py"):
        for match in re.finditer(r"^\s*(?:async )?def (test_\w+)", text, re.MULTILINE):
            if match[1].count("_") < 4:
                yield line_of(text, match.start()), f"{match[1]}: name it as a sentence of behaviour"


def units_last(path: str, text: str) -> Iterator[Finding]:
    """Units and limits come last: idle_ns_max, not max_idle_ns."""
    if path.startswith(("core/", "src/")) and not path.endswith(".md"):
        code = without_comments(text) if is_c(path) else re.sub(r"#[^\n]*", "", text)
        for match in UNIT_BEFORE_LIMIT.finditer(code):
            if code[match.start() - 1 : match.end() + 1] in FOREIGN_KEYS:
                continue
            yield line_of(code, match.start()), f"{match[0]}: write {match[2]}_{match[1]}"


def verbs_exist(path: str, text: str, verbs: frozenset[str] | None = None) -> Iterator[Finding]:
    """Find what a page tells to run in the Makefile."""
    if not path.endswith(".md") or path == "CHANGELOG.md":
        return
    if verbs is None:
        makefile = Path(__file__).parent.parent / "Makefile"
        verbs = frozenset(re.findall(r"^([a-z0-9-]+):", makefile.read_text(), re.MULTILINE))
    for match in re.finditer(r"(?:`|^\s*)make ([a-z0-9-]+)", text, re.MULTILINE):
        if match[1] not in verbs:
            yield line_of(text, match.start()), f"`make {match[1]}` is not in the Makefile"


STATUSES = ("proposed", "accepted", "rejected", "superseded")


def decisions_have_a_status(path: str, text: str) -> Iterator[Finding]:
    """Each ADR is numbered and says one of the statuses of docs/adr/README.md."""
    if path.startswith("docs/adr/") and not path.endswith("README.md"):
        if not re.fullmatch(r"docs/adr/\d{4}-[a-z0-9-]+\.md", path):
            yield 1, "name it NNNN-title.md"
        status = re.search(r"^[#*\- ]*Status[:*\s]+(\w+)", text, re.MULTILINE | re.IGNORECASE)
        if not status or status[1].lower() not in STATUSES:
            yield 1, f"needs a status out of: {', '.join(STATUSES)}"


RULES: tuple[Rule, ...] = (
    short_files,
    head_comments,
    plain_words,
    atomics_through_one_header,
    allocation_through_one_file,
    core_without_python,
    include_edges,
    import_edges,
    tests_are_sentences,
    units_last,
    verbs_exist,
    decisions_have_a_status,
)


def files(root: Path) -> Iterator[str]:
    """Paths, relative and sorted, of the text files of the tree; build outputs and hidden folders are left out."""
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(
            name
            for name in folders
            if name not in SKIPPED_DIRS
            and not name.endswith(".egg-info")
            and (name[0] != "." or name in KEPT_HIDDEN_DIRS)
        )
        for name in sorted(names):
            path = Path(folder, name)
            if path.suffix in TEXT_SUFFIXES and not name.startswith(".coverage") and name != ".git":
                yield path.relative_to(root).as_posix()


def findings(root: Path) -> Iterator[str]:
    """All findings of all rules, as file:line: message."""
    for path in files(root):
        if " " in path:
            yield f"{path}:1: a blank in a file's name"
        try:
            text = (root / path).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for rule in RULES:
            yield from (f"{path}:{line}: {message}" for line, message in rule(path, text))


def main() -> int:
    """Print the findings of the tree named on the command line, or of this one."""
    found = list(findings(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent.parent))
    print(*found, sep="\n", end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
