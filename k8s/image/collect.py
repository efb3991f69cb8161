"""Lays out the root of the image: collect.py VENV TARGET SBOM.

Takes the virtual environment, the interpreter that it was made from, the interpreter's library, and every shared
object that any of these is linked with; certificates of public authorities; a user. Writes the SBOM that it is given
(CycloneDX, the Python packages) to usr/share/sbom with the base's packages added whose files were taken.
Runs as root in the build stage; one thread. Invariant: every file of the target was in the build stage at that path.
"""

import compileall
import json
import os
import py_compile
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

USER_ID = 10001
# Of the interpreter's library: its own tests, what draws windows, what installs or builds.
LEFT_OUT = {"test", "tests", "idlelib", "tkinter", "turtledemo", "turtle.py", "ensurepip", "lib2to3", "pydoc_data"}
PROGRAMS = {"bitactor"}
# Opened at run time by name, so that no link says it: what unwinds a thread that ends.
OPENED_BY_NAME = ("libgcc_s.so.1",)
# Byte code that is taken as it is: nothing in a read-only root changes.
BYTE_CODE = py_compile.PycInvalidationMode.UNCHECKED_HASH
CERTIFICATES = ("/etc/ssl/certs/ca-certificates.crt", "/usr/lib/ssl/openssl.cnf", "/etc/ssl/openssl.cnf")


def is_elf(path: Path) -> bool:
    """Whether a file is a program or a shared object."""
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def linked(objects: Iterable[Path]) -> Iterator[Path]:
    """What the dynamic linker would load for these; RuntimeError when it would not find something."""
    seen = set()
    for path in objects:
        said = subprocess.run(["ldd", str(path)], capture_output=True, text=True, check=False).stdout
        if "not found" in said:
            raise RuntimeError(f"{path} is linked with what is not there:\n{said}")
        for found in re.findall(r"(/\S+) \(0x", said):
            if found not in seen:
                seen.add(found)
                yield Path(found)


class Tree:
    """The tree that is made; every path is one of the build stage's."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.taken: set[Path] = set()
        for name in ("usr/bin", "usr/lib", "usr/lib64", "etc", "proc", "sys", "dev", "tmp"):
            (target / name).mkdir(parents=True, exist_ok=True)
        for name in ("lib", "lib64"):
            if Path("/", name).is_symlink():
                (target / name).symlink_to(f"usr/{name}")

    def file(self, path: Path) -> None:
        """Take a file; a symbolic link with everything that it leads to."""
        while path.is_symlink():
            link = path.readlink()
            at = self._place(path)
            if not at.is_symlink():
                at.symlink_to(link)
            path = path.parent / link if not link.is_absolute() else link
            path = Path(os.path.normpath(path))
        real = Path(os.path.realpath(path))
        at = self._place(real)
        if not at.exists():
            shutil.copy2(real, at)
            self.taken.add(real)

    def folder(self, path: Path, left_out: set[str]) -> None:
        """Take a folder without the entries of those names at its top, and without what was built for running tests."""
        shutil.copytree(
            path,
            self._place(path),
            symlinks=True,
            dirs_exist_ok=True,
            ignore=lambda where, names: [
                name
                for name in names
                if name == "__pycache__" or (where == str(path) and (name in left_out or name.startswith("config-")))
            ],
        )
        self.taken.update(one for one in path.glob("*.py"))

    def _place(self, path: Path) -> Path:
        parent = Path(os.path.realpath(path.parent))
        at = self.target / parent.relative_to("/") / path.name
        at.parent.mkdir(parents=True, exist_ok=True)
        return at


def debian_packages(files: set[Path]) -> Iterator[dict[str, str]]:
    """Components of the packages that these files belong to; none where dpkg knows none."""
    merged = {str(one) for one in files} | {str(one).removeprefix("/usr") for one in files}
    said = subprocess.run(["dpkg-query", "-S", *sorted(merged)], capture_output=True, text=True, check=False).stdout
    for name in sorted({line.split(":")[0] for line in said.splitlines() if not line.startswith("diversion")}):
        shown = subprocess.run(
            ["dpkg-query", "-W", "-f", "${Version} ${Architecture}", name], capture_output=True, text=True, check=True
        )
        version, architecture = shown.stdout.split()[:2]
        yield {
            "type": "library",
            "name": name,
            "version": version,
            "bom-ref": f"deb:{name}",
            "purl": f"pkg:deb/debian/{name}@{version}?arch={architecture}",
        }


def interpreter(environment: Path) -> dict[str, str]:
    """Where the environment's Python and its library are."""
    code = (
        "import json, os, sys, sysconfig, platform; print(json.dumps({"
        "'program': sys._base_executable, 'library': os.path.realpath(sysconfig.get_path('stdlib')),"
        "'version': platform.python_version()}))"
    )
    said = subprocess.run([environment / "bin/python", "-I", "-c", code], capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(said.stdout)
    return found


def main(environment: Path, target: Path, sbom: Path) -> None:
    """Make the tree."""
    tree = Tree(target)
    python = interpreter(environment)
    library = Path(python["library"])
    tree.folder(environment, {"include"})
    for program in (target / environment.relative_to("/") / "bin").iterdir():
        if program.name not in PROGRAMS and not program.name.startswith("python"):
            program.unlink()
    tree.file(environment / "bin/python")
    tree.folder(library, LEFT_OUT | {"site-packages", "dist-packages"})
    for tests in [*(target / environment.relative_to("/")).glob("lib/python*/site-packages/**/tests")]:
        shutil.rmtree(tests, ignore_errors=True)
    objects = [one for one in target.rglob("*") if one.is_file() and not one.is_symlink() and is_elf(one)]
    originals = [Path("/", one.relative_to(target)) for one in objects]
    for path in linked(originals):
        if environment not in path.parents:
            tree.file(path)
    for directory in {path.parent for path in linked([Path(python["program"])])}:
        for name in OPENED_BY_NAME:
            if (directory / name).exists():
                tree.file(directory / name)
    for name in ("/etc/ld.so.cache", "/etc/nsswitch.conf", *CERTIFICATES):
        if Path(name).exists():
            tree.file(Path(name))
    for place in (library, *environment.glob("lib/python*/site-packages")):
        compileall.compile_dir(
            str(target / place.relative_to("/")),
            stripdir=str(target),
            quiet=2,
            invalidation_mode=BYTE_CODE,
        )
    (target / "etc/passwd").write_text(f"bitactor:x:{USER_ID}:{USER_ID}::/var/lib/bitactor:/\n")
    (target / "etc/group").write_text(f"bitactor:x:{USER_ID}:\n")
    (target / "tmp").chmod(0o1777)
    for name in ("var/lib/bitactor", "var/cache/bitactor"):
        (target / name).mkdir(parents=True)
        os.chown(target / name, USER_ID, USER_ID)
    write_sbom(sbom, target / "usr/share/sbom/bitactor.cdx.json", tree.taken, python["version"])


def write_sbom(given: Path, at: Path, taken: set[Path], version: str) -> None:
    """The Python packages' SBOM with the base's packages and the interpreter added."""
    document = json.loads(given.read_text())
    python = {
        "type": "platform",
        "name": "python",
        "version": version,
        "bom-ref": "python",
        "purl": f"pkg:generic/python@{version}",
    }
    document["components"] = [*document.get("components", []), python, *debian_packages(taken)]
    at.parent.mkdir(parents=True)
    at.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
