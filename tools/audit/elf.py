"""How a shared object was hardened, as `readelf` shows it.

What the dynamic linker will do is read from the program headers and the dynamic section, what the compiler did from the
names that the object asks for. Needs binutils, which come with a compiler.
"""

import re
import shutil
import subprocess
from pathlib import Path

# Every object: what the linker was told. Some object: what only code with arrays or with such calls can show.
LINKED = ("relro", "now", "stack", "text", "path")
COMPILED = ("protector", "fortify")


def readelf(path: Path, *options: str) -> str:
    """What readelf prints. RuntimeError where it is not installed or cannot read the file."""
    program = shutil.which("readelf")
    if program is None:
        raise RuntimeError("readelf is not installed (Debian: binutils)")
    done = subprocess.run([program, "-W", *options, str(path)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"readelf {path}: {done.stderr.strip()}")
    return done.stdout


def lacks(path: Path) -> dict[str, str]:
    """What hardening an object lacks: name -> what was seen. Code that needs none lacks `protector` and `fortify`.

    relro: no GNU_RELRO segment. now: symbols are bound lazily, so that the table stays writable. stack: executable.
    text: relocations in code. path: RPATH or RUNPATH. protector: __stack_chk_fail is not asked for. fortify: no checked
    call. cet: not marked for shadow stacks and branch tracking (x86-64 alone).
    """
    segments, dynamic, symbols = readelf(path, "-l"), readelf(path, "-d"), readelf(path, "--dyn-syms")
    found = {}
    if "GNU_RELRO" not in segments:
        found["relro"] = "no GNU_RELRO segment"
    if not re.search(r"BIND_NOW|FLAGS_1\).*\bNOW\b", dynamic):
        found["now"] = "no BIND_NOW"
    stack = re.search(r"GNU_STACK\s+(?:0x\w+\s+){5}(\S+)", segments)
    if not stack or "E" in stack[1]:
        found["stack"] = f"GNU_STACK {stack[1] if stack else 'missing'}"
    if "TEXTREL" in dynamic:
        found["text"] = "TEXTREL"
    if path_tag := re.search(r"\((R(?:UN)?PATH)\).*", dynamic):
        found["path"] = path_tag[0]
    if "__stack_chk_fail" not in symbols:
        found["protector"] = "no __stack_chk_fail"
    if not re.search(r"UND __\w+_chk@", symbols.replace("__stack_chk_fail", "")):
        found["fortify"] = "no checked call"
    if "Machine:" in (header := readelf(path, "-h")) and "X86-64" in header:
        notes = readelf(path, "-n")
        if "IBT" not in notes or "SHSTK" not in notes:
            found["cet"] = "not marked IBT, SHSTK"
    return found


def weak(objects: list[Path]) -> dict[str, list[str]]:
    """For each object what it lacks, and for all of them together what none of them shows.

    What the linker was told must hold for each object, and for the compiler's marks at least one object must have each;
    `cet` is left to those who build, for an object of the C library's start code without the mark takes it away.
    """
    lacking = {path.name: lacks(path) for path in objects}
    found = {
        name: [f"{what}: {seen}" for what, seen in of.items() if what in LINKED]
        for name, of in lacking.items()
        if any(what in LINKED for what in of)
    }
    for what in COMPILED:
        if all(what in of for of in lacking.values()):
            found.setdefault("all objects", []).append(f"{what}: in none of {len(objects)}")
    return found
