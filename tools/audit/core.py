"""Steps that read the C core: gcc -fanalyzer, clang-tidy, cppcheck; and the hardening of what was built from it."""

import re
import sysconfig
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from audit import elf
from audit.findings import HIGH, LOW, MEDIUM, Finding, Missing, Result
from audit.tree import BUILD, JOBS, ROOT, failed, files, run, tool, version

FLAGS = ("-std=gnu11", "-Icore/include")
DIAGNOSTIC = re.compile(
    r"^(?P<path>[^\s:]+):(?P<line>\d+):\d+: (?P<level>warning|error): (?P<text>.*) \[(?P<rule>[^\]]+)\]$", re.MULTILINE
)


def sources() -> list[str]:
    """The core's C files, each of which includes its headers."""
    return files("core/src/*.c")


def relative(path: str) -> str:
    """A path as git says it."""
    return Path(path).resolve().relative_to(ROOT).as_posix() if Path(path).is_absolute() else path


def diagnostics(text: str) -> Iterable[tuple[str, str, int, str, str]]:
    """(rule, level, line, path, message) of each diagnostic in the output of a compiler, once."""
    seen = set()
    for line in text.splitlines():
        if match := DIAGNOSTIC.match(line):
            one = (match["rule"], match["level"], int(match["line"]), relative(match["path"]), match["text"])
            if one not in seen:
                seen.add(one)
                yield one


def gcc_analyzer() -> Result:
    """The compiler's own analyser on each C file of the core, with and without asserts."""
    program = tool("gcc", "Debian: gcc")

    def one(job: tuple[str, str]) -> str:
        source, asserts = job
        done = run(
            program, *FLAGS, asserts, "-O2", "-g", "-Wall", "-Wextra", "-fanalyzer", "-c", source, "-o", "/dev/null"
        )
        if done.returncode:
            raise failed(f"gcc {source}", done)
        return done.stderr

    with ThreadPoolExecutor(JOBS) as pool:
        said = "\n".join(pool.map(one, [(path, asserts) for path in sources() for asserts in ("-UNDEBUG", "-DNDEBUG")]))
    found = [Finding(rule, HIGH, path, line, text) for rule, _, line, path, text in diagnostics(said)]
    return Result(version(program, "-dumpfullversion"), f"{len(sources())} C files, twice", found)


def clang_tidy() -> Result:
    """The checks of .clang-tidy; what its static analyser finds is HIGH."""
    program = tool("clang-tidy")

    def one(source: str) -> str:
        done = run(program, "--quiet", source, "--", *FLAGS)
        if done.returncode and not DIAGNOSTIC.search(done.stdout.strip()):
            raise failed(f"clang-tidy {source}", done)
        return done.stdout

    with ThreadPoolExecutor(JOBS) as pool:
        said = "\n".join(pool.map(one, sources()))
    found = [
        Finding(
            rule.removesuffix(",-warnings-as-errors"),
            HIGH if level == "error" or rule.startswith("clang-analyzer") else MEDIUM,
            path,
            line,
            text,
        )
        for rule, level, line, path, text in diagnostics(said)
    ]
    return Result(version(program), f"{len(sources())} C files", found)


def cppcheck() -> Result:
    """Cppcheck with every severity; what it needs to know of the C library is in its own gnu and posix tables."""
    program = tool("cppcheck")
    BUILD.mkdir(parents=True, exist_ok=True)
    (cache := BUILD / "cppcheck").mkdir(exist_ok=True)
    done = run(
        program, "--xml", "--quiet", f"-j{JOBS}", f"--cppcheck-build-dir={cache}", "--std=c11", "--language=c",
        "--library=gnu", "--library=posix", "--enable=warning,performance,portability", "--inline-suppr",
        "--suppress=missingIncludeSystem", "--error-exitcode=0", "-D__x86_64__=1", "-Icore/include", *sources(),
    )  # fmt: skip
    if done.returncode or "<results" not in done.stderr:
        raise failed("cppcheck", done)
    found = []
    said = ET.fromstring(done.stderr[done.stderr.index("<?xml") :])  # noqa: S314  (cppcheck wrote it a moment ago)
    for error in said.iter("error"):
        place = error.find("location")
        severity = {"error": HIGH, "warning": MEDIUM}.get(error.get("severity", ""), LOW)
        path, line = (
            (relative(place.get("file", "")), int(place.get("line", "0"))) if place is not None else ("core", 0)
        )
        if error.get("severity") != "information":
            found.append(Finding(error.get("id", ""), severity, path, line, error.get("msg", "")))
    return Result(version(program), f"{len(sources())} C files", found)


def hardening() -> Result:
    """How the extension modules that are installed in .venv were linked and compiled."""
    readelf = tool("readelf", "Debian: binutils")
    folder = Path(sysconfig.get_path("platlib"), "bitactor", "_core")
    objects = sorted(folder.glob("*.so"))
    if not objects:
        raise Missing("the package is not built; tools/bootstrap builds it")
    found = [
        Finding("hardening", HIGH, f"bitactor/_core/{name}", 0, why)
        for name, of in elf.weak(objects).items()
        for why in of
    ]
    return Result(version(readelf), f"{len(objects)} shared objects", found)
